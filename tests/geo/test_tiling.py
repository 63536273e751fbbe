"""Tiling: every pixel covered, starts on multiples of the unit, no tile too many."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.geo import Tiling


@st.composite
def tilings(draw):
    unit = draw(st.sampled_from([1, 2, 8]))
    units = draw(st.integers(1, 8))
    overlap = draw(st.integers(0, units // 2))
    shape = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    return Tiling(shape, units * unit, overlap * unit, unit)


def test_worked_example():
    tiling = Tiling((1000, 100), 512, 64, 64)

    assert tiling.stride == 448
    assert tiling.starts(0) == [0, 448, 896]
    assert tiling.starts(1) == [0]
    assert tiling.count == 3
    last = tiling.rows()[2][0]
    assert (last.row, last.col, last.height, last.width) == (896, 0, 104, 100)


@settings(max_examples=100, deadline=None)
@given(tilings())
def test_every_pixel_is_covered_by_tiles_inside_the_scene(tiling):
    seen = np.zeros(tiling.shape, int)
    windows = [window for row in tiling.rows() for window in row]

    for w in windows:
        assert 0 <= w.row < w.row + w.height <= tiling.shape[0]
        assert 0 <= w.col < w.col + w.width <= tiling.shape[1]
        assert max(w.height, w.width) <= tiling.tile
        seen[w.row : w.row + w.height, w.col : w.col + w.width] += 1

    assert len(windows) == tiling.count
    assert seen.min() == 1
    assert seen.max() <= 4


@settings(max_examples=100, deadline=None)
@given(tilings(), st.sampled_from([0, 1]))
def test_starts(tiling, axis):
    starts, length = tiling.starts(axis), tiling.shape[axis]

    assert starts[0] == 0
    assert set(np.diff(starts)) <= {tiling.stride}
    assert all(start % tiling.unit == 0 for start in starts)
    # Each tile but the first brings `stride` new pixels, so that many are needed and no more.
    assert len(starts) == 1 + max(0, math.ceil((length - tiling.tile) / tiling.stride))
    assert len(starts) == 1 or starts[-2] + tiling.tile < length
    assert length - starts[-1] > (tiling.overlap if len(starts) > 1 else 0)


@pytest.mark.parametrize(
    ("tile", "overlap", "unit", "message"),
    [
        (100, 0, 64, "tile 100 and overlap 0 must be multiples of 64"),
        (128, 32, 64, "tile 128 and overlap 32 must be multiples of 64"),
        (128, 128, 64, r"overlap 128 must lie between 0 and half a tile \(64\)"),
        (128, -64, 64, "overlap -64 must lie"),
        (0, 0, 1, "a tile has at least one pixel, got 0"),
    ],
)
def test_impossible_tilings_are_refused(tile, overlap, unit, message):
    with pytest.raises(ValueError, match=message):
        Tiling((500, 500), tile, overlap, unit)
