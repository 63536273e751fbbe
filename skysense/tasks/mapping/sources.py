"""What a map is made from: features on a grid, read window by window, whatever they lie in.

Legend: D bands, h w cells, N cells asked for.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from pyproj import Geod

from skysense.data.ground import lon_lat, moved
from skysense.data.rasters import reason
from skysense.geo import Grid, Window

FloatArray = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

WINDOW_BYTES = 64 << 20
"""Of a window's values as float32, at most, unless one block of the file is larger."""
_EARTH = Geod(ellps="WGS84")


class FeatureSource(ABC):
    """Features on a grid. Whoever opens one closes it, or uses it in `with`."""

    path: Path
    """Where they lie."""
    grid: Grid
    """Their cells."""
    channels: int
    """D."""
    tags: dict[str, str]
    """What is known of their making: `SKYSENSE_MODEL`, ..., as on a GeoTIFF of `skysense embed`."""
    written: int | None = None
    """Cells that held a vector when they were written, where that is known."""

    @property
    def extent(self) -> tuple[float, float]:
        """Rows and columns of cells that the scene fills: the last ones may reach beyond it."""
        height, width = self.grid.shape
        with suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
            options = json.loads(self.tags["SKYSENSE_PROVENANCE"])["options"]
            rows, cols = (float(pixels) / options["cell"] for pixels in options["pixels"])
            if height - 1 < rows <= height and width - 1 < cols <= width:
                return rows, cols
        return height, width

    @abstractmethod
    def windows(self) -> list[Window]:
        """All cells, each once, from top to bottom, in windows that are cheap to read."""

    @abstractmethod
    def read(self, window: Window) -> FloatArray:
        """`(D, h, w)` values, NaN in all bands where there is nothing.

        Raises:
            ValueError: the file is damaged.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def cells(self, rows: Indices, cols: Indices) -> FloatArray:
        """`(N, D)` values of single cells, NaN where there is nothing; reads each window once."""
        found = np.full((len(rows), self.channels), np.nan, np.float32)
        for window in self.windows():
            inside = _inside(window, rows, cols)
            if len(inside):
                values = self.read(window)
                found[inside] = values[:, rows[inside] - window.row, cols[inside] - window.col].T
        return found

    def valid_cells(self) -> Iterator[tuple[Window, npt.NDArray[np.bool_], FloatArray]]:
        """Each window with its mask `(h, w)` of valid cells and their values `(n, D)`.

        Raises:
            ValueError: the file is damaged, or holds less than was written.
        """
        count = 0
        for window in self.windows():
            values = self.read(window)
            valid = np.isfinite(values[0])
            count += int(valid.sum())
            yield window, valid, np.ascontiguousarray(values[:, valid].T)
        if self.written is not None and count != self.written:
            raise ValueError(
                f"{self.path}: {count} cells hold a vector, but {self.written} were written: a "
                "part of the store is missing; copy or make it again"
            )


def cell_sides(grid: Grid) -> tuple[float, float]:
    """Sides of a cell on the ground at the grid's centre, `(down, across)` in metres."""
    row, col = grid.shape[0] / 2, grid.shape[1] / 2
    here, below, beside = (lon_lat(grid, row + r, col + c) for r, c in ((0, 0), (1, 0), (0, 1)))
    return float(_EARTH.inv(*here, *below)[2]), float(_EARTH.inv(*here, *beside)[2])


def cell_areas(grid: Grid) -> npt.NDArray[np.float64]:
    """`(h,)` square metres of a cell of each row, on the ground at the grid's middle column."""
    a, b, c, d, e, f = grid.transform
    rows, cols = np.arange(grid.shape[0]) + 0.5, np.full(grid.shape[0], grid.shape[1] / 2)

    def at(down: float, across: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        row, col = rows + down, cols + across
        return moved(grid.crs, "EPSG:4326", a * col + b * row + c, d * col + e * row + f)

    height = np.asarray(_EARTH.inv(*at(-0.5, 0), *at(0.5, 0))[2], np.float64)
    width = np.asarray(_EARTH.inv(*at(0, -0.5), *at(0, 0.5))[2], np.float64)
    return np.asarray(np.nan_to_num(height * width), np.float64)  # 0 off the Earth


def cells_at_once(channels: int) -> int:
    """Cells of a window of `WINDOW_BYTES`."""
    return max(1, WINDOW_BYTES // (4 * channels))


def block_windows(shape: tuple[int, int], block: tuple[int, int], channels: int) -> list[Window]:
    """Windows of whole blocks: one row of them, of which as many as fit into a window."""
    (height, width), rows = shape, min(shape[0], block[0])
    fitting = max(1, cells_at_once(channels) // rows // block[1]) * block[1]
    cols = min(width, fitting)
    return [
        Window(row, col, min(rows, height - row), min(cols, width - col))
        for row in range(0, height, rows)
        for col in range(0, width, cols)
    ]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Word what goes wrong in a library while a file is read.

    Raises:
        ValueError: for an `OSError`, or an error of decoding.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
        why = reason(error).split(", /")[0]  # without the place in a library's source
        raise ValueError(f"{path}: cannot be read ({why})") from None


def _inside(window: Window, rows: Indices, cols: Indices) -> Indices:
    """Which of the cells lie in a window."""
    down, across = rows - window.row, cols - window.col
    within = (down >= 0) & (down < window.height) & (across >= 0) & (across < window.width)
    return np.flatnonzero(within)
