"""From labels and features to a fitted head and what is known of it.

Legend: N labelled cells, D width, K classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.tasks.mapping.blocks import Folds, random_folds, spatial_folds
from skysense.tasks.mapping.cells import LabelledCells, label_cells
from skysense.tasks.mapping.heads import HEADS, Classifier, HeadName, Scale
from skysense.tasks.mapping.labels import LabelSet, MapWarning
from skysense.tasks.mapping.scores import score
from skysense.tasks.mapping.sources import FeatureSource, cell_sides
from skysense.tasks.mapping.validation import Validated, out_of_fold, validate

FloatArray = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MOST_CELLS = 10_000
"""Labelled cells that a head is fitted on at most; of more, each class gives its share. [ours]"""


@dataclass(frozen=True)
class Examples:
    """Labelled cells that hold features."""

    cells: LabelledCells
    """N of them; `names` are the classes that are left."""
    vectors: FloatArray
    """`(N, D)`."""
    empty: int
    """Labelled cells without features, which were left out."""
    unused: int
    """Labelled cells beyond `MOST_CELLS`, which were left out."""


def find_examples(features: FeatureSource, labels: LabelSet, seed: int) -> Examples:
    """The features of the labelled cells.

    Raises:
        ValueError: no labelled cell on the map holds features, or all that do are of one class.
    """
    cells = label_cells(labels, features.grid, features.extent)
    found = len(cells.rows)
    kept = _drawn(cells.classes, seed)
    cells = cells.subset(kept)
    vectors = features.cells(cells.rows, cells.cols)
    valid = np.isfinite(vectors[:, 0])
    empty = int((~valid).sum())
    if empty == len(valid):
        what = "lie where the map holds nothing" if found else "contradict each other"
        raise ValueError(f"{labels.path}: all labelled cells {what}")
    if empty:
        _warn(f"{empty} of {len(valid)} labelled cells hold no features and are left out")
    cells = _present(cells.subset(valid), labels)
    return Examples(cells, vectors[valid], empty, found - len(kept))


def _drawn(classes: Labels, seed: int) -> Labels:
    """At most `MOST_CELLS` cells, in order, as many of each class as its share."""
    if len(classes) <= MOST_CELLS:
        return np.arange(len(classes))
    rng = np.random.default_rng(seed)
    kept = []
    for name in np.unique(classes):
        own = rng.permutation(np.flatnonzero(classes == name))
        kept.append(own[: max(2, MOST_CELLS * len(own) // len(classes))])
    _warn(
        f"{len(classes)} labelled cells are more than the head needs: {MOST_CELLS} are drawn, each "
        "class in its share"
    )
    return np.sort(np.concatenate(kept))


def _present(cells: LabelledCells, labels: LabelSet) -> LabelledCells:
    """Only the classes that have a cell, numbered anew."""
    own, classes = np.unique(cells.classes, return_inverse=True)
    names = tuple(cells.names[i] for i in own)
    if len(names) < 2:
        raise ValueError(
            f"{labels.path}: on the map only class {names[0]} has labelled cells; a map needs two"
        )
    missing = [name for name in cells.names if name not in names]
    if missing:
        _warn(f"no label of {', '.join(missing)} is left on the map, so it will not be mapped")
    return replace(cells, classes=np.asarray(classes, np.int64).reshape(-1), names=names)


@dataclass(frozen=True)
class Trained:
    """A fitted head and what cross-validation says of it."""

    scale: Scale
    """Of the labelled cells."""
    classifier: Classifier
    """On that scale."""
    temperature: float
    """By which its logits are divided."""
    facts: dict[str, Any]
    """For the metrics: `head`, `setting`, `cross_validation`, `calibration`."""


def train(
    features: FeatureSource,
    examples: Examples,
    name: HeadName,
    wanted: int,
    metres: float | None,
    seed: int,
) -> Trained:
    """Cross-validate a head, then fit it on all labelled cells with the setting that did best.

    Args:
        features: the map.
        examples: its labelled cells.
        name: of the head.
        wanted: folds.
        metres: side of a block of ground; chosen where it is `None`.
        seed: of folds, head and resamples.
    """
    head, cells = HEADS[name], examples.cells
    classes = len(cells.names)
    folds, said = spatial_folds(cells, cell_sides(features.grid), wanted, metres)
    setting, temperature, calibration = head.fallback, 1.0, None
    validation: dict[str, Any] | None = None
    if folds is None:
        _warn(f"no cross-validation, so accuracy and confidence are unknown: {said}")
    else:
        if said:
            _warn(said)
        found = validate(head, examples.vectors, cells.classes, folds.folds, classes, seed)
        setting, temperature = found.setting, found.temperature
        calibration = {
            "temperature": temperature,
            "expected_calibration_error_before": found.error_before,
            "expected_calibration_error_after": found.error_after,
        }
        validation = _validation(name, examples, folds, found, seed)
    scale = Scale.of(examples.vectors)
    (classifier,) = head.fit(scale(examples.vectors), cells.classes, classes, (setting,), seed)
    facts = {
        "head": name,
        "setting": {head.setting: setting},
        "cross_validation": validation,
        "cross_validation_note": said,
        "calibration": calibration,
    }
    return Trained(scale, classifier, temperature, facts)


def _validation(
    name: HeadName, examples: Examples, folds: Folds, found: Validated, seed: int
) -> dict[str, Any]:
    """Scores by blocks, and the optimistic ones by cells drawn at random beside them."""
    cells, head = examples.cells, HEADS[name]
    drawn = random_folds(cells.classes, folds.count, seed)
    settings = (found.setting,)
    sides = (examples.vectors, cells.classes, drawn, len(cells.names))
    logits, _ = out_of_fold(head, settings, *sides, seed)
    near = logits[0].argmax(1).numpy()
    split = _split_labels(cells.owners, folds.folds)
    if split:
        _warn(
            f"{split} polygons have cells in several folds, which makes the accuracy optimistic; "
            "give a --block that is wider than they are"
        )
    lonely = _in_one_fold(cells.classes, folds.folds, cells.names)
    if lonely:
        _warn(
            f"all labels of {', '.join(lonely)} lie in one fold and count as wrong there; label "
            "more places, or give a smaller --block"
        )
    return {
        "folds": folds.count,
        "block_metres": folds.metres,
        "blocks": int(folds.blocks.max()) + 1,
        "labels_in_several_folds": split,
        "classes_in_one_fold": lonely,
        **score(cells.classes, found.predictions, folds.blocks, cells.names, seed),
        "random_folds_accuracy": float((near == cells.classes).mean()),
    }


def _split_labels(owners: Labels, folds: Labels) -> int:
    """How many labels have cells in more than one fold."""
    pairs = np.unique(np.stack([owners, folds], 1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())


def _in_one_fold(classes: Labels, folds: Labels, names: Sequence[str]) -> list[str]:
    """Classes that no other fold could teach."""
    return [name for i, name in enumerate(names) if len(np.unique(folds[classes == i])) == 1]


def _warn(text: str) -> None:
    """Say what limits the map or its scores."""
    warnings.warn(text, MapWarning, stacklevel=3)
