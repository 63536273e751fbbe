"""Reading and computing tasks: what is not there is not computed, and changes nothing."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from skysense.data.scene import SceneReader
from skysense.inference.pipeline import Job, TaskReader, compute, run_here, side_by_side
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


@pytest.fixture
def threads():
    """`threads(count)` for PyTorch; as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_batches_side_by_side_have_all_threads_between_them(threads):
    for have, expected in ((1, (1, 1)), (2, (2, 1)), (4, (4, 1)), (9, (4, 2))):
        threads(have)
        assert side_by_side(torch.device("cpu"), 2) == expected
        assert side_by_side(torch.device("cuda"), 2) == (1, have)
        assert side_by_side(torch.device("cpu"), 20) == (1, have), "a long series is one at a time"


def test_batches_side_by_side_give_the_same_numbers(job, threads):
    def results(count):
        threads(count)
        found = {}
        run_here(job, job.plan.tasks(1), lambda task, part: found.update({task.index: part.values}))
        assert torch.get_num_threads() == count
        return found

    alone, together = results(1), results(3)
    assert sorted(together) == sorted(alone) == [0, 1, 2]
    for index, values in alone.items():
        np.testing.assert_array_equal(together[index], values)


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_of_one_batch_stops_the_others(job, threads, monkeypatch, count):
    threads(count)
    calls = []

    def broken(job, loaded):
        calls.append(loaded.task.index)
        raise ValueError("no")

    monkeypatch.setattr("skysense.inference.pipeline.compute", broken)
    with pytest.raises(ValueError, match="no"):
        run_here(job, job.plan.tasks(1) * 20, lambda *_: pytest.fail("there is no result"))
    assert 1 <= len(calls) <= count
    assert torch.get_num_threads() == count
