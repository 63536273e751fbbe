"""What a run starts from."""

import numpy as np
import pytest
import torch

from skysense.config import read_recipe
from skysense.data.shards import Reading, build_shards, drafts_of
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


def test_a_read_out_that_could_not_be_fitted_is_refused_first(recipe, tmp_path):
    for i in range(2):
        np.savez(tmp_path / f"{i}.npz", hr=np.full((3, 32, 32), 90 + i, np.uint8))
    build_shards(drafts_of(tmp_path, Reading()), tmp_path / "shards")
    changes = [f"data.shards={tmp_path / 'shards'}", "data.modalities=[hr]", "readout={kept: 4}"]
    with pytest.raises(ValueError, match=r"`readout.modalities`: .*no sample has s2"):
        pretrain(recipe(tmp_path / "run", *changes))
    assert not (tmp_path / "run").exists()


def test_another_configuration_is_refused(recipe, start, tmp_path):
    changes = [f"start_from={start}", "model_changes={depths: [1, 1, 1, 1]}"]
    with pytest.raises(ValueError, match="of another configuration than `v2_tiny`"):
        build_encoder(recipe(tmp_path, *changes))
