"""The same over HTTP, from a server of this machine: searches, files far away, and failures."""

import copy

import numpy as np
import pytest

from skysense.data.stac import open_stac
from skysense.data.stac.signing import PlanetarySigner

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
    for _ in range(2):
        assert signer(address) == f"{address}?sig=secret"
    assert [path for path, _ in server.asked] == ["/token/sentinel1euwestrtc/sentinel1-grd-rtc"]
    assert signer("https://elsewhere.org/b.tiff") == "https://elsewhere.org/b.tiff"
    failing = PlanetarySigner(f"{server.url}/fails")
    with pytest.raises(ValueError, match=r"gives no token to read with \(500"):
        failing(address)
