"""The same over HTTP, from a server of this machine: searches, files far away, and failures."""

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from skysense.data.scene import SceneReader
from skysense.data.stac import open_stac
from skysense.data.stac.signing import PlanetarySigner
from skysense.geo import Window

pytest.importorskip("pystac_client")

BOX = (10.34, 48.19, 10.36, 48.21)
ONE = ["sentinel-2-l2a"]


@pytest.fixture
def api(server, sentinel2, catalog):
    """An API of three dates, whose files the server has, and the catalog on disk."""
    items = [sentinel2(f"i{m}", f"2021-0{m}-10", m, described=m != 2) for m in (1, 2, 3)]
    path = catalog(items)
    for item in copy.deepcopy(items):
        for asset in item["assets"].values():
            asset["href"] = f"{server.url}/catalog/items/{asset['href'].removeprefix('./')}"
        server.items.append(item)
    return path


def days(scene):
    return [str(day) for day in scene.layers["s2"].dates]


def test_search_and_read_windows_far_away(server, api, read):
    scene = open_stac(f"{server.url}/api", BOX, "2021-01/2021-02", ONE)
    assert days(scene) == ["2021-01-10", "2021-02-10"]
    (asked,) = server.searches
    assert asked["datetime"] == "2021-01-01T00:00:00Z/2021-02-28T23:59:59Z"
    assert (asked["bbox"], asked["collections"]) == (list(BOX), ONE)
    local = read(open_stac(api, BOX, "2021-01/2021-02")).series["s2"]
    far = read(scene).series["s2"]
    np.testing.assert_array_equal(far.pixels, local.pixels)
    np.testing.assert_array_equal(far.mask, local.mask)
    assert scene.files == [], "none of this machine"
    beside = {path for path, _ in server.asked if not path.startswith(("/api", "/catalog"))}
    assert all(path.endswith(".tif") for path in beside), "nothing is looked for beside the files"


def test_items_that_tell_all_are_not_opened_before_they_are_read(server, api):
    open_stac(f"{server.url}/api", BOX, "2021-01", ONE)
    assert not [path for path, _ in server.asked if path.endswith(".tif")]


def test_a_static_catalog_on_the_web(server, api, read):
    scene = open_stac(f"{server.url}/catalog/catalog.json", dates="2021-03")
    local = read(open_stac(api, dates="2021-03")).series["s2"]
    np.testing.assert_array_equal(read(scene).series["s2"].pixels, local.pixels)


def test_the_antimeridian_is_asked_for_in_two_halves(server, api):
    with pytest.raises(ValueError, match=r"api: has no item for bbox \[179\.0, 48\.0, -179\.0"):
        open_stac(f"{server.url}/api", (179, 48, -179, 49), None, ONE)
    assert [asked["bbox"] for asked in server.searches] == [
        [179.0, 48.0, 180.0, 49.0],
        [-180.0, 48.0, -179.0, 49.0],
    ]


def test_a_search_needs_collection_and_box(server, api):
    with pytest.raises(ValueError, match=r"needs collections .*; it has sentinel-2-l2a"):
        open_stac(f"{server.url}/api", BOX)
    with pytest.raises(ValueError, match=r"needs a bounding box"):
        open_stac(f"{server.url}/api", collections=ONE)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/fails", r"/fails: the server answered 500"),
        ("/nothing.json", r"/nothing\.json: the server answered 404"),
        ("/catalog/broken.json", r"broken\.json: is not valid STAC"),
    ],
)
def test_a_server_that_fails(server, tmp_path, path, message):
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog/broken.json").write_text("<html>")
    with pytest.raises(ValueError, match=message) as error:
        open_stac(server.url + path)
    assert "\n" not in str(error.value)


def test_no_server():
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9/: cannot be read"):
        open_stac("http://127.0.0.1:9/")


def test_a_catalog_with_a_link_that_fails(server, api, tmp_path):
    (tmp_path / "catalog/items/i3.json").unlink()
    with pytest.raises(ValueError, match=r"items/i3\.json: the server answered 404"):
        open_stac(f"{server.url}/catalog/catalog.json")


@pytest.mark.parametrize("date", ["2021-01", "2021-02"])  # which tells all, which is opened
def test_an_asset_that_is_gone(server, api, read, tmp_path, date):
    month = date[-1]
    (tmp_path / f"catalog/items/i{month}/red.tif").unlink()
    with pytest.raises(ValueError, match=rf"i{month}/red\.tif: cannot be read.*404") as error:
        read(open_stac(f"{server.url}/api", BOX, date, ONE))
    assert "\n" not in str(error.value)


def test_signed_addresses_are_read_and_not_shown(server, api, read, tmp_path):
    asked = []

    def sign(address):
        asked.append(address)
        return f"{address}?sig=secret"

    scene = open_stac(f"{server.url}/api", BOX, "2021-01", ONE, sign=sign)
    read(scene)
    assert all("sig" not in address for address in asked)
    files = [path for path in server.asked if path[0].endswith(".tif")]
    assert {query for _, query in files} == {"sig=secret"}
    (tmp_path / "catalog/items/i1/red.tif").unlink()
    with pytest.raises(ValueError, match="404") as error:
        read(open_stac(f"{server.url}/api", BOX, "2021-01", ONE, sign=lambda a: f"{a}?sig=other"))
    assert "sig=" not in str(error.value)


def test_tokens_of_the_planetary_computer(server):
    signer = PlanetarySigner(f"{server.url}/token", ".blob.core.windows.net")
    address = "https://sentinel1euwestrtc.blob.core.windows.net/sentinel1-grd-rtc/a/b.tiff"
    ends = datetime.now(UTC) + timedelta(minutes=1)
    for expiry, times in ((ends.isoformat(), 3), ("2130-01-01T00:00:00Z", 1)):
        server.expiry = expiry
        server.asked.clear()
        for _ in range(3):
            assert signer(address) == f"{address}?sig=secret"
        asked = ["/token/sentinel1euwestrtc/sentinel1-grd-rtc"] * times
        assert [path for path, _ in server.asked] == asked, "anew where it is about to end"
    assert pickle.loads(pickle.dumps(signer))(address) == f"{address}?sig=secret"
    assert signer("https://elsewhere.org/b.tiff") == "https://elsewhere.org/b.tiff"
    failing = PlanetarySigner(f"{server.url}/fails")
    with pytest.raises(ValueError, match=r"gives no token to read with \(500"):
        failing(address)


@pytest.fixture
def aerial(server, put, make_item, tmp_path):
    """`aerial(address, **fields)`: an item of three files of one band, and what they hold."""

    def make(address, **fields):
        pixels = np.random.default_rng(0).integers(1, 255, (3, 1, 1024, 1024)).astype(np.uint8)
        assets = {}
        for name, own in zip("RGB", pixels, strict=True):
            tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256}
            put(tmp_path / f"{name}.tif", own, 1, 6e5, 5.34e6, 32632, **tiles)
            href = f"{server.url}/{address.format(name)}"
            assets[name] = {"href": href, "type": "image/tiff", "roles": ["data"], **fields}
        path = tmp_path / "item.json"
        path.write_text(json.dumps(make_item("x", "aerial", "2021-06-15", assets)))
        return path, pixels[:, 0]

    return make


TOLD = {
    "proj:shape": [1024, 1024],
    "proj:transform": [1, 0, 6e5, 0, -1, 5.34e6],
    "raster:bands": [{"data_type": "uint8"}],
}


@pytest.mark.parametrize("fields", [{}, TOLD], ids=["opened", "told"])
def test_addresses_that_differ_in_what_they_ask_for(server, aerial, read, fields):
    path, pixels = aerial("download?file={}.tif", **fields)
    scenes = [
        open_stac(path, sensors={"hr": "rgb8"}, sign=sign)
        for sign in (None, lambda a: f"{a}&sig=one", lambda a: f"{a}&sig=two")
    ]
    for scene in scenes:
        assert len(scene.layers["hr"].acquisitions[0].files) == 3
        sample = read(scene, Window(0, 0, 32, 32))
        np.testing.assert_array_equal(sample.series["hr"].pixels[0], pixels[:, :32, :32])
    first, *others = (scene.labels for scene in scenes)
    assert len(set(first)) == 3
    assert all(labels == first for labels in others), "however it is signed"
    assert not any("?" in label or "sig" in label for label in first)


@pytest.mark.parametrize("warped", [False, True])
@pytest.mark.parametrize("fields", [{}, TOLD], ids=["opened", "told"])
def test_a_signature_that_ends_while_files_are_read(server, aerial, raster, fields, warped):
    path, pixels = aerial("{}.tif", **fields)
    server.valid = "one"
    scene = open_stac(path, sensors={"hr": "rgb8"}, sign=lambda a: f"{a}?sig={server.valid}")
    server.valid = "two"  # between finding and opening
    with SceneReader(scene) as reader:
        readers = reader._series["hr"][0]._files
        if warped:
            for one, *_ in readers:
                one._place, one._vrt = None, one._warp()
        reader.read(Window(0, 0, 32, 32))
        server.valid = "three"  # between windows
        sample = reader.read(Window(900, 900, 32, 32))
        assert (sample.series["hr"].pixels[0].numpy() == pixels[:, 900:932, 900:932]).all()
        server.valid = "four"
        sent = pickle.loads(pickle.dumps(scene))
    with SceneReader(sent) as reader:
        sample = reader.read(Window(500, 500, 32, 32))
    assert (sample.series["hr"].pixels[0].numpy() == pixels[:, 500:532, 500:532]).all()


def test_a_signature_that_stays_refused(server, aerial):
    path, _ = aerial("{}.tif")
    server.valid = "one"
    scene = open_stac(path, sensors={"hr": "rgb8"}, sign=lambda a: f"{a}?sig=one")
    with SceneReader(scene) as reader:
        reader.read(Window(0, 0, 32, 32))
        server.valid = "two"
        with pytest.raises(ValueError, match=r"/R\.tif: .*its server gives it no more") as error:
            reader.read(Window(900, 900, 32, 32))
    assert "\n" not in str(error.value)
    assert "sig=" not in str(error.value)


def test_far_files_that_break_off_once_are_read_on(server, aerial):
    """Also where nothing signs them."""
    path, pixels = aerial("{}.tif")
    scene = open_stac(path, sensors={"hr": "rgb8"})
    with SceneReader(scene) as reader:
        reader.read(Window(0, 0, 32, 32))
        readers = [one for one, *_ in reader._series["hr"][0]._files]
        for one in readers:
            one._dataset.close()
        sample = reader.read(Window(900, 900, 32, 32))
    assert (sample.series["hr"].pixels[0].numpy() == pixels[:, 900:932, 900:932]).all()
