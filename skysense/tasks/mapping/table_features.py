"""Features in a table of `skysense embed`, one row a cell: GeoParquet, or LanceDB.

Windows are whole rows of the map. A GeoParquet file is read row group by row group; `skysense
embed` writes one for each band of rows, so that memory does not grow with the map's height. In a
file that another program wrote anew, row groups are as large as that program made them, and memory
grows with the largest. A LanceDB table is filtered by row: each window reads the column `row` of
the whole table (4 bytes a cell) a part at a time, and the vectors of its own rows.

Legend: D bands, h w cells, N rows of the table.
"""

from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from skysense._optional import require
from skysense.geo import Window
from skysense.tasks.mapping.sources import (
    FeatureSource,
    FloatArray,
    Indices,
    cells_at_once,
    reading,
)
from skysense.tasks.mapping.store_facts import STORE_KEY, read_facts

ArrowTable = Any
"""`pyarrow.Table`, of an optional package."""

ArrowSchema = Any
"""`pyarrow.Schema`."""

COLUMNS = ["row", "col", "vector"]


@dataclass(frozen=True)
class _Cells:
    """Cells of a part of a table."""

    rows: Indices
    """`(N,)` of the map."""
    cols: Indices
    """`(N,)` of the map."""
    vectors: FloatArray
    """`(N, D)`."""


class TableFeatures(FeatureSource):
    """What both tables share: a schema that says what is there, and rows that become cells."""

    def _describe(self, schema: ArrowSchema) -> None:
        """Take grid, tags and dimensions from a schema.

        Raises:
            ValueError: it is no store of `skysense embed`, or damaged.
        """
        said = (schema.metadata or {}).get(STORE_KEY.encode())
        self._facts = read_facts(self.path, None if said is None else said.decode(errors="replace"))
        self.grid, self.tags = self._facts.grid, self._facts.tags
        missing = [name for name in COLUMNS if name not in schema.names]
        if missing:
            raise ValueError(f"{self.path} has no column {', '.join(missing)}")
        size = getattr(schema.field("vector").type, "list_size", None)
        if not size or self._facts.channels not in (None, size):
            raise ValueError(
                f"{self.path}: the column `vector` is {schema.field('vector').type}, not a list of "
                f"{self._facts.channels or 'as many'} numbers in each row"
            )
        self.channels = int(size)

    @abstractmethod
    def _parts(self, first: int, stop: int) -> list[_Cells]:
        """Cells among which are all of the map's rows from `first` up to `stop`."""

    def windows(self) -> list[Window]:
        """All cells from top to bottom, in windows of whole rows."""
        return self._bands([0, self.grid.shape[0]])

    def _bands(self, cuts: list[int]) -> list[Window]:
        """Windows of whole rows that end at `cuts`, and where they would be too large."""
        step = max(1, cells_at_once(self.channels) // self.grid.shape[1])
        return [
            Window(row, 0, min(step, stop - row), self.grid.shape[1])
            for start, stop in pairwise(cuts)
            for row in range(start, stop, step)
        ]

    def read(self, window: Window) -> FloatArray:
        """`(D, h, w)` values, NaN in all bands where there is nothing.

        Raises:
            ValueError: the table is damaged.
        """
        values = np.full((self.channels, window.height, window.width), np.nan, np.float32)
        for part in self._parts(window.row, window.row + window.height):
            rows, cols = part.rows - window.row, part.cols - window.col
            inside = (rows >= 0) & (rows < window.height) & (cols >= 0) & (cols < window.width)
            values[:, rows[inside], cols[inside]] = part.vectors[inside].T
        values[:, ~np.isfinite(values).all(0)] = np.nan
        return values

    def _cells(self, table: ArrowTable) -> _Cells:
        """Rows of a table as cells.

        Raises:
            ValueError: a cell lies outside the map, or a number is missing.
        """
        rows, cols = (table[name].to_numpy().astype(np.int64) for name in ("row", "col"))
        vectors = [np.asarray(chunk.flatten()) for chunk in table["vector"].chunks]
        flat = np.concatenate(vectors) if vectors else np.zeros(0, np.float32)
        height, width = self.grid.shape
        if len(flat) != len(rows) * self.channels:
            raise ValueError("vectors are missing")
        if len(rows) and not (
            0 <= rows.min() <= rows.max() < height and 0 <= cols.min() <= cols.max() < width
        ):
            raise ValueError(f"cells lie outside the map of {height} x {width}")
        return _Cells(rows, cols, self._facts.decode(flat.reshape(-1, self.channels), axis=1))


class ParquetFeatures(TableFeatures):
    """A GeoParquet file: windows end where a row group begins, and the last group is kept."""

    def __init__(self, path: str | Path) -> None:
        """Open a file.

        Raises:
            ValueError: pyarrow is not installed; it is no store of `skysense embed`, or damaged.
        """
        self.path = Path(path)
        parquet = require("pyarrow.parquet", "stores")
        with reading(self.path):
            self._file = parquet.ParquetFile(self.path)
        self._last: tuple[int, _Cells] | None = None
        try:
            self._describe(self._file.schema_arrow)
            with reading(self.path):
                self._spans = self._row_spans()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _row_spans(self) -> list[tuple[int, int]]:
        """First and last row of the map in each row group; all rows where it is not said."""
        metadata = self._file.metadata
        place = [metadata.schema.column(i).path for i in range(metadata.num_columns)].index("row")
        spans = []
        for i in range(metadata.num_row_groups):
            known = metadata.row_group(i).column(place).statistics
            said = known is not None and known.has_min_max
            spans.append((known.min, known.max) if said else (0, self.grid.shape[0] - 1))
        return spans

    def windows(self) -> list[Window]:
        """All cells from top to bottom, in windows of whole rows, at most a row group each."""
        height = self.grid.shape[0]
        inner = {first for first, _ in self._spans if 0 < first < height}
        return self._bands(sorted({0, *inner, height}))

    def _parts(self, first: int, stop: int) -> list[_Cells]:
        """The row groups that hold one of the rows."""
        hit = [i for i, (low, high) in enumerate(self._spans) if low < stop and high >= first]
        return [self._group(i) for i in hit]

    def _group(self, index: int) -> _Cells:
        """Cells of a row group."""
        if self._last is None or self._last[0] != index:
            self._last = None
            with reading(self.path):
                table = self._file.read_row_group(index, columns=COLUMNS)
                self._last = (index, self._cells(table))
        return self._last[1]


class LanceFeatures(TableFeatures):
    """A LanceDB table: each window is a query of its rows."""

    def __init__(self, path: str | Path) -> None:
        """Open a table.

        Raises:
            ValueError: lancedb is not installed; it is no store of `skysense embed`, or damaged.
        """
        self.path = Path(path)
        lancedb = require("lancedb", "search")
        with reading(self.path):
            parent = str(self.path.absolute().parent)
            self._table = lancedb.connect(parent).open_table(self.path.stem)
            schema = self._table.schema
        self._describe(schema)

    def close(self) -> None:
        """Nothing is held open."""

    def _parts(self, first: int, stop: int) -> list[_Cells]:
        """The rows asked for."""
        with reading(self.path):
            query = self._table.search().where(f"row >= {first} AND row < {stop}")
            return [self._cells(query.select(COLUMNS).to_arrow())]
