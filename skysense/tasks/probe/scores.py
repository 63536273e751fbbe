"""Predictions against labels: accuracy, F1, recall, confusion, and how sure they are.

Legend: Q test images, K classes, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

RESAMPLES = 1000
_COVERED = (2.5, 97.5)


@dataclass(frozen=True)
class Scores:
    """What a probe got right. Intervals are the middle 95% over resamples of the test images."""

    accuracy: float
    """Share of images, 0...1."""
    accuracy_interval: Interval
    """Low and high."""
    macro_f1: float
    """Mean of F1 over the classes that occur among labels or predictions."""
    macro_f1_interval: Interval
    """Low and high."""
    recall: npt.NDArray[np.float64]
    """`(K,)` share of each class's images; NaN for a class without test images."""
    confusion: npt.NDArray[np.int64]
    """`(K, K)` images by class (row) and prediction (column)."""
    labels: npt.NDArray[np.int64]
    """`(Q,)`."""
    predictions: npt.NDArray[np.int64]
    """`(Q,)`."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """What the protocol was run with and what it chose."""


def score(
    labels: npt.NDArray[np.int64],
    predictions: npt.NDArray[np.int64],
    classes: int,
    seed: int = 0,
    settings: Mapping[str, float] | None = None,
) -> Scores:
    """Compare predictions with labels.

    Args:
        labels: `(Q,)` in `0...classes - 1`, at least one.
        predictions: `(Q,)` likewise.
        classes: K.
        seed: of the resamples.
        settings: kept with the scores.
    """
    cells = np.bincount(labels * classes + predictions, minlength=classes * classes)
    confusion = cells.reshape(classes, classes).astype(np.int64)
    # Drawing Q images with replacement is drawing their cells of the confusion matrix.
    drawn = np.random.default_rng(seed).multinomial(len(labels), cells / len(labels), RESAMPLES)
    resampled = drawn.reshape(RESAMPLES, classes, classes)
    return Scores(
        accuracy=float(accuracy(confusion)),
        accuracy_interval=middle(accuracy(resampled)),
        macro_f1=float(macro_f1(confusion)),
        macro_f1_interval=middle(macro_f1(resampled)),
        recall=_share(confusion.diagonal(), confusion.sum(1)),
        confusion=confusion,
        labels=labels,
        predictions=predictions,
        settings=dict(settings or {}),
    )


def difference(ours: Scores, other: Scores, seed: int = 0) -> tuple[float, Interval]:
    """How much more accurate one probe is than another on the same test images.

    Args:
        ours: of Q images.
        other: of the same images in the same order.
        seed: of the resamples, which draw the same images for both.

    Returns:
        Difference of the accuracies, and its interval.

    Raises:
        ValueError: the images are not the same.
    """
    if not np.array_equal(ours.labels, other.labels):
        raise ValueError("two probes can be compared on the same test images only")
    right = [(s.predictions == s.labels).astype(np.int64) for s in (ours, other)]
    gains = np.bincount(right[0] - right[1] + 1, minlength=3)  # lost, level, won
    count = len(ours.labels)
    drawn = np.random.default_rng(seed).multinomial(count, gains / count, RESAMPLES)
    return float(gains[2] - gains[0]) / count, middle((drawn[:, 2] - drawn[:, 0]) / count)


def accuracy(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`(..., K, K)` to `(...)`."""
    right = np.trace(confusion, axis1=-2, axis2=-1)
    return np.asarray(right / confusion.sum((-2, -1)), np.float64)


def macro_f1(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`(..., K, K)` to `(...)`: F1 of a class is 2 TP / (2 TP + FP + FN)."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    f1 = _share(2 * right, confusion.sum(-1) + confusion.sum(-2))
    return np.asarray(np.nanmean(f1, axis=-1), np.float64)


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`part / whole`, NaN where the whole is nothing."""
    shares = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares


def middle(values: npt.NDArray[np.float64]) -> Interval:
    """The middle 95%."""
    low, high = np.percentile(values, _COVERED)
    return float(low), float(high)
