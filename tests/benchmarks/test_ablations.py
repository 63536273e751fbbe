"""The ablation study: its variants change what they name, and its intervals mean what they say."""

import importlib
import json

import numpy as np
import pytest
import torch

import skysense
from skysense.data.shards import Reading, build_shards, drafts_of
from skysense.pretrain.preparation import build_encoder
from skysense.tasks.probe import difference
from skysense.tasks.probe.scores import score


@pytest.fixture
def ablations(pytestconfig, monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(pytestconfig.rootpath / "benchmarks"))
    return importlib.import_module("ablations")


@pytest.fixture
def table(pytestconfig, monkeypatch):
    """What the script tells its outcomes with."""
    monkeypatch.syspath_prepend(str(pytestconfig.rootpath / "benchmarks"))
    return importlib.import_module("_ablation_table")


def outcome(table, variant, seed, predictions, labels):
    """What is kept of a run that predicts the same in every measure."""
    right = {"labels": labels.tolist(), "predictions": predictions.tolist()}
    facts = {"variant": variant, "what": f"<{variant}>", "changes": [], "seed": seed, "steps": 3}
    facts |= {"minutes": 1, "samples_per_second": 2.0, "feature_std": 0.5, "effective_rank": 9.0}
    return {**facts, "scores": dict.fromkeys(table.MEASURES, right)}


def test_each_variant_changes_what_it_names(ablations, tmp_path):
    (tmp_path / "steps_a_step.json").write_text('{"image, koleo": 1.25, "masked": 2.0}')
    study = ablations.Study(tmp_path, tmp_path, 100, ("data.batch_size=8",))
    recipes = {name: study.recipe(name, 3) for name in ablations.VARIANTS}

    def losses(name):
        return {key for key, weight in recipes[name].losses.weights().items() if weight}

    full = {"image", "pixel", "object", "alignment", "qsacl", "koleo"}
    assert losses("with_instance") == full | {"instance"}
    assert losses("instance_only") == {"instance"}
    assert losses("full") == losses("experts") == losses("without_prompts") == full
    assert losses("without_qsacl") == full - {"qsacl"}
    assert losses("without_dense") == full - {"pixel", "object"}
    assert losses("without_alignment") == full - {"alignment"}
    assert losses("image_only") == losses("image_only_equal_time") == {"image", "koleo"}
    assert losses("masked") == losses("masked_equal_time") == {"masked"}
    assert recipes["experts"].model == "v2_nano_moe"
    assert recipes["without_prompts"].model_changes == {"prompts": 0}
    longer = {"image_only_equal_time": 125, "masked_equal_time": 200}
    assert {name: recipe.steps for name, recipe in recipes.items()} == {
        name: longer.get(name, 100) for name in recipes
    }
    for recipe in recipes.values():
        assert (recipe.seed, recipe.data.batch_size) == (3, 8)
        assert recipe.views == recipes["full"].views
        assert recipe.optimizer == recipes["full"].optimizer
    assert len({recipe.output for recipe in recipes.values()}) == len(recipes)


@pytest.fixture
def study(ablations, tmp_path):
    """`study(a.b=value, ...)` on a handful of images."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    drafts = drafts_of(tmp_path / "images.npz", Reading(sensors={"hr": "rgb8"}))
    for name in ("shards", "shards_multi"):
        build_shards(drafts, tmp_path / name)
    shared = ("model=v2_tiny", "data.modalities=[hr]", "data.batch_size=4", "device=cpu")
    return lambda *changes: ablations.Study(tmp_path, tmp_path, 100, (*shared, *changes))


def test_a_random_model_is_that_of_its_seed(ablations, study):
    recipe = study().recipe("random", 5)
    path = ablations.train(ablations.VARIANTS["random"], recipe)

    found, expected = skysense.load(path).state_dict(), build_encoder(recipe).state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_folder_with_another_recipe_is_refused(ablations, study):
    ablations.train(ablations.VARIANTS["random"], study().recipe("random", 0))
    ablations.refuse_another(study().recipe("random", 0))

    other = study("model_changes.prompts=2").recipe("random", 0)
    with pytest.raises(ValueError, match="other model_changes: give another --work"):
        ablations.refuse_another(other)


def test_one_seed_has_the_paired_interval_of_the_probe(table):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    ours, other = (np.where(rng.random(400) < p, labels, (labels + 1) % 4) for p in (0.7, 0.5))
    runs = [outcome(table, *run, labels) for run in (("a", 0, ours), ("full", 0, other))]

    found = table.against(runs[:1], runs[1:])
    gain, interval = difference(*(score(labels, p, 4) for p in (ours, other)))

    assert found["eurosat knn"]["difference"] == pytest.approx(gain)
    assert found["eurosat knn"]["interval"] == pytest.approx(interval, abs=0.01)
    assert found["mean"]["difference"] == pytest.approx(gain)


def test_seeds_that_disagree_widen_the_interval(table):
    calm, wild = (np.full((3, 500), 0.5), np.repeat([[0.2], [0.5], [0.8]], 500, 1))

    assert table.resample([calm]) == (0.5, pytest.approx((0.5, 0.5)))
    mean, (low, high) = table.resample([wild])
    assert mean == pytest.approx(0.5)
    assert low < 0.35
    assert high > 0.65


def test_the_same_images_three_times_are_no_narrower(table):
    right = np.random.default_rng(0).integers(0, 2, (1, 500)).astype(float)
    (_, once), (_, thrice) = (table.resample([np.repeat(right, n, 0)]) for n in (1, 3))

    assert thrice[1] - thrice[0] == pytest.approx(once[1] - once[0], rel=0.1)


def test_rows_and_tables(table):
    labels = np.arange(10) % 2
    wrong = 1 - labels
    half = np.where(np.arange(10) < 5, labels, wrong)
    runs = [outcome(table, "full", seed, labels, labels) for seed in (0, 1)]
    runs += [outcome(table, "less", seed, p, labels) for seed, p in ((0, half), (1, labels))]

    full, less = table.summarize(runs)
    assert full["accuracy"]["mean"]["accuracy"] == 1
    assert full["against_full"] == {}
    assert less["accuracy"]["eurosat knn"]["by_seed"] == [0.5, 1.0]
    assert less["accuracy"]["eurosat knn"]["spread"] == pytest.approx(0.5 / 2**0.5)
    assert less["against_full"]["mean"]["difference"] == pytest.approx(-0.25)
    json.dumps([full, less])

    first, second = table.tables([full, less], markdown=True).split("\n\n")
    assert first.count("\n") == 3
    assert "0.750 ± 0.354" in first
    assert second.splitlines()[2].startswith("| <less>")


def test_runs_scored_on_other_images_are_not_compared(table):
    labels = np.arange(6) % 2
    with pytest.raises(ValueError, match="different images"):
        table.against(
            [outcome(table, "less", 0, labels, labels)],
            [outcome(table, "full", 0, labels, 1 - labels)],
        )
