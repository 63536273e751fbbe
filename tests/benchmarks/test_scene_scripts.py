"""The scene benchmarks: their series is two modalities on two grids, their measure is a child's."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import rasterio

from skysense.data.scene import SceneReader, open_scene
from skysense.geo import Window


@pytest.fixture
def script(pytestconfig, monkeypatch):
    """`script(name)` of `benchmarks/` as a module."""
    monkeypatch.syspath_prepend(str(pytestconfig.rootpath / "benchmarks"))
    return importlib.import_module


def test_a_series_lies_on_two_grids_and_covers_its_ground(script, tmp_path):
    files = script("_scenes").write_series(tmp_path, (80, 48), (3, 2))
    scene = open_scene(files, {"s2": "s2_l2a", "s1": "s1"})

    assert {key: len(paths) for key, paths in files.items()} == {"s2": 3, "s1": 2}
    assert scene.layers["s2"].grid.crs != scene.layers["s1"].grid.crs
    assert scene.grid.shape == (80, 48)
    with SceneReader(scene) as reader:
        reader.check_scale()
        sample = reader.read(Window(0, 0, 80, 48))
    assert all(series.mask.numpy().mean() > 0.95 for series in sample.series.values())


def test_a_large_scene_is_mirrored_without_a_seam(script, tmp_path):
    with rasterio.open(script("_scenes").write_large_scene(tmp_path / "a.tif", 1056)) as file:
        image = file.read()

    assert image.shape == (3, 1056, 1056)
    np.testing.assert_array_equal(image[:, :, 1024], image[:, :, 1023])
    np.testing.assert_array_equal(image[:, 1024], image[:, 1023])


def test_memory_is_that_of_the_command_alone(script):
    measure = script("_common").measure
    small, large = (
        measure([sys.executable, "-c", f"b'x' * {size}"]).peak_mb for size in (1, 200 << 20)
    )

    assert small < 100
    assert large - small == pytest.approx(200, rel=0.1)
    with pytest.raises(subprocess.CalledProcessError):
        measure([sys.executable, "-c", "raise SystemExit(3)"])
