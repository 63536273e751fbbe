"""Coordinate systems of a map, as stores write them, and its cells in longitude and latitude."""

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from skysense.geo import Grid

DoubleArray = npt.NDArray[np.float64]


def crs_of(grid: Grid) -> CRS:
    """The coordinate system of a grid.

    Raises:
        ValueError: it is none that pyproj knows.
    """
    try:
        return CRS.from_user_input(grid.crs)
    except CRSError as error:
        text = " ".join(str(error).split())
        raise ValueError(f"the coordinate system of the map is not understood: {text}") from None


def crs_code(crs: CRS) -> str | None:
    """`EPSG:32632` and the like, `None` where it is not exactly a registered one."""
    authority = crs.to_authority(min_confidence=100)
    return None if authority is None else ":".join(authority)


def points(grid: Grid, rows: npt.ArrayLike, cols: npt.ArrayLike) -> tuple[DoubleArray, DoubleArray]:
    """Coordinates `x, y` of pixel positions, in the grid's system."""
    a, b, c, d, e, f = grid.transform
    row, col = np.asarray(rows, np.float64), np.asarray(cols, np.float64)
    return a * col + b * row + c, d * col + e * row + f


def to_lon_lat(grid: Grid, x: DoubleArray, y: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Longitude and latitude (EPSG:4326, degrees) of coordinates; not finite off the Earth.

    Raises:
        ValueError: no transformation leads there.
    """
    try:
        transformer = Transformer.from_crs(crs_of(grid), "EPSG:4326", always_xy=True)
    except ProjError:
        raise ValueError(
            f"no transformation leads from {crs_of(grid).name!r} to longitude and latitude"
        ) from None
    lon, lat = transformer.transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)
