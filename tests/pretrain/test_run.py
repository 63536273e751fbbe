"""A whole run: what it leaves, that it resumes to the bit, that it ends well when it must end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import skysense
from skysense.data.shards import Reading, build_shards, drafts_of
from skysense.engine import checkpoint
from skysense.engine.distributed import Ranks
from skysense.engine.precision import NotFiniteError
from skysense.pretrain.preparation import prepare
from skysense.pretrain.run import pretrain
from skysense.pretrain.stopping import Stopped


def weights(folder):
    """The trained model's tensors."""
    return load_file(folder / "model/model.safetensors")


def losses(folder):
    """The loss of every step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def same(a, b):
    """Whether two tables hold the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The folder of a run from the first step to the last, which no test may change."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert pretrain(recipe(folder)).model == folder / "model"
    return folder


def test_what_a_run_leaves(whole):
    model = skysense.load(whole / "model")
    assert model.trained
    assert model.config.fusion_depth == 1
    assert model.embed([torch.zeros(3, 32, 32)], sensor="rgb8").shape == (1, 64)
    assert [path.name for path in checkpoint.checkpoints(whole / "checkpoints")] == [
        "step-00000002",
        "step-00000004",
    ]
    line = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 4
    assert {"losses.image", "losses.qsacl", "feature_std", "effective_rank", "lr"} <= line.keys()
    assert (whole / "recipe.yaml").is_file()


def test_a_used_folder_is_refused_or_gone_on_with(recipe, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")

    with pytest.raises(ValueError, match="--resume auto"):
        pretrain(recipe(tmp_path / "run"))
    done = pretrain(recipe(tmp_path / "run"), "auto")
    assert done.model.is_dir()
    with pytest.raises(ValueError, match=r"does not fit: `heads\.codes` is 128 there and 64 here"):
        pretrain(recipe(tmp_path / "run", "heads.codes=64"), "auto")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_to_the_same_bits(
    request, recipe, whole, tmp_path, monkeypatch, number
):
    before = signal.signal(number, signal.default_int_handler)  # ignored in a background process
    request.addfinalizer(lambda: signal.signal(number, before))
    from skysense.pretrain import run as module

    step = module.take_step

    def interrupted(run, index, *rest):
        if index == 2:
            os.kill(os.getpid(), number)
        return step(run, index, *rest)

    monkeypatch.setattr(module, "take_step", interrupted)
    with pytest.raises(Stopped, match="saved up to step 3"):
        pretrain(recipe(tmp_path / "cut"))
    monkeypatch.setattr(module, "take_step", step)
    pretrain(recipe(tmp_path / "cut"), "auto")

    assert same(weights(whole), weights(tmp_path / "cut"))
    assert losses(whole) == losses(tmp_path / "cut")


def start(root, output, shards, *changes, resume="never", processes=1):
    """A run by the command line in a process of its own, or in several."""
    python = [sys.executable]
    if processes > 1:
        python += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        python += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    settings = [f"data.shards=[{shards}]", f"output={output}", "report=false", *changes]
    command = [*python, "-m", "skysense", "pretrain", str(root / "recipes/pretrain/v2_tiny.yaml")]
    command += [part for change in settings for part in ("--set", change)]
    return subprocess.Popen(
        [*command, "--resume", resume],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Wait for its end, which must be a good one."""
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def kill_after(process, folder, step):
    """kill -9 all of it once a checkpoint is there."""
    deadline = time.monotonic() + 300
    while not (folder / f"checkpoints/step-{step:08d}").is_dir():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_forty_steps_or_twenty_kill_resume_twenty(root, shards, tmp_path, processes):
    settings = ("steps=40", "save_every=10", "data.batch_size=4", "optimizer.warmup_steps=4")
    finish(start(root, tmp_path / "whole", shards, *settings, processes=processes))
    process = start(root, tmp_path / "cut", shards, *settings, processes=processes)
    kill_after(process, tmp_path / "cut", 20)
    finish(start(root, tmp_path / "cut", shards, *settings, resume="auto", processes=processes))

    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(root, shards, tmp_path):
    settings = ("steps=6", "save_every=6", "data.batch_size=4", "optimizer.warmup_steps=2")
    finish(start(root, tmp_path / "one", shards, *settings))
    for mode in ("ddp", "fsdp"):
        more = (*settings, f"parallel={mode}")
        finish(start(root, tmp_path / mode, shards, *more, processes=2))

    one = torch.tensor(losses(tmp_path / "one"))
    for mode in ("ddp", "fsdp"):
        torch.testing.assert_close(torch.tensor(losses(tmp_path / mode)), one, rtol=0, atol=1e-4)


def test_two_parts_of_a_batch_and_checkpointed_blocks_run(recipe, tmp_path):
    pretrain(recipe(tmp_path / "plain", "steps=2"))
    pretrain(recipe(tmp_path / "again", "steps=2", "activation_checkpointing=true"))
    pretrain(recipe(tmp_path / "parts", "steps=2", "data.accumulate=2"))

    assert losses(tmp_path / "plain") == pytest.approx(losses(tmp_path / "again"), abs=1e-4)
    assert len(losses(tmp_path / "parts")) == 2


def test_v1_and_experts_and_prototypes_train(recipe, tmp_path):
    v1 = recipe(
        tmp_path / "v1", "steps=2", "model_changes={}", base="recipes/pretrain/v1_tiny.yaml"
    )
    pretrain(v1)
    changes = "{depths: [1, 1, 1, 1], moe_blocks: 2, experts: 2, fusion_depth: 1, geo_regions: 16}"
    pretrain(recipe(tmp_path / "moe", "steps=2", f"model_changes={changes}"))

    assert skysense.load(tmp_path / "v1/model").family == "skysense_v1"
    moe = skysense.load(tmp_path / "moe/model")
    assert moe.geo_context.prototypes.any(), "no region was seen"
    last = json.loads((tmp_path / "moe/metrics.jsonl").read_text().splitlines()[-1])
    assert last["losses.load_balance"] >= 1 - 1e-6


def test_numbers_that_are_none_stop_the_run_and_keep_the_batch(recipe, tmp_path):
    with pytest.raises(NotFiniteError, match="stopped_batch") as raised:
        pretrain(recipe(tmp_path / "run", "optimizer.lr=1.0e+30", "optimizer.warmup_steps=0"))

    saved = next((tmp_path / "run").glob("stopped_batch_*.safetensors"))
    assert str(saved) in str(raised.value)
    assert {"hr.pixels", "s2.mask", "positions"} <= load_file(saved).keys()
    assert isinstance(raised.value, ValueError)


def test_data_and_processes_that_do_not_fit(recipe, tmp_path, shards):
    with pytest.raises(ValueError, match="3 processes do not divide"):
        prepare(recipe(tmp_path), Ranks(world=3))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="shards build"):
        prepare(recipe(tmp_path, f"data.shards=[{empty}]"), Ranks())
    hr_alone = tmp_path / "hr"
    np.savez(tmp_path / "images.npz", images=np.full((4, 3, 32, 32), 7, np.uint8))
    build_shards(drafts_of(tmp_path / "images.npz", Reading(sensors={"hr": "rgb8"})), hr_alone)
    with pytest.raises(ValueError, match="s2, s1"):
        prepare(recipe(tmp_path, f"data.shards=[{hr_alone}]"), Ranks())
    with pytest.raises(ValueError, match="is for GPUs"):
        prepare(recipe(tmp_path, "precision=bfloat16"), Ranks())
    with pytest.raises(ValueError, match="unknown model `v2_nanno`"):
        prepare(recipe(tmp_path, "model=v2_nanno", "model_changes={}"), Ranks())
    with pytest.raises(ValueError, match="did you mean `fusion_depth`"):
        prepare(recipe(tmp_path, "model_changes={fusion_deph: 1}"), Ranks())
