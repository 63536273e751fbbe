"""A map as GeoParquet 1.1: one row for each cell that holds a vector.

Columns: `geometry` (WKB), `bbox` (its covering), `row`, `col`, `date` (last acquisition day),
`first_date`, `vector`. For int8 the scales are in the file's metadata, key `skysense`, under
`storage.scale`, a number for each dimension; the map's cells are there under `grid`.

Source: GeoParquet specification 1.1.0. Legend: D dimensions, N cells.
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from skysense._optional import require
from skysense.geo import Grid
from skysense.inference.stores.places import DoubleArray, crs_of, points
from skysense.inference.stores.provenance import METADATA_KEY
from skysense.inference.stores.quantize import Coding
from skysense.inference.stores.source import (
    Cells,
    IntArray,
    MapSource,
    Progress,
    bands,
    cells,
    valid_cells,
)

ArrowType = Any
"""`pyarrow.DataType`, of an optional package."""

ArrowSchema = Any
"""`pyarrow.Schema`."""

ArrowArray = Any
"""`pyarrow.Array`."""

ArrowTable = Any
"""`pyarrow.Table`."""

Geometry = Literal["polygon", "point"]

_CORNERS = ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))
"""`(row, col)` around a cell."""
_TYPES = {"polygon": (3, "Polygon"), "point": (1, "Point")}


def write_geoparquet(
    source: MapSource,
    path: Path,
    coding: Coding,
    progress: Progress,
    geometry: Geometry = "polygon",
) -> int:
    """Write a map, a row group for each band of rows; it is read twice, a band at a time.

    Args:
        source: the map.
        path: file to make.
        coding: type of the numbers.
        progress: called with the number of rows after each band.
        geometry: outlines of the cells, or their centres.

    Returns:
        How many cells hold a vector; if none does, no file is made.

    Raises:
        ValueError: pyarrow is not installed.
        OSError: it cannot be written.
    """
    parquet = require("pyarrow.parquet", "stores")
    reach = _reach(source, geometry)
    if reach is None:
        return 0
    schema = _schema(source, coding, geometry, reach)
    boxes = ["bbox.xmin", "bbox.ymin", "bbox.xmax", "bbox.ymax"]
    count = 0
    with parquet.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=["vector.list.element"] if coding.dtype == "int8" else False,
        write_statistics=[*boxes, "row", "col"],
    ) as writer:
        for band in cells(source):
            if band.rows.size:
                table = _table(source, band, coding, schema, geometry)
                writer.write_table(table, row_group_size=len(table))
                count += len(table)
            progress(band.height)
    return count


def vector_type(coding: Coding, channels: int) -> ArrowType:
    """A fixed-size list of the stored type."""
    arrow = require("pyarrow", "stores")
    return arrow.list_(arrow.field("element", arrow.type_for_alias(coding.dtype), False), channels)


def vector_column(vectors: npt.NDArray[Any], kind: ArrowType) -> ArrowArray:
    """Stored numbers `(D, N)` as a column of N vectors."""
    arrow = require("pyarrow", "stores")
    flat = arrow.array(np.ascontiguousarray(vectors.T).reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(flat, type=kind)


def date_columns(source: MapSource, count: int) -> list[ArrowArray]:
    """`date` and `first_date` of `count` rows, null where no day is known."""
    arrow = require("pyarrow", "stores")
    first, last = source.period or (np.datetime64("NaT", "D"),) * 2
    return [arrow.array(np.full(count, day, "datetime64[D]")) for day in (last, first)]


def _reach(source: MapSource, geometry: Geometry) -> DoubleArray | None:
    """Bounding box of all geometries, `None` where there are none.

    It takes a pass of its own: readers look for metadata in the schema, which is written first.
    """
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for first, values in bands(source):
        rows, cols = np.nonzero(valid_cells(values))
        if rows.size:
            boxes = _boxes(*_outlines(source.grid, rows + first, cols, geometry))
            low = np.minimum(low, boxes[:2].min(axis=1))
            high = np.maximum(high, boxes[2:].max(axis=1))
    return np.concatenate([low, high]) if np.isfinite(low).all() else None


def _schema(
    source: MapSource, coding: Coding, geometry: Geometry, reach: DoubleArray
) -> ArrowSchema:
    """Columns of the file, and its metadata."""
    arrow = require("pyarrow", "stores")
    box = arrow.struct(
        [arrow.field(k, arrow.float64(), False) for k in ("xmin", "ymin", "xmax", "ymax")]
    )
    geo = json.dumps(_geo_metadata(source.grid, geometry, reach), sort_keys=True)
    return arrow.schema(
        [
            arrow.field("geometry", arrow.binary(), False),
            arrow.field("bbox", box, False),
            arrow.field("row", arrow.int32(), False),
            arrow.field("col", arrow.int32(), False),
            arrow.field("date", arrow.date32()),
            arrow.field("first_date", arrow.date32()),
            arrow.field("vector", vector_type(coding, source.channels), False),
        ],
        metadata={"geo": geo, METADATA_KEY: source.provenance.text(coding.storage(), source.grid)},
    )


def _table(
    source: MapSource, band: Cells, coding: Coding, schema: ArrowSchema, geometry: Geometry
) -> ArrowTable:
    """The rows of one band."""
    arrow = require("pyarrow", "stores")
    x, y = _outlines(source.grid, band.rows, band.cols, geometry)
    columns = [
        _wkb(x, y),
        arrow.StructArray.from_arrays(list(_boxes(x, y)), fields=list(schema.field("bbox").type)),
        arrow.array(band.rows.astype(np.int32)),
        arrow.array(band.cols.astype(np.int32)),
        *date_columns(source, band.rows.size),
        vector_column(coding.encode(band.vectors), schema.field("vector").type),
    ]
    return arrow.Table.from_arrays(columns, schema=schema)


def _outlines(
    grid: Grid, rows: IntArray, cols: IntArray, geometry: Geometry
) -> tuple[DoubleArray, DoubleArray]:
    """Vertices `x, y`, each `(N, V)`: five around a cell, counterclockwise, or its centre."""
    offsets = np.array(_CORNERS if geometry == "polygon" else ((0.5, 0.5),))
    a, b, _, d, e, _ = grid.transform
    if a * e - b * d < 0:  # y upwards, as on most maps: the corners run clockwise
        offsets = offsets[::-1]
    return points(grid, rows[:, None] + offsets[:, 0], cols[:, None] + offsets[:, 1])


def _boxes(x: DoubleArray, y: DoubleArray) -> DoubleArray:
    """Bounding boxes `(4, N)` of vertices."""
    return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)])


def _wkb(x: DoubleArray, y: DoubleArray) -> ArrowArray:
    """Vertices `(N, V)` as little-endian well-known binary: points if V is 1, else polygons."""
    arrow = require("pyarrow", "stores")
    count, vertices = x.shape
    head = [("order", "u1"), ("type", "<u4")]
    rings = [("rings", "<u4"), ("points", "<u4")] if vertices > 1 else []
    records = np.zeros(count, np.dtype([*head, *rings, ("xy", "<f8", (vertices, 2))]))
    records["order"] = 1
    records["type"] = _TYPES["polygon" if vertices > 1 else "point"][0]
    if vertices > 1:
        records["rings"], records["points"] = 1, vertices
    records["xy"] = np.stack([x, y], axis=2)
    offsets = np.arange(count + 1, dtype=np.int32) * records.itemsize
    buffers = [None, arrow.py_buffer(offsets), arrow.py_buffer(records)]
    return arrow.Array.from_buffers(arrow.binary(), count, buffers)


def _geo_metadata(grid: Grid, geometry: Geometry, reach: DoubleArray) -> dict[str, Any]:
    """The file's `geo` entry."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [_TYPES[geometry][1]],
        "crs": crs_of(grid).to_json_dict(),
        "edges": "planar",
        "bbox": [float(v) for v in reach],
        "covering": {"bbox": {k: ["bbox", k] for k in ("xmin", "ymin", "xmax", "ymax")}},
    }
    if geometry == "polygon":
        column["orientation"] = "counterclockwise"
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
