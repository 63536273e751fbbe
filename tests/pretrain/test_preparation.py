"""What a run starts from."""

import pytest
import torch

from skysense.config import read_recipe
from skysense.hub import load
from skysense.pretrain.preparation import build_encoder
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.run import pretrain


@pytest.fixture(scope="module")
def start(root, shards, tmp_path_factory):
    """The saved model of a run of two steps."""
    changes = [
        f"output={tmp_path_factory.mktemp('start') / 'run'}",
        f"data.shards=[{shards}]",
        "data.batch_size=4",
        "steps=2",
        "optimizer.warmup_steps=1",
        "report=false",
        "device=cpu",
        "model_changes={depths: [1, 1, 1, 1], moe_blocks: 1, fusion_depth: 1}",
        "views.local_count=1",
        "seed=5",
    ]
    return pretrain(read_recipe(Recipe, root / "recipes/pretrain/v2_tiny.yaml", changes)).model


def test_a_run_goes_on_from_saved_weights(recipe, start, tmp_path):
    model = build_encoder(recipe(tmp_path, f"start_from={start}"))

    for name, value in load(start).state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_another_configuration_is_refused(recipe, start, tmp_path):
    changes = [f"start_from={start}", "model_changes={depths: [1, 1, 1, 1]}"]
    with pytest.raises(ValueError, match="of another configuration than `v2_tiny`"):
        build_encoder(recipe(tmp_path, *changes))
