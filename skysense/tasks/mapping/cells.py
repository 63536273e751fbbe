"""Which cells of a map are labelled, and with what.

A point labels the cell that it lies in. A polygon labels every cell whose centre is inside; one
so small that it holds none labels the cell of a point inside it.

Legend: N labelled cells, L labels, P points.
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio import Affine
from rasterio.features import rasterize

from skysense._optional import require
from skysense.geo import Grid
from skysense.tasks.mapping.labels import LabelSet, MapWarning

Coordinates = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class LabelledCells:
    """Cells that are labelled without contradiction."""

    rows: Indices
    """`(N,)`."""
    cols: Indices
    """`(N,)`."""
    classes: Indices
    """`(N,)` positions in `names`."""
    owners: Indices
    """`(N,)` the first label that said so."""
    names: tuple[str, ...]
    """All classes of the labels, in order."""
    outside: int
    """Labels that lie wholly outside the map."""
    contradicted: int
    """Cells with labels of different classes."""
    ties: int
    """Those of them without a majority, which are dropped."""

    def subset(self, kept: Indices | npt.NDArray[np.bool_]) -> "LabelledCells":
        """Some of the cells."""
        rows, cols, classes, owners = (
            part[kept] for part in (self.rows, self.cols, self.classes, self.owners)
        )
        return replace(self, rows=rows, cols=cols, classes=classes, owners=owners)


def label_cells(
    labels: LabelSet, grid: Grid, extent: tuple[float, float] | None = None
) -> LabelledCells:
    """Find the labelled cells of a grid.

    Args:
        labels: in any coordinate system.
        grid: of the map.
        extent: rows and columns that the scene fills, where the last ones reach beyond it; points
            beyond lie outside.

    Raises:
        ValueError: all labels lie outside.
    """
    names = labels.classes
    number = {name: i for i, name in enumerate(names)}
    class_of = np.array([-1 if name is None else number[name] for name in labels.names])
    cells, owners = _touched(labels, grid, extent or grid.shape)
    known = class_of[owners] >= 0
    cells, owners = cells[known], owners[known]
    outside = int((class_of >= 0).sum()) - len(np.unique(owners))
    if not len(cells):
        raise ValueError(_all_outside(labels, grid))
    if outside:
        total = int((class_of >= 0).sum())
        _warn(f"{outside} of {total} labels lie outside the map and are left out")
    return _resolve(cells, owners, class_of[owners], grid, tuple(names), outside)


def _touched(labels: LabelSet, grid: Grid, extent: tuple[float, float]) -> tuple[Indices, Indices]:
    """Pairs of a cell, as `row * width + col`, and a label on it, each once, in order."""
    to_pixels = _Pixels(labels.crs, grid)
    width = grid.shape[1]
    table = labels.table
    cols, rows = to_pixels(table.points).T
    inside = (rows >= 0) & (rows < extent[0]) & (cols >= 0) & (cols < extent[1])
    found = rows[inside].astype(np.int64) * width + cols[inside].astype(np.int64)
    cells, owners = [found], [table.point_labels[inside]]
    if table.polygons:
        shapely = require("shapely", "vector")
        for polygon, owner in zip(table.polygons, table.polygon_labels, strict=True):
            covered = _covered(shapely, shapely.transform(polygon, to_pixels), grid.shape)
            cells.append(covered)
            owners.append(np.full(len(covered), owner))
    pairs = np.stack([np.concatenate(cells), np.concatenate(owners)], 1)
    pairs = np.unique(pairs, axis=0)
    return pairs[:, 0], pairs[:, 1]


class _Pixels:
    """Coordinates to positions `(col, row)` on a grid."""

    def __init__(self, crs: str, grid: Grid) -> None:
        self._grid = grid
        try:
            self._transformer = Transformer.from_crs(crs, grid.crs, always_xy=True)
        except ProjError:
            raise ValueError(
                f"the labels' coordinate system {CRS(crs).name!r} has no way to the map's "
                f"{CRS(grid.crs).name!r}"
            ) from None
        degrees = CRS(grid.crs).is_geographic
        self._middle = sum(grid.bounds[::2]) / 2 if degrees else None

    def __call__(self, places: Coordinates) -> Coordinates:
        """`(P, 2)` x and y to `(P, 2)`; not finite where there is no such place."""
        if not len(places):
            return np.zeros((0, 2))
        x: Any
        y: Any
        x, y = self._transformer.transform(places[:, 0], places[:, 1])
        x, y = (np.where(np.isfinite(values), values, np.nan) for values in (x, y))
        if self._middle is not None:  # a map over the antimeridian counts on past 180
            x = x + 360 * np.round((self._middle - x) / 360)
        rows, cols = self._grid.rowcol(x, y)
        return np.stack([cols, rows], 1)


def _covered(shapely: Any, polygon: Any, shape: tuple[int, int]) -> Indices:  # noqa: ANN401
    """Cells of a polygon that is given in positions `(col, row)`."""
    left, top, right, bottom = shapely.bounds(polygon)
    if not np.isfinite([left, top, right, bottom]).all():
        return np.zeros(0, np.int64)
    if not np.isfinite(shapely.get_coordinates(polygon)).all():
        return np.zeros(0, np.int64)
    height, width = shape
    first_col, last_col = max(int(np.floor(left)), 0), min(int(np.ceil(right)), width)
    first_row, last_row = max(int(np.floor(top)), 0), min(int(np.ceil(bottom)), height)
    if first_col >= last_col or first_row >= last_row:
        return np.zeros(0, np.int64)
    columns = (first_col, last_col - first_col)
    found = [
        (rows + row) * width + cols + first_col
        for row, rows, cols in _burned(polygon, columns, (first_row, last_row))
    ]
    cells = np.concatenate(found)
    if len(cells):
        return cells
    point = shapely.point_on_surface(polygon)
    row, col = int(np.floor(point.y)), int(np.floor(point.x))
    inside = 0 <= row < height and 0 <= col < width
    return np.array([row * width + col] if inside else [], np.int64)


def _burned(
    polygon: Any,  # noqa: ANN401
    columns: tuple[int, int],
    ends: tuple[int, int],
) -> Iterator[tuple[int, Indices, Indices]]:
    """Cells whose centre is inside, in bands: first row, then rows and columns from there."""
    first_col, width = columns
    step = max(1, _CELLS_AT_ONCE // width)
    for row in range(ends[0], ends[1], step):
        shape = (min(step, ends[1] - row), width)
        place = Affine(1, 0, first_col, 0, 1, row)
        rows, cols = np.nonzero(rasterize([(polygon, 1)], shape, transform=place, dtype="uint8"))
        yield row, rows.astype(np.int64), cols.astype(np.int64)


def _resolve(
    cells: Indices,
    owners: Indices,
    classes: Indices,
    grid: Grid,
    names: tuple[str, ...],
    outside: int,
) -> LabelledCells:
    """One class a cell: that of most of its labels; none if there is no such."""
    votes, first, counts = np.unique(
        cells * len(names) + classes, return_index=True, return_counts=True
    )
    cell, name = votes // len(names), votes % len(names)
    place, of = np.unique(cell, return_inverse=True)
    most = np.zeros(len(place), np.int64)
    np.maximum.at(most, of, counts)
    winners = counts == most[of]
    tied = np.bincount(of[winners], minlength=len(place)) > 1
    contradicted = int((np.bincount(of, minlength=len(place)) > 1).sum())
    kept = winners & ~tied[of]
    ties = int(tied.sum())
    if contradicted:
        _warn(
            f"{contradicted} cells have labels of different classes: the majority decides, and "
            f"{ties} without a majority are left out"
        )
    row, col = np.divmod(cell[kept], grid.shape[1])
    return LabelledCells(
        row, col, name[kept], owners[first[kept]], names, outside, contradicted, ties
    )


def _all_outside(labels: LabelSet, grid: Grid) -> str:
    """Where the labels are, and where the map."""
    points = [labels.table.points] if len(labels.table.points) else []
    if labels.table.polygons:
        shapely = require("shapely", "vector")
        points.append(shapely.get_coordinates(list(labels.table.polygons)))
    x, y = np.concatenate(points).mean(0)
    to_map = Transformer.from_crs(grid.crs, labels.crs, always_xy=True)
    left, bottom, right, top = grid.bounds
    centre = to_map.transform((left + right) / 2, (bottom + top) / 2)
    advice = "if the coordinates are of another system, name it with --crs"
    if math.hypot(y - centre[0], x - centre[1]) < math.hypot(x - centre[0], y - centre[1]) / 10:
        advice = "the two coordinates look exchanged: longitude, or x, comes first"
    return (
        f"{labels.path}: all labels lie outside the map: their centre is at {x:.6g}, {y:.6g}, "
        f"that of the map at {centre[0]:.6g}, {centre[1]:.6g} ({CRS(labels.crs).name}); {advice}"
    )


def _warn(text: str) -> None:
    """Say what is left out."""
    warnings.warn(text, MapWarning, stacklevel=4)
