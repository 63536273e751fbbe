"""Nearest neighbours against two loops, on ties and on bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.engine import neighbors
from skysense.engine.neighbors import (
    knn_accuracy,
    knn_scores,
    leave_one_out_scores,
    standardized,
)


def naive(train, labels, queries, classes, k, temperature, skip_self=False):
    """Two loops in float64."""
    scores = np.zeros((len(queries), classes))
    for q, query in enumerate(queries):
        cosines = []
        for n, vector in enumerate(train):
            length = math.sqrt(query @ query) * math.sqrt(vector @ vector)
            if not (skip_self and n == q):
                cosines.append((query @ vector / length, n))
        nearest = sorted(cosines, key=lambda pair: (-pair[0], pair[1]))[:k]
        for cosine, n in nearest:
            scores[q, labels[n]] += 1 if temperature is None else math.exp(cosine / temperature)
    return scores / scores.sum(1, keepdims=True)


@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from([0.07, 1.0, None]),
)
@settings(deadline=None, max_examples=50)
def test_scores_against_two_loops(seed, count, width, k, temperature):
    rng = np.random.default_rng(seed)
    train, queries = rng.normal(size=(count, width)), rng.normal(size=(7, width))
    if width == 1:
        train, queries = np.abs(train), np.abs(queries)  # all alike: only the order counts
        train[:], queries[:] = 1, 1
    labels = rng.integers(0, 3, count)
    expected = naive(train, labels, queries, 3, k, temperature)
    scores = knn_scores(train, labels, queries, 3, k, temperature)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_leave_one_out_against_two_loops():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(25, 4)), rng.integers(0, 4, 25)
    for k in (1, 5, 24, 100):
        scores = leave_one_out_scores(vectors, labels, 4, k)
        np.testing.assert_allclose(
            scores, naive(vectors, labels, vectors, 4, k, 0.07, True), atol=1e-4
        )


def test_leave_one_out_with_twins_leaves_out_itself_alone():
    vectors = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    scores = leave_one_out_scores(vectors, np.array([0, 1, 2, 3]), 4, k=1)
    assert scores.argmax(1).tolist() == [1, 0, 3, 2]


def test_ties_go_to_the_earlier():
    train = np.tile([[1.0, 2.0]], (6, 1))
    labels = np.array([2, 1, 1, 0, 0, 0])
    scores = knn_scores(train, labels, train[:1], 3, k=3)
    np.testing.assert_allclose(scores, [[0, 2 / 3, 1 / 3]], rtol=1e-6)
    even = knn_scores(train, labels, train[:1], 3, k=2, temperature=None)
    assert even.argmax(1).tolist() == [1]  # one vote each


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    train, queries, labels = rng.normal(size=(50, 8)), rng.normal(size=(33, 8)), np.arange(50) % 5
    whole = knn_scores(train, labels, queries, 5)
    alone = leave_one_out_scores(train, labels, 5)
    monkeypatch.setattr(neighbors, "_PAIRS_AT_ONCE", 200)
    np.testing.assert_allclose(knn_scores(train, labels, queries, 5), whole, atol=1e-6)
    np.testing.assert_allclose(leave_one_out_scores(train, labels, 5), alone, atol=1e-6)


def test_accuracy():
    train, labels = np.eye(3).repeat(4, 0), np.arange(3).repeat(4)
    assert knn_accuracy(train, labels, np.eye(3), np.arange(3), k=4) == 1.0
    assert knn_accuracy(train, labels, np.eye(3), np.array([0, 2, 9]), k=4) == pytest.approx(1 / 3)


def test_a_vector_of_zeros_is_near_to_none():
    scores = knn_scores(np.eye(2), np.array([0, 1]), np.zeros((1, 2)), 2, k=2)
    np.testing.assert_allclose(scores, [[0.5, 0.5]])


def test_standardized():
    rng = np.random.default_rng(2)
    train = rng.normal([5, -2, 1e4], [1, 10, 1e-3], (200, 3)).astype(np.float32)
    train[:, 2] = 1e4
    ours, other = standardized(train, train[:10] + 1)
    np.testing.assert_allclose(ours.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(ours.std(0), [1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(other[:, :2], ours[:10, :2] + 1 / train[:, :2].std(0), rtol=1e-3)
    assert ours.dtype == other.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": np.array([0, 1])}, "3 labelled vectors with labels"),
        ({"labels": np.array([0, 1, 2])}, "label 2 is none of the 2 classes"),
        ({"labels": np.array([0, -1, 1])}, "label -1 is none"),
        ({"queries": np.ones((2, 5))}, "queries have width 5, but the labelled vectors 4"),
        ({"queries": np.ones(4)}, "queries have shape"),
        ({"queries": np.full((1, 4), np.nan)}, "queries hold NaN"),
        ({"train": np.zeros((0, 4)), "labels": np.array([], int)}, "labelled vectors have shape"),
        ({"k": 0}, "k is 0"),
        ({"temperature": 0.0}, "temperature is 0"),
    ],
)
def test_bad_input(changes, match):
    usual = {
        "train": np.ones((3, 4)),
        "labels": np.array([0, 1, 0]),
        "queries": np.ones((2, 4)),
        "classes": 2,
    }
    with pytest.raises(ValueError, match=match):
        knn_scores(**(usual | changes))


def test_bad_input_of_the_others():
    with pytest.raises(ValueError, match="at least two vectors"):
        leave_one_out_scores(np.ones((1, 2)), np.array([0]), 1)
    with pytest.raises(ValueError, match="0 test vectors"):
        knn_accuracy(np.eye(2), np.arange(2), np.zeros((0, 2)), np.arange(0))
