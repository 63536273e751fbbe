import json
from datetime import datetime

import numpy as np
import pytest

from skysense.inference.stores import write_stac_item
from skysense.inference.stores.quantize import quantize


@pytest.fixture
def output(tmp_path):
    """A file that passes for a map."""
    path = tmp_path / "map.tif"
    path.write_bytes(b"12345")
    return path


def read(path):
    return json.loads(path.read_text())


def test_the_item_has_what_the_standard_asks_for(source, output):
    map_ = source()

    target = write_stac_item(map_, output, dtype="float16")
    item = read(target)

    assert target == output.with_suffix(".json")
    assert (item["type"], item["stac_version"], item["id"]) == ("Feature", "1.1.0", "map")
    assert item["geometry"]["type"] == "Polygon"
    west, south, east, north = item["bbox"]
    assert 10 < west < east < 11
    assert 48 < south < north < 49
    assert item["links"] == []
    facts = item["properties"]
    assert facts["datetime"] is None
    assert facts["start_datetime"] == "2024-01-20T00:00:00Z"
    assert facts["end_datetime"] == "2024-07-15T23:59:59Z"
    assert facts["proj:code"] == "EPSG:32632"
    assert facts["proj:wkt2"].startswith("PROJCRS[")
    assert facts["proj:shape"] == [23, 17]
    assert facts["proj:transform"] == list(map_.grid.transform)
    assert facts["proj:bbox"] == list(map_.grid.bounds)
    assert facts["processing:software"] == {"skysense": "0.1.0"}
    assert "not trained" in facts["processing:lineage"]
    assert facts["skysense"]["weights"] == "ab" * 32
    for prefix in ("projection", "processing", "file"):
        assert any(f"/{prefix}/v" in url for url in item["stac_extensions"])


def test_assets_are_all_files_with_type_and_role(source, output, tmp_path):
    picture, table = tmp_path / "map.png", tmp_path / "map.parquet"
    picture.write_bytes(b"1")
    table.write_bytes(b"12")
    (tmp_path / "map.zarr").mkdir()

    others = {"quicklook": picture, "table": table, "cube": tmp_path / "map.zarr"}
    assets = read(write_stac_item(source(), output, dtype="float16", others=others))["assets"]

    assert list(assets) == ["data", "quicklook", "table", "cube"]
    assert assets["data"] == {
        "href": "./map.tif",
        "title": "Feature map, Cloud Optimized GeoTIFF",
        "roles": ["data"],
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "file:size": 5,
        "data_type": "float16",
        "nodata": "nan",
    }
    assert assets["quicklook"]["type"] == "image/png"
    assert assets["quicklook"]["roles"] == ["overview"]
    assert assets["table"]["type"] == "application/vnd.apache.parquet"
    assert assets["table"]["roles"] == assets["cube"]["roles"] == ["data"]
    assert assets["cube"]["type"] == "application/vnd.zarr; version=3"


def test_quantization_is_told(source, output):
    made = quantize(source())

    item = read(write_stac_item(source(), output, dtype="int8", quantization=made))

    loss = item["properties"]["skysense"]["storage"]["cosine_loss"]
    assert loss == {"mean": made.mean_loss, "worst": made.worst_loss, "cells": made.cells}
    assert item["assets"]["data"]["nodata"] == -128


def test_one_day_is_a_datetime(source, output):
    map_ = source(dates=np.array(["2024-03-01", "NaT", "2024-03-01"], "datetime64[D]"))

    facts = read(write_stac_item(map_, output))["properties"]

    assert facts["datetime"] == "2024-03-01T00:00:00Z"
    assert "start_datetime" not in facts


def test_without_dates_the_inputs_say_when(source, output):
    facts = read(write_stac_item(source(dates=()), output))["properties"]

    assert facts["datetime"] is None
    assert facts["start_datetime"] == facts["end_datetime"] == "2024-04-01T10:00:00Z"
    assert facts["skysense:undated"] is True


def test_a_system_of_its_own_has_no_code(source, output):
    crs = "+proj=laea +lat_0=48 +lon_0=10 +datum=WGS84 +units=m +type=crs"
    map_ = source(crs=crs, transform=(40.0, 0, 0.0, 0, -40.0, 0.0))

    facts = read(write_stac_item(map_, output))["properties"]

    assert facts["proj:code"] is None
    assert "Lambert Azimuthal" in facts["proj:wkt2"]


def test_others_read_it(source, output, tmp_path):
    pystac = pytest.importorskip("pystac")
    map_ = source(crs="EPSG:32601", transform=(10_000.0, 0, 300_000.0, 0, -10_000.0, 7_300_000.0))
    target = write_stac_item(map_, output)

    item = pystac.Item.from_file(str(target))

    assert item.common_metadata.start_datetime == datetime.fromisoformat("2024-01-20T00:00:00Z")
    assert item.geometry["type"] == "MultiPolygon"
    assert item.bbox[0] > item.bbox[2]  # across the antimeridian
    assert item.ext.proj.code == "EPSG:32601"
    assert item.ext.proj.shape == [23, 17]
    assert item.assets["data"].get_absolute_href() == str(output)
    pytest.importorskip("jsonschema")
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    checker = JsonSchemaSTACValidator()  # its schemas of the core come with the package
    assert checker.validate_core(read(target), pystac.STACObjectType.ITEM, "1.1.0")


def test_an_item_is_replaced_and_other_files_are_not(source, output):
    target = write_stac_item(source(), output)
    assert write_stac_item(source(), output) == target
    target.write_text('{"type": "FeatureCollection", "features": []}')

    longer = write_stac_item(source(), output)
    assert longer.name == f"{output.name}.json"
    assert read(longer)["assets"]["data"]["href"] == f"./{output.name}"
    assert read(target)["type"] == "FeatureCollection"
    longer.write_text("[]")
    with pytest.raises(ValueError, match=r"map\.json is there and is no STAC item; move it"):
        write_stac_item(source(), output)
    assert (read(target)["type"], read(longer)) == ("FeatureCollection", [])


def test_the_item_of_another_output_is_kept(source, output):
    target = write_stac_item(source(), output)
    other = output.with_suffix(".zarr")
    other.mkdir()

    longer = write_stac_item(source(), other)
    assert longer.name == "map.zarr.json"
    assert read(longer)["assets"]["data"]["href"] == "./map.zarr"
    assert read(target)["assets"]["data"]["href"] == f"./{output.name}"
    longer.write_text(target.read_text())
    with pytest.raises(ValueError, match=r"map\.json is that of .*; choose another name than"):
        write_stac_item(source(), other)
    output.unlink()
    write_stac_item(source(), other)  # of what is gone
    assert read(target)["assets"]["data"]["href"] == "./map.zarr"


def test_a_missing_asset_is_refused(source, output, tmp_path):
    with pytest.raises(ValueError, match=r"missing: .*none\.png"):
        write_stac_item(source(), output, others={"quicklook": tmp_path / "none.png"})
    assert not output.with_suffix(".json").exists()


def test_the_same_map_gives_the_same_bytes(source, output):
    first = write_stac_item(source(), output).read_bytes()

    assert write_stac_item(source(), output).read_bytes() == first
