"""Features in a Zarr store of `skysense embed`, read chunk by chunk.

Legend: D bands, h w cells.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from skysense._optional import require
from skysense.geo import Grid, Window
from skysense.tasks.mapping.sources import FeatureSource, FloatArray, block_windows, reading
from skysense.tasks.mapping.store_facts import STORE_KEY, StoreFacts, read_facts

ZarrGroup = Any
"""`zarr.Group`, of an optional package."""

_BLOSC_HEAD = struct.Struct("<4B3I")
"""Two versions, flags, size of a number; bytes unpacked, of a block, packed with this head."""


class ZarrFeatures(FeatureSource):
    """Reads windows of whole chunks; memory depends on neither height nor width."""

    def __init__(self, path: str | Path) -> None:
        """Open a store.

        Raises:
            ValueError: zarr is not installed; it is no store of `skysense embed`, or damaged.
        """
        self.path = Path(path)
        library = require("zarr", "stores")
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is not a Zarr store: a folder is expected")
        with reading(self.path):
            group = library.open_group(str(self.path), mode="r")
            attributes = dict(group.attrs)
        self._facts = _facts(self.path, attributes)
        with reading(self.path):
            self._array = group["features"]
            *leading, channels, height, width = self._array.shape
            *_, rows, cols = self._array.chunks
        self.grid, self.tags = self._facts.grid, self._facts.tags
        self.channels, self.written = int(channels), self._facts.written
        self._chunk = (int(rows), int(cols))
        if (height, width) != self.grid.shape or math.prod(leading) != 1:
            raise ValueError(
                f"{self.path}: features of shape {self._array.shape} are not one map of "
                f"{self.grid.shape[0]} x {self.grid.shape[1]} cells"
            )
        if self._facts.channels not in (None, self.channels):
            raise ValueError(
                f"{self.path}: {self._facts.channels} scales for {self.channels} dimensions"
            )

    def close(self) -> None:
        """Nothing is held open."""

    def windows(self) -> list[Window]:
        """All cells from top to bottom, in windows of whole chunks."""
        return block_windows(self.grid.shape, self._chunk, self.channels)

    def read(self, window: Window) -> FloatArray:
        """`(D, h, w)` values, NaN in all bands where there is nothing.

        Raises:
            ValueError: a chunk is damaged.
        """
        place = (
            ...,
            slice(window.row, window.row + window.height),
            slice(window.col, window.col + window.width),
        )
        with reading(self.path):
            self._check_chunks(window)
            stored = np.asarray(self._array[place])
        values = self._facts.decode(stored.reshape(-1, window.height, window.width), axis=0)
        values[:, ~np.isfinite(values).all(0)] = np.nan
        return values

    def _check_chunks(self, window: Window) -> None:
        """Refuse chunks that were cut short: Blosc would read on behind them, and may crash."""
        if [type(codec).__name__ for codec in self._array.compressors] != ["BloscCodec"]:
            return
        zeros = (0,) * (self._array.ndim - 2)
        whole = math.prod(self._array.chunks) * self._array.dtype.itemsize
        down, across = self._chunk
        for row in range(window.row // down, -(-(window.row + window.height) // down)):
            for col in range(window.col // across, -(-(window.col + window.width) // across)):
                key = self._array.metadata.encode_chunk_key((*zeros, row, col))
                file = self.path / "features" / key
                if file.exists():  # a chunk without any vector is not written
                    _check_blosc(file, whole)


def _check_blosc(file: Path, whole: int) -> None:
    """Compare a file's size, and what it unpacks to, with what its head says."""
    with file.open("rb") as opened:
        head = opened.read(_BLOSC_HEAD.size)
    sizes = _BLOSC_HEAD.unpack(head) if len(head) == _BLOSC_HEAD.size else None
    if sizes is None or sizes[4] != whole or sizes[6] != file.stat().st_size:
        raise ValueError(f"the chunk {file.name} in {file.parent} is damaged")


def _facts(path: Path, attributes: dict[str, Any]) -> StoreFacts:
    """What the group says."""
    try:
        a, b, c, d, e, f = map(float, attributes["spatial:transform"])
        height, width = map(int, attributes["spatial:shape"])
        crs = str(attributes.get("proj:code") or attributes["proj:wkt2"])
        grid = Grid(crs, (a, b, c, d, e, f), (height, width))
    except (LookupError, TypeError, ValueError):
        grid = None
    return read_facts(path, attributes.get(STORE_KEY), grid)
