"""Blocks of ground and folds of whole blocks: what is tested lies apart from what is learned.

Neighbouring cells look alike, and the model saw some of the same pixels for both. Cells drawn at
random are tested on their own neighbours, so blocks go to a fold as a whole.

Legend: N labelled cells, R blocks.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skysense.tasks.mapping.cells import LabelledCells
from skysense.tasks.probe.pixels import block_folds

Indices = npt.NDArray[np.int64]

BLOCKS_A_FOLD = 3
"""Occupied blocks that a fold should have, where blocks are not given. [ours]"""


@dataclass(frozen=True)
class Folds:
    """How labelled cells are divided."""

    count: int
    """Folds."""
    metres: float
    """Side of a block on the ground."""
    blocks: Indices
    """`(N,)` the block of each cell, 0...R - 1."""
    folds: Indices
    """`(N,)` the fold of each cell's block, 0...count - 1."""


def blocks_of_cells(
    rows: Indices, cols: Indices, sides: tuple[float, float], metres: float
) -> Indices:
    """The block of each cell, numbered in the order of rows and columns.

    Args:
        rows: `(N,)`.
        cols: `(N,)`.
        sides: of a cell on the ground, `(down, across)` in metres.
        metres: side of a block, rounded to whole cells, at least one.
    """
    down, across = (max(1, round(metres / side)) for side in sides)
    pairs = np.stack([rows // down, cols // across], 1)
    return np.asarray(np.unique(pairs, axis=0, return_inverse=True)[1], np.int64).reshape(-1)


def default_metres(cells: LabelledCells, sides: tuple[float, float], folds: int) -> float:
    """Side of the largest blocks of which enough are occupied.

    From half the extent of the labels on, the side shrinks by a factor of 0.7 until a fold has
    `BLOCKS_A_FOLD` occupied blocks (fewer where there are few labels) and every class lies in two
    blocks at least, or until a block is one cell.
    """
    extent = max(
        float(np.ptp(places) + 1) * side
        for places, side in zip((cells.rows, cells.cols), sides, strict=True)
    )
    enough = min(BLOCKS_A_FOLD * folds, max(folds, len(cells.rows) // 2))
    metres, least = extent / 2, max(sides)
    while metres > least:
        blocks = blocks_of_cells(cells.rows, cells.cols, sides, metres)
        occupied = len(np.unique(blocks))
        if occupied >= enough and _least_blocks(cells.classes, blocks) >= 2:
            return metres
        metres *= 0.7
    return least


def _least_blocks(classes: Indices, blocks: Indices) -> int:
    """In how many blocks the class of fewest blocks lies."""
    pairs = np.unique(np.stack([classes, blocks], 1), axis=0)
    return int(np.unique(pairs[:, 0], return_counts=True)[1].min())


def spatial_folds(
    cells: LabelledCells, sides: tuple[float, float], wanted: int, metres: float | None
) -> tuple[Folds | None, str | None]:
    """Put whole blocks into folds, balanced by class.

    Args:
        cells: labelled cells.
        sides: of a cell on the ground, `(down, across)` in metres.
        wanted: folds; fewer are made where a class has fewer cells, or there are fewer blocks.
        metres: side of a block; chosen where it is `None`.

    Returns:
        The folds, and what to say of them: why they are fewer, or why there are none.
    """
    present = np.unique(cells.classes, return_counts=True)
    rarest, fewest = int(present[0][present[1].argmin()]), int(present[1].min())
    name = cells.names[rarest]
    if fewest < 2:
        return None, f"class {name} has one labelled cell; two of each class are needed"
    count = min(wanted, fewest)
    metres = metres or default_metres(cells, sides, count)
    blocks = blocks_of_cells(cells.rows, cells.cols, sides, metres)
    occupied = len(np.unique(blocks))
    if occupied < 2:
        return None, f"all labels lie in one block of {metres:.4g} m; give a smaller --block"
    why = f"class {name} has {fewest} labelled cells" if fewest < wanted else None
    if occupied < count:
        why = f"the labels lie in {occupied} blocks of {metres:.4g} m"
        count = occupied
    said = f"{count} folds instead of {wanted}: {why}" if why else None
    return Folds(count, metres, blocks, block_folds(cells.classes, blocks, count)), said


def random_folds(classes: Indices, count: int, seed: int) -> Indices:
    """`(N,)` folds of cells drawn at random, each with its part of every class."""
    rng = np.random.default_rng(seed)
    folds = np.zeros(len(classes), np.int64)
    start = 0
    for name in np.unique(classes):
        own = rng.permutation(np.flatnonzero(classes == name))
        folds[own] = (np.arange(len(own)) + start) % count
        start += len(own)
    return folds
