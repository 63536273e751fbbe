"""Scenes at the poles and over the antimeridian: a right result, or a line that says why not."""

import numpy as np
import pytest
from pyproj import Transformer
from rasterio import Affine

from skysense.data.scene import open_scene

ALL = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")


def at(size, x, y):
    return Affine(size, 0, x, 0, -size, y)


def test_the_pole_in_stereographic_and_degrees(put, read, tmp_path):
    """Radar in degrees, up to 200 m from the pole, on the grid of an image that covers it."""
    image = np.full((10, 60, 60), 1000, np.uint16)
    path = put(tmp_path / "s2.tif", image, at(10, -300, 300), "EPSG:3413", names=ALL)
    degrees = np.full((2, 20, 180), -10, np.float32)
    turn = Affine(2, 0, -180, 0, -1e-4, 89.9982)
    other = put(tmp_path / "s1.tif", degrees, turn, "EPSG:4326", names=("VV", "VH"))
    scene = open_scene({"s2": [path], "s1": [other]}, {})
    assert scene.reference == "s2"
    sample = read(scene)
    rows, cols = np.indices(scene.grid.shape) + 0.5
    x, y = scene.grid.xy(rows, cols)
    _, lat = Transformer.from_crs(3413, 4326, always_xy=True).transform(x, y)
    mask = sample.series["s1"].mask[0].numpy()
    assert not mask[lat > 89.9984].any()
    assert mask[(lat < 89.998) & (lat > 89.9964)].mean() > 0.9


def test_polar_image_alone_and_its_box(put, read, tmp_path):
    image = np.full((10, 60, 60), 1000, np.uint16)
    path = put(tmp_path / "s2.tif", image, at(10, -300, 300), "EPSG:3413", names=ALL)
    sample = read(open_scene({"s2": [path]}, {}))
    assert sample.location is not None
    assert sample.location[1] == pytest.approx(90, abs=1e-3)
    cut = open_scene({"s2": [path]}, {}, bbox=(-180, 89.999, 180, 90))
    assert cut.grid.shape[0] == pytest.approx(22, abs=4)


def test_utm_zones_on_both_sides_of_the_antimeridian(put, read, tmp_path):
    paths = []
    for epsg, lon, name in ((32660, 179.999, "a"), (32601, -180.0, "b")):
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, -17.0)
        pixels = np.full((10, 12, 12), 1000, np.uint16)
        crs = f"EPSG:{epsg}"
        paths.append(put(tmp_path / f"{name}_20210101.tif", pixels, at(10, x, y), crs, names=ALL))
    scene = open_scene({"s2": paths}, {})
    assert scene.grid.shape[1] < 40
    mask = read(scene).series["s2"].mask.numpy()
    assert mask[0].sum() == 144
    assert mask[1].sum() == pytest.approx(144, rel=0.2)
    cut = open_scene({"s2": paths}, {}, bbox=(179.9995, -18, -179.9995, -16))
    assert cut.grid.shape[1] < scene.grid.shape[1]


def test_a_box_over_the_antimeridian_beside_the_pole(put, tmp_path):
    """The grid runs from -180 to 180 degrees all around; the box lies on both sides of 180."""
    image = np.full((10, 60, 60), 1000, np.uint16)
    path = put(tmp_path / "s2.tif", image, at(1000, -30_000, 30_000), "EPSG:3995", names=ALL)

    def columns(west, east):
        grid = open_scene({"s2": [path]}, {}, bbox=(west, 89.8, east, 89.9)).grid
        return grid.bounds[0], grid.bounds[2]

    both = columns(160, -160)
    halves = columns(160, 180), columns(-180, -160)
    assert both == (min(h[0] for h in halves), max(h[1] for h in halves))
    assert both[0] < -3000
    assert both[1] > 3000


def test_a_box_at_both_ends_of_a_map_of_the_world(put, tmp_path):
    image = np.full((10, 18, 360), 1000, np.uint16)
    path = put(tmp_path / "s2.tif", image, at(1, -180, 9), "EPSG:4326", names=ALL)
    with pytest.raises(ValueError, match="take it in two, to 180 and from -180 on") as error:
        open_scene({"s2": [path]}, {}, bbox=(170, -5, -170, 5))
    assert "\n" not in str(error.value)
    assert open_scene({"s2": [path]}, {}, bbox=(170, -5, 180, 5)).grid.shape[1] == 10


def test_degrees_on_both_sides_are_refused(put, tmp_path):
    """179.9 and -179.9 are neighbours on the Earth, but not in degrees."""
    paths = []
    for lon, name in ((179.998, "a"), (-180.0, "b")):
        pixels = np.full((10, 20, 20), 1000, np.uint16)
        transform = at(1e-4, lon, 10)
        paths.append(put(tmp_path / f"{name}.tif", pixels, transform, "EPSG:4326", names=ALL))
    with pytest.raises(ValueError, match="too far apart for one map"):
        open_scene({"s2": paths}, {})
