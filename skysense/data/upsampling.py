"""Pixels split into whole numbers of smaller ones: what bilinear warping does, in plain arithmetic.

Bands of 20 m and 60 m on a grid of 10 m whose edges theirs share are the everyday case of
Sentinel-2, and a general warp takes many times as long for it.

Legend: C bands, h w source pixels, H W wanted pixels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """Where the wanted pixels of one axis lie among the source pixels."""

    first: int
    """The source pixel that the first place of the other arrays counts from; may be below 0."""
    count: int
    """Source pixels that are looked at."""
    low: npt.NDArray[np.int64]
    """`(N,)` source pixel before the centre of each wanted one, from `first`."""
    share: FloatArray
    """`(N,)` weight of the source pixel after that one."""
    nearest: npt.NDArray[np.int64]
    """`(N,)` source pixel that each wanted one lies in, from `first`."""

    @classmethod
    def of(cls, start: int, length: int, factor: int) -> "Axis":
        """Of wanted pixels `start...start + length - 1`, of which a source pixel has `factor`."""
        places = np.arange(start, start + length)
        centres = (places + 0.5) / factor - 0.5
        low = np.floor(centres).astype(np.int64)
        first = int(low[0])
        share = (centres - low).astype(np.float32)
        return cls(first, int(low[-1]) + 2 - first, low - first, share, places // factor - first)


def upsample(
    values: FloatArray, valid: BoolArray, rows: Axis, cols: Axis, nearest: bool
) -> tuple[FloatArray, BoolArray]:
    """Interpolate between the centres of source pixels, or repeat these.

    A wanted pixel is valid where the source pixel that it lies in is, and is the weighted mean of
    those valid ones among the four around it, as GDAL has it.

    Args:
        values: `(C, h, w)`, 0 where not valid; `h` and `w` are the counts of the axes.
        valid: `(h, w)`.
        rows: of H.
        cols: of W.
        nearest: repeat.

    Returns:
        `(C, H, W)`, 0 where not valid, and `(H, W)`.
    """
    seen = valid[rows.nearest[:, None], cols.nearest]
    if nearest:
        return values[:, rows.nearest[:, None], cols.nearest], seen
    out = _along(_along(values, rows, 1), cols, 2)
    if not valid.all():
        weight = _along(_along(valid.astype(np.float32)[None], rows, 1), cols, 2)
        out = np.where(seen, out / np.where(seen, weight, 1), np.float32(0))
    return out, seen


def _along(values: FloatArray, axis: Axis, dim: int) -> FloatArray:
    """Interpolate along one dimension of `(C, ., .)`."""
    share = axis.share[:, None] if dim == 1 else axis.share
    low, high = values.take(axis.low, dim), values.take(axis.low + 1, dim)
    low += (high - low) * share
    return low
