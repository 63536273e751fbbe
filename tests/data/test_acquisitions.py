"""Files become dates: by day, by ground, by pixel size, whatever they are called and cut into."""

import shutil

import numpy as np
import pytest
from pyproj import Transformer

from skysense.data.acquisitions import open_layer
from skysense.data.products import find_files

TEN = ("B02", "B03", "B04", "B08")
TWENTY = ("B05", "B06", "B07", "B8A", "B11", "B12")
ALL = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
RGB = ("R", "G", "B")


def pixels(count, side=16, dtype="uint16"):
    return np.full((count, side, side), 1000 if dtype == "uint16" else 100, dtype)


def at(size, x=600_000.0, y=5_340_000.0):
    """A north-up transform."""
    return size, 0.0, x, 0.0, -size, y


@pytest.fixture
def safe(raster):
    """A Sentinel-2 product folder: three sizes, coarser copies, masks and pictures."""
    product = "S2B_MSIL2A_20220613T101031_N0400_R022_T33UUP_X.SAFE/GRANULE/L2A"
    tile = "T33UUP_20220613T101031"
    for size, names in ((10, TEN), (20, (*TEN[:3], *TWENTY, "SCL")), (60, (*TEN[:3], "SCL"))):
        side = 240 // size
        for name in names:
            path = f"{product}/IMG_DATA/R{size}m/{tile}_{name}_{size}m.tif"
            raster(path, pixels(1, side), transform=at(size))
        path = f"{product}/IMG_DATA/R{size}m/{tile}_TCI_{size}m.tif"
        raster(path, pixels(3, side, "uint8"), transform=at(size), photometric="RGB")
    for name in TEN + TWENTY:
        path = raster(f"{product}/QI_DATA/MSK_DETFOO_{name}.tif", pixels(1, 24, "uint8"))
    return path.parents[4]


def names_by_file(acquisition):
    found = {}
    for band, (file, _) in acquisition.sources.items():
        found.setdefault(file.path.name, []).append(band)
    return found


def test_product_folder(safe):
    layer = open_layer([safe], "s2_l2a")
    assert layer.card.name == "s2_l2a_n0400", "as the product's name says"
    (only,) = layer.acquisitions
    assert only.date == np.datetime64("2022-06-13")
    fine = {f"T33UUP_20220613T101031_{name}_10m.tif" for name in TEN}
    coarse = {f"T33UUP_20220613T101031_{name}_20m.tif" for name in TWENTY}
    assert set(names_by_file(only)) == fine | coarse
    assert only.classes is not None
    assert only.classes[0].path.name.endswith("SCL_20m.tif")
    assert layer.grid.shape == (24, 24)
    assert layer.grid.pixel_size == (10, 10)


def test_bands_of_a_date_in_two_files_and_dates_in_order(raster):
    for day in ("20210701", "20210301"):
        raster(f"in/{day}_20m.tif", pixels(6, 8), TWENTY, transform=at(20))
        folder = raster(f"in/{day}_10m.tif", pixels(4), TEN).parent
    layer = open_layer([folder], "s2_l2a")
    assert layer.dates.tolist() == np.array(["2021-03-01", "2021-07-01"], "M8[D]").tolist()
    assert names_by_file(layer.acquisitions[0]) == {
        "20210301_10m.tif": ["B2", "B3", "B4", "B8"],
        "20210301_20m.tif": ["B5", "B6", "B7", "B8A", "B11", "B12"],
    }


def test_neighbouring_tiles_of_one_day_keep_to_their_own(raster):
    """Whatever order their files come in, also where the tiles overlap."""
    for tile, x, first in (("AAA", 600_000, "zz"), ("BBB", 600_140, "aa")):
        for kind, count, names, size in (
            ("10m", 4, TEN, 10),
            ("20m", 6, TWENTY, 20),
            ("SCL", 1, ("SCL",), 20),
        ):
            name = f"in/{first if size == 20 else tile}_{tile}_20210101_{kind}.tif"
            path = raster(name, pixels(count, 160 // size), names, transform=at(size, x))
    layer = open_layer([path.parent], "s2_l2a")
    assert len(layer.acquisitions) == 2
    for acquisition in layer.acquisitions:
        tiles = {file.path.name.split("_")[1] for file in acquisition.files}
        assert len(tiles) == 1
        assert len(acquisition.files) == 3
    assert layer.grid.shape == (16, 30), "the ground of both"


def test_the_same_day_twice(raster):
    paths = [raster(f"{name}_20210101.tif", pixels(10), ALL) for name in "ab"]
    layer = open_layer(paths, "s2_l2a")
    assert [str(date) for date in layer.dates] == ["2021-01-01"] * 2


def test_a_copy_of_half_a_date_is_named(raster):
    """Bands of 20 m go with one of two files of 10 m; the other one is no date of its own."""
    raster("in/a_10m_20210701.tif", pixels(4), TEN)
    raster("in/b_10m_20210701.tif", pixels(4), TEN)
    folder = raster("in/c_20m_20210701.tif", pixels(6, 8), TWENTY, transform=at(20)).parent
    with pytest.raises(ValueError, match=r"_10m_.* lacks B5.* they are in .*c_20m.* twice: leave"):
        open_layer([folder], "s2_l2a")


def test_bands_of_a_date_that_lie_apart(raster):
    first = raster("a_10m_20210701.tif", pixels(4), TEN)
    other = raster("c_20m_20210701.tif", pixels(6, 8), TWENTY, transform=at(20, x=620_000))
    with pytest.raises(ValueError, match=r"lies elsewhere: give files of one place"):
        open_layer([first, other], "s2_l2a")


def test_a_product_is_not_taken_for_that_of_another_satellite(safe):
    (band,) = safe.rglob("IMG_DATA/*/*B8A*")
    band.unlink()
    with pytest.raises(ValueError, match=r"needs B8A.*choose another `--sensor`") as error:
        open_layer([safe], "s2_l2a")
    assert "landsat" not in str(error.value)


def test_folders_behind_links(raster, tmp_path):
    """Each folder once, and none around the one that is searched."""
    raster("in/20210701.tif", pixels(4), TEN)
    raster("in/below/20210702.tif", pixels(4), TEN)
    raster("elsewhere/20210703.tif", pixels(4), TEN)
    for name, target in (("a", "elsewhere"), ("b", "in/below"), ("c", "in"), ("d", ".")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target, target_is_directory=True)
    (tmp_path / "elsewhere/e").symlink_to(tmp_path / "in/below", target_is_directory=True)
    found = [one.path.relative_to(tmp_path / "in") for one in find_files([tmp_path / "in"])]
    assert list(map(str, found)) == ["20210701.tif", "a/20210703.tif", "below/20210702.tif"]


def test_a_file_named_twice_counts_once(raster):
    path = raster("in/s2_20210101.tif", pixels(10), ALL)
    assert len(open_layer([path, path, path.parent], "s2_l2a").acquisitions) == 1


def test_undated_neighbours_are_two_and_a_coarser_copy_is_said_to_be_unused(raster):
    first = raster("a.tif", pixels(3, dtype="uint8"), RGB)
    second = raster("b.tif", pixels(3, dtype="uint8"), RGB, transform=at(10, 600_100))
    layer = open_layer([first, second], "rgb8")
    assert np.isnat(layer.dates).tolist() == [True, True]
    assert layer.grid.shape == (16, 26)
    copy = raster("c.tif", pixels(3, 8, dtype="uint8"), RGB, transform=at(20))
    with pytest.warns(UserWarning, match=r"c\.tif is not used: its bands are there in finer"):
        assert len(open_layer([first, copy], "rgb8").acquisitions) == 1


def test_grid_of_the_finest_file_over_the_ground_of_all(raster):
    coarse = raster("a_20210101.tif", pixels(10, 16), ALL, transform=at(20, 599_990, 5_340_030))
    fine = raster("b_20210201.tif", pixels(10, 16), ALL)
    layer = open_layer([coarse, fine], "s2_l2a")
    assert layer.grid.transform == at(10, 599_990, 5_340_030)
    assert layer.grid.shape == (32, 32)


def test_degrees_are_not_finer_than_metres(raster):
    """A 20 m file in degrees has small numbers; the 10 m file still is the finer."""
    step = 20 / 111_000
    degrees = raster(
        "a_20210101.tif", pixels(10), ALL, crs="EPSG:4326", transform=at(step, 10.345, 48.2)
    )
    metres = raster("b_20210201.tif", pixels(10), ALL, transform=at(10, 600_000, 5_339_500))
    layer = open_layer([degrees, metres], "s2_l2a")
    assert "UTM zone 32N" in layer.grid.crs


def test_files_of_two_zones(raster):
    """The second starts 2 km east of the first, in the next zone, turned by a few degrees."""
    first = raster("a_20210101.tif", pixels(10), ALL, transform=at(10, 700_000))
    corner = Transformer.from_crs(32632, 32633, always_xy=True).transform(702_000, 5_340_000)
    second = raster("b_20210201.tif", pixels(10), ALL, crs="EPSG:32633", transform=at(10, *corner))
    layer = open_layer([first, second], "s2_l2a")
    assert layer.grid.transform[:2] == (10, 0)
    assert layer.grid.shape[0] == pytest.approx(16, abs=3)
    assert layer.grid.shape[1] == pytest.approx(200 + 16, abs=3)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [("EPSG:32756", at(10.0)), ("EPSG:32632", at(10.0, 200_000, 100_000))],
)
def test_files_that_lie_far_apart(raster, crs, transform):
    paths = [
        raster("a.tif", pixels(3, dtype="uint8"), RGB),
        raster("b.tif", pixels(3, dtype="uint8"), RGB, crs=crs, transform=transform),
    ]
    with pytest.raises(ValueError, match=r"too far apart for one map, from .*a\.tif to .*b\.tif"):
        open_layer(paths, "rgb8")


def test_missing_bands_are_named_with_what_was_found(raster):
    ten = raster("s2_20210101.tif", pixels(4), TEN)
    with pytest.raises(ValueError, match=r"needs B5, B6, B7, B8A, B11, B12 of 2021-01-01.*1=B02"):
        open_layer([ten], "s2_l2a")
    vv = raster("s1.tif", np.full((1, 8, 8), -10, "float32"), ("VV",))
    with pytest.raises(ValueError, match=r"needs VH, .*would fit `--sensor s1_vv`"):
        open_layer([vv], "s1")
    nameless = raster("x.tif", pixels(13))
    with pytest.raises(ValueError, match=r"13 bands: 1=\(no name\).*name the bands with `--bands`"):
        open_layer([nameless], "s2_l2a")
    twice = raster("y.tif", pixels(4), ("B02", "B2", "B03", "B04"))
    with pytest.raises(ValueError, match=r"y\.tif: 2 bands claim to be B2"):
        open_layer([twice], "s2_l2a")


def test_other_products_in_a_folder_are_passed_over_but_not_when_named(raster):
    scene = raster("in/s2_20210101.tif", pixels(10), ALL)
    other = raster("in/dem.tif", pixels(1), ("height",))
    assert len(open_layer([scene.parent], "s2_l2a").acquisitions) == 1
    with pytest.raises(ValueError, match=r"not found by name in: dem\.tif has 1 bands: 1=height"):
        open_layer([scene, other], "s2_l2a")


def test_mixed_baselines(raster):
    paths = [
        raster(f"S2A_MSIL2A_{date}_N{number}_R022.tif", pixels(10), ALL)
        for date, number in (("20210101", "0214"), ("20220601", "0400"), ("20220901", "0510"))
    ]
    assert open_layer(paths[:1], "s2_l2a").card.name == "s2_l2a"
    assert open_layer(paths[1:], "s2_l2a").card.name == "s2_l2a_n0400"
    assert open_layer(paths[1:], "s2").card.name == "s2", "reflectance is reflectance"
    with pytest.raises(ValueError, match=r"before and after 04\.00 \(\[214, 400\]\)"):
        open_layer(paths[:2], "s2_l2a")
    other = shutil.copy(paths[0], paths[0].with_name("S2A_MSIL2A_20210601_N9999_R022.tif"))
    assert open_layer([paths[0], other], "s2_l2a").card.name == "s2_l2a"


def test_given_names(raster):
    path = raster("s1_20210101.tif", np.full((2, 8, 8), -10, "float32"))
    (only,) = open_layer([path], "s1", ["VH", "VV"]).acquisitions
    assert {band: index for band, (_, index) in only.sources.items()} == {"VV": 1, "VH": 0}
