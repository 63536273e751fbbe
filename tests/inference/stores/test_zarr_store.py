import json

import numpy as np
import pytest

from skysense.inference.stores import write_store
from skysense.inference.stores.zarr_store import chunk_side

pytest.importorskip("zarr")
xr = pytest.importorskip("xarray")

PER_TYPE = {"float32": 0.0, "float16": 1e-3}


def center(source, row, col):
    return source.grid.xy(row + 0.5, col + 0.5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_reader_finds_the_vector_of_a_place(source, values, tmp_path, dtype):
    map_ = source(values())
    expected = map_.rows(0, 23)
    made = write_store(map_, tmp_path / "map.zarr", dtype)

    data = xr.open_zarr(tmp_path / "map.zarr")  # a warning would be an error here

    assert data.features.dims == ("time", "band", "y", "x")
    features = data.features if dtype != "int8" else data.features * data.scale
    for row, col in ((0, 0), (22, 16), (5, 3), (11, 9)):
        x, y = center(map_, row, col)
        found = features.sel(x=x + 13, y=y - 13, method="nearest").isel(time=0).values
        if dtype == "int8":
            step = made.scale * 0.51
            assert np.allclose(found, expected[:, row, col], atol=step.max(), equal_nan=True)
        else:
            limits = {"rtol": PER_TYPE[dtype], "equal_nan": True}
            assert np.allclose(found, expected[:, row, col], **limits)
    assert (np.isnan(features.values[0]) == np.isnan(expected)).all()


def test_int8_reads_back_as_the_quantization_says(source, values, tmp_path):
    map_ = source(values())
    made = write_store(map_, tmp_path / "map.zarr", "int8")

    data = xr.open_zarr(tmp_path / "map.zarr")

    stored = (data.features * data.scale).isel(time=0).transpose("band", "y", "x").values
    assert np.array_equal(stored, made.decode(made.encode(map_.rows(0, 23))), equal_nan=True)
    storage = data.attrs["skysense"]["storage"]
    assert storage["cosine_loss"]["mean"] == made.mean_loss
    assert storage["cosine_loss"]["worst"] == made.worst_loss
    assert storage["scale"] == made.scale.tolist() == data.scale.values.tolist()


def test_time_is_the_last_day_and_its_bounds_the_period(source, tmp_path):
    write_store(source(), tmp_path / "map.zarr", "float16")

    data = xr.open_zarr(tmp_path / "map.zarr")

    assert data.time.values.astype("datetime64[D]").astype(str).tolist() == ["2024-07-15"]
    bounds = data.time_bounds.values.astype("datetime64[D]").astype(str).tolist()
    assert bounds == [["2024-01-20", "2024-07-15"]]


def test_without_a_known_date_there_is_no_time(source, tmp_path):
    nat = [np.datetime64("NaT", "D")]
    write_store(source(dates=nat), tmp_path / "map.zarr", "float16")

    data = xr.open_zarr(tmp_path / "map.zarr")

    assert data.features.dims == ("band", "y", "x")
    assert "time" not in data


def test_attributes_say_where_and_whence(source, tmp_path):
    map_ = source()
    write_store(map_, tmp_path / "map.zarr", "float16")

    group = json.loads((tmp_path / "map.zarr/zarr.json").read_text())
    array = json.loads((tmp_path / "map.zarr/features/zarr.json").read_text())
    mapping = json.loads((tmp_path / "map.zarr/spatial_ref/zarr.json").read_text())["attributes"]

    for attributes in (group["attributes"], array["attributes"]):
        assert attributes["proj:code"] == "EPSG:32632"
        assert attributes["proj:wkt2"].startswith("PROJCRS[")
        assert attributes["spatial:transform"] == list(map_.grid.transform)
        assert attributes["spatial:shape"] == [23, 17]
        assert attributes["spatial:bbox"] == list(map_.grid.bounds)
        names = [convention["name"] for convention in attributes["zarr_conventions"]]
        assert names == ["proj", "spatial"]
    assert array["attributes"]["spatial:dimensions"] == ["y", "x"]
    assert array["attributes"]["grid_mapping"] == "spatial_ref"
    assert array["fill_value"] == "NaN"
    assert [codec["name"] for codec in array["codecs"]] == ["bytes", "blosc"]
    assert array["codecs"][1]["configuration"]["cname"] == "zstd"
    assert mapping["grid_mapping_name"] == "transverse_mercator"
    assert mapping["GeoTransform"] == "600000.0 40.0 0.0 5340000.0 0.0 -40.0"
    assert group["attributes"]["skysense"] == {
        **json.loads(map_.provenance.text()),
        "storage": {"dtype": "float16", "cells": int(np.isfinite(map_.rows(0, 23)[0]).sum())},
    }
    assert "features" in group["consolidated_metadata"]["metadata"]


def test_axes_of_degrees_are_longitude_and_latitude(source, tmp_path):
    map_ = source(crs="EPSG:4326", transform=(0.1, 0, 10.0, 0, -0.1, 50.0))
    write_store(map_, tmp_path / "map.zarr", "float16")

    data = xr.open_zarr(tmp_path / "map.zarr")

    assert data.x.attrs["standard_name"] == "longitude"
    assert data.y.attrs["standard_name"] == "latitude"
    assert data.x.values[0] == pytest.approx(10.05)
    assert data.y.values[-1] == pytest.approx(50 - 2.25)


def test_a_rotated_grid_has_no_axes_but_its_transform(source, tmp_path):
    map_ = source(transform=(8.0, 6.0, 600_000.0, 6.0, -8.0, 5_340_000.0))
    write_store(map_, tmp_path / "map.zarr", "float16")

    data = xr.open_zarr(tmp_path / "map.zarr")

    assert "x" not in data.coords
    assert data.attrs["spatial:transform"] == [8.0, 6.0, 600_000.0, 6.0, -8.0, 5_340_000.0]


def test_the_same_map_gives_the_same_bytes(source, tmp_path, tree):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_store(source(), tmp_path / name / "map.zarr", "int8", window=4)

    first, second = (tree(tmp_path / name / "map.zarr") for name in ("a", "b"))

    assert len(first) > 10
    assert first == second


@pytest.mark.parametrize(
    ("channels", "itemsize", "window", "side"),
    [(192, 2, None, 64), (192, 2, 96, 96), (192, 2, 16, 64), (2816, 4, 128, 16), (3, 1, 7, 896)],
)
def test_chunks_are_multiples_or_divisors_of_windows(channels, itemsize, window, side):
    assert chunk_side(channels, itemsize, window) == side
    if window is not None:
        assert side % window == 0 or window % side == 0


def test_no_window_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="at least one cell, got 0"):
        write_store(source(), tmp_path / "map.zarr", "float16", window=0)


def test_chunks_without_a_vector_take_no_space(source, values, tmp_path, monkeypatch):
    monkeypatch.setattr("skysense.inference.stores.zarr_store._CHUNK_BYTES", 5 * 2 * 4 * 4)
    map_ = values(missing=0)
    map_[:, :, 8:12] = np.nan
    write_store(source(map_), tmp_path / "map.zarr", "float16", window=4)

    chunks = {p.parts[-2:] for p in (tmp_path / "map.zarr/features/c/0/0").glob("*/*")}

    assert ("0", "0") in chunks
    assert ("0", "4") in chunks
    assert not [place for place in chunks if place[1] == "2"]
