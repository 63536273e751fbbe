"""What is kept of the windows that were read of a file: quantiles, shares, a few thousand pixels.

So thousands of files can be examined together, whatever was read of each.

Legend: C bands, H W pixels of a window, N pixels of all windows, n those that are kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skysense.data.products import find_masks
from skysense.data.products.clouds import share_of
from skysense.data.rasters import is_missing
from skysense.geo import Window

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_KEPT = 4096
"""Pixels that are kept."""

_QUANTILES = 1001
"""Quantiles that are kept of a band, from the least value to the largest."""

_CORNER = 16
"""Side of a corner that must be constant to be taken for a border, in pixels."""

_LEAST_BORDER, _WHOLE = 0.02, 0.995
"""Share of the pixels that a border has at least, and at which it is no border any more."""


@dataclass(frozen=True)
class Tile:
    """One window as read."""

    window: Window
    pixels: Array
    """`(C, H, W)` as stored."""
    mask: Bools
    """`(H, W)`, false where the file's own mask or alpha band says so."""


@dataclass(frozen=True)
class Sample:
    """What is kept of a file."""

    count: int = 0
    """Pixels that were read."""
    valid: int = 0
    """Those that are finite measurements: no nodata, no border, not zero in all bands.

    Zeros are what the cards of products call nodata; a few black pixels of a picture that go with
    them change no statistic."""
    infinite: float = 0.0
    """Share of the pixels with an infinite value."""
    missing: float = 0.0
    """Share of the pixels with a NaN that is neither nodata nor border."""
    border: tuple[float, float] | None = None
    """A value that fills a corner in all measured bands though it is not nodata, and its share."""
    has_nodata: bool = False
    """The declared nodata value occurs."""
    cloud: float | None = None
    """Share of the pixels that a cloud mask takes away."""
    levels: Mapping[int, tuple[int, float, float]] = field(default_factory=dict)
    """Different values of each band that was not measured, the least and the largest."""
    ordered: Mapping[int, Floats] = field(default_factory=dict)
    """Evenly spaced quantiles of each measured band's valid values, ascending; none if none."""
    pixels: Array = field(default_factory=lambda: np.zeros((0, 0)), repr=False)
    """`(C, n)` valid pixels as stored."""

    def quantile(self, index: int, q: float) -> float:
        """Quantile of a band's valid values; NaN if there is none."""
        values = self.ordered[index]
        return float(values[round(q * (values.size - 1))]) if values.size else math.nan

    def share_below(self, index: int, value: float) -> float:
        """Share of a band's valid values below one; 0 if there is none."""
        values = self.ordered[index]
        return float(np.searchsorted(values, value) / values.size) if values.size else 0.0

    @property
    def median(self) -> float:
        """Median of the medians of all measured bands; NaN if nothing is valid."""
        medians = [self.quantile(i, 0.5) for i, values in self.ordered.items() if values.size]
        return float(np.median(medians)) if medians else math.nan


def summarize(
    tiles: Sequence[Tile],
    shape: tuple[int, int],
    measured: Sequence[int],
    names: Sequence[str | None],
    nodata: float | None,
) -> Sample:
    """Keep what the checks need.

    Args:
        tiles: the windows.
        shape: `(H, W)` of the grid that the windows are of.
        measured: bands that may be measurements.
        names: of all bands.
        nodata: declared value.
    """
    if not tiles:
        return Sample()
    every = np.concatenate([t.pixels.reshape(len(t.pixels), -1) for t in tiles], 1)  # (C, N)
    others = {i: _levels(every[i]) for i in range(len(every)) if i not in measured}
    cloud = _cloud(every, names, nodata)
    if not measured:
        return Sample(every.shape[1], cloud=cloud, levels=others)
    pixels = every[list(measured)]
    seen = np.concatenate([tile.mask.ravel() for tile in tiles])
    declared = np.zeros_like(seen)
    if nodata is not None:
        declared = equals(pixels, nodata).all(0) | is_missing(pixels, nodata, pixels.dtype)
    seen &= ~declared
    border = _border(tiles, shape, measured, nodata, pixels, seen)
    if border is not None:
        seen &= ~equals(pixels, border[0]).all(0)
    gaps = [np.isinf(pixels).any(0) & seen, np.isnan(pixels).any(0) & seen]
    valid = seen & ~gaps[0] & ~gaps[1] & (pixels != 0).any(0)
    kept = every[:, valid]
    return Sample(
        every.shape[1],
        int(valid.sum()),
        float(gaps[0].mean()),
        float(gaps[1].mean()),
        border,
        bool(declared.any()),
        cloud,
        others,
        {i: _quantiles(kept[i]) for i in measured},
        kept[:, :: max(1, -(-kept.shape[1] // _KEPT))].copy(),
    )


def equals(pixels: Array, value: float) -> Bools:
    """Where pixels hold a value, NaN included."""
    return np.asarray(np.isnan(pixels) if math.isnan(value) else pixels == value)


def _quantiles(values: Array) -> Floats:
    """Least to largest value in even steps."""
    if values.size == 0:
        return np.zeros(0)
    places = np.linspace(0, values.size - 1, _QUANTILES).round().astype(int)
    ordered: Floats = np.sort(values)[places].astype(np.float64)
    return ordered


def _levels(values: Array) -> tuple[int, float, float]:
    """How many different values, the least, the largest."""
    if np.iscomplexobj(values):
        return 0, math.nan, math.nan
    distinct = np.unique(values)
    return distinct.size, float(distinct[0]), float(distinct[-1])


def _cloud(pixels: Array, names: Sequence[str | None], nodata: float | None) -> float | None:
    """Share of what was measured that the first cloud mask takes away, if there is one."""
    masks = find_masks(names).items()
    shares = (share_of(kind, pixels[i].astype(np.float32), nodata) for kind, i in masks)
    return next((share for share in shares if share is not None), None)


def _border(
    tiles: Sequence[Tile],
    shape: tuple[int, int],
    measured: Sequence[int],
    nodata: float | None,
    pixels: Array,
    seen: Bools,
) -> tuple[float, float] | None:
    """A constant that fills a corner, and its share of all pixels."""
    for value in dict.fromkeys(v for tile in tiles for v in _corners(tile, shape, measured)):
        if nodata is not None and (value == nodata or (math.isnan(value) and math.isnan(nodata))):
            continue
        share = float((equals(pixels, value).all(0) & seen).mean())
        if _LEAST_BORDER <= share < _WHOLE:
            return value, share
    return None


def _corners(tile: Tile, shape: tuple[int, int], measured: Sequence[int]) -> list[float]:
    """Values of the file's corners that lie in a window and are constant there."""
    height, width = shape
    window, found = tile.window, []
    side = min(_CORNER, max(1, min(height, width) // 4))
    for row, col in ((0, 0), (0, width - side), (height - side, 0), (height - side, width - side)):
        top, left = row - window.row, col - window.col
        if min(top, left) < 0 or top + side > window.height or left + side > window.width:
            continue
        block = tile.pixels[list(measured), top : top + side, left : left + side]
        value = float(block[0, 0, 0])
        mask = tile.mask[top : top + side, left : left + side]
        if mask.all() and equals(block, value).all():
            found.append(value)
    return found
