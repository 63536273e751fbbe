"""Control points of a radar image: which line and pixel shows a place on the ground.

The points lie on a grid of lines and pixels; between them places are bilinear in a plane, and the
inverse is found by Newton's method. This is exact at the points, as a thin-plate spline is, and
heights count in so far as the points have them: it is no terrain correction.

Legend: J K lines and pixels of the grid of points; a place is `(x, y)` in the plane.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skysense.data.ground import moved
from skysense.data.rasters import canonical
from skysense.geo import Grid

Floats = npt.NDArray[np.float64]

Point = tuple[float, float, float, float, float]
"""Line, pixel (of a centre, from 0), longitude, latitude in degrees, height in metres."""

_STEPS = 12
"""Of Newton's method: neighbouring cells differ by some percent, so each step gains a digit."""

_SETTLED = 1e-5
"""The last step, in cells, below which a place counts as found."""


@dataclass(frozen=True, eq=False)
class ControlPoints:
    """A grid of control points in a plane."""

    crs: str
    """The plane: UTM of the middle of the image, polar stereographic beyond 84 degrees."""
    lines: Floats
    """`(J,)` ascending."""
    pixels: Floats
    """`(K,)` ascending."""
    x: Floats
    """`(J, K)` metres."""
    y: Floats
    """`(J, K)` metres."""
    heights: tuple[float, float]
    """The lowest and the highest, in metres."""

    def locate(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Line and pixel of places in the plane, of any shape; NaN where none is found.

        Places beside the image get lines and pixels beyond its edges.
        """
        target = np.stack([x, y])
        rows, cols = self._roughly(target)
        step = np.full(rows.shape, np.inf)
        with np.errstate(all="ignore"):  # places that are not finite
            for _ in range(_STEPS):
                here, down, across = self._around(rows, cols)
                miss = target - here
                det = down[0] * across[1] - down[1] * across[0]
                by_row = (miss[0] * across[1] - miss[1] * across[0]) / det
                by_col = (down[0] * miss[1] - down[1] * miss[0]) / det
                rows, cols = rows + by_row, cols + by_col
                step = np.hypot(by_row, by_col)
            found = step < _SETTLED
        lines, pixels = _between(self.lines, rows), _between(self.pixels, cols)
        return np.where(found, lines, np.nan), np.where(found, pixels, np.nan)

    def _roughly(self, target: Floats) -> tuple[Floats, Floats]:
        """Place in the grid of points, counted in cells, by the best affine map."""
        rows, cols = np.indices(self.x.shape).reshape(2, -1)
        centre = np.array([self.x.mean(), self.y.mean()])
        size = max(np.ptp(self.x), np.ptp(self.y))
        known = np.column_stack([self.x.ravel(), self.y.ravel()]) - centre
        ones = np.ones((len(known), 1))
        fit, *_ = np.linalg.lstsq(np.hstack([known / size, ones]), np.stack([rows, cols], 1), None)
        dx, dy = (target[0] - centre[0]) / size, (target[1] - centre[1]) / size
        first, second = (dx * fit[0, i] + dy * fit[1, i] + fit[2, i] for i in (0, 1))
        return first, second

    def _around(self, rows: Floats, cols: Floats) -> tuple[Floats, Floats, Floats]:
        """Bilinear place `(2, ...)` and its slopes along rows and columns."""
        i, v = _cell(rows, len(self.lines))
        j, u = _cell(cols, len(self.pixels))
        plane = np.stack([self.x, self.y])
        a, b = plane[:, i, j], plane[:, i, j + 1]
        c, d = plane[:, i + 1, j], plane[:, i + 1, j + 1]
        upper, lower = a + (b - a) * u, c + (d - c) * u
        return upper + (lower - upper) * v, lower - upper, (b - a) * (1 - v) + (d - c) * v

    def grid(self, shape: tuple[int, int]) -> Grid:
        """A north-up grid over the image, its pixels of whole metres with edges on multiples.

        Args:
            shape: lines and pixels of the image.
        """
        rows, cols = (
            np.array([_outside(own, -0.5), *range(len(own)), _outside(own, size - 0.5)])
            for own, size in zip((self.lines, self.pixels), shape, strict=True)
        )
        (x, y), _, _ = self._around(*np.meshgrid(rows, cols, indexing="ij"))
        size = self._pixel()
        left, top = math.floor(x.min() / size) * size, math.ceil(y.max() / size) * size
        width, height = math.ceil((x.max() - left) / size), math.ceil((top - y.min()) / size)
        return Grid(self.crs, (size, 0.0, left, 0.0, -size, top), (height, width))

    def _pixel(self) -> float:
        """Side of a pixel in whole metres: the mean of both directions, over the whole image."""
        down = np.hypot(self.x[-1] - self.x[0], self.y[-1] - self.y[0]).mean()
        across = np.hypot(self.x[:, -1] - self.x[:, 0], self.y[:, -1] - self.y[:, 0]).mean()
        sides = down / np.ptp(self.lines), across / np.ptp(self.pixels)
        return float(max(1, round(math.sqrt(sides[0] * sides[1]))))


def control_points(points: Sequence[Point]) -> ControlPoints:
    """Put control points on their grid.

    Raises:
        ValueError: they are no grid of at least 2 x 2.
    """
    table = np.array(sorted(points), np.float64).reshape(-1, 5)
    lines, pixels = np.unique(table[:, 0]), np.unique(table[:, 1])
    shape = (len(lines), len(pixels))
    full = np.stack(np.meshgrid(lines, pixels, indexing="ij"), -1).reshape(-1, 2)
    if min(shape) < 2 or len(full) != len(table) or (full != table[:, :2]).any():
        raise ValueError(f"its {len(table)} ground control points are no grid of lines and pixels")
    lon, lat = (table[:, i].reshape(shape) for i in (2, 3))
    if not (np.abs(lat) <= 90).all() or not np.isfinite(lon).all():
        raise ValueError("a ground control point has no longitude and latitude")
    crs = _plane(float(lon[shape[0] // 2, shape[1] // 2]), float(lat.mean()))
    x, y = moved("EPSG:4326", crs, lon, lat)
    return ControlPoints(crs, lines, pixels, x, y, (table[:, 4].min(), table[:, 4].max()))


def _plane(lon: float, lat: float) -> str:
    """The plane around a place."""
    if abs(lat) > 84:
        return canonical("EPSG:32661" if lat > 0 else "EPSG:32761")
    zone = int((lon + 180) // 6) % 60 + 1
    return canonical(f"EPSG:{(32600 if lat >= 0 else 32700) + zone}")


def _cell(places: Floats, count: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The cell that a place among points lies in, the nearest for those outside, and where."""
    first = np.clip(np.floor(np.nan_to_num(places)), 0, count - 2).astype(np.int64)
    return first, places - first


def _between(own: Floats, places: Floats) -> Floats:
    """Values at places that are counted in cells, on beyond the ends."""
    first, part = _cell(places, len(own))
    return np.asarray(own[first] + (own[first + 1] - own[first]) * part)


def _outside(own: Floats, value: float) -> float:
    """Place in cells of a value at or beyond one of the ends."""
    i = 0 if value < own[1] else len(own) - 2
    return float(i + (value - own[i]) / (own[i + 1] - own[i]))
