"""Which ground and which dates of what was found are kept: bounding box, dates, clouds.

Legend: bbox = (west, south, east, north) in degrees, EPSG:4326; west > east lies over the
antimeridian.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pyproj import CRS

from skysense.data.acquisitions import Acquisition, Layer, finish
from skysense.data.ground import bounds_in, footprint
from skysense.data.products.clouds import cloud_share
from skysense.geo import Bounds, Grid, Window, enclosing, intersect

_APART = 4
"""How many times the pixels of its parts a window over the antimeridian may have."""

_PART = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T[\d:.]+Z?)?)?)?")


@dataclass(frozen=True)
class DateRange:
    """Days from the first to the last, both included; `None` is open."""

    first: np.datetime64 | None
    """First day."""
    last: np.datetime64 | None
    """Last day."""

    def __contains__(self, date: np.datetime64) -> bool:
        """Whether a known day lies in the range."""
        if np.isnat(date):
            return False
        after = self.first is None or date >= self.first
        return bool(after and (self.last is None or date <= self.last))

    def __str__(self) -> str:
        """`FIRST/LAST`, with `..` where it is open."""
        return "/".join(".." if day is None else str(day) for day in (self.first, self.last))

    @property
    def query(self) -> str:
        """As a STAC API wants it."""
        first = ".." if self.first is None else f"{self.first}T00:00:00Z"
        last = ".." if self.last is None else f"{self.last}T23:59:59Z"
        return f"{first}/{last}"


def parse_dates(text: str) -> DateRange:
    """`2021`, `2021-06`, `2021-06-15`, or two of those (or `..`) around a slash.

    Raises:
        ValueError: it is something else, or ends before it begins.
    """
    wrong = (
        f"dates {text!r} are not understood: give a day, a month, a year, or two of them as in "
        f"2021-03-01/2021-10"
    )
    parts = [part.strip() for part in text.split("/")]
    if len(parts) > 2 or not any(part not in ("", "..") for part in parts):
        raise ValueError(wrong)
    try:
        first, last = _days(parts[0])[0], _days(parts[-1])[1]
    except ValueError:
        raise ValueError(wrong) from None
    if first is not None and last is not None and first > last:
        raise ValueError(f"dates {text!r} end before they begin")
    return DateRange(first, last)


def _days(part: str) -> tuple[np.datetime64 | None, np.datetime64 | None]:
    """First and last day of a year, month or day."""
    if part in ("", ".."):
        return None, None
    match = _PART.fullmatch(part)
    if match is None:
        raise ValueError(part)
    start = np.datetime64("-".join(text for text in match.groups() if text))  # unit as written
    return start.astype("datetime64[D]"), (start + 1).astype("datetime64[D]") - 1


def check_bbox(bbox: Sequence[float]) -> Bounds:
    """Four numbers that are a place on the Earth.

    Raises:
        ValueError: they are not.
    """
    values = tuple(float(value) for value in bbox)
    if len(values) != 4 or not np.isfinite(values).all():
        raise ValueError(f"bbox {list(bbox)}: expected west, south, east, north in degrees")
    west, south, east, north = values
    if not (abs(west) <= 180 and abs(east) <= 180 and -90 <= south < north <= 90) or west == east:
        raise ValueError(
            f"bbox {list(bbox)}: expected west, south, east, north in degrees (south below north; "
            f"west above east only over the antimeridian)"
        )
    return west, south, east, north


def bbox_window(grid: Grid, bbox: Bounds) -> Window | None:
    """The pixels of a grid that cover what it shares with a bounding box, `None` for nothing.

    The box is cut to the ground of the grid first: a long box would be wide in another projection.
    A box over the antimeridian may meet a grid on both sides of it, as polar ones are met.

    Raises:
        ValueError: the two sides lie at opposite ends of the grid.
    """
    west, south, east, north = bbox
    east += 360 * (east < west)
    try:
        ground = bounds_in(grid, "EPSG:4326")
    except ValueError:  # no place there
        return None
    found: list[Window] = []
    for turn in (0, -360, 360):  # longitudes may be counted from 0, or on from 180
        shared = intersect((west + turn, south, east + turn, north), ground)
        if shared is not None:
            left, bottom, right, top = shared
            crs = grid.crs if CRS(grid.crs).is_geographic else "EPSG:4326"
            box = Grid(crs, (right - left, 0.0, left, 0.0, bottom - top, top), (1, 1))
            window = _inside(footprint(grid, box), grid)
            found += [] if window is None else [window]
    if not found:
        return None
    both = enclosing(found)
    if both.height * both.width > _APART * sum(w.height * w.width for w in found):
        raise ValueError(
            f"bbox {list(bbox)} lies at both ends of a raster that ends at the antimeridian: take "
            f"it in two, to 180 and from -180 on"
        )
    return both


def _inside(window: Window, grid: Grid) -> Window | None:
    """The part of a window that lies on the grid, `None` for nothing."""
    top, left = max(window.row, 0), max(window.col, 0)
    bottom = min(window.row + window.height, grid.shape[0])
    right = min(window.col + window.width, grid.shape[1])
    return Window(top, left, bottom - top, right - left) if top < bottom and left < right else None


def on_ground(layer: Layer, bbox: Bounds) -> Layer:
    """The acquisitions that have a pixel in a bounding box.

    Raises:
        ValueError: none has.
    """
    kept = [
        a
        for a in layer.acquisitions
        if any(bbox_window(f.grid, bbox) is not None for f in a.measured)
    ]
    if not kept:
        raise ValueError(
            f"no file of `{layer.card.name}` has a pixel in bbox {list(bbox)}; it is west, south, "
            f"east, north in degrees"
        )
    return finish(layer.card, kept)


def in_dates(layer: Layer, dates: DateRange) -> Layer:
    """The acquisitions of a range of days; those without a date are left out.

    Raises:
        ValueError: none lies there.
    """
    kept = [a for a in layer.acquisitions if a.date in dates]
    if not kept:
        have = sorted({str(a.date) for a in layer.acquisitions if not np.isnat(a.date)})
        there = f"from {have[0]} to {have[-1]}" if have else "without dates"
        raise ValueError(f"no acquisition of `{layer.card.name}` lies in {dates}; they are {there}")
    return finish(layer.card, kept)


def check_max_cloud(max_cloud: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 <= max_cloud <= 1:
        hint = f"; did you mean {max_cloud / 100:g}?" if 1 < max_cloud <= 100 else ""
        raise ValueError(f"max_cloud {max_cloud:g}: expected a share from 0 to 1{hint}")


def without_clouds(key: str, layer: Layer, grid: Grid, max_cloud: float) -> Layer:
    """The acquisitions whose share of clouds is not above a limit, and those of unknown share.

    The catalog's word counts first; else the share is estimated over the scene from the mask.

    Args:
        key: modality, for the message.
        layer: what to choose from.
        grid: ground of the scene.
        max_cloud: greatest share, 0 to 1.

    Raises:
        ValueError: all of them are cloudier, or a mask cannot be read.
    """
    check_max_cloud(max_cloud)
    shares = [_share(acquisition, grid) for acquisition in layer.acquisitions]
    pairs = list(zip(layer.acquisitions, shares, strict=True))
    cloudy = [(a, share) for a, share in pairs if share is not None and share > max_cloud]
    if not cloudy:
        return layer
    if len(cloudy) == len(pairs):
        best, share = min(cloudy, key=lambda pair: pair[1])
        raise ValueError(
            f"every date of {key} is cloudier than max_cloud {max_cloud:g}; the clearest is "
            f"{_day(best)} with {share:.2f}: raise `--max-cloud`, or widen the dates"
        )
    listed = ", ".join(f"{_day(a)} ({share:.2f})" for a, share in cloudy)
    warnings.warn(
        f"{key}: left out {len(cloudy)} of {len(pairs)} dates, cloudier than {max_cloud:g}: "
        f"{listed}",
        stacklevel=2,
    )
    lost = {id(acquisition) for acquisition, _ in cloudy}
    return replace(layer, acquisitions=tuple(a for a in layer.acquisitions if id(a) not in lost))


def _share(acquisition: Acquisition, grid: Grid) -> float | None:
    """Share of clouds of a date; a user's own mask counts before the product's."""
    if acquisition.cloud_cover is not None:
        return acquisition.cloud_cover
    for kind in ("cloud_mask", "scl", "qa_pixel"):
        if kind in acquisition.masks:
            return cloud_share(*acquisition.masks[kind], kind, grid)
    return None


def _day(acquisition: Acquisition) -> str:
    """The day in words."""
    return "undated" if np.isnat(acquisition.date) else str(acquisition.date)
