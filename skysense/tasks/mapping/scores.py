"""Scores of out-of-fold predictions, and how sure they are: blocks are resampled, not cells.

Legend: N labelled cells, K classes, R blocks, S resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.tasks.probe.pixels import score_blocks
from skysense.tasks.probe.scores import RESAMPLES, accuracy, macro_f1, middle

Labels = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def score(
    labels: Labels, predictions: Labels, blocks: Labels, names: Sequence[str], seed: int
) -> dict[str, Any]:
    """Scores and their intervals, ready for JSON.

    Args:
        labels: `(N,)` in `0...K - 1`.
        predictions: `(N,)` likewise.
        blocks: `(N,)`.
        names: of the K classes.
        seed: of the resamples.

    Returns:
        `accuracy`, `balanced_accuracy`, `macro_f1` and `kappa`, each with `..._interval` (the
        middle 95% over resampled blocks); `f1` and `f1_interval` by class; `confusion`, whose rows
        are classes and columns predictions.
    """
    confusions = score_blocks(labels, predictions, blocks, len(names)).confusions
    count = len(confusions)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    resampled = np.tensordot(drawn, confusions, 1)  # (S, K, K)
    whole = confusions.sum(0)
    found: dict[str, Any] = {}
    for name, measure in _MEASURES.items():
        found[name] = _number(measure(whole))
        found[f"{name}_interval"] = _interval(measure(resampled))
    each, spread = class_f1(whole), class_f1(resampled)
    found["f1"] = {name: _number(each[i]) for i, name in enumerate(names)}
    found["f1_interval"] = {name: _interval(spread[:, i]) for i, name in enumerate(names)}
    found["confusion"] = whole.tolist()
    return found


def balanced_accuracy(confusion: Labels) -> FloatArray:
    """`(..., K, K)` to `(...)`: the mean over classes of the share of their cells that is right."""
    recall = _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1))
    return np.asarray(np.nanmean(recall, axis=-1), np.float64)


def kappa(confusion: Labels) -> FloatArray:
    """`(..., K, K)` to `(...)`: agreement beyond chance. Source: Cohen 1960, equation 1 [paper]."""
    total = confusion.sum((-2, -1)).astype(np.float64)
    observed = np.trace(confusion, axis1=-2, axis2=-1) / total
    chance = (confusion.sum(-1) * confusion.sum(-2)).sum(-1) / total**2
    return _ratio(observed - chance, 1 - chance)


def class_f1(confusion: Labels) -> FloatArray:
    """`(..., K, K)` to `(..., K)`; NaN for a class that is neither there nor predicted."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * right, confusion.sum(-1) + confusion.sum(-2))


_MEASURES = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "kappa": kappa,
}


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> FloatArray:
    """`part / whole`, NaN where the whole is nothing."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    found = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=found, where=whole > 1e-12)
    return found


def _number(value: npt.ArrayLike) -> float | None:
    """A number for JSON, which knows no NaN."""
    number = float(np.asarray(value))
    return number if np.isfinite(number) else None


def _interval(values: FloatArray) -> list[float] | None:
    """The middle 95% of the values that there are."""
    finite = values[np.isfinite(values)]
    return list(middle(finite)) if len(finite) else None
