"""A model with absolute positions sees whole tiles: the last ones stick out of the scene."""

import numpy as np
import pytest
import rasterio
import torch

from skysense.inference.embed import embed_scene
from skysense.inference.plan import make_plan
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.sensors import TOKENIZER_BANDS


@pytest.fixture(scope="module")
def v1():
    torch.manual_seed(0)
    model = SkySenseV1(V1_CONFIGS["v1_tiny"], "v1_tiny").eval()
    model.trained = True
    return model


def test_every_tile_has_one_shape_and_every_pixel_a_cell(v1, raster, opened, tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(500, 4000, (10, 101, 70)).astype(np.uint16)
    pixels[:, 30:40, 20:50] = 0
    path = raster("s2.tif", pixels, TOKENIZER_BANDS["s2"])
    scene = opened(s2=[path])
    plan = make_plan(v1, scene)
    shapes = {(w.height, w.width) for task in plan.tasks(4) for w in task.tiles}

    embed_scene(v1, scene, plan, tmp_path / "map.tif")

    assert shapes == {(64, 64)}
    with rasterio.open(tmp_path / "map.tif") as dataset:
        values = dataset.read(1)
        assert dataset.shape == (101, 70)
    assert np.array_equal(np.isnan(values), (pixels == 0).all(0))
