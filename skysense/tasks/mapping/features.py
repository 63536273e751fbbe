"""A feature map on disk, read window by window: what `skysense embed` writes, or any like it.

Legend: D bands, h w cells, N cells asked for.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import Geod
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterWindow

from skysense.data.ground import lon_lat
from skysense.data.rasters import IO_ERRORS, inspect, reason
from skysense.geo import Grid, Window

FloatArray = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

MADE_BY = "SKYSENSE_MODEL"
"""The tag by which a feature map is known."""
_WINDOW_BYTES = 64 << 20
_CACHE_MB = 64
_EARTH = Geod(ellps="WGS84")


def is_feature_map(path: str | Path) -> bool:
    """Whether `skysense embed` made this file; a folder or a foreign file is none.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # then it is no map either
            with rasterio.open(path) as dataset:
                return MADE_BY in dataset.tags()
    except IO_ERRORS:
        return False


def cell_sides(grid: Grid) -> tuple[float, float]:
    """Sides of a cell on the ground at the grid's centre, `(down, across)` in metres."""
    row, col = grid.shape[0] / 2, grid.shape[1] / 2
    here, below, beside = (lon_lat(grid, row + r, col + c) for r, c in ((0, 0), (1, 0), (0, 1)))
    return float(_EARTH.inv(*here, *below)[2]), float(_EARTH.inv(*here, *beside)[2])


class FeatureMap:
    """Reads scaled values in windows whose memory depends on neither height nor width."""

    def __init__(self, path: str | Path) -> None:
        """Open a map.

        Raises:
            ValueError: no such file, no raster, without place on the ground, or a class map.
        """
        self.path = Path(path)
        self.grid = inspect(self.path).grid
        self._settings = rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_PAM_ENABLED="NO")
        self._settings.__enter__()
        try:
            self._dataset = rasterio.open(self.path)
        except BaseException:
            self._settings.__exit__()
            raise
        tags = self._dataset.tags()
        if "SKYSENSE_MAP" in tags:
            self.close()
            raise ValueError(f"{path} is a class map already; give the feature map it came from")
        self.tags = {key: value for key, value in tags.items() if key.startswith("SKYSENSE_")}
        self.channels = int(self._dataset.count)

    def __enter__(self) -> "FeatureMap":
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

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()
        self._settings.__exit__()

    def windows(self) -> list[Window]:
        """All cells from top to bottom, in windows of whole blocks of the file."""
        height, width = self.grid.shape
        block_height, block_width = self._dataset.block_shapes[0]
        budget = max(1, _WINDOW_BYTES // (4 * self.channels))
        rows = min(height, block_height)
        if rows == 1:  # a file of strips: several at a time
            rows = max(1, min(height, 256, budget // width))
        fitting = max(1, budget // rows // block_width) * block_width
        cols = min(width, fitting)
        return [
            Window(row, col, min(rows, height - row), min(cols, width - col))
            for row in range(0, height, rows)
            for col in range(0, width, cols)
        ]

    def read(self, window: Window) -> FloatArray:
        """`(D, h, w)` values, NaN in all bands where there is nothing.

        Raises:
            ValueError: the file is damaged.
        """
        place = RasterWindow(window.col, window.row, window.width, window.height)
        try:
            stored = self._dataset.read(window=place)
        except IO_ERRORS as error:
            raise ValueError(f"{self.path}: cannot be read ({reason(error)})") from None
        values = stored.astype(np.float32)
        if self._dataset.nodata is not None and np.isfinite(self._dataset.nodata):
            values[stored == self._dataset.nodata] = np.nan
        scales, offsets = (
            np.array(numbers, np.float32)[:, None, None]
            for numbers in (self._dataset.scales, self._dataset.offsets)
        )
        if (scales != 1).any() or (offsets != 0).any():
            values = values * scales + offsets
        values[:, ~np.isfinite(values).all(0)] = np.nan
        return np.asarray(values, np.float32)

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
        """Each window with its mask `(h, w)` of valid cells and their values `(n, D)`."""
        for window in self.windows():
            values = self.read(window)
            valid = np.isfinite(values[0])
            yield window, valid, np.ascontiguousarray(values[:, valid].T)


def _inside(window: Window, rows: Indices, cols: Indices) -> Indices:
    """Which of the cells lie in a window."""
    down, across = rows - window.row, cols - window.col
    within = (down >= 0) & (down < window.height) & (across >= 0) & (across < window.width)
    return np.flatnonzero(within)
