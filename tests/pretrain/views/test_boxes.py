"""Boxes lie inside, have the size they should, meet where they must and see something."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.pretrain.views.boxes import draw_boxes, overlap, pull
from skysense.pretrain.views.randomness import Draws

ASPECT = (3 / 4, 4 / 3)


def draws(seed, view=0, count=64):
    return Draws(seed, 0, view, torch.arange(count))


@given(
    seed=st.integers(0, 2**40),
    low=st.floats(0.02, 1),
    share=st.floats(0, 1),
    footprint=st.floats(0.2, 5),
)
@settings(max_examples=25, deadline=None)
def test_boxes_lie_inside_and_have_their_area(seed, low, share, footprint):
    high = low + share * (1 - low)

    box = draw_boxes(draws(seed), (low, high), ASPECT, torch.full((64,), footprint), None)

    assert (box[:, :2] >= 0).all()
    assert (box[:, :2] + box[:, 2:] <= 1 + 1e-6).all()
    area = box[:, 2:].prod(1)
    assert low - 1e-4 <= area.min()
    assert area.max() <= high + 1e-4


def test_aspect_is_that_of_the_ground():
    footprint = torch.full((256,), 0.5)  # twice as wide as high

    box = draw_boxes(draws(0, count=256), (0.1, 0.2), ASPECT, footprint, None)

    ratio = box[:, 2] * 0.5 / box[:, 3]
    assert ASPECT[0] - 1e-4 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= ASPECT[1] + 1e-4


@given(seed=st.integers(0, 2**40), least=st.floats(0, 0.7), scale=st.floats(0.05, 1))
@settings(max_examples=25, deadline=None)
def test_pulled_boxes_overlap_and_stay_inside(seed, least, scale):
    square = torch.ones(64)
    first, second = (
        draw_boxes(draws(seed, view), (scale / 2, scale), ASPECT, square, None) for view in (0, 1)
    )

    moved = pull(second, first, least)

    assert overlap(moved, first).min() >= least - 1e-4
    assert torch.equal(moved[:, 2:], second[:, 2:])
    assert (moved[:, :2] >= -1e-6).all()
    assert (moved[:, :2] + moved[:, 2:] <= 1 + 1e-6).all()
    fine = overlap(second, first) >= least
    torch.testing.assert_close(moved[fine], second[fine])


def test_overlap_by_hand():
    a = torch.tensor([0.0, 0.0, 0.5, 0.5])
    b = torch.tensor([0.25, 0.25, 0.75, 0.5])

    assert overlap(a, b) == 0.25
    assert overlap(a, a) == 1
    assert overlap(a, torch.tensor([0.5, 0.0, 0.5, 1.0])) == 0


def test_boxes_go_where_something_is_valid():
    coverage = torch.zeros(256, 16, 16)
    coverage[:, :8, :8] = 1
    square, scale = torch.ones(256), (0.1, 0.1)

    def seen(box):
        inside = (0.5 - box[:, :2]).clamp(min=0).minimum(box[:, 2:]).prod(1)
        return inside / box[:, 2:].prod(1)

    blind = draw_boxes(draws(1, count=256), scale, ASPECT, square, None)
    looking = draw_boxes(draws(1, count=256), scale, ASPECT, square, coverage)

    assert (seen(blind) > 0.1).float().mean() < 0.6
    assert (seen(looking) > 0.1).float().mean() > 0.9
    fine = seen(blind) > 0.51
    assert torch.equal(looking[fine], blind[fine])  # the first that is good enough is taken


def test_full_coverage_changes_nothing():
    square, scale = torch.ones(64), (0.1, 0.9)

    blind = draw_boxes(draws(2), scale, ASPECT, square, None)

    assert torch.equal(draw_boxes(draws(2), scale, ASPECT, square, torch.ones(64, 16, 16)), blind)
