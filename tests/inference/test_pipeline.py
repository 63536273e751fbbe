"""Reading and computing tasks: what is not there is not computed, and changes nothing."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from skysense.data.scene import SceneReader
from skysense.inference.pipeline import Job, TaskReader, compute
from skysense.inference.plan import make_plan
from skysense.sample import collate

SIDE = 256


@pytest.fixture
def job(raster, opened, model):
    """Two images side by side, of two days: three tiles, of which the middle one sees both."""
    files = []
    for i in range(2):
        pixels = np.random.default_rng(i).integers(1, 255, (3, SIDE, SIDE), np.uint8)
        east = (10.0, 0.0, 600_000.0 + 10 * SIDE * i, 0.0, -10.0, 5_340_000.0)
        files.append(raster(f"image_2024060{i + 1}.tif", pixels, transform=east))
    scene = opened(hr=files)
    return Job(model, scene, make_plan(model, scene, tile=SIDE, overlap=SIDE // 2))


def test_dates_without_a_pixel_are_left_out_of_a_window(job):
    with closing(TaskReader(job)) as reader:
        loaded = [reader.read(task).batch.modalities["hr"] for task in job.plan.tasks(1)]
    assert [part.pixels.shape[1] for part in loaded] == [1, 2, 1]
    assert all(part.mask.flatten(2).any(2).all() for part in loaded)
    assert (loaded[0].days[0] - loaded[2].days[0]).abs().item() == 1  # each its own day


def test_they_do_not_change_the_features(job):
    with closing(TaskReader(job)) as reader, SceneReader(job.scene) as whole:
        for task in job.plan.tasks(1):
            loaded = reader.read(task)
            every = collate([whole.read(tile) for tile in task.tiles])
            assert every.modalities["hr"].pixels.shape[1] == 2
            found, expected = compute(job, loaded), compute(job, replace(loaded, batch=every))
            assert (found.valid == expected.valid).all()
            torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-4)
