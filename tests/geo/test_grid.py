"""Grids: the arithmetic between pixels and coordinates, on tiny examples and at random."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.geo import Grid, Window, enclosing, intersect

UTM = Grid("EPSG:32631", (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0), (100, 80))

sizes = st.floats(0.1, 100)
signs = st.sampled_from([-1.0, 1.0])


@st.composite
def grids(draw, turned=True):
    """Any non-degenerate grid, also flipped and turned ones."""
    a, e = draw(sizes) * draw(signs), draw(sizes) * draw(signs)
    b, d = (draw(st.floats(-0.05, 0.05)) if turned else 0.0 for _ in range(2))
    c, f = (draw(st.floats(-1e5, 1e5)) for _ in range(2))
    shape = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    return Grid("EPSG:32631", (a, b, c, d, e, f), shape)


def test_worked_example():
    assert UTM.pixel_size == (10, 10)
    assert UTM.bounds == (500_000, 3_999_000, 500_800, 4_000_000)
    assert UTM.xy(0, 0) == (500_000, 4_000_000)
    assert UTM.xy(2, 3) == (500_030, 3_999_980)
    assert UTM.rowcol(500_030, 3_999_980) == (2, 3)


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        ((10.0, 0, 0, 0, -10.0, 0), (0, 5)),
        ((10.0, 0, 0, 0, -10.0, 0), (5, 0)),
        ((0.0, 0, 0, 0, -10.0, 0), (5, 5)),
        ((1.0, 2.0, 0, 2.0, 4.0, 0), (5, 5)),
    ],
)
def test_empty_and_degenerate_grids_are_refused(transform, shape):
    with pytest.raises(ValueError, match=r"not a grid: shape .* transform"):
        Grid("EPSG:32631", transform, shape)


def test_grids_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        UTM.shape = (1, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Window(0, 0, 1, 1).row = 3


@settings(max_examples=50, deadline=None)
@given(grids(), st.floats(-200, 200), st.floats(-200, 200))
def test_rowcol_is_the_inverse_of_xy(grid, row, col):
    np.testing.assert_allclose(grid.rowcol(*grid.xy(row, col)), (row, col), atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(grids(), st.tuples(*[st.integers(-60, 60)] * 2), st.tuples(*[st.integers(1, 60)] * 2))
def test_window_is_the_same_ground(grid, start, shape):
    part = grid.window(Window(*start, *shape))

    assert part.shape == shape
    assert part.crs == grid.crs
    for row, col in ((0, 0), (1.5, 2.25), shape):
        expected = grid.xy(start[0] + row, start[1] + col)
        np.testing.assert_allclose(part.xy(row, col), expected, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(grids(), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 32.0]))
def test_rescaled_covers_the_same_ground(grid, factor):
    scaled = grid.rescaled(factor)
    height, width = grid.shape

    assert scaled.xy(0, 0) == grid.xy(0, 0)
    np.testing.assert_allclose(scaled.pixel_size, np.multiply(grid.pixel_size, factor))
    assert height <= scaled.shape[0] * factor < height + max(factor, 1)
    assert width <= scaled.shape[1] * factor < width + max(factor, 1)


def test_rescaled_keeps_exact_multiples():
    assert UTM.rescaled(4).shape == (25, 20)
    assert UTM.rescaled(3).shape == (34, 27)
    assert UTM.rescaled(0.1).shape == (1000, 800)  # 100 / 0.1 is a hair above 1000


def test_covering_worked_example():
    line = Grid("EPSG:32631", (10.0, 0, 0, 0, -10.0, 0), (10, 10))

    assert line.covering((12, -31, 31, -12)) == Window(1, 1, 3, 3)
    assert line.covering((10, -30, 30, -10)) == Window(1, 1, 2, 2)
    assert line.covering((-5, -5, 5, 5)) == Window(-1, -1, 2, 2)


@settings(max_examples=50, deadline=None)
@given(
    grids(turned=False),
    st.tuples(*[st.integers(-60, 60)] * 2),
    st.tuples(*[st.integers(1, 60)] * 2),
)
def test_covering_a_window_gives_the_window_back(grid, start, shape):
    window = Window(*start, *shape)

    assert grid.covering(grid.window(window).bounds) == window


@settings(max_examples=50, deadline=None)
@given(grids(), st.tuples(*[st.floats(-500, 500)] * 2), st.tuples(*[st.floats(1, 500)] * 2))
def test_covering_covers_and_is_tight(grid, corner, size):
    bounds = corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]

    window = grid.covering(bounds)

    corners = [grid.rowcol(x, y) for x in bounds[::2] for y in bounds[1::2]]
    rows, cols = zip(*corners, strict=True)
    for low, count, places in (
        (window.row, window.height, rows),
        (window.col, window.width, cols),
    ):
        assert low <= min(places) + 1e-5
        assert max(places) <= low + count + 1e-5
        assert low + 1 > min(places) - 1e-5
        assert low + count - 1 < max(places) + 1e-5


def test_scaled_windows():
    assert Window(8, 16, 64, 32).scaled(1, 4) == Window(2, 4, 16, 8)
    assert Window(2, 4, 16, 8).scaled(4) == Window(8, 16, 64, 32)
    assert Window(3, 6, 9, 12).scaled(2, 3) == Window(2, 4, 6, 8)
    with pytest.raises(ValueError, match="does not divide by 4"):
        Window(2, 4, 16, 8).scaled(1, 4)


boxes = st.tuples(*[st.floats(-10, 10)] * 2, *[st.floats(0.1, 10)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@settings(max_examples=50, deadline=None)
@given(boxes, boxes, st.floats(-12, 22), st.floats(-12, 22))
def test_intersect_holds_points(first, second, x, y):
    def holds(box):
        return box is not None and box[0] < x < box[2] and box[1] < y < box[3]

    assert holds(intersect(first, second)) == (holds(first) and holds(second))
    assert intersect(first, second) == intersect(second, first)
    assert intersect(first, first) == first


def test_touching_boxes_share_nothing():
    assert intersect((0, 0, 1, 1), (1, 0, 2, 1)) is None
    assert intersect((0, 0, 1, 1), (3, 3, 4, 4)) is None


def test_the_least_window_around_some():
    parts = [Window(2, 3, 4, 5), Window(-1, 6, 2, 9)]
    assert enclosing(parts) == Window(-1, 3, 7, 12)
    assert enclosing(parts[:1]) == parts[0]
