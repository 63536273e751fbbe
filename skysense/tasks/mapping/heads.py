"""Light classifiers of cells: logistic regression, nearest neighbours, a small network.

Each is fitted for several settings, from cautious to bold, among which cross-validation chooses.
Features come in on the scale of the labelled cells, see `Scale`.

Legend: N labelled cells, Q asked for, D width, K classes.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skysense.engine.neighbors import knn_scores
from skysense.tasks.probe.logistic import fit_path

FloatArray = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
HeadName = Literal["logistic", "knn", "mlp"]

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.01)
"""Regularizations of logistic regression, from strong to weak. [ours]"""
NEIGHBORS = (1, 3, 5, 10, 20)
"""Neighbours that vote. [ours]"""
STEPS = (20, 50, 100, 200, 400)
"""Steps of training of the small network, after which it may stop. [ours]"""
HIDDEN = 64
"""Width of the small network's one hidden layer. [ours]"""
_RATE, _DECAY = 3e-3, 1e-2


@dataclass(frozen=True)
class Scale:
    """Brings each column to mean 0 and spread 1 over some cells."""

    mean: npt.NDArray[np.float64]
    """`(D,)`."""
    spread: npt.NDArray[np.float64]
    """`(D,)`, 1 for a column that is constant."""

    @classmethod
    def of(cls, vectors: FloatArray) -> "Scale":
        """Measure cells `(N, D)`."""
        values = np.asarray(vectors, np.float64)
        mean, spread = values.mean(0), values.std(0)
        constant = spread <= 1e-6 * np.abs(mean)
        return cls(mean, np.where(constant | (spread == 0), 1.0, spread))

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Cells `(Q, D)` on this scale."""
        return ((vectors - self.mean) / self.spread).astype(np.float32)


class Classifier(Protocol):
    """A fitted head."""

    def logits(self, vectors: FloatArray) -> Tensor:
        """`(Q, D)` to `(Q, K)`, whose softmax are probabilities."""
        ...


@dataclass(frozen=True)
class Head:
    """A kind of classifier."""

    setting: str
    """What its setting is called."""
    choices: tuple[float, ...]
    """Settings to choose from."""
    fallback: float
    """Taken where there are too few labels to choose."""
    fit: Callable[[FloatArray, Labels, int, Sequence[float], int], Iterator[Classifier]]
    """Vectors `(N, D)`, classes `(N,)`, K, settings and seed to a classifier for each setting."""


@dataclass(frozen=True)
class Neighbors:
    """The vote of the k nearest labelled cells, by cosine."""

    known: FloatArray
    """`(N, D)`."""
    labels: Labels
    """`(N,)`."""
    classes: int
    """K."""
    count: int
    """k."""

    def logits(self, vectors: FloatArray) -> Tensor:
        """Logarithms of the votes; one vote more is shared by all classes, so that none is 0."""
        votes = knn_scores(self.known, self.labels, vectors, self.classes, self.count)
        k = min(self.count, len(self.known))
        shares = (k * votes.astype(np.float64) + 1 / self.classes) / (k + 1)
        return torch.from_numpy(np.log(shares))


@dataclass(frozen=True)
class Network:
    """A trained network of one hidden layer."""

    layers: nn.Sequential
    """`(Q, D)` to `(Q, K)`."""

    @torch.no_grad()
    def logits(self, vectors: FloatArray) -> Tensor:
        """`(Q, D)` to `(Q, K)`."""
        found: Tensor = self.layers(torch.from_numpy(np.ascontiguousarray(vectors)))
        return found.double()


def _logistic(
    vectors: FloatArray, labels: Labels, classes: int, settings: Sequence[float], seed: int
) -> Iterator[Classifier]:
    """From strong to weak regularization; there is nothing to draw."""
    return fit_path(vectors, labels, classes, settings)


def _neighbors(
    vectors: FloatArray, labels: Labels, classes: int, settings: Sequence[float], seed: int
) -> Iterator[Classifier]:
    """There is nothing to fit."""
    return (Neighbors(vectors, labels, classes, int(k)) for k in settings)


def _network(
    vectors: FloatArray, labels: Labels, classes: int, settings: Sequence[float], seed: int
) -> Iterator[Classifier]:
    """One training on all cells at once, looked at after the numbers of steps in `settings`."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Linear(vectors.shape[1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, classes)
        )
    x, y = torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(layers.parameters(), lr=_RATE, weight_decay=_DECAY)
    done = 0
    for steps in settings:
        with torch.enable_grad():
            for _ in range(done, int(steps)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(layers(x), y).backward()
                optimizer.step()
        done = int(steps)
        yield Network(copy.deepcopy(layers).eval())


HEADS: Mapping[HeadName, Head] = {
    "logistic": Head("strength", STRENGTHS, 0.3, _logistic),
    "knn": Head("neighbors", NEIGHBORS, 3, _neighbors),
    "mlp": Head("steps", STEPS, 100, _network),
}
"""The heads by name."""
