"""Frozen features against labels: embed, probe, score.

Legend: N training images, Q test images, D width, K classes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from skysense.data.labelled import LabelledSet, open_labelled, split
from skysense.engine.neighbors import NEIGHBORS, TEMPERATURE, knn_scores, standardized
from skysense.tasks.probe.logistic import predict_linear
from skysense.tasks.probe.scores import Scores, score
from skysense.tasks.probe.vectors import Embedder, VectorCache, embed_set

Protocol = Literal["knn", "linear"]

TEST_SHARE = 0.2
"""Share of the images that are tested where no test set is given. [ours]"""


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a model's frozen features, and how they came about."""

    model: str
    """Its name."""
    trained: bool | None
    """Whether it says that it is; `None` for a model that does not say."""
    protocol: Protocol
    """How the vectors were classified."""
    sensor: str
    """Sensor card of the images."""
    train: str
    """Name of the training set."""
    train_images: int
    """N."""
    test: str
    """Name of the test set."""
    test_images: int
    """Q."""
    width: int
    """D."""
    classes: tuple[str, ...]
    """K names."""
    scores: Scores
    """On the test images."""
    seconds: float
    """It took, reading and embedding included."""

    def facts(self) -> dict[str, Any]:
        """All of it as plain values for JSON; the recall of a class that is not tested is null."""
        scores = self.scores
        recall = [None if np.isnan(value) else float(value) for value in scores.recall]
        return {
            "model": self.model,
            "trained": self.trained,
            "protocol": self.protocol,
            "sensor": self.sensor,
            "train": {"name": self.train, "images": self.train_images},
            "test": {"name": self.test, "images": self.test_images},
            "width": self.width,
            "accuracy": scores.accuracy,
            "accuracy_interval": list(scores.accuracy_interval),
            "macro_f1": scores.macro_f1,
            "macro_f1_interval": list(scores.macro_f1_interval),
            "classes": list(self.classes),
            "recall": dict(zip(self.classes, recall, strict=True)),
            "confusion": scores.confusion.tolist(),
            "settings": dict(scores.settings),
            "seconds": self.seconds,
        }


def probe_vectors(
    train: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
    test: npt.NDArray[np.floating],
    test_labels: npt.NDArray[np.int64],
    protocol: Protocol,
    classes: int | None = None,
    neighbors: int = NEIGHBORS,
    seed: int = 0,
) -> Scores:
    """Classify test vectors by training vectors; both on the scale of the training vectors.

    Args:
        train: `(N, D)`.
        labels: `(N,)` whole numbers from 0.
        test: `(Q, D)`.
        test_labels: `(Q,)` likewise.
        protocol: `knn` (weighted) or `linear` (logistic regression).
        classes: K; default: as many as the labels say.
        neighbors: k of `knn`.
        seed: of held-out images and of the resamples for the intervals.

    Raises:
        ValueError: shapes or labels do not fit, or a vector is not finite.
    """
    labels, test_labels = np.asarray(labels, np.int64), np.asarray(test_labels, np.int64)
    classes = classes or int(max(labels.max(initial=0), test_labels.max(initial=0))) + 1
    _check(train, labels, "training", classes)
    _check(test, test_labels, "test", classes)
    if protocol == "linear":
        predictions, settings = predict_linear(train, labels, test, classes, seed)
    elif protocol == "knn":
        scaled, asked = standardized(train, test)
        predictions = knn_scores(scaled, labels, asked, classes, neighbors).argmax(1)
        settings = {"neighbors": float(min(neighbors, len(train))), "temperature": TEMPERATURE}
    else:
        raise ValueError(f"unknown protocol `{protocol}` (known: knn, linear)")
    return score(test_labels, predictions, classes, seed, settings)


def _check(
    vectors: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], what: str, classes: int
) -> None:
    """Refuse what cannot be probed."""
    if vectors.ndim != 2 or len(vectors) == 0 or labels.shape != (len(vectors),):
        raise ValueError(
            f"{what} vectors {vectors.shape} and labels {labels.shape}, expected (N, D) and (N,)"
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"{what} vectors hold NaN or infinite numbers")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{what} labels must lie in 0...{classes - 1}")


def evaluate(
    model: Embedder,
    train: LabelledSet | str | Path,
    test: LabelledSet | str | Path | None = None,
    protocol: Protocol = "knn",
    sensor: str = "rgb8",
    *,
    bands: Sequence[str] | None = None,
    batch_size: int = 32,
    neighbors: int = NEIGHBORS,
    seed: int = 0,
    cache: VectorCache | None = None,
    advance: Callable[[int], None] | None = None,
    least_size: int | None = None,
) -> ProbeResult:
    """Score the frozen features of a model on labelled images.

    Args:
        model: anything with `embed`.
        train: the labelled images; see `skysense.data.labelled.open_labelled`.
        test: those to classify; default: see `train_and_test`.
        protocol: `knn` or `linear`.
        sensor: name of the sensor card of all images.
        bands: names of their bands; default: those the files give, else the card's in its order.
        batch_size: images computed at a time.
        neighbors: k of `knn`.
        seed: of everything that is drawn.
        cache: where to look for the vectors first, and to keep them.
        advance: told how many images were embedded.
        least_size: pixels that images are enlarged to first where their longer side is shorter, 0
            for none; default: the model's own choice.

    Raises:
        ValueError: the sets cannot be read, do not go together, or do not fit the card.
    """
    started = time.monotonic()
    train, test = train_and_test(train, test, seed)
    options = (sensor, bands, batch_size, cache, advance, least_size)
    vectors, asked = (embed_set(model, part, *options) for part in (train, test))
    scores = probe_vectors(
        vectors, train.labels, asked, test.labels, protocol, len(train.classes), neighbors, seed
    )
    return ProbeResult(
        model=str(getattr(model, "name", type(model).__name__)),
        trained=getattr(model, "trained", None),
        protocol=protocol,
        sensor=sensor,
        train=train.name,
        train_images=len(train),
        test=test.name,
        test_images=len(test),
        width=vectors.shape[1],
        classes=train.classes,
        scores=scores,
        seconds=time.monotonic() - started,
    )


def train_and_test(
    train: LabelledSet | str | Path, test: LabelledSet | str | Path | None = None, seed: int = 0
) -> tuple[LabelledSet, LabelledSet]:
    """Both sides of an evaluation, with the same classes and without a common image.

    Args:
        train: a set, or where it is.
        test: likewise; `None` for what the column `split` of a CSV calls `test` (against
            `train`), or else for `TEST_SHARE` of each class.
        seed: of the draw.

    Raises:
        ValueError: a test image is a training image, or has a class that no training image has.
    """
    train = train if isinstance(train, LabelledSet) else open_labelled(train)
    if test is None:
        return divided(train, seed)
    test = test if isinstance(test, LabelledSet) else open_labelled(test)
    places = {(file.path.resolve(), file.member) for file in train.files}
    common = sum((file.path.resolve(), file.member) in places for file in test.files)
    if common:
        raise ValueError(
            f"{common} of the {len(test)} test images are training images: give other ones, or no "
            "test set to split off a part"
        )
    return train, test.with_classes(train.classes)


def divided(labelled: LabelledSet, seed: int = 0) -> tuple[LabelledSet, LabelledSet]:
    """One set as training and test images: by its column `split`, or drawn.

    Raises:
        ValueError: the column has other words, but not both `train` and `test`.
    """
    parts = np.array([part.lower() for part in labelled.parts or ()])
    if set(parts) <= {"train"}:
        return split(labelled, TEST_SHARE, seed)
    train, test = (np.flatnonzero(parts == part) for part in ("train", "test"))
    if not len(train) or not len(test):
        words = ", ".join(f"`{word}`" for word in sorted(set(labelled.parts or ())))
        raise ValueError(
            f"the column `split` of {labelled.name} says {words}: expected `train` and `test`; or "
            f"give the test images by themselves"
        )
    return labelled.subset(train), labelled.subset(test)
