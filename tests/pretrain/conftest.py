"""Shards of a synthetic world, and recipes of runs that take seconds."""

import pytest

from skysense.config import read_recipe
from skysense.data.shards import build_shards, synthetic
from skysense.pretrain.recipe import Recipe

TINY = "recipes/pretrain/v2_tiny.yaml"


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A folder of 12 synthetic places with all modalities and class maps."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    build_shards(synthetic(12), folder)
    return folder


@pytest.fixture(scope="session")
def root(pytestconfig):
    """The repository."""
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def recipe(root, shards):
    """`recipe(output, "a.b=c", ...) -> Recipe` of a tiny run without a report."""

    def make(output, *overrides, base=TINY):
        changes = [
            f"output={output}",
            f"data.shards=[{shards}]",
            "data.batch_size=4",
            "steps=4",
            "optimizer.warmup_steps=1",
            "save_every=2",
            "report=false",
            "device=cpu",
            "model_changes={depths: [1, 1, 1, 1], moe_blocks: 1, fusion_depth: 1}",
            "views.local_count=2",
        ]
        return read_recipe(Recipe, root / base, [*changes, *overrides])

    return make
