"""The map on disk: what it says of itself, how exact it is, and that it is whole or not there."""

import shutil

import numpy as np
import pytest
import rasterio

from skysense.geo import Grid
from skysense.inference import writer as module
from skysense.inference.writer import MapWriter

D = 5
NAMES = [f"feature_{i}" for i in range(D)]
TRANSFORM = (40.0, 0.0, 600_000.0, 0.0, -40.0, 5_340_000.0)
DTYPES = ("float16", "float32", "int8")


def features(shape, seed=0):
    """`(D, h, w)` of different sizes a band, NaN in a corner."""
    values = np.random.default_rng(seed).normal(size=(D, *shape)).astype(np.float32)
    values *= 10.0 ** np.arange(-2, D - 2)[:, None, None]
    values[:, : shape[0] // 4, : shape[1] // 3] = np.nan
    return values


def write(path, values, dtype="float32", crs="EPSG:32632", transform=TRANSFORM, rows=7, tags=None):
    made = MapWriter(path, Grid(crs, transform, values.shape[1:]), values.shape[0])
    for row in range(0, values.shape[1], rows):
        made.write(values[:, row : row + rows])
    made.finish(dtype, NAMES, tags or {"SKYSENSE_MODEL": "v2_tiny", "NOTE": "a < b & 'c'"})
    return path


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 33), (600, 530)])
def test_what_the_file_says(tmp_path, dtype, shape):
    path = write(tmp_path / "map.tif", features(shape), dtype)
    with rasterio.open(path) as file:
        assert file.driver == "GTiff"
        assert file.crs.to_epsg() == 32632
        assert tuple(file.transform)[:6] == TRANSFORM
        assert (file.count, *file.shape) == (D, *shape)
        assert file.descriptions == tuple(NAMES)
        assert file.tags()["SKYSENSE_MODEL"] == "v2_tiny"
        assert file.tags()["NOTE"] == "a < b & 'c'"
        assert file.dtypes[0] == ("int8" if dtype == "int8" else "float32")
        assert file.nodata == -128 if dtype == "int8" else np.isnan(file.nodata)
        structure = file.tags(ns="IMAGE_STRUCTURE")
        assert (structure["LAYOUT"], structure["COMPRESSION"]) == ("COG", "DEFLATE")
        assert structure["INTERLEAVE"] == "PIXEL"
        block = file.block_shapes[0]
        assert file.profile["tiled"]
        assert block == (512, 512)
        assert bool(file.overviews(1)) == (max(shape) > 512), "where it is larger than a block"
        missing = ~file.read_masks(1).astype(bool)
    np.testing.assert_array_equal(missing, np.isnan(features(shape)[0]))
    assert leftovers(tmp_path) == []


def test_blocks_hold_at_most_8_mb(tmp_path):
    for bands, side in ((8, 512), (9, 256), (64, 128), (1000, 128)):
        grid = Grid("EPSG:32632", TRANSFORM, (4, 4))
        made = MapWriter(tmp_path / "map.tif", grid, bands)
        made.write(np.zeros((bands, 4, 4), np.float32))
        made.finish("float16", [f"b{i}" for i in range(bands)], {})
        with rasterio.open(tmp_path / "map.tif") as file:
            assert file.block_shapes[0] == (side, side)


@pytest.mark.parametrize("shape", [(1, 1), (20, 33), (300, 140)])
def test_precision(tmp_path, shape):
    values = features(shape)
    with rasterio.open(write(tmp_path / "f.tif", values, "float32")) as file:
        np.testing.assert_array_equal(file.read(), values)
    with rasterio.open(write(tmp_path / "h.tif", values, "float16")) as file:
        np.testing.assert_array_equal(file.read(), values.astype(np.float16))
    with rasterio.open(write(tmp_path / "i.tif", values, "int8")) as file:
        stored, scales = file.read(), np.array(file.scales)
        assert file.offsets == (0,) * D
    valid = np.isfinite(values)
    restored = stored * scales[:, None, None]
    off = np.abs(restored - values)
    assert (off <= scales[:, None, None] * 0.5001)[valid].all()
    assert (stored[~valid] == -128).all()
    assert np.abs(stored[valid]).max() == 127, "the range is used"


def test_overviews_of_a_map_are_means_without_the_missing(tmp_path):
    values = np.full((D, 600, 600), 3, np.float32)
    values[:, ::2] = np.nan
    path = write(tmp_path / "map.tif", values)
    with rasterio.open(path, overview_level=0) as file:
        assert file.shape == (300, 300)
        np.testing.assert_array_equal(file.read(1), 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_map_is_the_same_bytes(tmp_path, dtype):
    """GDAL's 16-bit storage filled edge blocks with whatever lay in memory."""
    values = features((150, 70))
    first = write(tmp_path / "a.tif", values, dtype).read_bytes()
    rubbish = np.random.default_rng(9).bytes(50_000_000)
    del rubbish
    assert write(tmp_path / "b.tif", values, dtype, rows=150).read_bytes() == first


@pytest.mark.parametrize("dtype", DTYPES)
def test_edges_of_blocks_cost_nothing(tmp_path, dtype):
    assert write(tmp_path / "map.tif", features((4, 4)), dtype).stat().st_size < 40_000


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", (4e-4, 0, 10.3, 0, -3e-4, 48.2)),
        ("EPSG:3035", TRANSFORM),
        ("EPSG:32632", (40, 0, 600_000, 0, 40, 5_300_000)),  # south up
        ("EPSG:32632", (32, 24, 600_000, 24, -32, 5_300_000)),  # turned
    ],
)
def test_place(tmp_path, crs, transform):
    with rasterio.open(write(tmp_path / "m.tif", features((9, 9)), "int8", crs, transform)) as file:
        assert file.crs == rasterio.CRS.from_string(crs)
        np.testing.assert_allclose(tuple(file.transform)[:6], transform, rtol=1e-12)


def test_rows_so_far(tmp_path):
    values = features((6, 4))
    made = MapWriter(tmp_path / "map.tif", Grid("EPSG:32632", TRANSFORM, (6, 4)), D)
    made.write(values)
    np.testing.assert_array_equal(list(made.rows()), values.transpose(1, 0, 2))
    assert made.valid_cells == np.isfinite(values[0]).sum()
    made.abort()


def test_nothing_is_there_before_the_end_nor_after_giving_up(tmp_path):
    path = tmp_path / "new" / "folder" / "map.tif"
    made = MapWriter(path, Grid("EPSG:32632", TRANSFORM, (6, 4)), D)
    made.write(features((6, 4)))
    assert not path.exists()
    made.abort()
    made.abort()
    assert list(path.parent.iterdir()) == []


def test_a_map_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch):
    path = write(tmp_path / "map.tif", features((6, 4)))
    before = path.read_bytes()

    def fail(*_, **__):
        raise rasterio.errors.RasterioIOError("write failed")

    monkeypatch.setattr(rasterio.shutil, "copy", fail)
    with pytest.raises(ValueError, match=r"map\.tif could not be written \(write failed\); free"):
        write(path, features((6, 4), seed=1))
    assert path.read_bytes() == before
    assert leftovers(tmp_path) == []


class FullDisk:
    """A file to which nothing more can be written."""

    closed = False

    def write(self, *_):
        raise OSError(28, "No space left on device")

    def close(self):
        self.closed = True

    flush = write


def test_full_disk_while_rows_come(tmp_path):
    made = MapWriter(tmp_path / "map.tif", Grid("EPSG:32632", TRANSFORM, (6, 4)), D)
    made._rows.close()
    made._rows = FullDisk()
    for step in (lambda: made.write(features((6, 4))), made.rows):
        with pytest.raises(ValueError, match=r"No space left on device.*free some space in"):
            step()
    made.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_full_disk_while_numbers_are_converted(tmp_path, monkeypatch, dtype):
    made = MapWriter(tmp_path / "map.tif", Grid("EPSG:32632", TRANSFORM, (6, 4)), D)
    made.write(features((6, 4)))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MapWriter, "_converted", full)
    with pytest.raises(ValueError, match="No space left on device"):
        made.finish(dtype, NAMES, {})
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_said_at_once(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"the map needs about 2e\+03 MB .* 1 MB are free"):
        MapWriter(tmp_path / "map.tif", Grid("EPSG:32632", TRANSFORM, (10_000, 10_000)), D)
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder_can_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*file: "):
        MapWriter(tmp_path / "file" / "map.tif", Grid("EPSG:32632", TRANSFORM, (6, 4)), D)
