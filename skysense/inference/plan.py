"""What will be computed for a scene: tiles, their overlap, the map they make, and the tasks.

The plan depends on the model's strides and the scene's shape alone, so it is the same wherever
it is executed. A task is what is computed at once: its result depends on nothing but the task, so
it can be computed anywhere, and again.
"""

import json
import math
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from skysense.data.scene import Scene
from skysense.geo import Grid, Tiling, Window
from skysense.models.encoder import Encoder, Schedules

COARSE_TILE = 64
"""Least side of a tile in pixels of the coarsest layer: the paper's 64 x 64 at 10 m."""


@dataclass(frozen=True)
class Task:
    """Tiles of equal shape in one row of tiles, which are computed as one batch."""

    index: int
    """Its place among all tasks, in the order in which their tiles are blended."""
    row: int
    """Which row of tiles, from the top."""
    tiles: tuple[Window, ...]
    """In reference pixels, from left to right."""
    next_row: int | None
    """Of the last task of a row of tiles: map rows above it are complete after this task."""


@dataclass(frozen=True)
class Plan:
    """Tiles of a scene and the grid of their map."""

    tiling: Tiling
    """In reference pixels."""
    cell: int
    """Reference pixels that a cell of the map is wide."""
    grid: Grid
    """The map's grid."""
    channels: int
    """Bands of the map."""
    stage: int | None
    """Pyramid level that is mapped; `None` for the fused features."""
    whole_tiles: bool = False
    """Edge tiles stick out of the scene, masked there, and are not cut to it."""

    def tasks(self, size: int) -> tuple[Task, ...]:
        """Rows of tiles as batches of equal shape.

        Args:
            size: tiles of a task, at most.
        """
        rows = self.tiling.rows(self.whole_tiles)
        starts = [*self.row_starts, self.grid.shape[0]]
        tasks: list[Task] = []
        for i, row in enumerate(rows):
            batches: list[tuple[Window, ...]] = []
            for _, same in groupby(row, key=lambda w: (w.height, w.width)):
                tiles = list(same)
                batches += [tuple(tiles[j : j + size]) for j in range(0, len(tiles), size)]
            for j, batch in enumerate(batches):
                next_row = starts[i + 1] if j == len(batches) - 1 else None
                tasks.append(Task(len(tasks), i, batch, next_row))
        return tuple(tasks)

    @property
    def extent(self) -> tuple[float, float]:
        """Rows and columns of cells that the scene fills: the last ones may reach beyond it."""
        height, width = self.tiling.shape
        return height / self.cell, width / self.cell

    @property
    def row_starts(self) -> list[int]:
        """The first map row of each row of tiles."""
        return [start // self.cell for start in self.tiling.starts(0)]

    def describe(self) -> dict[str, Any]:
        """All of it as plain values, to be written down and compared."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples become lists
        return values

    def place(self, tile: Window) -> Window:
        """A tile's window in cells of the map, as far as it lies on it."""
        row, col = tile.row // self.cell, tile.col // self.cell
        height = min(math.ceil(tile.height / self.cell), self.grid.shape[0] - row)
        width = min(math.ceil(tile.width / self.cell), self.grid.shape[1] - col)
        return Window(row, col, height, width)


def make_plan(
    model: Encoder,
    scene: Scene,
    stage: int | None = None,
    schedule: Schedules = None,
    tile: int | None = None,
    overlap: int | None = None,
) -> Plan:
    """Lay tiles over a scene.

    Args:
        model: gives strides and widths.
        scene: gives shape and pixel ratios.
        stage: pyramid level of the reference modality to map, 1...4; `None` for the fused map.
        schedule: merging schedules that replace the model's.
        tile: side of a tile in reference pixels; default: the model's own, and at least 64 pixels
            of the coarsest layer.
        overlap: pixels that neighbouring tiles share; default: about an eighth of a tile, a
            multiple of the attention windows' period where that is not more than a quarter.

    Raises:
        ValueError: sizes that do not fit the model's strides; the message names the nearest.
    """
    ratios, reference = scene.ratios, scene.reference
    cells = {key: r * model.fused_stride(key, schedule) for key, r in ratios.items()}
    # Tiles start where every layer has the edge of a token, so that maps meet without a shift.
    unit = math.lcm(*(r * model.stride(key, 4, schedule) for key, r in ratios.items()))
    unit = math.lcm(unit, *cells.values())
    period = math.lcm(unit, *(r * model.period(key, schedule) for key, r in ratios.items()))
    if tile is None:
        least = max(model.default_tile(reference), COARSE_TILE * max(ratios.values()))
        tile = -(-least // unit) * unit
    if overlap is None:
        overlap = period if period <= tile // 4 else -(-tile // 8 // unit) * unit
        overlap = min(overlap, tile // 2 // unit * unit)
    for name, value, least in (("tile", tile, unit), ("overlap", overlap, 0)):
        if value % unit or value < least:
            nearest = max(least, round(value / unit) * unit)
            raise ValueError(
                f"--{name} {value} does not fit this model and these layers: it must be a "
                f"multiple of {unit} reference pixels, for example {nearest}"
            )
    cell = min(cells.values())
    channels = model.fused_width
    if stage is not None:
        cell = ratios[reference] * model.stride(reference, stage, schedule)
        channels = model.level_width(reference, stage)
    return Plan(
        Tiling(scene.grid.shape, tile, overlap, unit),
        cell,
        scene.grid.rescaled(cell),
        channels,
        stage,
        model.whole_tiles,
    )
