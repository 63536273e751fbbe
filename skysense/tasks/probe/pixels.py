"""Probe maps: the labels of pixels on a coarser grid; folds and intervals of blocks of ground.

Neighbouring cells look alike, and the model saw some of the same pixels for both. Cells drawn at
random would be tested on their own neighbours, so blocks are held out, and resampled, as a whole.

Legend: H W pixels, h w cells of a grid, N labelled cells of all grids, D width, K classes,
R blocks, F folds, S resamples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from skysense.engine.neighbors import standardized
from skysense.tasks.probe.logistic import fit, held_out_path
from skysense.tasks.probe.scores import RESAMPLES, Interval, accuracy, macro_f1, middle

Labels = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.floating]
Measure = Literal["accuracy", "macro_f1"]

UNLABELLED = -1
"""Of a pixel or cell whose class is not known or not clear."""
MAJORITY = 0.6
"""Share of a cell's pixels that its class must have. [ours]"""
CELL_STRENGTHS = (1.0, 0.1, 0.01, 1e-3, 1e-4)
"""Regularizations tried, from strong to weak; maps of few places bear no weaker ones. [ours]"""
MOST_CELLS = 1000
"""Cells that a probe is fitted on at most; more of the same blocks say little new. [ours]"""


def cell_labels(labels: Labels, stride: int, majority: float = MAJORITY) -> Labels:
    """The class that most pixels of each cell have.

    Args:
        labels: `(H, W)` classes of pixels; below 0 where not known.
        stride: pixels from one cell to the next.
        majority: share of the cell's pixels that must agree, those not known included.

    Returns:
        `(h, w)` with `h = ceil(H / stride)`; `UNLABELLED` where too few agree.
    """
    height, width = labels.shape
    ends = ((0, -height % stride), (0, -width % stride))
    inside = np.pad(np.ones(labels.shape, np.int64), ends)
    padded = np.pad(labels, ends, constant_values=UNLABELLED)
    best = np.zeros([length // stride for length in padded.shape], np.int64)
    found = np.full(best.shape, UNLABELLED, np.int64)
    for label in np.unique(labels[labels >= 0]):
        count = _summed((padded == label).astype(np.int64), stride)
        found[count > best] = label
        best = np.maximum(best, count)
    found[best < majority * _summed(inside, stride)] = UNLABELLED
    return found


def _summed(pixels: Labels, stride: int) -> Labels:
    """`(H, W)` to its sums over cells, `(h, w)`."""
    cells = pixels.reshape(len(pixels) // stride, stride, -1, stride)  # (h, stride, w, stride)
    return np.asarray(cells.sum((1, 3)), np.int64)


def blocks_of(shape: tuple[int, int], per_side: int = 4) -> Labels:
    """The block that each cell of a grid `(h, w)` lies in, `per_side` by `per_side` of them."""
    row, col = (np.arange(length) * per_side // length for length in shape)
    return np.asarray(row[:, None] * per_side + col, np.int64)


def block_folds(labels: Labels, blocks: Labels, folds: int = 4) -> Labels:
    """Put whole blocks into folds so that each has its part of every class, as far as can be.

    From the block with the largest part of a class to that with the smallest, each goes where its
    classes are rarest so far, and of such folds to that of the fewest cells. [ours]

    Args:
        labels: `(N,)` classes.
        blocks: `(N,)` the block of each cell, any whole numbers.
        folds: F.

    Returns:
        `(N,)` folds, 0...F - 1; the same for the same cells.

    Raises:
        ValueError: fewer blocks than folds.
    """
    own, block = np.unique(blocks, return_inverse=True)
    if len(own) < folds:
        raise ValueError(f"{len(own)} blocks cannot be put into {folds} folds: use more blocks")
    _, label = np.unique(labels, return_inverse=True)
    counts = _table(block, label)  # (R, K)
    shares = counts / counts.sum(0)
    filled, cells = np.zeros((folds, counts.shape[1])), np.zeros(folds)
    fold_of = np.zeros(len(own), np.int64)
    for i in np.argsort(-shares.max(1), kind="stable"):
        crowded = np.round(filled @ shares[i], 9)
        fold = int(np.lexsort((cells, crowded))[0])
        fold_of[i] = fold
        filled[fold] += shares[i]
        cells[fold] += counts[i].sum()
    return fold_of[block]


def _table(rows: Labels, columns: Labels) -> Labels:
    """How often each pair of numbers from 0 occurs."""
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    counts = np.bincount(rows * width + columns, minlength=height * width)
    return counts.reshape(height, width).astype(np.int64)


def predict_folds(
    vectors: Vectors,
    labels: Labels,
    folds: Labels,
    classes: int,
    strengths: Sequence[float] = CELL_STRENGTHS,
    most: int = MOST_CELLS,
    seed: int = 0,
) -> Labels:
    """Classify each fold by logistic regression on the others, on their scale.

    The regularization is the one after which cross-entropy rises, on one of the other folds that
    is held out for that: it too is chosen on ground apart.

    Args:
        vectors: `(N, D)`, on any scale.
        labels: `(N,)` in `0...classes - 1`.
        folds: `(N,)`, three different ones at least.
        classes: K.
        strengths: regularizations to choose from.
        most: cells to fit on; of more, so many are drawn.
        seed: of that draw, which is the same for all vectors of the same cells.

    Returns:
        Predictions `(N,)`.

    Raises:
        ValueError: fewer than three folds, or vectors that are not finite.
    """
    own = np.unique(folds)
    if len(own) < 3:
        raise ValueError(f"{len(own)} folds: one to test, one to choose on, one to fit are needed")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors hold NaN or infinite numbers")
    predictions = np.zeros(len(labels), np.int64)
    for i, fold in enumerate(own):
        rng = np.random.default_rng((seed, i))
        other = own[(i + 1) % len(own)]
        fitted = _drawn((folds != fold) & (folds != other), most, rng)
        held = _drawn(folds == other, most, rng)
        sides = (vectors[fitted], labels[fitted], vectors[held], labels[held])
        strength = _before_the_rise(held_out_path(*sides, classes, strengths))
        known = _drawn(folds != fold, most, rng)
        asked = np.flatnonzero(folds == fold)
        x, asked_x = standardized(vectors[known], vectors[asked])
        linear = fit(x, labels[known], classes, strength)
        predictions[asked] = linear.logits(asked_x).argmax(1).numpy()
    return predictions


def _before_the_rise(path: Iterable[tuple[float, float, float]]) -> float:
    """The first regularization of a `held_out_path` whose successor has a larger cross-entropy."""
    least, chosen = np.inf, np.nan
    for strength, loss, _ in path:
        if loss > least:
            break
        least, chosen = loss, strength
    return chosen


def _drawn(chosen: npt.NDArray[np.bool_], most: int, rng: np.random.Generator) -> Labels:
    """Indices of what is chosen, in rising order; so many at most."""
    return np.sort(rng.permutation(np.flatnonzero(chosen))[:most])


@dataclass(frozen=True)
class BlockScores:
    """What a probe of maps got right, block by block. Intervals are over resampled blocks."""

    confusions: npt.NDArray[np.int64]
    """`(R, K, K)` cells of each block by class (row) and prediction (column)."""

    def value(self, measure: Measure = "accuracy") -> float:
        """Of all blocks together."""
        return float(_MEASURES[measure](self.confusions.sum(0)))

    def interval(self, measure: Measure = "accuracy", seed: int = 0) -> Interval:
        """The middle 95% of resampled blocks."""
        return middle(self.resampled(measure, seed))

    def resampled(self, measure: Measure, seed: int) -> npt.NDArray[np.float64]:
        """`(S,)` values, each of R blocks drawn with replacement: the same for all of a seed."""
        blocks = len(self.confusions)
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), RESAMPLES)  # (S, R)
        return _MEASURES[measure](np.tensordot(drawn, self.confusions, 1))

    def minus(
        self, other: "BlockScores", measure: Measure = "accuracy", seed: int = 0
    ) -> tuple[float, Interval]:
        """How much better than another probe of the same cells, and the interval of that.

        Raises:
            ValueError: the cells are not the same.
        """
        ours, theirs = (scores.confusions.sum(2) for scores in (self, other))
        if not np.array_equal(ours, theirs):
            raise ValueError("two probes can be compared on the same cells of the same blocks only")
        gains = self.resampled(measure, seed) - other.resampled(measure, seed)
        return self.value(measure) - other.value(measure), middle(gains)


_MEASURES = {"accuracy": accuracy, "macro_f1": macro_f1}


def score_blocks(labels: Labels, predictions: Labels, blocks: Labels, classes: int) -> BlockScores:
    """Compare predictions with labels, block by block.

    Args:
        labels: `(N,)` in `0...classes - 1`.
        predictions: `(N,)` likewise.
        blocks: `(N,)` the block of each cell, any whole numbers.
        classes: K.
    """
    own, block = np.unique(blocks, return_inverse=True)
    cells = (block * classes + labels) * classes + predictions
    counts = np.bincount(cells, minlength=len(own) * classes * classes)
    return BlockScores(counts.reshape(len(own), classes, classes).astype(np.int64))
