"""Instance level of a run: whose rows meet, what is not computed, the read-out at its end."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from skysense.data.shards import Reading, build_shards, drafts_of, synthetic
from skysense.hub import load
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.pretrain.image_level import instance_level
from skysense.pretrain.losses.instance import instance_loss
from skysense.pretrain.network import Network
from skysense.pretrain.objective import Objective
from skysense.pretrain.reading import _collect
from skysense.pretrain.recipe import HeadConfig, LossConfig
from skysense.pretrain.run import pretrain
from skysense.pretrain.views import ViewConfig, make_views
from skysense.sample import Sample, collate

HEADS = HeadConfig(codes=8, dense_codes=6, hidden=16, bottleneck=8, layers=2)
ALONE = LossConfig(image=0, pixel=0, object=0, alignment=0, qsacl=0, instance=1)
SMALL = {"depths": (1, 1, 1, 1), "fusion_depth": 1, "moe_blocks": 2}
VIEWS = ViewConfig(
    drop_modality=0.3,
    global_count=1,
    local_count=2,
    hr={"global_size": 32, "local_size": 16},
    s2={"global_size": 16, "local_size": 8},
    s1={"global_size": 16, "local_size": 8},
)
OFF = [f"losses.{name}=0" for name in ("image", "pixel", "object", "alignment", "qsacl")]
INSTANCE = [*OFF, "losses.instance=1", "views.global_count=1", "views.local_count=1"]


@pytest.fixture(scope="module")
def encoders(shared):
    torch.manual_seed(0)
    v1 = SkySenseV1(V1_CONFIGS["v1_tiny"], "v1_tiny").eval()
    v1.trained = True
    return {"v2": shared("v2_tiny", **SMALL), "v1": v1}


@pytest.fixture(scope="module")
def views(series):
    samples = [
        Sample({"hr": series("hr", 1, (32, 32)), "s2": series("s2", 2, (16, 16), 1)}),
        Sample({"hr": series("hr", 1, (24, 32), 2)}),
        Sample({"s2": series("s2", 3, (16, 16), 3)}),
        Sample({"hr": series("hr", 1, (32, 32), 5, masked=0.4)}),
    ]
    return make_views(collate(samples), VIEWS, 3, 7, torch.arange(4))


def make_objective(encoder, config=ALONE):
    torch.manual_seed(1)
    student = Network(copy.deepcopy(encoder), HEADS, config).requires_grad_(True)
    return Objective(student, copy.deepcopy(student).requires_grad_(False).eval(), config)


def choose(count, purpose="places"):
    return torch.zeros(4, count)


@pytest.mark.parametrize("family", ["v2", "v1"])
def test_it_is_the_mean_over_parts_and_rows(encoders, views, family):
    objective = make_objective(encoders[family])
    seen = objective._look(views)
    passes = [seen.whole, seen.local]
    found = instance_level(objective.student.instance_heads, passes, 4, 0.1)

    total, rows = 0.0, 0.0
    for key in ("hr", "s2"):
        there = torch.cat([p.maps[key].valid.flatten(1).any(1).float() for p in passes])
        parts = [torch.cat(own) for own in zip(*(p.parts[key] for p in passes), strict=True)]
        heads = objective.student.instance_heads[key]
        losses = [
            instance_loss(head(part, there), there, 4, 0.1)
            for head, part in zip(heads, parts, strict=True)
        ]
        assert len(losses) == 5
        total += there.sum() * sum(losses) / 5
        rows += there.sum()
    torch.testing.assert_close(found, total / rows)


@pytest.mark.parametrize("family", ["v2", "v1"])
def test_without_a_taught_loss_there_is_no_teacher(encoders, views, family):
    objective = make_objective(encoders[family])

    def fail(*_):
        raise AssertionError("the teacher was asked")

    objective.teacher.forward = fail
    terms = objective(views, choose, 0.04)
    terms.total.backward()

    assert set(terms.losses) == {"instance"}
    assert terms.vectors.isfinite().all()
    assert not terms.vectors.requires_grad
    gradients = {
        name.split(".")[1]: p.grad
        for name, p in objective.student.encoder.named_parameters()
        if p.grad is not None
    }
    assert gradients
    assert all(p.grad is None for p in objective.teacher.parameters())


def test_other_losses_are_what_they_are_without_it(encoders, series):
    both = [LossConfig(instance=weight) for weight in (0, 1)]
    sample = Sample({"hr": series("hr", 1, (32, 32)), "s2": series("s2", 1, (16, 16), 1)})
    config = VIEWS.model_copy(update={"global_count": 2})
    views = make_views(collate([sample, sample]), config, 3, 7, torch.arange(2))
    first, second = (make_objective(encoders["v2"], c)(views, choose, 0.04) for c in both)

    assert set(second.losses) == {*first.losses, "instance"}
    assert second.losses["instance"] > 0


def test_a_run_fits_the_read_out(recipe, tmp_path):
    sizes = "samples: 8, least_sizes: {hr: 48}"
    readout = f"readout={{pooling: spread, kept: 3, modalities: [hr, s2], {sizes}}}"
    outcome = pretrain(recipe(tmp_path / "a", *INSTANCE, readout))
    model = load(outcome.model)

    assert model.config.readout.kept == 3
    assert model.config.readout.modalities == ("hr", "s2")
    assert model.readout.hr_map.abs().sum() > 0
    assert model.fused_scale.min() > 0
    assert model.fused_mean.abs().sum() > 0
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    assert model.embed(images, "rgb8").shape == (2, 12)
    own, large, stored = (model.embed(images, "rgb8", least_size=n) for n in (None, 48, 0))
    assert (own == large).all()
    assert (own != stored).any()

    again = pretrain(recipe(tmp_path / "b", *INSTANCE, f"start_from={outcome.model}"))
    assert load(again.model).readout is None


@pytest.mark.parametrize("pooling", ["spread", "fused", "all"])
def test_the_read_out_is_fitted_on_what_the_model_gives_in_the_end(recipe, tmp_path, pooling):
    """The fused map is centered too, and a read-out of it is one of the centered map."""
    readout = f"readout={{pooling: {pooling}, kept: 3, modalities: [hr], samples: 32}}"
    own = recipe(tmp_path, *INSTANCE, readout)
    model = load(pretrain(own).model)
    with torch.no_grad():
        parts, (mean, square) = _collect(model, own, "hr")
    vectors = (torch.cat(parts, 1) - model.readout.hr_mean) @ model.readout.hr_map.T
    assert vectors.mean(0).abs().max() < 1e-2 * vectors.std(0).max()
    assert mean.abs().max() < 1e-2
    torch.testing.assert_close(square, torch.ones_like(square), atol=0.02, rtol=0)


def test_v1_has_no_read_out(recipe, tmp_path):
    changes = [*INSTANCE, "readout={kept: 3}", "model_changes={}"]
    with pytest.raises(ValueError, match="models of SkySense V1 have none"):
        pretrain(recipe(tmp_path, *changes, base="recipes/pretrain/v1_tiny.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["views.global_count=1", "views.local_count=0"], "compares views: draw at least 2"),
        (["losses.image=1", "views.global_count=1"], "must be at least 2: a view is its own"),
    ],
)
def test_too_few_views_are_refused(recipe, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, *INSTANCE, *changes)


@pytest.mark.slow
def test_two_processes_of_which_one_lacks_a_modality_give_the_curve_of_one(root, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    drafts = drafts_of(tmp_path / "images.npz", Reading(sensors={"hr": "rgb8"}))
    build_shards([*drafts, *synthetic(3)], tmp_path / "shards")  # most batches have one of these

    curves = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        python = [sys.executable]
        if processes > 1:
            python += ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
            python += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        settings = [f"data.shards=[{tmp_path / 'shards'}]", f"output={folder}", "report=false"]
        settings += ["steps=6", "data.batch_size=4", "optimizer.warmup_steps=2", "device=cpu"]
        settings += ["losses.instance=1", "log_every=1"]
        command = [*python, "-m", "skysense", "pretrain", "recipes/pretrain/v2_tiny.yaml"]
        command += [part for setting in settings for part in ("--set", setting)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        subprocess.run(command, cwd=root, env=variables, check=True, timeout=300)
        lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        curves.append(torch.tensor([line["loss"] for line in lines if "loss" in line]))

    assert len(curves[0]) == 6
    torch.testing.assert_close(curves[1], curves[0], rtol=0, atol=1e-3)
