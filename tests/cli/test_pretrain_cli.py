"""`skysense pretrain`: how it ends, well and otherwise; nothing that was done is lost."""

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress

import pytest

from skysense.data.shards import build_shards, synthetic
from skysense.engine import checkpoint
from skysense.pretrain import run as module

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SMALL = {
    "data.batch_size": 2,
    "steps": 2,
    "save_every": 1,
    "optimizer.warmup_steps": 1,
    "report": "false",
    "device": "cpu",
    "model_changes": "{depths: [1, 1, 1, 1], moe_blocks: 0, fusion_depth: 1}",
    "views.local_count": 1,
}


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Eight synthetic places in four shards."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    build_shards(synthetic(8), folder, samples_per_shard=2)
    return folder


@pytest.fixture
def recipe(pytestconfig):
    return pytestconfig.rootpath / "recipes/pretrain/v2_tiny.yaml"


@pytest.fixture
def pretrain(skysense, recipe, shards, tmp_path):
    """`pretrain("--resume", "auto", steps=4) -> Result` of a small run into `pretrain.output`."""

    def run(*arguments, output=None, **changes):
        changes = {name.replace("__", "."): value for name, value in changes.items()}
        values = {"data.shards": f"[{shards}]", **SMALL, **changes}
        sets = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
        return skysense("pretrain", recipe, *sets, "-o", output or run.output, *arguments)

    run.output = tmp_path / "run"
    return run


@pytest.fixture(autouse=True)
def signals_arrive():
    """As in a terminal: a suite started in the background inherits them ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refused(result, *words):
    """Exit code 2 and one line that holds the words, after what the run said of itself."""
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert result.stderr.count("error: ") == 1
    for word in words:
        assert word in line, line


def saved(folder):
    """The steps that have a checkpoint."""
    return [int(path.name[-8:]) for path in checkpoint.checkpoints(folder / "checkpoints")]


def logged(folder):
    """The steps in the metrics."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def at_step(monkeypatch, number, do):
    """Do something in the middle of a step."""
    step = module.take_step

    def interrupted(run, index, *rest):
        if index == number:
            do()
        return step(run, index, *rest)

    monkeypatch.setattr(module, "take_step", interrupted)


def test_a_run_says_where_the_model_is(pretrain):
    result = pretrain()

    assert result.exit_code == 0
    assert result.stdout == f"model   {pretrain.output / 'model'}\n"
    assert logged(pretrain.output) == [1, 2]
    assert saved(pretrain.output) == [1, 2]
    refused(pretrain(), "already holds a run, up to step-00000002", "--resume auto")
    refused(pretrain("--resume", "auto", heads__codes=64), "does not fit", "`heads.codes` is 128")
    refused(pretrain("--resume", "auto", model="v2_nano"), "does not fit", "`model` is 'v2_tiny'")
    assert saved(pretrain.output) == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [\n", "is not YAML"),
        (b"\xff\x81\x00", "is not YAML"),
        (b"", "holds no recipe"),
        (b"- 1\n", "holds no recipe"),
        (b"setps: 3\n", "did you mean `steps`?"),
        (None, "No such file"),
    ],
)
def test_what_is_no_recipe(skysense, tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_bytes(text)

    refused(skysense("pretrain", path), message, "recipe.yaml")
    assert set(tmp_path.iterdir()) <= {path}


def test_what_cannot_be_asked_for(pretrain, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    refused(pretrain("--resume", "maybe"), "`auto` or `never`")
    refused(pretrain("--set", "losses.imgae=1"), "did you mean `image`?")
    refused(pretrain(data__shards=f"[{tmp_path / 'empty'}]"), "holds no shards", "shards build")
    refused(pretrain(data__shards=f"[{tmp_path / 'none'}]"), "no such folder")
    refused(pretrain(knn=f"{{data: {tmp_path / 'empty'}}}"), "is no labelled set")
    refused(pretrain(model="v2_nanno", model_changes="{}"), "unknown model `v2_nanno`")
    refused(pretrain(output=tmp_path / "file"), "file")
    refused(pretrain(output=tmp_path / "file" / "run"), "file")
    assert not pretrain.output.exists()
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_and_the_run_goes_on(pretrain, monkeypatch, name):
    number = getattr(signal, name)
    with monkeypatch.context() as patch:
        at_step(patch, 0, lambda: os.kill(os.getpid(), number))
        result = pretrain()
    assert result.exit_code == 128 + number
    word = "interrupted" if name == "SIGINT" else "terminated"
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"{word}: {pretrain.output} is saved up to step 1")
    assert saved(pretrain.output) == [1]

    assert pretrain("--resume", "auto").exit_code == 0
    assert logged(pretrain.output) == [1, 2]


def test_a_second_signal_does_not_wait(pretrain, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 1, twice)
    result = pretrain()

    assert result.exit_code == 130
    assert saved(pretrain.output) == [1]
    assert not (pretrain.output / "model").exists()


def test_a_signal_before_the_first_step(pretrain, monkeypatch):
    def slow(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(module, "prepare", slow)
    result = pretrain()

    assert result.exit_code == 143
    assert result.stderr == "terminated: stopped early, nothing half-written is left\n"


def test_a_shard_cut_in_half(pretrain, shards, tmp_path):
    shutil.copytree(shards, tmp_path / "cut")
    first = sorted((tmp_path / "cut").glob("*.tar"))[0]
    os.truncate(first, first.stat().st_size // 2)
    result = pretrain(data__shards=f"[{tmp_path / 'cut'}]", steps=4, save_every=4)

    assert result.exit_code == 0
    (line,) = (line for line in result.stderr.splitlines() if first.name in line)
    assert line.endswith("breaks off; what can be read of it is used")
    assert logged(pretrain.output) == [1, 2, 3, 4]


def test_no_shard_is_whole(pretrain, shards, tmp_path):
    shutil.copytree(shards, tmp_path / "cut")
    for path in (tmp_path / "cut").glob("*.tar"):
        os.truncate(path, 700)

    refused(pretrain(data__shards=f"[{tmp_path / 'cut'}]"))


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system with room for a checkpoint and a half, and how to enlarge it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options, *more):
        command = ["mount", "-t", "tmpfs", "-o", options, *more, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"a small file system cannot be mounted here: {error}")
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")

    mount("size=32m")
    yield folder, lambda: mount("remount,size=256m")
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(pretrain, small_disk):
    folder, enlarge = small_disk
    output = folder / "run"
    refused(pretrain(output=output), "could not be written", "No space left")
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-00000001"]
    refused(pretrain("--resume", "auto", output=output), "No space left")
    assert saved(output) == [1]

    enlarge()
    assert pretrain("--resume", "auto", output=output).exit_code == 0
    assert logged(output) == [1, 2]
    assert (output / "model").is_dir()


@pytest.mark.slow
def test_a_disk_with_no_room_for_a_line(pretrain, small_disk):
    """Not a byte is left for the recipe and the metrics of a run that goes on."""
    folder, enlarge = small_disk
    output = folder / "run"
    assert pretrain(output=output, save_every=2).exit_code == 0
    with (folder / "filler").open("wb", 0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    refused(pretrain("--resume", "auto", output=output, steps=3), "No space left")
    assert saved(output) == [2]
    assert (output / "recipe.yaml").read_text(), "half a recipe"

    enlarge()
    assert pretrain("--resume", "auto", output=output, steps=3).exit_code == 0
    assert logged(output) == [1, 2, 3]
