"""Cells, folds and intervals of blocks: by hand, and against resampling written out."""

import numpy as np
import pytest

from skysense.tasks.probe.pixels import (
    UNLABELLED,
    block_folds,
    blocks_of,
    cell_labels,
    predict_folds,
    score_blocks,
)


def test_a_cell_has_the_class_of_its_majority():
    labels = np.array(
        [
            [1, 1, 2, 3, 5],
            [1, 2, 3, 2, 5],
            [4, 4, -1, -1, 7],
            [4, 4, -1, 6, 6],
        ]
    )
    cells = cell_labels(labels, 2, majority=0.6)
    np.testing.assert_array_equal(cells, [[1, UNLABELLED, 5], [4, UNLABELLED, UNLABELLED]])
    assert cell_labels(labels, 2, majority=0.5)[0, 1] == 2, "half of the pixels are enough"
    assert cell_labels(labels, 2, majority=0.8)[0, 0] == UNLABELLED
    np.testing.assert_array_equal(cell_labels(labels, 1), labels)


def test_a_cell_without_a_label_has_none():
    assert (cell_labels(np.full((5, 6), -1), 4) == UNLABELLED).all()


def test_blocks_cut_a_grid_evenly():
    blocks = blocks_of((9, 8), 4)
    assert blocks.shape == (9, 8)
    assert np.unique(blocks).tolist() == list(range(16))
    assert set(np.bincount(blocks.ravel())) == {4, 6}
    assert blocks[0, 0] == 0
    assert blocks[-1, 0] == 12
    assert blocks[0, -1] == 3


def test_folds_hold_whole_blocks_and_every_class():
    rng = np.random.default_rng(0)
    blocks = rng.permutation(np.repeat(np.arange(16), 20)) + 100
    labels = np.where(blocks % 4 == 0, 1, 0)  # class 1 in four blocks alone
    folds = block_folds(labels, blocks, 4)
    assert all(len(np.unique(folds[blocks == block])) == 1 for block in np.unique(blocks))
    for fold in range(4):
        assert (labels[folds == fold] == 1).sum() == 20, "each fold has one of the four"
        assert (folds == fold).sum() == 80
    np.testing.assert_array_equal(folds, block_folds(labels, blocks, 4))


def test_too_few_blocks_for_folds():
    with pytest.raises(ValueError, match="3 blocks cannot be put into 4 folds"):
        block_folds(np.zeros(6, int), np.repeat([0, 1, 2], 2), 4)


def separable(count=400, blocks=16, noise=0.3, seed=0):
    """Vectors on a ring around their class, labels, blocks and folds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    angle = labels * 2 * np.pi / 3
    vectors = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], 1) * 5 + 100
    block = rng.integers(0, blocks, count)
    vectors += rng.normal(0, noise, vectors.shape)
    return vectors.astype(np.float32), labels, block, block_folds(labels, block, 4)


def test_predictions_of_separable_classes():
    vectors, labels, _, folds = separable()
    assert (predict_folds(vectors, labels, folds, 3) == labels).mean() > 0.99
    drawn = predict_folds(vectors, labels, folds, 3, most=30)
    assert (drawn == labels).mean() > 0.95


def test_a_fold_is_predicted_from_the_others_alone():
    """A class that only one fold has is never predicted, and its cells say nothing elsewhere."""
    vectors, labels, _, folds = separable()
    alone = np.where(folds == 2, 3, labels)
    predictions = predict_folds(vectors, alone, folds, 4)
    assert not (predictions[folds == 2] == 3).any()

    changed = vectors.copy()
    changed[folds == 1] = np.random.default_rng(1).normal(0, 1, changed[folds == 1].shape)
    ours, theirs = (predict_folds(v, labels, folds, 3, most=10**6) for v in (vectors, changed))
    assert (ours[folds == 1] == labels[folds == 1]).mean() > 0.99
    assert (theirs[folds == 1] == labels[folds == 1]).mean() < 0.7


def test_noise_is_chance():
    """Labels that are the same all over a block cannot be learnt from what the block looks like."""
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(60), 20)
    labels = rng.integers(0, 2, 60)[blocks]
    vectors = rng.normal(0, 1, (60, 8))[blocks] + rng.normal(0, 0.1, (1200, 8))
    predictions = predict_folds(vectors, labels, block_folds(labels, blocks, 4), 2)
    assert abs((predictions == labels).mean() - 0.5) < 0.2


def test_what_cannot_be_predicted():
    vectors, labels, _, folds = separable()
    with pytest.raises(ValueError, match="2 folds: one to test"):
        predict_folds(vectors, labels, folds % 2, 3)
    vectors[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        predict_folds(vectors, labels, folds, 3)


def test_scores_by_hand():
    labels, predictions = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    scores = score_blocks(labels, predictions, np.array([7, 7, 7, 9, 9]), 2)
    assert scores.confusions.tolist() == [[[1, 1], [0, 1]], [[0, 0], [1, 1]]]
    assert scores.value() == pytest.approx(3 / 5)
    assert scores.value("macro_f1") == pytest.approx((2 / 4 + 4 / 6) / 2)


def test_intervals_are_those_of_resampled_blocks():
    """Against drawing blocks one by one; cells drawn one by one would say less."""
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(12), 50)
    good = rng.random(12)[blocks]
    labels = rng.integers(0, 2, 600)
    predictions = np.where(rng.random(600) < good, labels, 1 - labels)
    low, high = score_blocks(labels, predictions, blocks, 2).interval()

    right = (labels == predictions).reshape(12, 50).mean(1)
    drawn = np.percentile(right[rng.integers(0, 12, (4000, 12))].mean(1), (2.5, 97.5))
    np.testing.assert_allclose((low, high), drawn, atol=0.02)
    cells = (labels == predictions)[rng.integers(0, 600, (4000, 600))].mean(1)
    assert high - low > 2 * np.subtract(*np.percentile(cells, (97.5, 2.5)))


def test_a_paired_difference_is_sharper_than_its_sides():
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(12), 50)
    labels = rng.integers(0, 2, 600)
    worse = np.where(rng.random(600) < rng.random(12)[blocks], labels, 1 - labels)
    better = np.where(rng.random(600) < 0.2, labels, worse)
    ours, other = (score_blocks(labels, p, blocks, 2) for p in (better, worse))

    gain, (low, high) = ours.minus(other)
    assert gain == pytest.approx((better == labels).mean() - (worse == labels).mean())
    assert 0 < low < gain < high
    assert high - low < np.subtract(*other.interval()[::-1])
    assert ours.minus(ours, "macro_f1") == (0, (0, 0))


def test_other_cells_are_not_compared():
    labels = np.array([0, 1, 1])
    ours, other = (score_blocks(y, y, np.arange(3), 2) for y in (labels, 1 - labels))
    with pytest.raises(ValueError, match="same cells"):
        ours.minus(other)
