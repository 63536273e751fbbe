"""Pixels that are divided have the values of GDAL's own warp, whatever the window."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from skysense.data.rasters import inspect
from skysense.data.warping import GridReader
from skysense.geo import Grid, Window

SHAPE = (12, 17)
RNG = np.random.default_rng(0)
HOLES = RNG.random(SHAPE) < 0.25


@pytest.fixture(params=["whole", "holes"])
def path(request, raster):
    pixels = RNG.normal(size=(2, *SHAPE)).astype(np.float32) + 10
    if request.param == "holes":
        pixels[:, HOLES] = np.nan
    return raster("a.tif", pixels, ("VV", "VH"), nodata=np.nan)


def divided(grid, factor, row=0, col=0, shape=None):
    """Smaller pixels of the same ground, from a row and column of them on."""
    fine = grid.rescaled(1 / factor)
    a, _, _, _, e, _ = fine.transform
    x, y = fine.xy(row, col)
    return Grid(grid.crs, (a, 0, x, 0, e, y), shape or fine.shape)


def ours(path, grid, window=None, nearest=False):
    reader = GridReader(inspect(path), grid, None, nearest)
    try:
        return reader.read([0, 1], window or Window(0, 0, *grid.shape))
    finally:
        reader.close()


def warped(path, grid, resampling):
    height, width = grid.shape
    options = {"crs": grid.crs, "transform": rasterio.Affine(*grid.transform)}
    with (
        rasterio.open(path) as file,
        WarpedVRT(file, **options, height=height, width=width, resampling=resampling) as view,
    ):
        return view.read()


@pytest.mark.parametrize("factor", [2, 3, 6])
@pytest.mark.parametrize("nearest", [False, True])
def test_a_whole_file(path, factor, nearest):
    grid = divided(inspect(path).grid, factor)
    values, valid = ours(path, grid, nearest=nearest)
    expected = warped(path, grid, Resampling.nearest if nearest else Resampling.bilinear)
    np.testing.assert_array_equal(valid, np.isfinite(expected[0]))
    np.testing.assert_allclose(values[:, valid], expected[:, valid], atol=2e-4)
    assert (values[:, ~valid] == 0).all()


@given(row=st.integers(-9, 30), col=st.integers(-9, 40), size=st.tuples(*[st.integers(1, 20)] * 2))
@settings(max_examples=30, deadline=None)
def test_a_window_is_cut_out_of_the_whole(tmp_path_factory, row, col, size):
    path = tmp_path_factory.getbasetemp() / "cut_out.tif"
    pixels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE).repeat(2, 0)
    pixels[:, HOLES] = np.nan
    if not path.exists():
        place = {"crs": "EPSG:32632", "transform": rasterio.Affine(20, 0, 6e5, 0, -20, 5.3e6)}
        height, width = SHAPE
        facts = {"count": 2, "height": height, "width": width, "dtype": "float32"}
        with rasterio.open(path, "w", driver="GTiff", **facts, **place) as file:
            file.write(pixels)
    whole = divided(inspect(path).grid, 2)
    around, seen = ours(path, whole, Window(-10, -10, 80, 80))
    values, valid = ours(path, whole, Window(row, col, *size))
    part = (slice(row + 10, row + 10 + size[0]), slice(col + 10, col + 10 + size[1]))
    np.testing.assert_array_equal(values, around[(slice(None), *part)])
    np.testing.assert_array_equal(valid, seen[part])


def test_a_grid_that_starts_inside_a_pixel(path):
    grid = inspect(path).grid
    values, valid = ours(path, divided(grid, 2, 3, 5, (8, 10)))
    whole, seen = ours(path, divided(grid, 2))
    np.testing.assert_array_equal(values, whole[:, 3:11, 5:15])
    np.testing.assert_array_equal(valid, seen[3:11, 5:15])
