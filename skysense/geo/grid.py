"""A pixel grid on the ground: coordinate system, affine transform, shape. Immutable arithmetic.

Legend: pairs are `(row, col)` and `(H, W)`; a transform is `(a, b, c, d, e, f)` with
`x = a col + b row + c` and `y = d col + e row + f`, as in rasterio.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

Transform = tuple[float, float, float, float, float, float]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels; it may stick out of the grid it is taken from."""

    row: int
    """First row."""
    col: int
    """First column."""
    height: int
    """Rows."""
    width: int
    """Columns."""

    def scaled(self, numerator: int, denominator: int = 1) -> "Window":
        """The same ground in pixels that are `numerator / denominator` times as many.

        Raises:
            ValueError: an edge would not fall on a pixel edge.
        """
        values = [v * numerator for v in (self.row, self.col, self.height, self.width)]
        if any(v % denominator for v in values):
            raise ValueError(f"{self} does not divide by {denominator}/{numerator}")
        return Window(*(v // denominator for v in values))


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie."""

    crs: str
    """Coordinate reference system, as WKT or `EPSG:...`."""
    transform: Transform
    """Pixel `(col, row)` to `(x, y)`."""
    shape: tuple[int, int]
    """`(H, W)`."""

    def __post_init__(self) -> None:
        """Refuse empty and degenerate grids."""
        a, b, _, d, e, _ = self.transform
        if min(self.shape) < 1 or a * e - b * d == 0:
            raise ValueError(f"not a grid: shape {self.shape}, transform {self.transform}")

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Side lengths of a pixel, `(down, across)`, in units of the CRS."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(b, e), math.hypot(a, d)

    def xy(self, row: float, col: float) -> tuple[float, float]:
        """Coordinates of a pixel position; `(0, 0)` is the upper-left corner of the first pixel."""
        a, b, c, d, e, f = self.transform
        return a * col + b * row + c, d * col + e * row + f

    def rowcol(self, x: float, y: float) -> tuple[float, float]:
        """Pixel position of coordinates, the inverse of `xy`."""
        a, b, c, d, e, f = self.transform
        det = a * e - b * d
        dx, dy = x - c, y - f
        return (a * dy - d * dx) / det, (e * dx - b * dy) / det

    @property
    def bounds(self) -> Bounds:
        """`(left, bottom, right, top)` of the grid's bounding box."""
        height, width = self.shape
        corners = [self.xy(r, c) for r in (0, height) for c in (0, width)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def window(self, window: Window) -> "Grid":
        """The grid of a window; it may stick out of this one."""
        a, b, _, d, e, _ = self.transform
        x, y = self.xy(window.row, window.col)
        return replace(self, transform=(a, b, x, d, e, y), shape=(window.height, window.width))

    def rescaled(self, factor: float) -> "Grid":
        """The same ground in pixels `factor` times as wide and high; the shape rounds up."""
        a, b, c, d, e, f = self.transform
        height, width = (math.ceil(n / factor - 1e-9) for n in self.shape)
        transform = (a * factor, b * factor, c, d * factor, e * factor, f)
        return replace(self, transform=transform, shape=(height, width))

    def covering(self, bounds: Bounds) -> Window:
        """The smallest window, of whole pixels of this grid, that covers `bounds`.

        Worked example: pixels of 10 from x = 0; bounds 12..31 give columns 1, 2, 3.
        """
        left, bottom, right, top = bounds
        corners = [self.rowcol(x, y) for x in (left, right) for y in (bottom, top)]
        rows, cols = zip(*corners, strict=True)
        row, col = math.floor(min(rows) + 1e-6), math.floor(min(cols) + 1e-6)
        return Window(
            row, col, math.ceil(max(rows) - 1e-6) - row, math.ceil(max(cols) - 1e-6) - col
        )


def enclosing(windows: Iterable[Window]) -> Window:
    """The least window around some, of which there is at least one."""
    edges = [(w.row, w.col, w.row + w.height, w.col + w.width) for w in windows]
    tops, lefts, bottoms, rights = zip(*edges, strict=True)
    row, col = min(tops), min(lefts)
    return Window(row, col, max(bottoms) - row, max(rights) - col)


def intersect(first: Bounds, second: Bounds) -> Bounds | None:
    """The common part of two bounding boxes, `None` if they share no area."""
    left, bottom = max(first[0], second[0]), max(first[1], second[1])
    right, top = min(first[2], second[2]), min(first[3], second[3])
    return (left, bottom, right, top) if left < right and bottom < top else None
