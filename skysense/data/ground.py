"""Where the pixels of a grid lie on the Earth, and on another grid.

All projections go through pyproj, whose failures are of one kind (rasterio leaks GDAL's own).
"""

import functools
import math

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from skysense.geo import Bounds, Grid, Window

_EARTH = Geod(ellps="WGS84")


@functools.lru_cache(maxsize=64)
def _between(source: str, target: str) -> Transformer:
    """From one coordinate system to another, x before y.

    Raises:
        ValueError: there is no way from one to the other.
    """
    try:
        return Transformer.from_crs(source, target, always_xy=True)
    except ProjError:
        raise ValueError(
            f"no transformation leads from {CRS(source).name!r} to {CRS(target).name!r}; "
            f"bring the raster to a geographic or projected coordinate system first"
        ) from None


def lon_lat(grid: Grid, row: float, col: float) -> tuple[float, float]:
    """Longitude (-180 to 180) and latitude of a pixel position; not finite if off the Earth."""
    lon, lat = _between(grid.crs, "EPSG:4326").transform(*grid.xy(row, col))
    return (float(lon) + 180) % 360 - 180, float(lat)


def moved(
    source: str, target: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coordinates, of any shape, in another system; not finite where they have no place there.

    Raises:
        ValueError: there is no way from one system to the other.
    """
    if source == target:
        return x, y
    there = _between(source, target).transform(x, y)
    return np.asarray(there[0], np.float64), np.asarray(there[1], np.float64)


def metres(grid: Grid) -> float:
    """Side of a pixel on the ground at the grid's centre: the mean of its two sides.

    Raises:
        ValueError: the centre lies off the Earth.
    """
    row, col = grid.shape[0] / 2, grid.shape[1] / 2
    here, below, beside = (lon_lat(grid, row + r, col + c) for r, c in ((0, 0), (1, 0), (0, 1)))
    size = math.nan
    if all(abs(lat) <= 90 and math.isfinite(lon) for lon, lat in (here, below, beside)):
        size = float(_EARTH.inv(*here, *below)[2] + _EARTH.inv(*here, *beside)[2]) / 2
    if not math.isfinite(size) or size <= 0:
        raise ValueError(
            f"the geotransform {grid.transform} lies outside the coordinate system "
            f"{CRS(grid.crs).name}; one of the two is wrong"
        )
    return size


def bounds_in(grid: Grid, crs: str) -> Bounds:
    """Bounding box of a grid in another coordinate system.

    Raises:
        ValueError: it has no place there.
    """
    if grid.crs == crs:
        return grid.bounds
    try:
        bounds = _between(grid.crs, crs).transform_bounds(*grid.bounds, densify_pts=21)
    except ProjError:
        bounds = (math.nan,) * 4
    if not all(map(math.isfinite, bounds)):
        raise ValueError(
            f"the rasters do not overlap: {grid.bounds} in {CRS(grid.crs).name} has no place in "
            f"{CRS(crs).name}"
        )
    left, bottom, right, top = bounds
    return left, bottom, right + 360 if right < left else right, top  # over the antimeridian


def footprint(grid: Grid, other: Grid) -> Window:
    """The smallest window of `grid` that covers another grid; it may stick out.

    Raises:
        ValueError: the other has no place in the coordinate system of `grid`.
    """
    if other.crs == grid.crs:
        height, width = other.shape
        corners = [other.xy(row, col) for row in (0, height) for col in (0, width)]
    else:
        left, bottom, right, top = bounds_in(other, grid.crs)
        corners = [(x, y) for x in (left, right) for y in (bottom, top)]
    rows, cols = zip(*(grid.rowcol(x, y) for x, y in corners), strict=True)
    pixels = Grid(grid.crs, (1, 0, 0, 0, 1, 0), grid.shape)
    return pixels.covering((min(cols), min(rows), max(cols), max(rows)))
