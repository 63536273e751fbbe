"""Scores by hand, and intervals that cover what they should."""

import numpy as np
import pytest

from skysense.tasks.probe.scores import difference, score


def test_scores_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = np.array([0, 0, 1, 1, 2, 1])
    scores = score(labels, predictions, 4)
    assert scores.accuracy == 0.5
    np.testing.assert_array_equal(
        scores.confusion, [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 2, 0, np.nan])
    assert scores.macro_f1 == pytest.approx((4 / 5 + 2 / 5 + 0) / 3), "the fourth does not occur"


def test_interval_is_that_of_resampled_images():
    """Against drawing images one by one."""
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 3, 80), rng.integers(0, 3, 80)
    scores = score(labels, predictions, 3)
    drawn = rng.integers(0, 80, (4000, 80))
    low, high = np.percentile((labels == predictions)[drawn].mean(1), (2.5, 97.5))
    np.testing.assert_allclose(scores.accuracy_interval, (low, high), atol=0.02)
    assert scores.macro_f1_interval[0] < scores.macro_f1 < scores.macro_f1_interval[1]


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        right = rng.random(100) < 0.7
        low, high = score(np.zeros(100, int), 1 - right.astype(int), 2, seed).accuracy_interval
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_seed_decides():
    labels, predictions = np.arange(30) % 3, np.arange(30) % 2
    first = [score(labels, predictions, 3, seed).macro_f1_interval for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]


def test_difference():
    labels = np.arange(40) % 2
    ours, other = labels.copy(), labels.copy()
    ours[:4] ^= 1
    other[:14] ^= 1
    value, (low, high) = difference(score(labels, ours, 2), score(labels, other, 2))
    assert value == pytest.approx(10 / 40)
    assert 0.05 < low < value < high < 0.45
    assert difference(score(labels, ours, 2), score(labels, ours, 2)) == (0, (0, 0))
    with pytest.raises(ValueError, match="the same test images"):
        difference(score(labels, ours, 2), score(1 - labels, other, 2))
