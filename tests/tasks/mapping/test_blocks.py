"""Blocks and folds: no block in two folds, whatever the labels; balance, defaults, few labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.tasks.mapping.blocks import (
    blocks_of_cells,
    default_metres,
    random_folds,
    spatial_folds,
)
from skysense.tasks.mapping.cells import LabelledCells


def cells_of(rows, cols, classes):
    rows, cols, classes = (np.asarray(part, np.int64) for part in (rows, cols, classes))
    names = tuple("abcdefgh"[: classes.max() + 1])
    return LabelledCells(rows, cols, classes, np.arange(len(rows)), names, 0, 0, 0)


def scattered(count, classes, side=100, seed=0):
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(0, side, (2, count))
    return cells_of(rows, cols, np.arange(count) % classes)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(4, 80),
    classes=st.integers(2, 4),
    wanted=st.integers(2, 8),
    metres=st.one_of(st.none(), st.floats(20, 3000)),
    seed=st.integers(0, 1000),
)
def test_whole_blocks_go_to_one_fold(count, classes, wanted, metres, seed):
    cells = scattered(count, classes, seed=seed)
    folds, said = spatial_folds(cells, (40.0, 20.0), wanted, metres)
    if folds is None:
        assert said
        return
    assert 2 <= folds.count <= wanted
    assert sorted(set(folds.folds)) == list(range(folds.count)), "no fold is empty"
    assert (said is None) == (folds.count == wanted)
    for block in np.unique(folds.blocks):
        assert len(np.unique(folds.folds[folds.blocks == block])) == 1
    down, across = (max(1, round(folds.metres / side)) for side in (40.0, 20.0))
    ground = {}
    for row, col, fold in zip(cells.rows, cells.cols, folds.folds, strict=True):
        assert ground.setdefault((row // down, col // across), fold) == fold


@settings(max_examples=20, deadline=None)
@given(count=st.integers(20, 200), seed=st.integers(0, 100))
def test_by_default_there_are_enough_blocks(count, seed):
    cells = scattered(count, 3, seed=seed)
    metres = default_metres(cells, (40.0, 40.0), 5)
    blocks = blocks_of_cells(cells.rows, cells.cols, (40.0, 40.0), metres)
    assert len(np.unique(blocks)) >= min(15, count // 2)
    assert metres <= 100 * 40 / 2


def test_blocks_are_squares_of_ground():
    rows, cols = (part.ravel() for part in np.indices((6, 8)))
    blocks = blocks_of_cells(rows, cols, (10.0, 5.0), 20.0).reshape(6, 8)
    expected = np.repeat(np.repeat(np.arange(6).reshape(3, 2), 2, 0), 4, 1)
    np.testing.assert_array_equal(blocks, expected)


def test_folds_are_balanced_by_class():
    cells = scattered(300, 3)
    folds, _ = spatial_folds(cells, (10.0, 10.0), 5, 100.0)
    shares = np.array(
        [np.bincount(cells.classes[folds.folds == fold], minlength=3) for fold in range(5)]
    )
    assert shares.min() >= 14, "a fifth of 100 each, as near as whole blocks allow"
    assert shares.max() <= 26


@pytest.mark.parametrize(
    ("rows", "classes", "metres", "count", "match"),
    [
        (
            [0, 10, 20, 30, 40, 50],
            [0, 0, 0, 1, 1, 1],
            None,
            3,
            "3 folds instead of 5: class a has 3",
        ),
        ([0, 10, 20, 30, 40], [0, 0, 0, 0, 1], None, 0, "class b has one labelled cell"),
        ([0, 1, 2, 3, 4, 5], [0, 1] * 3, 1e4, 0, "all labels lie in one block of 1e+04 m"),
        (range(12), [0, 1] * 6, 60.0, 2, "2 folds instead of 5: the labels lie in 2 blocks"),
    ],
)
def test_few_labels(rows, classes, metres, count, match):
    cells = cells_of(list(rows), [0] * len(classes), classes)
    folds, said = spatial_folds(cells, (10.0, 10.0), 5, metres)
    assert (folds.count if folds else 0) == count
    assert match in said


def test_random_folds_have_their_part_of_every_class():
    classes = np.repeat([0, 1, 2], [50, 20, 5])
    folds = random_folds(classes, 5, seed=1)
    for name, share in ((0, 10), (1, 4), (2, 1)):
        assert np.bincount(folds[classes == name]).tolist() == [share] * 5
    np.testing.assert_array_equal(folds, random_folds(classes, 5, seed=1))
    assert (folds != random_folds(classes, 5, seed=2)).any()
