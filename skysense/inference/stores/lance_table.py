"""A map as a LanceDB table, to search for places that look alike.

Columns: `vector`, `lon`, `lat` (of the cell's centre, EPSG:4326), `row`, `col`, `date` (last
acquisition day), `first_date`. The table `map` is the folder `map.lance`, and the folder that it
lies in is the database: `lancedb.connect(folder).open_table("map")`. Provenance is in the metadata
of the schema, and the map's cells with it, under `grid`. There is no index: up to some hundred
thousand vectors the search is quick without.

Legend: N cells.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from skysense._optional import require
from skysense.inference.stores.geoparquet import (
    ArrowSchema,
    date_columns,
    vector_column,
    vector_type,
)
from skysense.inference.stores.places import points, to_lon_lat
from skysense.inference.stores.provenance import METADATA_KEY
from skysense.inference.stores.quantize import Coding
from skysense.inference.stores.source import Cells, MapSource, Progress, cells

_BAND_BYTES = 64 << 20
"""Each band is a file of the table; larger bands than elsewhere make fewer."""

ArrowBatch = Any
"""`pyarrow.RecordBatch`, of an optional package."""

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def check_table_name(path: Path) -> None:
    """Refuse what LanceDB would not open again.

    Raises:
        ValueError: the name holds other characters than it takes.
    """
    if not _NAME.fullmatch(path.stem):
        raise ValueError(
            f"{path}: the name of a LanceDB table has letters, digits, `_`, `-` and `.` only"
        )


def table_metadata(path: Path) -> dict[str, str]:
    """Metadata of a table's schema; empty where the folder is no table."""
    lancedb = require("lancedb", "search")
    try:
        schema = lancedb.connect(str(path.parent)).open_table(path.stem).schema
    except (ValueError, RuntimeError, OSError):
        return {}
    return {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}


def write_lance(source: MapSource, path: Path, coding: Coding, progress: Progress) -> int:
    """Write a map, appending a band of rows at a time.

    The bands are added from this thread: an iterator that is handed over would be run by a thread
    of the library whose stack is too small for PROJ (lancedb 0.40 dies of it).

    Args:
        source: the map.
        path: folder to make, `NAME.lance`; its parent serves as the database.
        coding: float16 or float32.
        progress: called with the number of rows after each band.

    Returns:
        How many cells hold a vector.

    Raises:
        ValueError: lancedb is not installed, or int8, whose vectors it does not search.
        OSError: it cannot be written.
    """
    lancedb = require("lancedb", "search")
    if coding.dtype == "int8":
        raise ValueError(
            "a LanceDB table holds float16 or float32: LanceDB does not search int8 vectors"
        )
    schema = _schema(source, coding)
    count = 0
    try:
        table = lancedb.connect(str(path.parent)).create_table(path.stem, schema=schema)
        for band in cells(source, _BAND_BYTES):
            if band.rows.size:
                table.add(_batch(source, band, coding, schema))
                count += band.rows.size
            progress(band.height)
    except RuntimeError as error:  # how the library says that a file cannot be written
        raise OSError(str(error).split(", /")[0]) from None  # without the place in its source
    return count


def _schema(source: MapSource, coding: Coding) -> ArrowSchema:
    """Columns of the table, and its metadata."""
    arrow = require("pyarrow", "search")
    return arrow.schema(
        [
            arrow.field("vector", vector_type(coding, source.channels)),
            arrow.field("lon", arrow.float64()),
            arrow.field("lat", arrow.float64()),
            arrow.field("row", arrow.int32()),
            arrow.field("col", arrow.int32()),
            arrow.field("date", arrow.date32()),
            arrow.field("first_date", arrow.date32()),
        ],
        metadata={METADATA_KEY: source.provenance.text(coding.storage(), source.grid)},
    )


def _batch(source: MapSource, band: Cells, coding: Coding, schema: ArrowSchema) -> ArrowBatch:
    """The rows of one band."""
    arrow = require("pyarrow", "search")
    lon, lat = to_lon_lat(source.grid, *points(source.grid, band.rows + 0.5, band.cols + 0.5))
    columns = [
        vector_column(coding.encode(band.vectors), schema.field("vector").type),
        arrow.array((lon + 180) % 360 - 180),
        arrow.array(lat),
        arrow.array(band.rows.astype(np.int32)),
        arrow.array(band.cols.astype(np.int32)),
        *date_columns(source, band.rows.size),
    ]
    return arrow.RecordBatch.from_arrays(columns, schema=schema)
