"""A feature map with classes that are known, and labels in every format."""

import csv
import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio import Affine

from skysense.tasks.mapping import map_classes

CELL = 40.0
LEFT, TOP = 600_000.0, 5_340_000.0
CRS = "EPSG:32632"
SHAPE = (60, 80)
WIDTH = 6
NAMES = ("crop", "forest", "water")
HOLE = (slice(0, 8), slice(70, 80))


def make_truth(shape=SHAPE, patch=10):
    """Patches of three classes; every class lies in all parts of the map."""
    rows, cols = np.indices(shape) // patch
    return (rows + 2 * cols) % 3


def make_features(truth, noise=0.7, seed=0):
    """`(D, h, w)`: a centre for each class, on scales that differ by orders of magnitude."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(truth.max() + 1, WIDTH))
    values = centres[truth] + noise * rng.normal(size=(*truth.shape, WIDTH))
    values = (values + 1) * 10.0 ** np.arange(-2, WIDTH - 2)
    return values.transpose(2, 0, 1).astype(np.float32)


def write_features(path, values, *, tags=None, kind="float32", crs=CRS, block=32, **profile):
    """As `skysense embed` stores it: floats with NaN, or int8 with a scale a band."""
    scales = np.ones(len(values))
    if kind == "int8":
        scales = np.nanmax(np.abs(values), (1, 2)) / 127
        scaled = np.round(values / scales[:, None, None])
        values = np.where(np.isfinite(scaled), scaled, -128).astype(np.int8)
    facts = {
        "driver": "GTiff",
        "count": len(values),
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "nodata": -128 if kind == "int8" else np.nan,
        "crs": crs,
        "transform": Affine(CELL, 0, LEFT, 0, -CELL, TOP),
        **({"tiled": True, "blockxsize": block, "blockysize": block} if block else {}),
        **profile,
    }
    with rasterio.open(path, "w", **facts) as file:
        file.write(values)
        file.scales = tuple(map(float, scales))
        made_by = {"SKYSENSE_MODEL": "v2_tiny", "SKYSENSE_STAGE": "fused"}
        file.update_tags(**(made_by if tags is None else tags))
    return path


@pytest.fixture(scope="session")
def truth():
    """`(h, w)` classes 0...2."""
    return make_truth()


@pytest.fixture(scope="session")
def values(truth):
    """`(D, h, w)` features, with a hole."""
    found = make_features(truth)
    found[:, *HOLE] = np.nan
    return found


@pytest.fixture(scope="session")
def features(values, tmp_path_factory):
    """The feature map on disk."""
    return write_features(tmp_path_factory.mktemp("features") / "features.tif", values)


@pytest.fixture(scope="session")
def picked(truth):
    """45 cells spread over the map, outside the hole: `(N, 2)` rows and columns."""
    rng = np.random.default_rng(3)
    cells = np.stack([rng.integers(9, SHAPE[0], 45), rng.integers(0, SHAPE[1], 45)], 1)
    return np.unique(cells, axis=0)


def xy_of(cells):
    """Centres of cells in the map's coordinate system."""
    cells = np.asarray(cells, float)
    return np.stack([LEFT + CELL * (cells[:, 1] + 0.5), TOP - CELL * (cells[:, 0] + 0.5)], 1)


def lonlat_of(cells):
    """Centres of cells in degrees."""
    to_degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    return np.stack(to_degrees.transform(*xy_of(cells).T), 1)


def geojson(path, places, names, field="class", kind="Point", **more):
    """Write features with one property; `None` as a name is null."""
    written = [
        {
            "type": "Feature",
            "properties": {field: name, **{key: value[i] for key, value in more.items()}},
            "geometry": {"type": kind, "coordinates": np.asarray(place).tolist()},
        }
        for i, (place, name) in enumerate(zip(places, names, strict=True))
    ]
    content = {"type": "FeatureCollection", "features": written}
    Path(path).write_text(json.dumps(content), encoding="utf-8")
    return Path(path)


def table(path, places, names, heads=("lon", "lat", "class"), delimiter=","):
    """Write a CSV of points."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(heads)
        writer.writerows([*place, name] for place, name in zip(places, names, strict=True))
    return Path(path)


@pytest.fixture(scope="session")
def names_of(truth):
    """`names_of(cells)`: the true class of each."""
    return lambda cells: [NAMES[truth[row, col]] for row, col in cells]


@pytest.fixture
def labels(tmp_path, picked, names_of):
    """Points in degrees, with the true classes."""
    return geojson(tmp_path / "labels.geojson", lonlat_of(picked), names_of(picked))


@pytest.fixture(scope="session")
def kept_labels(tmp_path_factory, picked, names_of):
    """Those of `labels`, in a file that no test may change."""
    path = tmp_path_factory.mktemp("labels") / "labels.geojson"
    return geojson(path, lonlat_of(picked), names_of(picked))


@pytest.fixture(scope="session")
def maps_of(kept_labels, tmp_path_factory):
    """`maps_of(features)(head) -> MapResult`, each made once, which no test may change."""

    def maps(features):
        folder = tmp_path_factory.mktemp("maps")

        @functools.cache
        def run(head):
            return map_classes(features, kept_labels, folder / head / "landcover.tif", head=head)

        return run

    return maps


@pytest.fixture(scope="session")
def world():
    """The makers of this file, and where its map lies."""
    return SimpleNamespace(
        features=write_features,
        values=make_features,
        truth=make_truth,
        xy=xy_of,
        lonlat=lonlat_of,
        geojson=geojson,
        table=table,
        crs=CRS,
        cell=CELL,
        hole=HOLE,
        names=NAMES,
    )
