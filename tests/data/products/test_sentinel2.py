"""Sentinel-2 as folder, as zip, and one file a band: the same pixels give the same sample."""

import json
import zipfile

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from skysense.data.scene import open_scene
from skysense.geo import Window


def s2(path, sensor=None, **options):
    paths = path if isinstance(path, list) else [path]
    return open_scene({"s2": paths}, {"s2": sensor} if sensor else {}, **options)


def card(scene):
    return scene.layers["s2"].card.name


def days(scene):
    return [str(day) for day in scene.layers["s2"].dates]


def assert_equal(first, second):
    assert first.grid == second.grid
    assert first.location == second.location
    assert first.series.keys() == second.series.keys()
    for key, series in first.series.items():
        other = second.series[key]
        np.testing.assert_array_equal(series.pixels, other.pixels)
        np.testing.assert_array_equal(series.mask, other.mask)
        np.testing.assert_array_equal(series.dates, other.dates)
        assert series.sensor == other.sensor


def as_geotiffs(root, folder):
    """The bands of a product as plain GeoTIFFs."""
    for path in root.rglob("IMG_DATA/**/*.jp2"):
        if "TCI" in path.stem:
            continue
        with rasterio.open(path) as file:
            pixels, profile = file.read(), file.profile
        folder.mkdir(exist_ok=True)
        with rasterio.open(
            folder / f"{path.stem}.tif",
            "w",
            **{k: profile[k] for k in ("count", "height", "width", "dtype", "crs", "transform")},
            driver="GTiff",
        ) as file:
            file.write(pixels)
    return folder


def test_folder_zip_tar_and_geotiffs_give_equal_samples(safe, zipped, read, tmp_path):
    classes = np.full((12, 12), 4, np.uint8)
    classes[:3] = 9
    root = safe(classes=classes)
    plain = read(s2(as_geotiffs(root, tmp_path / "plain"), "s2_l2a_n0400"))
    folder = s2(root)
    sample = read(folder, scale=True)
    assert (card(folder), days(folder)) == ("s2_l2a_n0400", ["2022-06-13"])
    assert_equal(sample, plain)
    assert sample.series["s2"].mask.sum() == 24 * 18
    assert sample.series["s2"].pixels[0, 0, 12, 12] == pytest.approx(0.0, abs=0.4)
    archives = [zipped(root, ending, keep=True) for ending in (".zip", ".SAFE.zip")]
    for archive in archives:
        scene = s2(archive)
        assert scene.files == [archive], "an archive counts as one file"
        assert_equal(read(scene), sample)
    assert_equal(read(s2(zipped(root, "_x.zip", inside=False), "s2_l2a_n0400")), sample)
    window = Window(2, 4, 7, 13)
    assert_equal(read(s2(archives[0]), window), read(s2(archives[1]), window))


@pytest.mark.parametrize(
    ("baseline", "offset", "expected"),
    [
        ("0214", None, "s2_l2a"),
        ("0301", None, "s2_l2a"),
        ("0400", -1000, "s2_l2a_n0400"),
        ("0510", -1000, "s2_l2a_n0400"),
        ("9999", 0, "s2_l2a"),
    ],
)
def test_card_of_the_baseline(safe, baseline, offset, expected):
    assert card(s2(safe(baseline=baseline, offset=offset))) == expected
    assert card(s2(safe(baseline=baseline, offset=offset, folder="b"), "s2_l2a")) == expected


def test_level_1c(safe, zipped, read):
    root = safe(level="1C")
    scene = s2(root)
    assert card(scene) == "s2_l1c_n0400"
    assert_equal(read(s2(zipped(root, keep=True))), read(scene))
    assert card(s2(safe(level="1C", baseline="0209", offset=None, folder="b"))) == "s2_l1c"
    with pytest.raises(ValueError, match=r"product of sensor `s2_l1c`, .*`--sensor s2_l1c`"):
        s2(root, "s2_l2a")


def test_two_levels_in_a_folder(safe):
    safe(level="1C")
    folder = safe().parent
    assert card(s2(folder, "s2_l2a")) == "s2_l2a_n0400", "the other is passed over"
    with pytest.raises(ValueError, match=r"several sensors \(s2_l1c, s2_l2a\)"):
        s2(folder)


def test_a_series_over_the_change_of_baseline(safe, read):
    """Both are brought to the numbers of one card; the reflectance is that of each alone."""
    old = safe(day="2021-06-13", baseline="0300", offset=None, seed=1)
    new = safe(day="2022-06-13", seed=2)
    both = s2(new.parent)
    assert (card(both), days(both)) == ("s2_l2a_n0400", ["2021-06-13", "2022-06-13"])
    pixels = read(both).series["s2"].pixels
    for i, root in enumerate((old, new)):
        np.testing.assert_allclose(pixels[i], read(s2(root)).series["s2"].pixels[0], atol=1e-6)


def test_metadata_count_more_than_the_name(safe, read):
    """A product without the offset under a newer name, and other quantifications."""
    assert card(s2(safe(baseline="0400", offset=0))) == "s2_l2a"
    from_name = safe(folder="b", baseline="0400")
    (from_name / "MTD_MSIL2A.xml").unlink()
    assert card(s2(from_name)) == "s2_l2a_n0400"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<not", "is not XML"),
        ("<a><BOA_ADD_OFFSET>-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET>0</BOA_ADD_OFFSET></a>", "diff"),
        ("<a><BOA_QUANTIFICATION_VALUE>x</BOA_QUANTIFICATION_VALUE></a>", "no number"),
        ("<a><BOA_QUANTIFICATION_VALUE>0</BOA_QUANTIFICATION_VALUE></a>", "quantification value"),
    ],
)
def test_metadata_that_make_no_sense(safe, text, message):
    with pytest.raises(ValueError, match=rf"MTD_MSIL2A\.xml: .*{message}"):
        s2(safe(metadata_text=text))


def test_damaged_archives(safe, zipped, tmp_path):
    bad = tmp_path / "S2B_MSIL2A_20220613T101031_N0400_R022_T32UPU_20230101T120000.zip"
    bad.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"\.zip: cannot be read as an archive"):
        s2(bad)
    with zipfile.ZipFile(bad, "w") as empty:
        empty.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="this archive holds no raster"):
        s2(bad)
    with pytest.raises(ValueError, match="names that are too long"):
        s2(zipped(safe(), ".tar"))
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(b"x")
    with pytest.raises(ValueError, match="is a compressed tar; unpack it first"):
        s2(packed)


def test_product_and_its_zip_in_one_folder_count_once(safe, zipped):
    root = safe()
    zipped(root, keep=True)
    assert len(s2(root.parent).layers["s2"].acquisitions) == 1
    other = safe(day="2022-07-13")
    archive = zipped(other)
    scene = s2(root.parent)
    assert days(scene) == ["2022-06-13", "2022-07-13"]
    assert archive in scene.files


def test_two_zones_together(safe, read):
    """Neighbours of two UTM zones, one day: each on its own ground of one grid."""
    from pyproj import Transformer

    safe(tile="T32UQU", x=700_000.0)
    x, y = Transformer.from_crs(32632, 32633, always_xy=True).transform(700_100.0, 5_340_000.0)
    folder = safe(tile="T33UTP", x=round(x, -1), y=round(y, -1), crs="EPSG:32633").parent
    scene = s2(folder)
    assert days(scene) == ["2022-06-13"] * 2
    assert len({file.grid.crs for a in scene.layers["s2"].acquisitions for file in a.files}) == 2
    mask = read(scene).series["s2"].mask.numpy()
    assert mask.any(0).mean() > 0.8
    assert mask.all(0).any(), "they overlap"
    columns = [np.flatnonzero(m.any(0)).mean() for m in mask]
    assert columns[0] < columns[1]
    plain = mask.sum((1, 2))
    assert plain[0] == 24 * 24
    assert plain[1] == pytest.approx(24 * 24, rel=0.15)


def test_the_same_product_processed_twice_keeps_apart(safe):
    safe(baseline="0400")
    folder = safe(baseline="0510", seed=3).parent
    layer = s2(folder).layers["s2"]
    assert [len({file.product for file in a.files}) for a in layer.acquisitions] == [1, 1]


@pytest.fixture
def earth_search(put, tmp_path):
    """A folder of Earth Search: bands alone, the day in the folder's name."""

    def make(day="20220613", item=None, level="L2A"):
        name = f"S2B_32UPU_{day}_0_{level}"
        for i, band in enumerate(("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11")):
            size = 10 if i < 4 else 20
            values = np.full((1, 240 // size, 240 // size), 2000 + i, np.uint16)
            transform = Affine(size, 0, 6e5, 0, -size, 5.34e6)
            put(tmp_path / name / f"{band}.tif", values, transform, nodata=0)
        put(tmp_path / name / "B12.tif", values, transform, nodata=0)
        put(tmp_path / name / "SCL.tif", np.full((1, 12, 12), 4, np.uint8), transform, nodata=0)
        if item is not None:
            (tmp_path / name / f"{name}.json").write_text(json.dumps(item))
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "04.00"}, 0.2),
        ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "04.00"}, 0.1),
        ({"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "03.01"}, 0.2),
    ],
)
def test_one_file_a_band_with_its_item(earth_search, read, properties, value):
    scene = s2(earth_search(item={"properties": properties}))
    assert days(scene) == ["2022-06-13"]
    assert read(scene).series["s2"].pixels[0, 0, 0, 0] == pytest.approx(value)


def test_one_file_a_band_without_its_item(earth_search, read):
    old = s2(earth_search("20210613"))
    assert (card(old), days(old)) == ("s2_l2a", ["2021-06-13"])
    with pytest.warns(UserWarning, match=r"nothing says whether the offset .*s2_l2a_n0400"):
        s2(earth_search("20220613"))
    with pytest.raises(ValueError, match="is no STAC item"):
        s2(earth_search("20230613", item=["x"]))
