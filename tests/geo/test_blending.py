"""Blending: weights sum to one, constant tiles stay constant, rows come out once and in order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.geo import RowBlender, Tiling, Window, ramp


@st.composite
def tilings(draw):
    tile = draw(st.integers(1, 12))
    overlap = draw(st.integers(0, tile // 2))
    return Tiling((draw(st.integers(1, 40)), draw(st.integers(1, 40))), tile, overlap)


def blend(tiling, tile_values, channels=1, valid=None):
    """Blend `tile_values(window)` over a whole scene, checking the order of what comes out."""
    blender = RowBlender(channels, tiling.shape, tiling.overlap, tiling.tile)
    valid = np.ones(tiling.shape, bool) if valid is None else valid
    bands, starts = [], [*tiling.starts(0)[1:], tiling.shape[0]]
    for row, following in zip(tiling.rows(), starts, strict=True):
        for w in row:
            inside = valid[w.row : w.row + w.height, w.col : w.col + w.width]
            blender.add(w, tile_values(w), inside)
        top, band = blender.finish(following)
        assert top == sum(b.shape[1] for b in bands)
        assert band.shape == (channels, following - top, tiling.shape[1])
        assert band.dtype == np.float32
        bands.append(band)
    whole = np.concatenate(bands, 1)
    assert whole.shape[1:] == tiling.shape
    return whole


def weights_of(tiling):
    """Sum of all tiles' weights at each pixel, by the outer product of `ramp` alone."""
    total = np.zeros(tiling.shape)
    o = tiling.overlap
    for row in tiling.rows():
        for w in row:
            below, right = (
                start + size < length
                for start, size, length in zip(
                    (w.row, w.col), (w.height, w.width), tiling.shape, strict=True
                )
            )
            vertical = ramp(w.height, o if w.row else 0, o if below else 0)
            horizontal = ramp(w.width, o if w.col else 0, o if right else 0)
            place = np.s_[w.row : w.row + w.height, w.col : w.col + w.width]
            total[place] += vertical[:, None] * horizontal
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.data())
def test_ramps_of_neighbours_sum_to_one(length, data):
    n = data.draw(st.integers(0, length // 2))

    falling, rising = ramp(length, 0, n), ramp(length, n, 0)

    assert falling.dtype == np.float32
    np.testing.assert_array_equal(falling[: length - n], 1)
    np.testing.assert_array_equal(rising[n:], 1)
    np.testing.assert_allclose(falling[length - n :] + rising[:n], 1, atol=1e-6)
    assert (np.diff(rising[:n]) > 0).all()
    assert rising.min() > 0


@settings(max_examples=60, deadline=None)
@given(tilings())
def test_weights_are_a_partition_of_unity(tiling):
    np.testing.assert_allclose(weights_of(tiling), 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(tilings(), st.floats(-1e3, 1e3, width=32))
def test_constant_tiles_blend_to_the_constant(tiling, value):
    whole = blend(tiling, lambda w: np.full((2, w.height, w.width), value, np.float32), 2)

    np.testing.assert_allclose(whole, value, rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(tilings(), st.integers(0, 2**32 - 1))
def test_tiles_of_one_map_blend_to_the_map(tiling, seed):
    scene = np.random.default_rng(seed).normal(size=(3, *tiling.shape)).astype(np.float32)

    whole = blend(tiling, lambda w: scene[:, w.row : w.row + w.height, w.col : w.col + w.width], 3)

    np.testing.assert_allclose(whole, scene, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(tilings(), st.integers(0, 2**32 - 1))
def test_different_tiles_blend_as_a_plain_weighted_mean(tiling, seed):
    rng = np.random.default_rng(seed)
    valid = rng.random(tiling.shape) < 0.8
    values = {w: rng.normal(size=(1, w.height, w.width)) for row in tiling.rows() for w in row}
    total, weight = np.zeros((1, *tiling.shape)), np.zeros(tiling.shape)
    o = tiling.overlap
    for w, value in values.items():
        for i in range(w.height):
            for j in range(w.width):
                share = 1.0
                for k, at, size, length in (
                    (i, w.row, w.height, tiling.shape[0]),
                    (j, w.col, w.width, tiling.shape[1]),
                ):
                    if at and k < o:
                        share *= 0.5 - 0.5 * np.cos(np.pi * (k + 0.5) / o)
                    if at + size < length and k >= size - o:
                        share *= 0.5 - 0.5 * np.cos(np.pi * (size - k - 0.5) / o)
                total[:, w.row + i, w.col + j] += share * value[:, i, j]
                weight[w.row + i, w.col + j] += share

    whole = blend(tiling, lambda w: values[w].astype(np.float32), valid=valid)

    expected = np.where(valid, total / weight, np.nan)
    np.testing.assert_allclose(whole, expected, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(tilings(), st.integers(0, 2**32 - 1))
def test_what_is_not_valid_is_nan_and_touches_nothing_else(tiling, seed):
    valid = np.random.default_rng(seed).random(tiling.shape) < 0.5

    def tile(w):
        inside = valid[w.row : w.row + w.height, w.col : w.col + w.width]
        return np.where(inside, np.float32(7), np.float32(np.nan))[None]

    whole = blend(tiling, tile, valid=valid)[0]

    np.testing.assert_array_equal(np.isnan(whole), ~valid)
    np.testing.assert_allclose(whole[valid], 7, rtol=1e-6)


def test_a_tile_that_saw_nothing_leaves_the_overlap_to_its_neighbour():
    blender = RowBlender(1, (4, 6), 2, 4)
    blender.add(Window(0, 0, 4, 4), np.full((1, 4, 4), 5, np.float32), np.ones((4, 4), bool))
    blender.add(Window(0, 2, 4, 4), np.full((1, 4, 4), 9, np.float32), np.zeros((4, 4), bool))

    _, band = blender.finish(4)

    np.testing.assert_array_equal(band[0, 0], [5, 5, 5, 5, np.nan, np.nan])


def test_memory_is_a_row_of_tiles():
    blender = RowBlender(2, (10_000, 30), 4, 16)

    assert blender._sum.shape == (2, 16, 30)
    assert blender._weight.shape == (16, 30)


@pytest.mark.parametrize("length", [1, 5])
def test_ramp_at_the_edge_of_the_scene_is_one(length):
    np.testing.assert_array_equal(ramp(length, 0, 0), np.ones(length))
