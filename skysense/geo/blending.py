"""Blend overlapping tiles of a map, holding one row of tiles in memory.

Legend: D channels, h w cells of the map.
"""

import numpy as np
import numpy.typing as npt

from skysense.geo.grid import Window

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def ramp(length: int, before: int, after: int) -> FloatArray:
    """Weights along one axis of a tile: rising over the overlap before, falling over that after.

    Args:
        length: cells of the tile.
        before: cells shared with the tile before; 0 at the scene's edge, where weights stay 1.
        after: cells shared with the tile after.

    Returns:
        `(length,)`, a raised cosine; in an overlap of n cells the two tiles' weights sum to 1:
        `ramp(8, 0, 4)[4:] + ramp(8, 4, 0)[:4] == 1`.
    """
    weights = np.ones(length, np.float32)
    for cells, side in ((before, slice(None)), (after, slice(None, None, -1))):
        n = min(cells, length)
        if n:
            steps = (np.arange(n, dtype=np.float32) + 0.5) / cells
            weights[side][:n] *= 0.5 - 0.5 * np.cos(np.pi * steps)
    return weights


class RowBlender:
    """Accumulates weighted tiles row by row and hands out the rows that no later tile touches."""

    def __init__(
        self, channels: int, shape: tuple[int, int], overlap: int, tile: int, top: int = 0
    ) -> None:
        """Prepare an empty band.

        Args:
            channels: D.
            shape: cells of the whole map, `(h, w)`.
            overlap: cells that neighbouring tiles share.
            tile: cells along a tile's side.
            top: first row of the first tiles that will come.
        """
        self._shape = shape
        self._overlap = overlap
        self._top = top
        height = min(tile, shape[0])
        self._sum = np.zeros((channels, height, shape[1]), np.float32)
        self._weight = np.zeros((height, shape[1]), np.float32)

    def add(self, window: Window, values: FloatArray, valid: BoolArray) -> None:
        """Add one tile.

        Args:
            window: its place in cells of the map.
            values: `(D, h, w)`.
            valid: `(h, w)`; cells that are not valid add nothing.
        """
        rows, cols = self._shape
        o = self._overlap
        below = window.row + window.height < rows
        right = window.col + window.width < cols
        vertical = ramp(window.height, o if window.row else 0, o if below else 0)
        horizontal = ramp(window.width, o if window.col else 0, o if right else 0)
        weights = vertical[:, None] * horizontal * valid
        top = window.row - self._top
        place = (slice(top, top + window.height), slice(window.col, window.col + window.width))
        self._sum[(slice(None), *place)] += np.where(valid, values, 0) * weights
        self._weight[place] += weights

    def finish(self, next_row: int) -> tuple[int, FloatArray]:
        """Hand out the rows above `next_row` and keep the rest.

        Args:
            next_row: first row of the next row of tiles, or the map's height after the last.

        Returns:
            `(first row, values (D, rows, w))`, NaN where no tile was valid.
        """
        top = self._top
        done = min(next_row, self._shape[0]) - top
        weight = self._weight[:done]
        values = np.full((self._sum.shape[0], *weight.shape), np.nan, np.float32)
        seen = np.broadcast_to(weight > 0, values.shape)
        np.divide(self._sum[:, :done], weight, out=values, where=seen)
        kept = self._weight.shape[0] - done
        for array in (self._sum, self._weight):
            array[..., :kept, :] = array[..., done:, :].copy()
            array[..., kept:, :] = 0
        self._top += done
        return top, values
