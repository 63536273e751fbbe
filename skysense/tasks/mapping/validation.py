"""Cross-validation of a head: scores, setting, temperature, each on ground apart.

Legend: N labelled cells, D width, K classes, S settings.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skysense.tasks.mapping.calibration import (
    calibration_error,
    fit_temperature,
    probabilities,
)
from skysense.tasks.mapping.heads import Head, Scale

FloatArray = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Validated:
    """What cross-validation found."""

    setting: float
    """The best setting of the head."""
    temperature: float
    """By which its logits are to be divided."""
    predictions: Labels
    """`(N,)` out of fold, with the setting that the other folds chose."""
    error_before: float
    """Expected calibration error of the head's own probabilities, out of fold."""
    error_after: float
    """The same with the temperature that was fitted on the other folds."""


def out_of_fold(
    head: Head,
    settings: tuple[float, ...],
    vectors: FloatArray,
    labels: Labels,
    folds: Labels,
    classes: int,
    seed: int,
) -> tuple[Tensor, npt.NDArray[np.bool_]]:
    """Logits of every cell by heads that were fitted on the other folds, on their scale.

    Args:
        head: what to fit.
        settings: S settings of it.
        vectors: `(N, D)`.
        labels: `(N,)`.
        folds: `(N,)`.
        classes: K.
        seed: of the head.

    Returns:
        `(S, N, K)`, and for which cells `(N,)` the other folds held their class at all.
    """
    logits = torch.zeros(len(settings), len(labels), classes, dtype=torch.float64)
    known = np.zeros(len(labels), bool)
    for fold in np.unique(folds):
        asked, given = np.flatnonzero(folds == fold), folds != fold
        known[asked] = np.isin(labels[asked], labels[given])
        scale = Scale.of(vectors[given])
        fitted = head.fit(scale(vectors[given]), labels[given], classes, settings, seed)
        queries = scale(vectors[asked])
        for i, classifier in enumerate(fitted):
            logits[i, torch.from_numpy(asked)] = classifier.logits(queries)
    return logits, known


def validate(
    head: Head, vectors: FloatArray, labels: Labels, folds: Labels, classes: int, seed: int
) -> Validated:
    """Cross-validate a head.

    For the scores of a fold, setting and temperature are those that the other folds would choose:
    no cell takes part in a choice that it is scored with. Cells whose class the other folds do not
    hold take part in no choice, and count as wrong.

    Args:
        head: what to fit.
        vectors: `(N, D)` on any scale.
        labels: `(N,)`.
        folds: `(N,)`, at least two different ones.
        classes: K.
        seed: of the head.
    """
    logits, known = out_of_fold(head, head.choices, vectors, labels, folds, classes, seed)
    before, after = (np.zeros((len(labels), classes)) for _ in range(2))
    for fold in np.unique(folds):
        others = (folds != fold) & known
        index, temperature = _choose(logits, labels, others)
        asked = torch.from_numpy(np.flatnonzero(folds == fold))
        before[asked] = probabilities(logits[index, asked])
        after[asked] = probabilities(logits[index, asked], temperature)
    index, temperature = _choose(logits, labels, known)
    judged = known if known.any() else np.ones(len(labels), bool)
    return Validated(
        head.choices[index],
        temperature,
        before.argmax(1).astype(np.int64),
        calibration_error(before[judged], labels[judged]),
        calibration_error(after[judged], labels[judged]),
    )


def _choose(logits: Tensor, labels: Labels, cells: npt.NDArray[np.bool_]) -> tuple[int, float]:
    """The setting of least cross-entropy at its best temperature, and that temperature."""
    if not cells.any():
        return len(logits) // 2, 1.0
    chosen = torch.from_numpy(np.flatnonzero(cells))
    fits = [fit_temperature(own[chosen], labels[cells]) for own in logits]
    index = int(np.argmin([loss for _, loss in fits]))
    return index, fits[index][0]
