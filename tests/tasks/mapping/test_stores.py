"""Features in stores: the same map as from a GeoTIFF, window by window, and clear faults."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
import rasterio

from skysense.geo import Grid
from skysense.inference.stores import MapSource, Provenance, write_store
from skysense.tasks.mapping import (
    holds_features,
    map_classes,
    map_clusters,
    open_features,
)

pytest.importorskip("pyogrio", reason="pyogrio, of the extra `vector`, is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="the extra `stores` is not installed")
zarr = pytest.importorskip("zarr", reason="the extra `stores` is not installed")
lancedb = pytest.importorskip("lancedb", reason="the extra `search` is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*labelled cells hold no features"),
    pytest.mark.filterwarnings("ignore:.*labels lie outside the map"),
]

SUFFIXES = (".zarr", ".parquet", ".lance")
MADE = Provenance(
    model="v2_tiny",
    trained=False,
    weights="ab" * 32,
    package="0.1.0",
    inputs=(),
    dates={"s2": ["2024-03-01", None]},
    options={"sensors": {"s2": "s2_l2a"}, "stage": "fused", "tile": 64, "overlap": 16},
)
TAGS = {
    "SKYSENSE_MODEL": "v2_tiny",
    "SKYSENSE_TRAINED": "false",
    "SKYSENSE_STAGE": "fused",
    "SKYSENSE_TILE": "64 overlap 16",
    "SKYSENSE_PROVENANCE": MADE.text(),
    "SKYSENSE_S2": "s2_l2a 2024-03-01 undated",
}


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def source_of(raster, values, rows=None):
    """What a store of a raster's cells is made from."""
    with rasterio.open(raster) as file:
        grid = Grid(file.crs.to_wkt(), tuple(file.transform)[:6], file.shape)
    rows = rows or (lambda first, stop: values[:, first:stop])
    return MapSource(grid, len(values), rows, [np.datetime64("2024-03-01")], MADE)


@pytest.fixture(scope="session")
def halves(values):
    """`(D, h, w)` features that half precision holds exactly, with a row of nothing."""
    found = values.copy()
    found[:, 20:24] = np.nan
    return found.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="session")
def raster(world, halves, tmp_path_factory):
    """The features as a GeoTIFF."""
    return world.features(tmp_path_factory.mktemp("halves") / "f.tif", halves, tags=TAGS)


@pytest.fixture(scope="session")
def kept_stores(raster, halves, tmp_path_factory):
    """`(suffix, dtype)` to the store of the same features, written in bands of 12 rows."""
    folder, found = tmp_path_factory.mktemp("stores"), {}
    with pytest.MonkeyPatch.context() as patch:
        size = 4 * len(halves) * halves.shape[2] * 12
        patch.setattr("skysense.inference.stores.source.cells.__defaults__", (size,))
        patch.setattr("skysense.inference.stores.lance_table._BAND_BYTES", size)
        patch.setattr("skysense.inference.stores.zarr_store._CHUNK_BYTES", 2 * 6 * 16 * 16)
        for suffix in SUFFIXES:
            for dtype in ("float16", "float32", "int8"):
                if (suffix, dtype) != (".lance", "int8"):
                    found[suffix, dtype] = folder / f"{dtype}{suffix}"
                    write_store(source_of(raster, halves), found[suffix, dtype], dtype, window=16)
    return found


@pytest.fixture
def store(kept_stores, tmp_path):
    """`store(suffix, dtype) -> Path` of a copy that a test may break."""

    def copy(suffix, dtype="float16"):
        kept = kept_stores[suffix, dtype]
        path = tmp_path / f"map{suffix}"
        (shutil.copytree if kept.is_dir() else shutil.copyfile)(kept, path)
        return path

    return copy


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of 480 cells: 6 rows."""
    monkeypatch.setattr("skysense.tasks.mapping.sources.WINDOW_BYTES", 4 * 6 * 480)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_holds_what_the_raster_holds(kept_stores, raster, halves, suffix, dtype):
    with open_features(kept_stores[suffix, dtype]) as found, open_features(raster) as expected:
        assert (found.channels, found.grid.shape) == (expected.channels, expected.grid.shape)
        assert found.grid.transform == expected.grid.transform
        assert rasterio.CRS.from_user_input(found.grid.crs) == rasterio.CRS.from_user_input(
            expected.grid.crs
        )
        assert found.tags == expected.tags == TAGS
        whole = np.full_like(halves, 0)
        for window in found.windows():
            rows = slice(window.row, window.row + window.height)
            whole[:, rows, window.col : window.col + window.width] = found.read(window)
        np.testing.assert_array_equal(whole, halves)
        places = np.argwhere(np.ones(halves.shape[1:]))[::37]
        np.testing.assert_array_equal(
            found.cells(*places.T), halves[:, places[:, 0], places[:, 1]].T
        )


@pytest.fixture(scope="module")
def of_raster(raster, maps_of):
    """`of_raster(head) -> MapResult` of the GeoTIFF, which no test may change."""
    return maps_of(raster)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("dtype", "head"), [("float16", "logistic"), ("float32", "knn")])
def test_the_same_map_from_a_store(
    kept_stores, of_raster, kept_labels, tmp_path, suffix, dtype, head, small_windows
):
    path, expected = kept_stores[suffix, dtype], of_raster(head)
    found = map_classes(path, kept_labels, tmp_path / "map.tif", head=head)
    np.testing.assert_array_equal(read(found.path), read(expected.path))
    one, other = (result.metrics.copy() for result in (expected, found))
    assert one.pop("features")["tags"] == other.pop("features")["tags"]
    assert one == other
    with rasterio.open(found.path) as file, rasterio.open(expected.path) as like:
        assert (file.crs, file.transform, file.tags()) == (like.crs, like.transform, like.tags())


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_nearly_the_same_classes_from_int8(kept_stores, of_raster, kept_labels, tmp_path, suffix):
    path, expected = kept_stores[suffix, "int8"], read(of_raster("logistic").path)
    found = read(map_classes(path, kept_labels, tmp_path / "map.tif").path)
    assert ((found == 255) == (expected == 255)).all()
    assert (found == expected).mean() > 0.97


def test_the_same_clusters_however_it_is_read(
    kept_stores, raster, tmp_path, monkeypatch, small_windows
):
    monkeypatch.setattr("skysense.tasks.mapping.clustering.sample_cells.__defaults__", (1000,))
    expected = map_clusters(raster, 3, tmp_path / "a" / "c.tif")
    for i, suffix in enumerate(SUFFIXES):
        found = map_clusters(kept_stores[suffix, "float16"], 3, tmp_path / f"{i}" / "c.tif")
        assert found.path.read_bytes() == expected.path.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_windows_cover_a_store_once_and_stay_small(kept_stores, suffix, small_windows):
    with open_features(kept_stores[suffix, "float16"]) as found:
        seen = np.zeros(found.grid.shape, int)
        for window in found.windows():
            assert window.height * window.width <= 480
            rows = slice(window.row, window.row + window.height)
            seen[rows, window.col : window.col + window.width] += 1
        assert (seen == 1).all()


def test_a_row_group_is_read_once_in_a_pass(kept_stores, small_windows, monkeypatch):
    asked = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, i, **options: asked.append(i) or whole(self, i, **options),
    )
    with open_features(kept_stores[".parquet", "float16"]) as found:
        cells = sum(len(values) for _, _, values in found.valid_cells())
    groups = pq.ParquetFile(kept_stores[".parquet", "float16"]).metadata
    assert groups.num_row_groups > 3
    assert asked == list(range(groups.num_row_groups))
    assert cells == groups.num_rows


def test_a_file_that_was_written_anew_by_another_program(kept_stores, halves, tmp_path):
    """Rows in any order, in groups of any size, without statistics."""
    table = pq.read_table(kept_stores[".parquet", "float16"])
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    path = tmp_path / "again.parquet"
    pq.write_table(shuffled, path, row_group_size=700, write_statistics=False)
    with open_features(path) as found:
        (window,) = found.windows()
        np.testing.assert_array_equal(found.read(window), halves)


def test_what_is_features(kept_stores, raster, tmp_path):
    for path in (*kept_stores.values(), raster):
        assert holds_features(path)
    with pytest.raises(ValueError, match=r"no\.zarr: there is no such file"):
        holds_features(tmp_path / "no.zarr")


def refuse(path, match, labels, tmp_path):
    """One line that names the store, and no map."""
    with pytest.raises(ValueError, match=re.escape(match)) as caught:
        map_classes(path, labels, tmp_path / "out" / "map.tif")
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert ".rs" not in text
    out = tmp_path / "out"
    assert not out.exists() or not list(out.iterdir())


def chunks(path):
    """Files of the vectors."""
    return sorted(file for file in (path / "features" / "c").rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda raw: raw[: len(raw) // 2], "is damaged"),
        (lambda raw: b"", "is damaged"),
        (lambda raw: raw[:16] + b"\xff" * (len(raw) - 16), "cannot be read"),
    ],
)
def test_a_broken_chunk(store, labels, tmp_path, spoil, match):
    path = store(".zarr")
    file = chunks(path)[3]
    file.write_bytes(spoil(file.read_bytes()))
    refuse(path, match, labels, tmp_path)


def test_a_chunk_that_is_gone(store, labels, tmp_path):
    path = store(".zarr")
    chunks(path)[3].unlink()
    refuse(path, "a part of the store is missing", labels, tmp_path)


def test_a_file_that_is_cut_short_or_overwritten(store, kept_stores, labels, tmp_path):
    path = store(".parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse(path, "cannot be read", labels, tmp_path)
    metadata = pq.ParquetFile(kept_stores[".parquet", "float16"]).metadata
    column = metadata.row_group(1).column(metadata.num_columns - 1)
    assert column.path_in_schema.startswith("vector")
    start, size = column.data_page_offset, column.total_compressed_size
    path.write_bytes(whole[:start] + b"\xff" * size + whole[start + size :])
    refuse(path, "cannot be read", labels, tmp_path)


@pytest.mark.parametrize("spoil", ["cut", "gone", "noise"])
def test_a_table_whose_data_are_broken(store, labels, tmp_path, spoil):
    path = store(".lance")
    file = sorted((path / "data").iterdir())[1]
    if spoil == "gone":
        file.unlink()
    else:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if spoil == "cut" else b"\xff" * len(whole))
    refuse(path, "cannot be read", labels, tmp_path)


def test_what_is_no_store(labels, tmp_path):
    for suffix, match in (
        (".zarr", "is not a Zarr store: a folder is expected"),
        (".parquet", "cannot be read"),
        (".lance", "cannot be read"),
    ):
        path = tmp_path / f"text{suffix}"
        path.write_text("hello")
        refuse(path, match, labels, tmp_path)
    for suffix in SUFFIXES:
        path = tmp_path / f"empty{suffix}"
        path.mkdir()
        refuse(path, "cannot be read", labels, tmp_path)
        refuse(tmp_path / f"no{suffix}", "there is no such file", labels, tmp_path)


def test_stores_of_others(kept_stores, labels, tmp_path):
    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    group.create_array("features", data=np.zeros((2, 3, 4), np.float32))
    table = pq.read_table(kept_stores[".parquet", "float16"]).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "other.parquet")
    lancedb.connect(str(tmp_path)).create_table("other", table)
    for suffix in SUFFIXES:
        path = tmp_path / f"other{suffix}"
        refuse(path, "is not a store of `skysense embed`", labels, tmp_path)


def said(path):
    return json.loads(pq.read_schema(path).metadata[b"skysense"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda facts: facts.pop("grid"), "does not say where its cells lie"),
        (lambda facts: facts.pop("storage"), "what the store says of itself is damaged"),
        (lambda facts: facts["grid"].update(shape=[0, 4]), "says of itself is damaged"),
        (lambda facts: facts["grid"].update(shape=[10, 80]), "cells lie outside the map of 10"),
        (
            lambda facts: facts.update(storage={"dtype": "int8", "scale": [1.0]}),
            "not a list of 1 numbers",
        ),
    ],
)
def test_a_store_that_says_what_cannot_be(store, labels, tmp_path, change, match):
    path = store(".parquet")
    table, facts = pq.read_table(path), said(path)
    change(facts)
    pq.write_table(table.replace_schema_metadata({"skysense": json.dumps(facts)}), path)
    refuse(path, match, labels, tmp_path)


def test_a_table_without_its_columns(store, labels, tmp_path):
    path = store(".parquet")
    pq.write_table(pq.read_table(path).drop_columns(["row"]), path)
    refuse(path, "has no column row", labels, tmp_path)


def test_the_array_and_the_grid_differ(store, labels, tmp_path):
    path = store(".zarr")
    facts = json.loads((path / "zarr.json").read_text())
    facts["attributes"]["spatial:shape"] = [61, 80]
    (path / "zarr.json").write_text(json.dumps(facts))
    refuse(path, "are not one map of 61 x 80 cells", labels, tmp_path)
    (path / "zarr.json").write_text("{")
    refuse(path, "cannot be read", labels, tmp_path)


def test_no_map_is_written_into_a_store(store, labels):
    path = store(".zarr")
    with pytest.raises(ValueError, match="is an input; choose another output"):
        map_classes(path, labels, path / "map.tif")


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [
        (".zarr", "zarr", "stores"),
        (".parquet", "pyarrow.parquet", "stores"),
        (".lance", "lancedb", "search"),
    ],
)
def test_a_missing_extra_is_named(kept_stores, monkeypatch, suffix, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=re.escape(f"pip install 'skysense[{extra}]'")):
        open_features(kept_stores[suffix, "float16"])
