"""Places on the Earth, against numbers worked out by hand or known."""

import math

import pytest

from skysense.data.ground import bounds_in, footprint, lon_lat, metres
from skysense.geo import Grid, Window

UTM32 = Grid("EPSG:32632", (10, 0, 500_000, 0, -10, 5_000_000), (100, 100))


def test_lon_lat_on_the_central_meridian():
    lon, lat = lon_lat(UTM32, 0, 0)
    assert lon == pytest.approx(9, abs=1e-9), "the false easting of UTM is 500 km"
    assert lat == pytest.approx(45.1535, abs=1e-3), "5,000 km / 0.9996 along the meridian"


def test_longitudes_are_brought_to_180():
    turned = Grid("EPSG:4326", (1, 0, 179, 0, -1, 10), (4, 4))
    assert lon_lat(turned, 0, 3) == (-178, 10)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326"])
def test_off_the_earth(crs):
    grid = Grid(crs, (10, 0, 1e12, 0, -10, 1e12), (4, 4))
    assert not all(map(math.isfinite, lon_lat(grid, 0, 0))) or abs(lon_lat(grid, 0, 0)[1]) > 90
    with pytest.raises(ValueError, match="lies outside the coordinate system WGS 84"):
        metres(grid)


def test_metres_of_a_degree_at_the_equator():
    grid = Grid("EPSG:4326", (1, 0, 0, 0, -1, 0.5), (1, 1))
    assert metres(grid) == pytest.approx((110_574 + 111_320) / 2, rel=1e-3)


def test_bounds_in_the_neighbouring_zone_and_back():
    over = bounds_in(UTM32, "EPSG:32633")
    assert over[0] < over[2] < 500_000, "east of zone 32's centre is west of zone 33's"
    again = bounds_in(Grid("EPSG:32633", (1, 0, over[0], 0, -1, over[3]), (1000, 1000)), UTM32.crs)
    assert again[0] <= 500_000 + 1
    assert again[3] >= 5_000_000 - 1
    assert bounds_in(UTM32, UTM32.crs) == UTM32.bounds


def test_bounds_over_the_antimeridian_go_on():
    fiji = Grid("EPSG:32701", (10, 0, 166_000, 0, -10, 10_000_000), (10, 40))
    left, _, right, _ = bounds_in(fiji, "EPSG:4326")
    assert 179.99 < left < 180 < right < 180.01


def test_no_place_in_the_other_system():
    polar = Grid("EPSG:4326", (1, 0, 0, 0, -1, 1e6), (4, 4))
    with pytest.raises(ValueError, match=r"the rasters do not overlap: .* has no place in WGS 84"):
        bounds_in(polar, "EPSG:32632")


def test_footprint_worked_example():
    finer = Grid(UTM32.crs, (2.5, 0, 500_015, 0, -2.5, 4_999_980), (8, 16))
    assert footprint(UTM32, finer) == Window(2, 1, 2, 5)
    assert footprint(finer, UTM32) == Window(-8, -6, 400, 400)


def test_footprint_of_a_turned_grid_on_itself_is_itself():
    turned = Grid(UTM32.crs, (8, 6, 500_000, 6, -8, 5_000_000), (30, 50))
    assert footprint(turned, turned) == Window(0, 0, 30, 50)
    assert footprint(turned, turned.window(Window(3, 4, 5, 6))) == Window(3, 4, 5, 6)
