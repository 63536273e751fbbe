"""Confidence that means what it says: one temperature, fitted on predictions out of fold.

Legend: N cells, K classes.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Labels = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

BINS = 10
"""Of the calibration error."""
_RANGE = (-4.0, 4.0)
_HALVINGS = 60
_GOLDEN = (5**0.5 - 1) / 2


def fit_temperature(logits: Tensor, labels: Labels) -> tuple[float, float]:
    """The temperature of least cross-entropy, and that cross-entropy.

    The target of the true class is `(N + 1) / (N + K)` and not 1, so that a handful of cells that
    are all right does not make the map certain. Source: temperature, Guo et al. 2017 [paper]; the
    softened target, Platt 1999, section 2.2, here for K classes [ours].

    Args:
        logits: `(N, K)`, at least one cell.
        labels: `(N,)`.

    Returns:
        The temperature, by which logits are divided, and the cross-entropy with the labels there.
    """
    count, classes = logits.shape
    target = torch.full((count, classes), 1 / (count + classes), dtype=torch.float64)
    target[torch.arange(count), torch.from_numpy(labels)] = (count + 1) / (count + classes)
    values = logits.double()

    def loss(power: float) -> float:
        scores = torch.log_softmax(values * float(np.exp(power)), 1)
        return float(-(target * scores).sum(1).mean())

    power = _least(loss, *_RANGE)
    return float(np.exp(-power)), loss(power)


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least, by golden sections."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    for _ in range(_HALVINGS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return (low + high) / 2


def probabilities(logits: Tensor, temperature: float = 1.0) -> FloatArray:
    """`(N, K)` rows that add up to 1."""
    return np.asarray(torch.softmax(logits.double() / temperature, 1).numpy(), np.float64)


def calibration_error(probability: FloatArray, labels: Labels) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, over equal bins.

    Source: Naeini et al. 2015; Guo et al. 2017, equation 3 [paper], with `BINS` bins.

    Args:
        probability: `(N, K)`, at least one cell.
        labels: `(N,)`.
    """
    confidence = probability.max(1)
    right = probability.argmax(1) == labels
    of = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(of, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))
