"""Classes and bits that are cloud: which pixels are clear, and what share of a date is not.

Three kinds of masks are known by the name of their band or file: `scl`, the scene classification
of Sentinel-2; `qa_pixel`, the bits of Landsat Collection 2; `cloud_mask`, a mask of the user's own,
where everything but 0 is cloud.

Sources: ESA Sentinel-2 L2A product specification; USGS LSDS-1619, Landsat 8-9 Collection 2 Level 2
data format control book, table of the pixel quality assessment bits.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rasterio import windows

from skysense.data.ground import footprint
from skysense.data.rasters import IO_ERRORS, Source, reason
from skysense.geo import Grid
from skysense.sensors.match import tokens

BoolArray = npt.NDArray[np.bool_]

CLOUDY = (0, 1, 3, 8, 9, 10)
"""Scene classes that are not ground: no data, saturated, shadow, clouds, cirrus."""

_FILL = 0b1
"""QA_PIXEL bit 0: nothing measured."""

_QA_CLOUDY = 0b11110
"""QA_PIXEL bits 1 to 4: dilated cloud, cirrus, cloud, cloud shadow."""

_SAMPLE = 256
"""Rows and columns that the share of clouds is estimated from, at most."""


def _scl(values: npt.NDArray[np.generic]) -> tuple[BoolArray, BoolArray]:
    return np.isin(values, CLOUDY), values != 0


def _qa_pixel(values: npt.NDArray[np.generic]) -> tuple[BoolArray, BoolArray]:
    bits = values.astype(np.int64)
    measured = (bits & _FILL) == 0
    return ~measured | ((bits & _QA_CLOUDY) != 0), measured


def _cloud_mask(values: npt.NDArray[np.generic]) -> tuple[BoolArray, BoolArray]:
    return values != 0, np.ones(values.shape, bool)


_CLEAR = {"cloud_mask": 0}
"""Kind to the value that says clear even where it is declared as nodata."""

_KINDS: Mapping[str, Callable[[npt.NDArray[np.generic]], tuple[BoolArray, BoolArray]]] = {
    "scl": _scl,
    "qa_pixel": _qa_pixel,
    "cloud_mask": _cloud_mask,
}
"""Kind to `(not clear, measured)` of stored values."""

_NAMES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"SCL"}), "scl"),
    (frozenset({"QA", "PIXEL"}), "qa_pixel"),
    (frozenset({"CLOUD", "MASK"}), "cloud_mask"),
    (frozenset({"CLOUDMASK"}), "cloud_mask"),
)
"""Words of a band's or file's name to the kind of mask it is."""


def find_masks(names: Sequence[str | None]) -> dict[str, int]:
    """Kind to index of the bands that are cloud masks, the first of each kind."""
    found: dict[str, int] = {}
    for i, name in enumerate(names):
        words = tokens(name or "")
        kind = next((kind for needed, kind in _NAMES if needed <= words), None)
        if kind is not None:
            found.setdefault(kind, i)
    return found


def is_clear(kind: str, values: npt.NDArray[np.float32], measured: BoolArray) -> BoolArray:
    """Which pixels a mask says are clear ground.

    Args:
        kind: of `find_masks`.
        values: `(H, W)` stored values of the mask.
        measured: `(H, W)`, the mask says something.

    Returns:
        `(H, W)` bool. Outside a mask of the user's own all is clear, outside a product's nothing.
    """
    cloudy, _ = _KINDS[kind](np.where(measured, values, 0))
    return ~(cloudy & measured) if kind == "cloud_mask" else measured & ~cloudy


def share_of(
    kind: str, values: npt.NDArray[np.generic], nodata: float | None = None
) -> float | None:
    """Share of what a mask measured that it calls cloud.

    Args:
        kind: of `find_masks`.
        values: stored values of the mask, of any shape.
        nodata: declared value; like what is not a finite number, it is not measured.

    Returns:
        0 to 1; `None` where nothing was measured.
    """
    told = np.isfinite(values)
    if nodata is not None and nodata != _CLEAR.get(kind):
        told &= values != nodata
    cloudy, measured = _KINDS[kind](np.where(told, values, 0))
    measured &= told
    count = int(measured.sum())
    return float((cloudy & measured).sum()) / count if count else None


def cloud_share(source: Source, index: int, kind: str, grid: Grid) -> float | None:
    """Share of a grid's measured pixels that a mask calls cloud, from a few of its pixels.

    Args:
        source: the mask.
        index: its band, from 0.
        kind: of `find_masks`.
        grid: the ground that is asked for.

    Returns:
        0 to 1; `None` where the mask has nothing on that ground.

    Raises:
        ValueError: it cannot be read.
    """
    under = footprint(source.grid, grid)
    top, left = max(under.row, 0), max(under.col, 0)
    bottom = min(under.row + under.height, source.grid.shape[0])
    right = min(under.col + under.width, source.grid.shape[1])
    if top >= bottom or left >= right:
        return None
    window = windows.Window(left, top, right - left, bottom - top)
    shape = (1, min(bottom - top, _SAMPLE), min(right - left, _SAMPLE))
    try:
        opened = source.open()
        try:
            values = opened.read([index + 1], window=window, out_shape=shape)[0]
            nodata = source.nodata
            if nodata is None:
                nodata = getattr(opened, "nodata", None)  # a catalog may not say it
        finally:
            opened.close()
    except IO_ERRORS as error:
        raise ValueError(f"{source.label}: cannot be read ({reason(error)})") from None
    return share_of(kind, values, nodata)
