"""What a store is made from: the rows of a finished map, read a band of rows at a time.

Legend: D bands of the map, h w its cells, n rows of a row band.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from skysense.geo import Grid
from skysense.inference.stores.provenance import Provenance

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
StoreType = Literal["float16", "float32", "int8"]
Progress = Callable[[int], None]

_BAND_BYTES = 16 << 20
"""Size of a row band as float32; a map whose single rows are larger has bands of one row."""


@dataclass(frozen=True)
class MapSource:
    """A finished map."""

    grid: Grid
    """Its cells."""
    channels: int
    """D."""
    rows: Callable[[int, int], FloatArray]
    """`(first, stop)` to `(D, stop - first, w)`, NaN where there is nothing; any rows, any time."""
    dates: Sequence[np.datetime64]
    """All acquisition days, NaT where unknown."""
    provenance: Provenance
    """Where it comes from."""

    @property
    def period(self) -> tuple[np.datetime64, np.datetime64] | None:
        """First and last acquisition day, `None` if no day is known."""
        days = np.array(self.dates, "datetime64[D]")
        days = days[~np.isnat(days)]
        return (days.min(), days.max()) if days.size else None


@dataclass(frozen=True)
class Cells:
    """The cells of a row band that hold a vector."""

    first: int
    """First row of the band."""
    height: int
    """Rows of the band."""
    rows: IntArray
    """`(N,)` row of each cell in the map."""
    cols: IntArray
    """`(N,)` column of each cell."""
    vectors: FloatArray
    """`(D, N)`."""


def bands(source: MapSource, size: int = _BAND_BYTES) -> Iterator[tuple[int, FloatArray]]:
    """The whole map from top to bottom.

    Args:
        source: the map.
        size: bytes of a band, at most, unless a single row is larger.

    Yields:
        `(first row, (D, n, w))`.
    """
    height, width = source.grid.shape
    step = max(1, size // (4 * source.channels * width))
    for first in range(0, height, step):
        stop = min(first + step, height)
        values = source.rows(first, stop)
        assert values.shape == (source.channels, stop - first, width), values.shape
        yield first, values


def valid_cells(values: FloatArray) -> BoolArray:
    """`(n, w)`: where all of `(D, n, w)` is finite."""
    return np.asarray(np.isfinite(values).all(axis=0))


def cells(source: MapSource, size: int = _BAND_BYTES) -> Iterator[Cells]:
    """The cells that hold a vector, band by band; bands without any are given as well."""
    for first, values in bands(source, size):
        rows, cols = np.nonzero(valid_cells(values))
        vectors = np.ascontiguousarray(values[:, rows, cols])  # (D, N)
        yield Cells(first, values.shape[1], rows + first, cols, vectors)
