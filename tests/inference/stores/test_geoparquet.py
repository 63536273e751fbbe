import json
import struct

import numpy as np
import pytest
from pyproj import CRS

from skysense.inference.stores import write_store

pq = pytest.importorskip("pyarrow.parquet")


def polygon(data):
    """The one ring of a little-endian WKB polygon."""
    order, kind, count, vertices = struct.unpack_from("<BIII", data)
    assert (order, kind, count) == (1, 3, 1)
    assert len(data) == 13 + 16 * vertices
    return np.frombuffer(data, "<f8", offset=13).reshape(vertices, 2)


def vectors(table):
    """`(N, D)`."""
    return np.stack(table["vector"].to_numpy(zero_copy_only=False))


def geo(path):
    return json.loads(pq.read_schema(path).metadata[b"geo"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_every_valid_cell_is_a_row_and_reads_back(source, values, tmp_path, small_bands, dtype):
    map_ = source(values())
    expected = map_.rows(0, 23)
    rows, cols = np.nonzero(np.isfinite(expected[0]))

    made = write_store(map_, tmp_path / "map.parquet", dtype)
    table = pq.read_table(tmp_path / "map.parquet")

    assert table["row"].to_pylist() == rows.tolist()
    assert table["col"].to_pylist() == cols.tolist()
    found = vectors(table)
    assert str(table.schema.field("vector").type.value_type) in (dtype, "halffloat", "float")
    if dtype == "int8":
        assert found.dtype == np.int8
        assert (made.encode(expected)[:, rows, cols] == found.T).all()
        facts = json.loads(pq.read_schema(tmp_path / "map.parquet").metadata[b"skysense"])
        scale = np.array(facts["storage"]["scale"], np.float32)
        assert np.abs(found * scale - expected[:, rows, cols].T).max() <= scale.max() * 0.51
    else:
        assert (expected[:, rows, cols].astype(dtype) == found.T).all()


def test_geometry_is_the_outline_of_the_cell(source, tmp_path):
    map_ = source()
    write_store(map_, tmp_path / "map.parquet", "float16")
    table = pq.read_table(tmp_path / "map.parquet").slice(40, 30)

    for row in table.to_pylist():
        ring = polygon(row["geometry"])
        r, c = row["row"], row["col"]
        left, top = map_.grid.xy(r, c)
        right, bottom = map_.grid.xy(r + 1, c + 1)
        corners = {(left, top), (right, top), (right, bottom), (left, bottom)}
        assert {tuple(p) for p in ring} == corners
        assert (ring[0] == ring[-1]).all()
        assert (np.diff(ring[:, 0]) * ring[:-1, 1]).sum() < 0  # counterclockwise
        box = row["bbox"]
        assert [box[k] for k in ("xmin", "ymin", "xmax", "ymax")] == [left, bottom, right, top]


@pytest.mark.parametrize(
    "transform",
    [
        (8.0, 6.0, 600_000.0, 6.0, -8.0, 5_340_000.0),
        (10.0, 0.0, 600_000.0, 0.0, 10.0, 5_340_000.0),
        (-10.0, 0.0, 600_000.0, 0.0, 10.0, 5_340_000.0),
    ],
)
def test_rings_are_counterclockwise_on_turned_and_mirrored_grids(source, tmp_path, transform):
    shapely = pytest.importorskip("shapely")
    map_ = source(transform=transform)
    write_store(map_, tmp_path / "map.parquet", "float16")
    row = pq.read_table(tmp_path / "map.parquet").slice(50, 1).to_pylist()[0]

    shape = shapely.from_wkb(row["geometry"])

    assert shape.is_valid
    assert shape.exterior.is_ccw
    assert shape.centroid.coords[0] == pytest.approx(
        map_.grid.xy(row["row"] + 0.5, row["col"] + 0.5)
    )
    assert tuple(row["bbox"].values()) == pytest.approx(shape.bounds)


def test_points_are_the_centres(source, tmp_path):
    map_ = source()
    write_store(map_, tmp_path / "map.parquet", "float16", geometry="point")

    row = pq.read_table(tmp_path / "map.parquet").slice(7, 1).to_pylist()[0]

    assert struct.unpack("<BI2d", row["geometry"]) == (
        1,
        1,
        *map_.grid.xy(row["row"] + 0.5, row["col"] + 0.5),
    )
    column = geo(tmp_path / "map.parquet")["columns"]["geometry"]
    assert column["geometry_types"] == ["Point"]
    assert "orientation" not in column


def test_metadata_follow_the_specification(source, tmp_path, small_bands):
    write_store(source(), tmp_path / "map.parquet", "float16")
    table = pq.read_table(tmp_path / "map.parquet")

    facts = geo(tmp_path / "map.parquet")

    assert facts["version"] == "1.1.0"
    assert facts["primary_column"] == "geometry"
    assert list(facts["columns"]) == ["geometry"]
    column = facts["columns"]["geometry"]
    assert set(column) == {
        "encoding",
        "geometry_types",
        "crs",
        "edges",
        "orientation",
        "bbox",
        "covering",
    }
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert (column["edges"], column["orientation"]) == ("planar", "counterclockwise")
    assert CRS.from_json_dict(column["crs"]) == CRS("EPSG:32632")
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32632}
    covering = column["covering"]["bbox"]
    assert covering == {k: ["bbox", k] for k in ("xmin", "ymin", "xmax", "ymax")}
    boxes = [list(box.values()) for box in table["bbox"].to_pylist()]
    low, high = np.min(boxes, axis=0), np.max(boxes, axis=0)
    assert column["bbox"] == [*low[:2], *high[2:]]
    assert str(table.schema.field("geometry").type) == "binary"


def test_row_groups_follow_row_bands_and_can_be_skipped(source, tmp_path, small_bands):
    write_store(source(), tmp_path / "map.parquet", "float16")

    meta = pq.ParquetFile(tmp_path / "map.parquet").metadata
    names = [meta.row_group(0).column(i).path_in_schema for i in range(meta.num_columns)]
    tops = [
        meta.row_group(i).column(names.index("bbox.ymax")).statistics.max
        for i in range(meta.num_row_groups)
    ]

    assert meta.num_row_groups == 8  # of three rows each; the band with gaps holds something too
    assert tops == sorted(tops, reverse=True)
    assert meta.row_group(0).column(0).compression == "ZSTD"


def test_dates_are_days_or_null(source, tmp_path):
    write_store(source(), tmp_path / "a.parquet", "float16")
    nat = [np.datetime64("NaT", "D")]
    write_store(source(dates=nat), tmp_path / "b.parquet", "float16")

    dated, undated = (pq.read_table(tmp_path / n).slice(0, 1) for n in ("a.parquet", "b.parquet"))

    assert str(dated["date"][0]) == "2024-07-15"
    assert str(dated["first_date"][0]) == "2024-01-20"
    assert undated["date"].to_pylist() == undated["first_date"].to_pylist() == [None]


def test_provenance_is_in_the_file(source, tmp_path):
    map_ = source()
    write_store(map_, tmp_path / "map.parquet", "float16")

    facts = json.loads(pq.read_schema(tmp_path / "map.parquet").metadata[b"skysense"])

    grid = facts.pop("grid")
    assert facts == {**json.loads(map_.provenance.text()), "storage": {"dtype": "float16"}}
    assert grid["crs"] == map_.grid.crs
    assert tuple(grid["transform"]) == map_.grid.transform
    assert tuple(grid["shape"]) == map_.grid.shape


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_same_map_gives_the_same_bytes(source, tmp_path, small_bands, dtype):
    for name in ("a.parquet", "b.parquet"):
        write_store(source(), tmp_path / name, dtype)

    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_int8_takes_a_byte_a_number(source, values, tmp_path):
    map_ = source(values(channels=64, shape=(60, 60), missing=0))
    for dtype in ("int8", "float16"):
        write_store(map_, tmp_path / f"{dtype}.parquet", dtype)

    small, large = ((tmp_path / f"{d}.parquet").stat().st_size for d in ("int8", "float16"))

    assert small < 0.65 * large
