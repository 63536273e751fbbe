"""Items of files and static catalogs: the right card and numbers, lines for what is wrong."""

import json

import numpy as np
import pytest

from skysense.data.scene import open_scene
from skysense.data.stac import open_inputs, open_stac
from skysense.geo import Window

pytest.importorskip("pystac_client")

BOX = (10.34, 48.19, 10.36, 48.21)
ORDER = (
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "swir16",
    "swir22",
)


def days(scene, key="s2"):
    return [str(day) for day in scene.layers[key].dates]


def saved(tmp_path, told, name="catalog/items/all.json"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))
    return path


@pytest.mark.parametrize("described", [True, False])
def test_a_catalog_equals_its_files(sentinel2, catalog, read, tmp_path, described):
    """Whether the items tell grids and types, or the files are asked."""
    items = [
        sentinel2(f"S2A_32UPU_{day.replace('-', '')}_0_L2A", day, seed, described=described)
        for seed, day in enumerate(("2021-06-15", "2021-03-01"))
    ]
    scene = open_stac(catalog(items))
    assert days(scene) == ["2021-03-01", "2021-06-15"]
    folders = [tmp_path / "catalog/items" / item["id"] for item in items]
    expected = read(open_scene({"s2": folders}, {"s2": "s2_l2a"}))
    sample = read(scene, scale=True)
    series, other = sample.series["s2"], expected.series["s2"]
    np.testing.assert_array_equal(series.pixels, other.pixels)
    np.testing.assert_array_equal(series.mask, other.mask)
    np.testing.assert_array_equal(series.dates, other.dates)
    assert sample.grid == expected.grid
    assert (series.sensor, other.sensor) == ("s2_l2a", "s2_l2a")
    assert {path.parent.parent for path in scene.files} == {tmp_path / "catalog/items"}
    window = read(scene, Window(4, 2, 6, 6)).series["s2"].pixels
    np.testing.assert_array_equal(window, series.pixels[..., 4:10, 2:8])


def test_item_collection_collection_and_item(sentinel2, catalog, read, tmp_path):
    item = sentinel2()
    catalog([item])
    sources = [
        saved(tmp_path, {"type": "FeatureCollection", "features": [item]}),
        tmp_path / "catalog/sentinel-2-l2a.json",
        tmp_path / "catalog/items" / f"{item['id']}.json",
    ]
    first, *others = (read(open_stac(source)).series["s2"].pixels for source in sources)
    for pixels in others:
        np.testing.assert_array_equal(pixels, first)


APPLIED = "earthsearch:boa_offset_applied"
BASELINE = "s2:processing_baseline"


@pytest.mark.parametrize(
    ("properties", "offset", "card", "value"),
    [
        ({}, 0.0, "s2_l2a", 0.2),
        ({}, -0.1, "s2_l2a_n0400", 0.1),
        ({BASELINE: "03.01"}, -0.1, "s2_l2a", 0.2),
        ({BASELINE: "05.09"}, 0.0, "s2_l2a_n0400", 0.1),
        ({BASELINE: "05.09", APPLIED: True}, -0.1, "s2_l2a", 0.2),
        ({BASELINE: "05.09", APPLIED: False}, -0.1, "s2_l2a_n0400", 0.1),
        ({"s2:product_uri": "S2A_MSIL2A_2023_N0510_R1.SAFE"}, 0.0, "s2_l2a_n0400", 0.1),
    ],
)
def test_offset_of_sentinel_2(sentinel2, catalog, read, properties, offset, card, value):
    scene = open_stac(catalog([sentinel2(properties=properties, offset=offset, value=2000)]))
    assert scene.layers["s2"].card.name == card
    assert read(scene).series["s2"].pixels[0, 0, 0, 0] == pytest.approx(value)


def test_a_series_over_the_change_of_baseline(sentinel2, catalog, read):
    items = [
        sentinel2("a", "2021-06-15", properties={BASELINE: "03.00"}, value=2000),
        sentinel2("b", "2023-06-15", properties={BASELINE: "05.09"}, value=3000),
        sentinel2("c", "2024-06-15", properties={BASELINE: "05.09", APPLIED: True}, value=2000),
    ]
    pixels = read(open_stac(catalog(items))).series["s2"].pixels
    np.testing.assert_allclose(pixels, 0.2, atol=1e-6)


def test_bands_by_the_names_of_the_planetary_computer(put, make_item, read, tmp_path):
    """Keys are B02...; common names are of no use there: B8A and B05 are both `rededge`."""
    names = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    assets = {}
    for i, (name, common) in enumerate(zip(names, ORDER, strict=True)):
        pixels = np.full((1, 16, 16), 2000 + 100 * i, np.uint16)
        put(tmp_path / f"{name}.tif", pixels, 10, 6e5, 5.34e6, 32632)
        common = "rededge" if "rededge" in common or name == "B8A" else common
        assets[name] = {
            "href": f"{name}.tif",
            "type": "image/tiff",
            "eo:bands": [{"name": name, "common_name": common}],
            "roles": ["data"],
        }
    for name in ("visual", "preview"):
        bands = [
            {"name": x, "common_name": y} for x, y in zip(names[2::-1], ORDER[2::-1], strict=True)
        ]
        assets[name] = {"href": "none.tif", "roles": ["data"], "eo:bands": bands}
    facts = {BASELINE: "04.00", "platform": "Sentinel-2B"}
    item = make_item("S2B_x", "sentinel-2-l2a", "2022-06-15", assets, facts)
    pixels = read(open_stac(saved(tmp_path, item, "item.json"))).series["s2"].pixels[0, :, 0, 0]
    np.testing.assert_allclose(pixels, 0.1 + 0.01 * np.arange(10), atol=1e-6)


def test_radar_landsat_and_aerial(put, make_item, read, tmp_path):
    """Radar of another zone, aerial image of four bands in a file, as the archives have them."""
    from pyproj import Transformer

    x, y = Transformer.from_crs(32632, 32633, always_xy=True).transform(599_900, 5_340_100)
    for name in ("vv", "vh"):
        put(tmp_path / f"iw-{name}.rtc.tiff", np.full((1, 64, 64), 0.05, "f4"), 10, x, y, 32633)
    radar = {n: {"href": f"iw-{n}.rtc.tiff", "type": "image/tiff"} for n in ("vv", "vh")}
    image = np.random.default_rng(0).integers(50, 200, (4, 128, 128)).astype(np.uint8)
    put(tmp_path / "m_1.tif", image, 1, 6e5, 5.34e6, 32632, photometric="RGB", alpha="unspecified")
    bands = [{"name": n, "common_name": n.lower()} for n in ("Red", "Green", "Blue", "NIR")]
    aerial = {"image": {"href": "m_1.tif", "type": "image/tiff", "eo:bands": bands}}
    landsat = {}
    for i, name in enumerate(("blue", "green", "red", "nir08", "swir16", "swir22", "qa_pixel")):
        pixels = np.full((1, 16, 16), 21824 if name == "qa_pixel" else 10_000 + 1000 * i, np.uint16)
        pixels[:, :2] = 1 if name == "qa_pixel" else pixels[:, :2]
        put(tmp_path / f"L_{name}.TIF", pixels, 30, 6e5, 5.34e6, 32632)
        landsat[name] = {"href": f"L_{name}.TIF", "type": "image/tiff"}
        if name != "qa_pixel":
            landsat[name]["raster:bands"] = [{"scale": 2.75e-5, "offset": -0.2}]
    items = [
        make_item("S1A_rtc", "sentinel-1-rtc", "2021-06-14", radar, {"platform": "SENTINEL-1A"}),
        make_item("m_1", "naip", "2020-06-15", aerial),
        make_item("LC08_L2SP_1", "landsat-c2-l2", "2021-06-16", landsat, {"platform": "landsat-8"}),
    ]
    source = saved(tmp_path, {"type": "FeatureCollection", "features": items}, "all.json")
    scene = open_stac(source)
    cards = {key: layer.card.name for key, layer in scene.layers.items()}
    assert cards == {"hr": "naip", "s2": "landsat_c2_l2", "s1": "s1_linear"}
    sample = read(scene, scale=True)
    np.testing.assert_array_equal(sample.series["hr"].pixels[0], image[:3])
    np.testing.assert_allclose(sample.series["s1"].pixels, 10 * np.log10(0.05), rtol=1e-5)
    assert sample.series["s1"].mask.all()
    mask = sample.series["s2"].mask[0].numpy()
    assert not mask[:2].any()
    assert mask[-1].all()
    assert sample.series["s2"].pixels[0, 7, -1, -1] == pytest.approx(13_000 * 2.75e-5 - 0.2)
    with_nir = open_stac(source, collections=["naip"], sensors={"hr": "naip_rgbn"})
    np.testing.assert_array_equal(read(with_nir).series["hr"].pixels[0], image)


def test_layers_of_a_catalog_over_files(sentinel2, catalog, raster, read):
    hr = raster(
        "hr.tif",
        np.full((3, 32, 32), 90, np.uint8),
        ("R", "G", "B"),
        transform=(5.0, 0.0, 600_000.0, 0.0, -5.0, 5_340_000.0),
    )
    source = catalog([sentinel2()])
    scene = open_inputs({"hr": [hr]}, {}, stac=source)
    assert scene.ratios == {"hr": 1, "s2": 2}
    assert read(scene).series["s2"].mask.all()
    assert hr in scene.files
    with pytest.raises(ValueError, match="s2 comes from files and from"):
        open_inputs({"s2": [source.parent / "items"]}, {}, stac=source)
    with pytest.raises(ValueError, match="give --stac as well"):
        open_inputs({"hr": [hr]}, {}, collections=["naip"])
    assert open_inputs({"hr": [hr]}, {}).layers.keys() == {"hr"}


def test_two_zones_in_one_search(sentinel2, catalog, read):
    from pyproj import Transformer

    x, y = Transformer.from_crs(32632, 32633, always_xy=True).transform(700_100, 5_340_000)
    items = [
        sentinel2("a", x=700_000.0),
        sentinel2("b", x=round(x, -1), y=round(y, -1), epsg=32633, seed=1),
    ]
    mask = read(open_stac(catalog(items))).series["s2"].mask.numpy()
    assert len(mask) == 2
    assert mask.all(0).any()
    assert all(m.sum() > 200 for m in mask)


def test_dates_boxes_collections_and_clouds(sentinel2, catalog):
    items = [
        sentinel2(f"i{month}", f"2021-0{month}-10", properties={"eo:cloud_cover": 10 * month})
        for month in (1, 5, 9)
    ]
    other = sentinel2("far", "2021-05-10", x=640_000.0)
    radar = sentinel2("i2", "2021-02-10", collection="sentinel-2-l1c")
    source = catalog([*items, other, radar])
    one = ["sentinel-2-l2a"]
    assert days(open_stac(source, BOX, collections=one)) == [f"2021-0{m}-10" for m in (1, 5, 9)]
    assert days(open_stac(source, BOX, "2021-05", one)) == ["2021-05-10"]
    assert days(open_stac(source, BOX, "2021-05-10/..", one)) == ["2021-05-10", "2021-09-10"]
    with pytest.warns(UserWarning, match=r"s2: left out 1 of 3 dates.*: 2021-09-10 \(0\.90\)"):
        scene = open_stac(source, BOX, None, one, max_cloud=0.5)
    assert days(scene) == ["2021-01-10", "2021-05-10"]
    with pytest.raises(ValueError, match=r"every date of s2 is cloudier.*2021-01-10 with 0\.10"):
        open_stac(source, BOX, None, one, max_cloud=0.05)
    with pytest.raises(ValueError, match=r"has no item for bbox \[0\.0, 0\.0, 1\.0, 1\.0\]"):
        open_stac(source, (0, 0, 1, 1))
    with pytest.raises(ValueError, match=r"several sensors of s2 \(s2_l1c, s2_l2a\)"):
        open_stac(source, BOX)
    small = open_stac(source, (10.3464, 48.2045, 10.3468, 48.2049), collections=one)
    assert small.grid.shape < (16, 16)


def test_clouds_of_the_mask_where_the_item_says_nothing(sentinel2, catalog):
    items = [sentinel2("a", "2021-01-10"), sentinel2("b", "2021-02-10", classes=9)]
    with pytest.warns(UserWarning, match=r"2021-02-10 \(1\.00\)"):
        assert days(open_stac(catalog(items), max_cloud=0.5)) == ["2021-01-10"]


def test_box_over_the_antimeridian(sentinel2, catalog, read):
    """One tile on each side, in zones 60 and 1, and one far away between them."""
    from pyproj import Transformer

    places = []
    for epsg, lon in ((32660, 179.9995), (32601, -180.0)):
        x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, 10.0)
        places.append((x, y, epsg))
    items = [
        sentinel2(f"t{epsg}", x=x, y=y, epsg=epsg, seed=i) for i, (x, y, epsg) in enumerate(places)
    ]
    for item in items:  # a box that crosses it is written with west above east
        west, south, east, north = item["bbox"]
        item["bbox"] = [west, south, east - 360, north] if east > 180 else item["bbox"]
    items[0]["bbox"] = [179.9995, 9.99, -179.999, 10.0]
    items.append(sentinel2("far"))
    scene = open_stac(catalog(items), (179.9, 9.9, -179.9, 10.1))
    assert len(scene.layers["s2"].acquisitions) == 2
    assert scene.grid.shape[1] < 40, "side by side, not round the Earth"
    mask = read(scene).series["s2"].mask.numpy()
    assert all(m.sum() > 200 for m in mask)


def gone(item, path):
    (path / "catalog/items" / item["id"] / "nir08.tif").unlink()


def moved(item, _):
    item["assets"]["nir08"]["proj:transform"][2] += 100


def other_zone(item, _):
    item["properties"]["proj:epsg"] = 32633


def other_size(item, _):
    item["assets"]["nir08"]["proj:shape"] = [9, 8]


@pytest.mark.parametrize(
    ("described", "spoil", "message"),
    [
        (True, gone, r"nir08\.tif: cannot be read"),
        (False, gone, r"item S2A_.*, asset nir08: .*nir08\.tif: there is no such file"),
        (True, moved, r"nir08\.tif: lies elsewhere than it is described"),
        (True, other_zone, r"tif: is in EPSG:32632, not in the coordinate system that it is desc"),
        (True, other_size, r"nir08\.tif: has 1 bands of 8 x 8 pixels, but is described"),
    ],
)
def test_files_that_are_not_what_the_catalog_says(
    sentinel2, catalog, read, tmp_path, described, spoil, message
):
    item = sentinel2(described=described)
    spoil(item, tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        read(open_stac(catalog([item])))
    assert "\n" not in str(error.value)


def test_numbers_of_the_catalog_that_are_none(sentinel2, catalog, read):
    """The files know better, and clouds are not known then."""
    item = sentinel2(properties={"eo:cloud_cover": "high"})
    item["assets"]["red"]["proj:transform"][1] = None
    item["assets"]["blue"]["proj:shape"] = "abc"
    item["assets"]["green"]["proj:transform"] = 7
    plain = read(open_stac(catalog([sentinel2()])))
    found = read(open_stac(catalog([item])))
    np.testing.assert_array_equal(found.series["s2"].pixels, plain.series["s2"].pixels)


def test_items_that_lack_bands_are_left_out_with_a_line(sentinel2, catalog):
    items = [sentinel2(f"S2A_32UPU_2021061{i}_0_L2A", f"2021-06-1{i}", i) for i in range(3)]
    del items[1]["assets"]["nir08"]
    with pytest.warns(UserWarning, match=r"s2: left out 1 of 3 items.*20210611.* no asset for B8A"):
        scene = open_stac(catalog(items))
    assert days(scene) == ["2021-06-10", "2021-06-12"]


def test_two_items_of_one_name_are_two(sentinel2, catalog, tmp_path):
    items = [sentinel2(day="2021-06-15"), sentinel2(day="2021-07-15", folder="other")]
    for asset in items[1]["assets"].values():
        asset["href"] = str(tmp_path / "other" / asset["href"])
    path = saved(tmp_path, {"type": "FeatureCollection", "features": [*items, items[0]]})
    assert days(open_stac(path)) == ["2021-06-15", "2021-07-15"]


def test_days_are_those_of_greenwich(sentinel2, catalog):
    item = sentinel2(properties={"datetime": "2021-06-15T23:30:00-05:00"})
    assert days(open_stac(catalog([item]), dates="2021-06-16")) == ["2021-06-16"]


def test_addresses_of_files(sentinel2, tmp_path, read):
    """`file://` of the source; quoted names of assets, which are relative addresses too."""
    item = sentinel2()
    folder = tmp_path / "catalog/items"
    (folder / item["id"]).rename(folder / "two words")
    for asset in item["assets"].values():
        asset["href"] = asset["href"].replace(item["id"], "two%20words")
    path = saved(tmp_path, item)
    assert read(open_stac(path.as_uri())).series["s2"].mask.any()


def test_scale_of_brightness_is_none(put, make_item, read, tmp_path):
    """A catalog may scale 8 bits to 1; the card is of stored numbers."""
    image = np.random.default_rng(0).integers(50, 200, (3, 64, 64)).astype(np.uint8)
    put(tmp_path / "a.tif", image, 1, 6e5, 5.34e6, 32632)
    bands = [{"name": n, "common_name": n} for n in ("red", "green", "blue")]
    scales = [{"scale": 1 / 255, "offset": 0}] * 3
    asset = {"href": "a.tif", "type": "image/tiff", "eo:bands": bands, "raster:bands": scales}
    item = make_item("a", "drone", "2021-06-15", {"image": asset})
    scene = open_stac(saved(tmp_path, item, "a.json"), sensors={"hr": "rgb8"})
    np.testing.assert_array_equal(read(scene, scale=True).series["hr"].pixels[0], image)


def change(**changes):
    def apply(item):
        item.update(changes)
        return item

    return apply


def without(name):
    def apply(item):
        del item["assets"][name]
        return item

    return apply


def bands_are_words(item):
    item["assets"]["red"]["raster:bands"] = ["x"]
    return item


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("nir08"), r"has no asset for B8A of sensor `s2_l2a`; its assets are blue, gr"),
        (
            change(collection="x", properties={"datetime": "2021-01-01T00:00:00Z"}),
            "nothing says wh",
        ),
        (
            change(collection="sentinel-1-grd", properties={"datetime": "2021-01-01T00:00:00Z"}),
            "rtc",
        ),
        (
            change(collection="landsat-c2-l1", properties={"datetime": "2021-01-01T00:00:00Z"}),
            "L2|vel",
        ),
        (change(properties={"datetime": "someday"}), "is not valid STAC"),
        (change(assets=7), "is not valid STAC"),
        (bands_are_words, r"red\.tif: its bands in STAC are no list of objects"),
        (change(type="Picture"), "is of type 'Picture'; expected"),
    ],
)
def test_items_that_cannot_be_used(sentinel2, tmp_path, spoil, message):
    path = saved(tmp_path, spoil(sentinel2()), "catalog/items/one.json")
    with pytest.raises(ValueError, match=message) as error:
        open_stac(path)
    assert "\n" not in str(error.value)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json: there is no such file"):
        open_stac(tmp_path / "none.json")
    for text, message in (
        ("{", "is not valid STAC"),
        ("[]", "no STAC object"),
        ("{}", "type None"),
    ):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            open_stac(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bbox": (10, 48, 11)}, "expected west, south, east, north"),
        ({"bbox": (10, 49, 11, 48)}, "south below north"),
        ({"dates": "June"}, "dates 'June' are not understood"),
        ({"dates": "2021-12/2021-01"}, "end before they begin"),
        ({"max_cloud": 20}, r"did you mean 0\.2\?"),
    ],
)
def test_questions_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        open_stac(tmp_path / "any.json", **options)


def test_too_many_items(sentinel2, catalog):
    with pytest.raises(ValueError, match="more than 1 items for no condition; narrow"):
        open_stac(catalog([sentinel2("a"), sentinel2("b")]), most=1)


@pytest.mark.slow  # odc-stac takes seconds to import
@pytest.mark.filterwarnings("ignore")  # deprecations of shapely and affine, in odc-geo
def test_what_odc_stac_loads_is_read_likewise(sentinel2, catalog, read):
    """Its lazy datasets on the grid of the files are scenes of arrays with the same pixels."""
    odc = pytest.importorskip("odc.stac")
    pytest.importorskip("dask")
    import pystac

    from skysense.data.arrays import scene_from_xarray

    source = catalog([sentinel2("a", "2021-06-15")])
    items = [pystac.Item.from_file(source.parent / "items/a.json")]
    data = odc.load(items, bands=list(ORDER), crs="EPSG:32632", resolution=10, chunks={"x": 8})
    ours = read(open_stac(source)).series["s2"]
    theirs = read(scene_from_xarray({"s2": data})).series["s2"]
    np.testing.assert_array_equal(theirs.dates, ours.dates)
    fine = [0, 1, 2, 6]  # those of 20 m it warps in another way
    inside = theirs.pixels[:, fine, 1:-1, 1:-1]  # its box is that of the item, a little wider
    np.testing.assert_array_equal(inside, ours.pixels[:, fine])
