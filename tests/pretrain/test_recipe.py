"""Recipes: all shipped ones load, and wrong ones say what is wrong."""

from pathlib import Path

import pytest

from skysense.config import read_recipe
from skysense.hub import list_models
from skysense.pretrain.recipe import Recipe


def test_every_recipe_is_complete(root):
    import yaml

    paths = sorted((root / "recipes/pretrain").glob("*.yaml"))
    names = {path.stem for path in paths}

    assert {"v2_tiny", "v2_nano", "v2_small", "v2_base", "v2_huge", "v2_huge_moe"} <= names
    for path in paths:
        recipe = read_recipe(Recipe, path)
        written = yaml.safe_load(path.read_text())
        assert recipe.model in list_models()
        for part, values in recipe.model_dump().items():
            assert part in written, f"{path.name} lacks {part}"
            if part in ("data", "heads", "losses", "optimizer", "teacher"):
                assert set(written[part]) == set(values), f"{path.name}: {part} is not complete"


def test_the_papers_settings(root):
    recipe = read_recipe(Recipe, root / "recipes/pretrain/v2_huge_moe.yaml")

    assert (recipe.steps, recipe.data.batch_size) == (600_000, 1024)
    assert (recipe.optimizer.lr, recipe.optimizer.min_lr) == (2e-4, 1e-6)
    assert recipe.losses.queries == 16
    assert recipe.parallel == "fsdp"


@pytest.mark.parametrize(("samples", "counts"), [("{hr: 7}", (7, 4000)), ("9", (9, 9))])
def test_samples_that_a_read_out_is_fitted_on(root, samples, counts):
    override = f"readout={{samples: {samples}}}"
    recipe = read_recipe(Recipe, root / "recipes/pretrain/v2_tiny.yaml", [override])

    assert tuple(recipe.readout.samples_of(key) for key in ("hr", "s2")) == counts


def test_one_folder_of_shards_is_a_list_of_it(root):
    path = root / "recipes/pretrain/v2_tiny.yaml"
    one, many = (read_recipe(Recipe, path, [f"data.shards={x}"]) for x in ("a/b", "[a/b]"))
    assert one.data.shards == many.data.shards == (Path("a/b"),)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loses.image=2", "unknown key `loses`, did you mean `losses`?"),
        ("losses.imgae=2", "did you mean `image`?"),
        ("views.hr.global_sise=3", "did you mean `global_size`?"),
        ("steps", "not of the form a.b=value"),
        ("steps.more=3", "`steps` is a value"),
        ("steps=[", "not YAML"),
        ("steps=0", "`steps`"),
        ("data.accumulate=3", "does not divide `data.batch_size` 8"),
        ("optimizer.warmup_steps=20", "leaves nothing of 20 `steps`"),
        ("views.global_count=1", "at least 2"),
        ("views.local_count=0", "QSACL contrasts global with local views"),
        ("losses.groups=9", "less than or equal to 8"),
        ("readout={samples: {hr: 1}}", "greater than or equal to 2"),
        ("readout={samples: {uv: 8}}", "samples"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(root, override, message):
    with pytest.raises(ValueError, match=r"v2_tiny\.yaml|form a\.b|YAML|a value") as raised:
        read_recipe(Recipe, root / "recipes/pretrain/v2_tiny.yaml", [override])

    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "", "a: [\n", "just words"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match="recipe"):
        read_recipe(Recipe, path)
