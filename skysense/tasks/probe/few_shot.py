"""Label efficiency: how good a probe is with a few labels a class.

Legend: N training images, Q test images, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skysense.engine.neighbors import NEIGHBORS, knn_scores, standardized
from skysense.tasks.probe.logistic import fit

Labels = npt.NDArray[np.int64]

SHOTS = (1, 5, 10, 50)
"""Labels a class."""
FEW_SHOT_STRENGTH = 1e-2
"""Regularization of the linear probe: a few labels leave none to choose it on. [ours]"""


@dataclass(frozen=True)
class FewShot:
    """Accuracy with so many labels a class."""

    shots: int
    """Labels a class; fewer of a class that has fewer."""
    accuracies: tuple[float, ...]
    """One a draw of the labelled images, on all test images."""

    @property
    def mean(self) -> float:
        """Over the draws."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Standard deviation over the draws."""
        return float(np.std(self.accuracies))


def few_shot(
    train: npt.NDArray[np.floating],
    labels: Labels,
    test: npt.NDArray[np.floating],
    test_labels: Labels,
    protocol: str = "linear",
    shots: Sequence[int] = SHOTS,
    draws: int = 5,
    neighbors: int = NEIGHBORS,
) -> tuple[FewShot, ...]:
    """Probe with a few labels a class, several times each.

    Args:
        train: `(N, D)` vectors to draw the labelled images from.
        labels: `(N,)` whole numbers from 0.
        test: `(Q, D)`.
        test_labels: `(Q,)`.
        protocol: `linear` or `knn`; with fewer than k labels a class, kNN has as many neighbours.
        shots: labels a class.
        draws: how often the labelled images are drawn; draw i is the same for every model.
        neighbors: k of `knn`.
    """
    classes = int(max(labels.max(), test_labels.max())) + 1
    results = []
    for count in shots:
        accuracies = []
        for seed in range(draws):
            chosen = draw(labels, count, seed)
            x, asked = standardized(train[chosen], test)
            if protocol == "linear":
                linear = fit(x, labels[chosen], classes, FEW_SHOT_STRENGTH)
                predictions = linear.logits(asked).argmax(1).numpy()
            elif protocol == "knn":
                k = min(neighbors, count)
                predictions = knn_scores(x, labels[chosen], asked, classes, k).argmax(1)
            else:
                raise ValueError(f"unknown protocol `{protocol}` (known: knn, linear)")
            accuracies.append(float((predictions == test_labels).mean()))
        results.append(FewShot(count, tuple(accuracies)))
    return tuple(results)


def draw(labels: Labels, count: int, seed: int) -> Labels:
    """Indices of `count` images of each class, in rising order; all of a class that has fewer."""
    rng = np.random.default_rng(seed)
    own = [rng.permutation(np.flatnonzero(labels == label))[:count] for label in np.unique(labels)]
    return np.sort(np.concatenate(own))
