"""The outline of a map on the Earth, for GeoJSON: cut at the antimeridian, closed at a pole.

Longitudes are first made continuous along the outline. An outline that then ends 360 degrees from
where it began runs around a pole, and one that touches a pole is open there: both are closed along
the pole's parallel. The result is cut where it crosses 180 degrees.

Source: ours, after RFC 7946, 3.1.9 (antimeridian) and 5.2 (bounding boxes). Legend: P points.
"""

from typing import Any

import numpy as np

from skysense.geo import Grid
from skysense.inference.stores.places import DoubleArray, crs_of, points, to_lon_lat

_EDGE = 32
"""Pieces of each side of the map."""

_POLE = 90 - 1e-6
_NARROW = 1e-6
"""Degrees: thinner parts are rounding."""


def footprint(grid: Grid) -> tuple[dict[str, Any], list[float]]:
    """Outline and bounding box in longitude and latitude (EPSG:4326).

    Returns:
        A GeoJSON Polygon or MultiPolygon; `[west, south, east, north]` in degrees, where west is
        greater than east for a map across the antimeridian.

    Raises:
        ValueError: the outline lies off the Earth.
    """
    ring = _ring(grid)
    low, high = ring[:, 0].min(), ring[:, 0].max()
    south, north = (round(float(v), 7) for v in (ring[:, 1].min(), ring[:, 1].max()))
    if high - low > 360 - _NARROW:
        ring = _whole_turn(ring)
        parts = [ring]
        west, east = -180.0, 180.0
    else:
        parts = _cut(ring)
        west, east = (round(float(v), 7) for v in (parts[0][:, 0].min(), parts[-1][:, 0].max()))
    polygons = [[_closed(part)] for part in parts]
    if len(polygons) == 1:
        geometry = {"type": "Polygon", "coordinates": polygons[0]}
    else:
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
    return geometry, [west, south, east, north]


def _ring(grid: Grid) -> DoubleArray:
    """Outline `(P, 2)` with continuous longitudes, closed at a pole where it needs to be.

    Raises:
        ValueError: less than a triangle of it lies on the Earth.
    """
    lon, lat = to_lon_lat(grid, *points(grid, *_sides(grid)))
    there = np.isfinite(lon) & np.isfinite(lat) & (np.abs(lat) <= 90 + 1e-9)
    lon, lat = lon[there], lat[there]
    if lon.size < 3:
        raise ValueError(
            f"the outline of the map lies off the Earth: {grid.bounds} in {crs_of(grid).name}"
        )
    polar = np.abs(lat) > _POLE
    touches = int(polar.sum()) == 1  # several are the edge of a map of the whole Earth
    if touches:
        start = int(np.argmax(polar))
        lon, lat = np.roll(lon, -start)[1:], np.roll(lat, -start)[1:]
    else:
        lon, lat = np.append(lon, lon[0]), np.append(lat, lat[0])
    lon = np.unwrap(lon, period=360)
    if touches or abs(lon[-1] - lon[0]) > 180:
        pole = np.copysign(90.0, lat.mean())
        if not touches:
            lon, lat = _doubled(lon, lat)
        lon, lat = np.append(lon, [lon[-1], lon[0]]), np.append(lat, [pole, pole])
    return np.stack([lon, lat], axis=1)


def _sides(grid: Grid) -> tuple[DoubleArray, DoubleArray]:
    """Pixel positions `rows, cols` along the four sides, none twice."""
    height, width = grid.shape
    steps = np.arange(_EDGE) / _EDGE
    none, all_ = np.zeros(_EDGE), np.ones(_EDGE)
    rows = np.concatenate([none, steps, all_, 1 - steps]) * height
    cols = np.concatenate([steps, all_, 1 - steps, none]) * width
    return rows, cols


def _doubled(lon: DoubleArray, lat: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """An outline around a pole, eastward, twice, so that any whole turn can be cut from it."""
    if lon[-1] < lon[0]:
        lon, lat = lon[::-1], lat[::-1]
    return np.concatenate([lon, lon[1:] + 360]), np.concatenate([lat, lat[1:]])


def _whole_turn(ring: DoubleArray) -> DoubleArray:
    """A whole turn of a ring of at least one: from -180 to 180."""
    low, high = ring[:, 0].min(), ring[:, 0].max()
    if high - low < 540:  # a map of all longitudes, that may begin anywhere
        south, north = ring[:, 1].min(), ring[:, 1].max()
        return np.array([[-180, south], [180, south], [180, north], [-180, north]])
    turn = 360 * np.ceil((low + 180) / 360)
    part = _clip(_clip(ring, turn - 180, 1), turn + 180, -1)
    return part - (turn, 0)


def _cut(ring: DoubleArray) -> list[DoubleArray]:
    """Parts of a ring between meridians of 180 degrees, west to east, each in -180...180."""
    first = 360 * np.floor((ring[:, 0].min() + 180) / 360)
    parts = []
    for turn in (first, first + 360):
        part = _clip(_clip(ring, turn - 180, 1), turn + 180, -1)
        if len(part) > 2 and np.ptp(part[:, 0]) > _NARROW:
            parts.append(part - (turn, 0))
    return parts or [np.clip(ring - (first, 0), (-180, -90), (180, 90))]


def _clip(ring: DoubleArray, meridian: float, side: int) -> DoubleArray:
    """The part of a ring east (`side` 1) or west (-1) of a meridian.

    Source: Sutherland and Hodgman, Reentrant polygon clipping, 1974.
    """
    kept: list[DoubleArray] = []
    for here, after in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        inside, next_inside = (side * (p[0] - meridian) >= 0 for p in (here, after))
        if inside:
            kept.append(here)
        if inside != next_inside:
            share = (meridian - here[0]) / (after[0] - here[0])
            kept.append(np.array([meridian, here[1] + share * (after[1] - here[1])]))
    return np.array(kept).reshape(-1, 2)


def _closed(part: DoubleArray) -> list[list[float]]:
    """A ring as GeoJSON has it: counterclockwise, the first point repeated, 1 cm fine."""
    x, y = part.T
    area = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    ordered = part if area > 0 else part[::-1]
    fine = [[round(float(a), 7), round(float(b), 7)] for a, b in ordered]
    kept = [p for p, before in zip(fine, [fine[-1], *fine[:-1]], strict=True) if p != before]
    return [*kept, kept[0]]
