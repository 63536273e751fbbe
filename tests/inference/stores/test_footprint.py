import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from skysense.geo import Grid
from skysense.inference.stores.footprint import footprint


def rings(geometry):
    """All outer rings, each `(P, 2)`."""
    parts = geometry["coordinates"]
    return [np.array(part[0]) for part in ([parts] if geometry["type"] == "Polygon" else parts)]


def area(ring):
    """Signed, in square degrees; counterclockwise is positive."""
    x, y = ring[:-1].T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def contains(geometry, lon, lat):
    """Even-odd rule."""
    crossings = 0
    for ring in rings(geometry):
        for (x1, y1), (x2, y2) in pairwise(ring):
            if (y1 > lat) != (y2 > lat) and lon < x1 + (lat - y1) / (y2 - y1) * (x2 - x1):
                crossings += 1
    return crossings % 2 == 1


def in_box(box, lon, lat):
    """Whether a place is in a GeoJSON bounding box."""
    west, south, east, north = box
    inside = west <= lon <= east if west <= east else lon >= west or lon <= east
    return inside and south <= lat <= north


CASES = {
    "utm": Grid("EPSG:32632", (10, 0, 600_000, 0, -10, 5_340_000), (100, 100)),
    "rotated": Grid("EPSG:32632", (8, 6, 600_000, 6, -8, 5_340_000), (100, 100)),
    "antimeridian, utm": Grid("EPSG:32601", (1000, 0, 200_000, 0, -1000, 7_300_000), (200, 200)),
    "antimeridian, east of 180": Grid("EPSG:4326", (1, 0, 170, 0, -1, 10), (20, 20)),
    "antimeridian, west of -180": Grid("EPSG:4326", (1, 0, -190, 0, -1, 10), (20, 20)),
    "antimeridian, polar": Grid("EPSG:3413", (1000, 0, -1.4e6, 0, -1000, 1.9e6), (1000, 1000)),
    "north pole inside": Grid("EPSG:3413", (1000, 0, -5e5, 0, -1000, 6e5), (1000, 1000)),
    "south pole inside": Grid("EPSG:3031", (1000, 0, -5e5, 0, -1000, 6e5), (1000, 1000)),
    "pole on a corner": Grid("EPSG:3413", (1000, 0, 0, 0, -1000, 0), (320, 320)),
    "pole on an edge": Grid("EPSG:3413", (1000, 0, 0, 0, -1000, 160_000), (320, 320)),
    "near the south pole": Grid("EPSG:3031", (1000, 0, -1e5, 0, -1000, -2e5), (300, 300)),
    "whole Earth": Grid("EPSG:4326", (1, 0, -180, 0, -1, 90), (180, 360)),
    "whole Earth from 0": Grid("EPSG:4326", (1, 0, 0, 0, -1, 80), (160, 360)),
    "Mercator": Grid("EPSG:3857", (156543, 0, -20037508, 0, -156543, 20037508), (256, 256)),
}


@pytest.mark.parametrize("grid", CASES.values(), ids=CASES)
def test_every_cell_of_the_map_is_inside_and_rings_are_sound(grid):
    geometry, box = footprint(grid)

    for ring in rings(geometry):
        assert (ring[0] == ring[-1]).all()
        assert area(ring) > 0
        assert (np.abs(ring) <= (180, 90)).all()
    to_lon_lat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    height, width = grid.shape
    for row, col in np.random.default_rng(0).uniform(0.02, 0.98, (60, 2)) * grid.shape:
        lon, lat = to_lon_lat.transform(*grid.xy(row, col))
        lon = (lon + 180) % 360 - 180
        assert contains(geometry, lon, lat), (lon, lat)
        assert in_box(box, lon, lat), (lon, lat)
    for row, col in ((-0.1 * height, width / 2), (height / 2, 1.1 * width)):
        lon, lat = to_lon_lat.transform(*grid.xy(row, col))
        if math.isfinite(lon) and abs(lat) < 90 and box[2] - box[0] < 359:
            assert not contains(geometry, (lon + 180) % 360 - 180, lat)


@pytest.mark.parametrize(
    ("name", "kind", "box"),
    [
        ("antimeridian, east of 180", "MultiPolygon", [170, -10, -170, 10]),
        ("antimeridian, west of -180", "MultiPolygon", [170, -10, -170, 10]),
        ("whole Earth", "Polygon", [-180, -90, 180, 90]),
        ("whole Earth from 0", "Polygon", [-180, -80, 180, 80]),
        ("pole on an edge", "Polygon", [-45, 86.6981934, 135, 90]),
        ("north pole inside", "Polygon", [-180, 82.7992482, 180, 90]),
        ("south pole inside", "Polygon", [-180, -90, 180, -82.8207409]),
    ],
)
def test_boxes(name, kind, box):
    geometry, found = footprint(CASES[name])

    assert geometry["type"] == kind
    assert found == pytest.approx(box, abs=1e-6)


def test_two_halves_meet_at_the_antimeridian():
    geometry, _ = footprint(CASES["antimeridian, utm"])

    west, east = rings(geometry)
    assert west[:, 0].max() == 180
    assert east[:, 0].min() == -180


@given(st.floats(-720, 720), st.floats(-85, 60), st.floats(0.01, 300), st.floats(0.01, 20))
@settings(max_examples=60, deadline=None)
def test_degrees_keep_their_area_wherever_they_are_cut(left, bottom, width, height):
    grid = Grid("EPSG:4326", (width, 0, left, 0, -height, bottom + height), (1, 1))

    geometry, _ = footprint(grid)

    total = sum(area(ring) for ring in rings(geometry))
    assert total == pytest.approx(width * height, rel=1e-3, abs=1e-4)


def test_polygons_are_valid_for_others():
    shapely = pytest.importorskip("shapely")
    for name, grid in CASES.items():
        shape = shapely.geometry.shape(footprint(grid)[0])
        assert shapely.is_valid(shape), name


def test_a_map_off_the_earth_is_refused():
    geostationary = "+proj=geos +h=35785831 +lon_0=0 +type=crs"
    grid = Grid(geostationary, (50_000, 0, -5.5e6, 0, -50_000, 5.5e6), (220, 220))

    with pytest.raises(ValueError, match="lies off the Earth"):
        footprint(grid)


def test_a_local_system_is_refused():
    grid = Grid('LOCAL_CS["site",UNIT["metre",1]]', (1, 0, 0, 0, -1, 0), (4, 4))

    with pytest.raises(ValueError, match="no transformation leads from 'site'"):
        footprint(grid)
