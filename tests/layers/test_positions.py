"""Relative positions: rotary tables depend on offsets alone; window offsets follow the formula."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.layers.positions import rotary_2d, rotate, window_index, window_offsets

CPU = torch.device("cpu")
D = 16


def test_rotation_by_hand():
    x = torch.randn(6, 8)
    turned = rotate(x, rotary_2d((2, 3), 8, CPU))

    for row in range(2):
        for col in range(3):
            i = 3 * row + col
            for pair in range(4):  # two pairs turn with the row, two with the column
                angle = (row if pair < 2 else col) * 100.0 ** (-(pair % 2) / 2)
                a, b = x[i, 2 * pair].item(), x[i, 2 * pair + 1].item()
                expected = (
                    a * math.cos(angle) - b * math.sin(angle),
                    a * math.sin(angle) + b * math.cos(angle),
                )
                assert turned[i, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(
                    expected, abs=1e-5
                )


@settings(max_examples=25, deadline=None)
@given(*[st.tuples(*[st.integers(0, 15)] * 2)] * 2, st.tuples(*[st.integers(0, 15)] * 2))
def test_products_depend_on_the_offset_alone(first, second, move):
    table = rotary_2d((31, 31), D, CPU)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, D, generator=generator)

    def product(a, b):
        i, j = (31 * row + col for row, col in (a, b))
        return (
            rotate(q[None], (table[0][i : i + 1], table[1][i : i + 1]))
            @ rotate(k[None], (table[0][j : j + 1], table[1][j : j + 1])).T
        ).item()

    moved = [(p[0] + move[0], p[1] + move[1]) for p in (first, second)]
    assert product(first, second) == pytest.approx(product(*moved), abs=1e-4)


def test_every_offset_is_told_apart():
    q = torch.ones(15 * 15, D)
    turned = rotate(q, rotary_2d((15, 15), D, CPU))

    assert torch.pdist(turned).min() > 0.01
    torch.testing.assert_close(turned.norm(dim=1), q.norm(dim=1))


def test_a_larger_grid_holds_the_smaller_one():
    small, large = (rotary_2d(shape, D, CPU)[0] for shape in ((3, 4), (5, 9)))

    assert torch.equal(large.view(5, 9, D)[:3, :4], small.view(3, 4, D))
    assert small.dtype == torch.float32


def test_rotary_needs_channels_in_fours():
    with pytest.raises(ValueError, match="head channels in fours, got 6"):
        rotary_2d((2, 2), 6, CPU)


@pytest.mark.parametrize(("window", "pretrained"), [(8, 0), (4, 0), (7, 12), (1, 0), (2, 8)])
def test_window_offsets_follow_the_formula(window, pretrained):
    table = window_offsets(window, pretrained)
    longest = max((pretrained or window) - 1, 1)

    assert table.shape == ((2 * window - 1) ** 2, 2)
    assert table.dtype == torch.float32
    steps = range(1 - window, window)
    for i, (row, col) in enumerate((r, c) for r in steps for c in steps):
        for got, offset in zip(table[i].tolist(), (row, col), strict=True):
            size = math.log2(1 + 8 * abs(offset) / longest) / math.log2(8)
            assert got == pytest.approx(math.copysign(size, offset), abs=1e-6)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_window_index_points_at_the_offset(window):
    index = window_index(window)
    steps = range(1 - window, window)
    offsets = [(row, col) for row in steps for col in steps]

    for i in range(window**2):
        for j in range(window**2):
            (a, b), (c, d) = divmod(i, window), divmod(j, window)
            assert offsets[index[i, j]] == (a - c, b - d)
