"""Nearest neighbours: which class an image has, by the labelled images whose vectors are closest.

Exact, and the same for the same vectors: of equally near neighbours the earlier counts, of equal
scores the earlier class.

Legend: N labelled vectors, Q queries, D width, K classes.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Vectors = npt.NDArray[np.floating]
Classes = npt.NDArray[np.integer]

NEIGHBORS = 20
"""k. Source: DINO [paper], the best of 10, 20, 100, 200 there."""
TEMPERATURE = 0.07
"""A neighbour's weight is `exp(cosine / temperature)`. Source: DINO [code]."""

_PAIRS_AT_ONCE = 1 << 23


def knn_scores(
    train: Vectors,
    labels: Classes,
    queries: Vectors,
    classes: int,
    k: int = NEIGHBORS,
    temperature: float | None = TEMPERATURE,
) -> npt.NDArray[np.float32]:
    """How much of the vote of its k nearest neighbours each class gets.

    Args:
        train: `(N, D)`.
        labels: `(N,)` whole numbers in `0...classes - 1`.
        queries: `(Q, D)`.
        classes: K.
        k: neighbours by cosine similarity; all N where there are fewer.
        temperature: of the weights; `None` counts each neighbour as one.

    Returns:
        `(Q, K)`, each row adds up to 1.

    Raises:
        ValueError: shapes do not fit, a label is none of the classes, or a vector is not finite.
    """
    _check_options(k, temperature)
    known, index = _prepared(train, labels, classes)
    asked = _normalized(queries, "queries")
    if asked.shape[1] != known.shape[1]:
        raise ValueError(
            f"queries have width {asked.shape[1]}, but the labelled vectors {known.shape[1]}"
        )
    scores = torch.empty(len(asked), classes)
    for rows in _chunks(len(asked), len(known)):
        similarity = asked[rows] @ known.T  # (q, N)
        scores[rows] = _vote(similarity, index, classes, k, temperature)
    return scores.numpy()


def leave_one_out_scores(
    vectors: Vectors,
    labels: Classes,
    classes: int,
    k: int = NEIGHBORS,
    temperature: float | None = TEMPERATURE,
) -> npt.NDArray[np.float32]:
    """`knn_scores` of each vector by all the others.

    Args:
        vectors: `(N, D)`, at least two.
        labels: `(N,)` whole numbers in `0...classes - 1`.
        classes: K.
        k: neighbours by cosine similarity; all N - 1 others where there are fewer.
        temperature: of the weights; `None` counts each neighbour as one.

    Returns:
        `(N, K)`.

    Raises:
        ValueError: as `knn_scores`, or there are fewer than two vectors.
    """
    _check_options(k, temperature)
    known, index = _prepared(vectors, labels, classes)
    if len(known) < 2:
        raise ValueError("leaving one out needs at least two vectors")
    scores = torch.empty(len(known), classes)
    for rows in _chunks(len(known), len(known)):
        similarity = known[rows] @ known.T
        own = torch.arange(rows.start, rows.stop)
        similarity[own - rows.start, own] = -torch.inf
        scores[rows] = _vote(similarity, index, classes, min(k, len(known) - 1), temperature)
    return scores.numpy()


def knn_accuracy(
    train: Vectors,
    labels: Classes,
    test: Vectors,
    test_labels: Classes,
    k: int = NEIGHBORS,
    temperature: float | None = TEMPERATURE,
) -> float:
    """Share of the test vectors whose class gets the largest vote.

    Args:
        train: `(N, D)`.
        labels: `(N,)` whole numbers from 0.
        test: `(Q, D)`, at least one.
        test_labels: `(Q,)`.
        k: neighbours by cosine similarity.
        temperature: of the weights; `None` counts each neighbour as one.

    Returns:
        0...1.

    Raises:
        ValueError: as `knn_scores`.
    """
    if len(test) == 0 or len(test) != len(test_labels):
        raise ValueError(f"{len(test)} test vectors with {len(test_labels)} labels")
    classes = int(np.max(labels, initial=0)) + 1
    scores = knn_scores(train, labels, test, classes, k, temperature)
    return float((scores.argmax(1) == test_labels).mean())


def standardized(train: Vectors, *others: Vectors) -> tuple[npt.NDArray[np.float32], ...]:
    """Take mean 0 and spread 1 of each column of `train`, there and in the others.

    Columns of models differ in scale by orders of magnitude, and cosines see the largest alone.

    Args:
        train: `(N, D)`; what is constant in it becomes 0 there.
        others: `(Q, D)` each.

    Returns:
        `train` and the others, float32.
    """
    values = np.asarray(train, np.float64)
    mean, spread = values.mean(0), values.std(0)
    spread[spread <= 1e-6 * np.abs(mean)] = 1.0
    spread[spread == 0] = 1.0
    return tuple(((x - mean) / spread).astype(np.float32) for x in (train, *others))


def _check_options(k: int, temperature: float | None) -> None:
    """Refuse numbers without meaning."""
    if k < 1:
        raise ValueError(f"k is {k}, expected at least one neighbor")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"the temperature is {temperature}, expected a number above 0")


def _prepared(vectors: Vectors, labels: Classes, classes: int) -> tuple[Tensor, Tensor]:
    """Unit vectors `(N, D)` and the index of each one's class `(N,)`."""
    known = _normalized(vectors, "labelled vectors")
    if np.shape(labels) != (len(known),):
        raise ValueError(f"{len(known)} labelled vectors with labels {np.shape(labels)}")
    outside = (np.asarray(labels) < 0) | (np.asarray(labels) >= classes)
    if outside.any():
        raise ValueError(f"label {labels[outside][0]} is none of the {classes} classes from 0")
    return known, torch.from_numpy(np.asarray(labels, np.int64))


def _normalized(vectors: Vectors, what: str) -> Tensor:
    """Float32 vectors of length 1; a vector of zeros stays one."""
    values = torch.from_numpy(np.asarray(vectors, np.float32))
    if values.ndim != 2 or len(values) == 0:
        raise ValueError(f"{what} have shape {tuple(values.shape)}, expected (N, D)")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{what} hold NaN or infinite numbers")
    return torch.nn.functional.normalize(values, dim=1)


def _chunks(queries: int, known: int) -> Iterator[slice]:
    """Rows of queries whose similarities fit into some tens of megabytes."""
    size = max(1, _PAIRS_AT_ONCE // known)
    for start in range(0, queries, size):
        yield slice(start, min(start + size, queries))


def _nearest(similarity: Tensor, k: int) -> Tensor:
    """Columns `(q, k)` of the largest of `(q, N)`; of equal ones the earlier."""
    values, index = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    if values.shape[1] > k:
        tied = values[:, k - 1] == values[:, k]  # only then is it open which ones are among the k
        if bool(tied.any()):
            ordered = similarity[tied].sort(dim=1, descending=True, stable=True).indices
            index[tied] = ordered[:, : k + 1]
    return index[:, :k]


def _vote(
    similarity: Tensor, labels: Tensor, classes: int, k: int, temperature: float | None
) -> Tensor:
    """Shares of the vote `(q, K)` by similarities `(q, N)` and labels `(N,)`."""
    index = _nearest(similarity, k)
    if temperature is None:
        weight = torch.ones(index.shape)
    else:
        weight = torch.softmax(similarity.gather(1, index) / temperature, 1)
    scores = torch.zeros(len(index), classes).scatter_add(1, labels[index], weight)
    return scores / scores.sum(1, keepdim=True)
