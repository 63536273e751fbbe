"""Catalogs on disk, and a server of this machine that plays a STAC API and a store of files."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio import Affine

from skysense.data.scene import SceneReader
from skysense.geo import Window

KEYS = {
    "blue": 10,
    "green": 10,
    "red": 10,
    "rededge1": 20,
    "rededge2": 20,
    "rededge3": 20,
    "nir": 10,
    "nir08": 20,
    "swir16": 20,
    "swir22": 20,
}
SIDE = 16
VERSION = "1.0.0"


def numbers(seed, side, low=1100, high=4000, dtype=np.uint16):
    return np.random.default_rng(seed).integers(low, high, (1, side, side)).astype(dtype)


def write(path, pixels, size, x, y, crs, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(pixels),
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype,
        crs=f"EPSG:{crs}",
        transform=Affine(size, 0, x, 0, -size, y),
        **profile,
    ) as file:
        file.write(pixels)
    return path


def feature(name, collection, day, assets, properties=None, bbox=None, epsg=32632, **more):
    """An item."""
    west, south, east, north = bbox or (10.34, 48.19, 10.36, 48.21)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": f"{day}T10:10:31Z", "proj:epsg": epsg, **(properties or {})},
        "assets": assets,
        "links": [],
        **more,
    }


def box_of(x, y, metres, epsg):
    """West, south, east, north of a square."""
    to = Transformer.from_crs(epsg, 4326, always_xy=True)
    corners = [to.transform(x + a, y - b) for a in (0, metres) for b in (0, metres)]
    lons, lats = zip(*corners, strict=True)
    return min(lons), min(lats), max(lons), max(lats)


@pytest.fixture
def sentinel2(tmp_path):
    """`sentinel2(name, day, ...)`: an item as Earth Search has it, its files beside."""

    def make(
        name="S2A_32UPU_20210615_0_L2A",
        day="2021-06-15",
        seed=0,
        x=600_000.0,
        y=5_340_000.0,
        epsg=32632,
        properties=None,
        described=True,
        value=None,
        classes=4,
        collection="sentinel-2-l2a",
        folder="catalog/items",
        offset=0.0,
    ):
        assets = {}
        for i, (key, size) in enumerate({**KEYS, "scl": 20}.items()):
            side = SIDE * 10 // size
            pixels = numbers(seed * 100 + i, side)
            if value is not None:
                pixels[:] = value
            if key == "scl":
                pixels = np.full((1, side, side), classes, np.uint8)
            write(tmp_path / folder / name / f"{key}.tif", pixels, size, x, y, epsg, nodata=0)
            assets[key] = {
                "href": f"./{name}/{key}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
            }
            if described:
                assets[key] |= {
                    "proj:shape": [side, side],
                    "proj:transform": [size, 0, x, 0, -size, y],
                    "raster:bands": [
                        {"nodata": 0, "data_type": str(pixels.dtype)}
                        | ({} if key == "scl" else {"scale": 1e-4, "offset": offset})
                    ],
                }
        assets["red-jp2"] = {"href": "./none.jp2", "type": "image/jp2", "roles": ["data"]}
        bands = [{"name": c, "common_name": c} for c in ("red", "green", "blue")]
        assets["visual"] = {
            "href": "./none.tif",
            "type": "image/tiff",
            "roles": ["visual"],
            "eo:bands": bands,
        }
        facts = {"platform": "sentinel-2a", "constellation": "sentinel-2", **(properties or {})}
        box = box_of(x, y, SIDE * 10, epsg)
        return feature(name, collection, day, assets, facts, box, epsg)

    return make


@pytest.fixture
def catalog(tmp_path):
    """`catalog(items) -> path`: a static catalog with a collection for each of theirs."""

    def make(items, folder="catalog"):
        root = tmp_path / folder
        (root / "items").mkdir(parents=True, exist_ok=True)
        children = []
        for name in dict.fromkeys(item["collection"] for item in items):
            own = [item for item in items if item["collection"] == name]
            for item in own:
                (root / f"items/{item['id']}.json").write_text(json.dumps(item))
            links = [
                {"rel": "item", "href": f"./items/{item['id']}.json", "type": "application/json"}
                for item in own
            ]
            (root / f"{name}.json").write_text(
                json.dumps(
                    {
                        "type": "Collection",
                        "stac_version": VERSION,
                        "id": name,
                        "description": name,
                        "license": "other",
                        "extent": {
                            "spatial": {"bbox": [[-180, -90, 180, 90]]},
                            "temporal": {"interval": [[None, None]]},
                        },
                        "links": links,
                    }
                )
            )
            children.append({"rel": "child", "href": f"./{name}.json", "type": "application/json"})
        path = root / "catalog.json"
        told = {"type": "Catalog", "stac_version": VERSION, "id": "c", "description": "c"}
        path.write_text(json.dumps({**told, "links": children}))
        return path

    return make


class _Handler(BaseHTTPRequestHandler):
    """Files with ranges, `/api` as a STAC API over `server.items`, `/fails` as one that fails.

    `/download?file=` gives a file as well. With `server.valid`, files want this as `sig=`.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing."""

    def _send(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def _json(self, told):
        self._send(200, json.dumps(told).encode())

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urlsplit(self.path)
        self.server.asked.append((parts.path, parts.query))
        base = f"http://127.0.0.1:{self.server.server_port}/api"
        if parts.path.startswith("/fails"):
            return self._send(500, b"{}")
        if parts.path.rstrip("/") == "/api":
            return self._json(_landing(base))
        if parts.path == "/api/collections":
            one = json.loads((self.server.root / "catalog/sentinel-2-l2a.json").read_text())
            return self._json({"collections": [{**one, "links": []}], "links": []})
        if parts.path.startswith("/token/"):
            return self._json({"token": "sig=secret", "msft:expiry": self.server.expiry})
        asked = parse_qs(parts.query)
        if self.server.valid is not None and asked.get("sig") != [self.server.valid]:
            return self._send(403, b"")
        return self._file(asked["file"][0] if parts.path == "/download" else parts.path)

    def _file(self, name):
        path = self.server.root / name.lstrip("/")
        if not path.is_file():
            return self._send(404, b"")
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        if not wanted:
            return self._send(200, data, "application/octet-stream", Accept_Ranges="bytes")
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last or len(data) - 1), len(data) - 1)
        part = data[int(first) : end + 1]
        told = f"bytes {first}-{end}/{len(data)}"
        return self._send(206, part, "application/octet-stream", Content_Range=told)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.searches.append(asked)
        west, south, east, north = asked["bbox"]
        items = [
            item
            for item in self.server.items
            if item["collection"] in asked["collections"]
            and item["bbox"][0] < east
            and west < item["bbox"][2]
            and item["bbox"][1] < north
            and south < item["bbox"][3]
        ]
        self._json({"type": "FeatureCollection", "features": items, "links": []})


def _landing(base):
    root = "https://api.stacspec.org/v1.0.0"
    links = [
        {"rel": "self", "href": base},
        {"rel": "root", "href": base},
        {"rel": "data", "href": f"{base}/collections"},
        {
            "rel": "search",
            "href": f"{base}/search",
            "method": "POST",
            "type": "application/geo+json",
        },
    ]
    return {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": "api",
        "description": "api",
        "conformsTo": [f"{root}/core", f"{root}/item-search", f"{root}/collections"],
        "links": links,
    }


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server over the test's folder; `.url`, `.items`, `.searches`, `.asked`; see `_Handler`."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    running.root, running.items, running.searches, running.asked = tmp_path, [], [], []
    running.valid, running.expiry = None, "2130-01-01T00:00:00Z"
    running.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def read():
    """Read a whole scene, or a window; if asked, the scale is checked first."""

    def make(scene, window=None, scale=False, **options):
        with SceneReader(scene, **options) as reader:
            if scale:
                reader.check_scale()
            return reader.read(window or Window(0, 0, *scene.grid.shape))

    return make


@pytest.fixture
def put():
    """The writer of rasters."""
    return write


@pytest.fixture
def make_item():
    """The maker of items."""
    return feature
