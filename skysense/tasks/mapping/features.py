"""A feature map as a raster: the GeoTIFF that `skysense embed` writes, or any like it.

Legend: D bands, h w cells.
"""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterWindow

from skysense.data.caching import LEAST_BYTES
from skysense.data.rasters import IO_ERRORS, inspect, reason
from skysense.geo import Window
from skysense.tasks.mapping.sources import (
    FeatureSource,
    FloatArray,
    block_windows,
    cells_at_once,
)

MADE_BY = "SKYSENSE_MODEL"
"""The tag by which a feature map is known."""
CLASS_MAP = "SKYSENSE_MAP"
"""That of a class map."""


def is_feature_map(path: str | Path) -> bool:
    """Whether `skysense embed` made this raster; a folder or a foreign file is none.

    Raises:
        ValueError: there is no such file.
    """
    return MADE_BY in _tags(Path(path))


def is_class_map(path: str | Path) -> bool:
    """Whether `skysense map` made this raster; a folder or a foreign file is none.

    Raises:
        ValueError: there is no such file.
    """
    return CLASS_MAP in _tags(Path(path))


def _tags(path: Path) -> dict[str, str]:
    """The metadata of a raster; of anything else nothing."""
    if not path.exists():
        raise ValueError(f"{path}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # then it is no map either
            with rasterio.open(path) as dataset:
                return dict(dataset.tags())
    except IO_ERRORS:
        return {}


class FeatureMap(FeatureSource):
    """Reads scaled values in windows whose memory depends on neither height nor width."""

    def __init__(self, path: str | Path) -> None:
        """Open a map.

        Raises:
            ValueError: no such file, no raster, without place on the ground, or a class map.
        """
        self.path = Path(path)
        self.grid = inspect(self.path).grid
        self._settings = rasterio.Env(GDAL_CACHEMAX=LEAST_BYTES, GDAL_PAM_ENABLED="NO")
        self._settings.__enter__()
        try:
            self._dataset = rasterio.open(self.path)
        except BaseException:
            self._settings.__exit__()
            raise
        tags = self._dataset.tags()
        if CLASS_MAP in tags:
            self.close()
            raise ValueError(f"{path} is a class map already; give the feature map it came from")
        self.tags = {key: value for key, value in tags.items() if key.startswith("SKYSENSE_")}
        self.channels = int(self._dataset.count)

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()
        self._settings.__exit__()

    def windows(self) -> list[Window]:
        """All cells from top to bottom, in windows of whole blocks of the file."""
        height, width = self.grid.shape
        rows, cols = self._dataset.block_shapes[0]
        if min(height, rows) == 1:  # a file of strips: several at a time
            rows = max(1, min(height, 256, cells_at_once(self.channels) // width))
        return block_windows(self.grid.shape, (rows, cols), self.channels)

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
