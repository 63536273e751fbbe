"""The rows of a map that is being made, in a file, read when they are asked for.

Legend: h w cells of the map, D width of a feature.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class StoredRows:
    """Rows `(D, w)` of float32, one after the other.

    They are read and not mapped: the pages of a mapped file count as memory of the process, and in
    the end those of a whole map.
    """

    def __init__(self, path: Path, channels: int, width: int) -> None:
        """Describe a file that is there.

        Args:
            path: of whole rows.
            channels: D.
            width: w.
        """
        self._path = path
        self._row = (channels, width)
        self.shape = (path.stat().st_size // (4 * channels * width), channels, width)

    def __len__(self) -> int:
        """How many there are."""
        return self.shape[0]

    def __getitem__(self, index: int) -> FloatArray:
        """One of them, `(D, w)`."""
        row: FloatArray = self.span(index, index + 1)[0]
        return row

    def __iter__(self) -> Iterator[FloatArray]:
        """One after the other, `(D, w)` each."""
        return (self[index] for index in range(len(self)))

    def span(self, first: int, stop: int) -> FloatArray:
        """Those from one on and before another, `(stop - first, D, w)`.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= first <= stop <= len(self):
            raise IndexError(f"there are {len(self)} rows, not {first}...{stop}")
        size = self._row[0] * self._row[1]
        values = np.fromfile(self._path, np.float32, (stop - first) * size, offset=4 * first * size)
        return values.reshape(-1, *self._row)
