"""Masked pixels: parity with loops, which blocks are drawn, and what may not matter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.pretrain.losses.masked import PixelHead, count_blocks, draw_hidden, masked_error

SHAPE, BLOCK = (2, 10, 13), 4  # 3 x 4 blocks, of which the last row and column are cut


def literal_hidden(choice, share):
    """The pixels of the blocks with the smallest numbers, one after the other."""
    (dates, height, width), hidden = SHAPE, torch.zeros(len(choice), *SHAPE, dtype=torch.bool)
    rows, cols = math.ceil(height / BLOCK), math.ceil(width / BLOCK)
    for b in range(len(choice)):
        for t in range(dates):
            numbers = {
                (i, j): choice[b, (t * rows + i) * cols + j].item()
                for i in range(rows)
                for j in range(cols)
            }
            for i, j in sorted(numbers, key=numbers.get)[: round(share * rows * cols)]:
                for r in range(i * BLOCK, min((i + 1) * BLOCK, height)):
                    for c in range(j * BLOCK, min((j + 1) * BLOCK, width)):
                        hidden[b, t, r, c] = True
    return hidden


@pytest.fixture
def choice():
    return torch.rand(3, 30, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.6, 0.75])
def test_drawn_blocks_are_parity_with_a_loop(choice, share):
    assert torch.equal(draw_hidden(choice, SHAPE, BLOCK, share), literal_hidden(choice, share))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(2, 30), st.integers(2, 30), st.integers(1, 9), st.floats(0, 1)
)
def test_whole_blocks_are_hidden_and_as_many_of_each_date(dates, height, width, block, share):
    rows, cols = count_blocks(height, width, block)
    choice = torch.rand(2, dates * rows * cols)

    hidden = draw_hidden(choice, (dates, height, width), block, share)

    assert hidden.shape == (2, dates, height, width)
    corners = hidden[..., ::block, ::block]
    wide = corners.repeat_interleave(block, -2).repeat_interleave(block, -1)
    assert torch.equal(wide[..., :height, :width], hidden)
    expected = min(max(round(share * rows * cols), 1), rows * cols - 1)
    assert (corners.flatten(2).sum(2) == expected).all()


def test_more_dates_and_other_samples_change_nothing(choice):
    hidden = draw_hidden(choice, SHAPE, BLOCK, 0.6)

    assert torch.equal(draw_hidden(choice, (1, *SHAPE[1:]), BLOCK, 0.6), hidden[:, :1])
    assert torch.equal(draw_hidden(choice[[2, 0]], SHAPE, BLOCK, 0.6), hidden[[2, 0]])
    assert not torch.equal(hidden[:, 0], hidden[:, 1]), "each date has blocks of its own"


def test_every_block_is_hidden_about_as_often():
    hidden = draw_hidden(torch.rand(6000, 6), (1, 2, 3), 1, 0.5)

    assert (hidden.flatten(1).float().mean(0) - 0.5).abs().max() < 0.03


def test_the_head_is_parity_with_a_loop():
    torch.manual_seed(0)
    head, features = PixelHead(5, 3, 2), torch.randn(2, 2, 5, 2, 3)

    pixels = head(features)

    assert pixels.shape == (2, 2, 2, 6, 9)
    for b, t, r, c in torch.cartesian_prod(*(torch.arange(n) for n in (2, 2, 6, 9))).tolist():
        table = head.proj(features[b, t, :, r // 3, c // 3]).view(2, 3, 3)
        torch.testing.assert_close(pixels[b, t, :, r, c], table[:, r % 3, c % 3])


@pytest.fixture
def error():
    """Arguments of `masked_error`; the prediction is larger than the target."""
    torch.manual_seed(0)
    return {
        "predicted": torch.randn(2, 2, 3, 6, 8),
        "target": torch.randn(2, 2, 3, 5, 7),
        "counted": torch.rand(2, 2, 3, 5, 7) > 0.6,
    }


def test_the_error_is_parity_with_a_loop(error):
    total, places = 0.0, error["counted"].nonzero().tolist()
    for place in places:
        total += abs(error["predicted"][*place].item() - error["target"][*place].item())

    assert masked_error(**error).item() == pytest.approx(total / len(places), rel=1e-5)


def test_what_does_not_count_changes_nothing(error):
    expected = masked_error(**error)
    error["target"].masked_fill_(~error["counted"], math.nan)
    error["predicted"][..., :5, :7].masked_fill_(~error["counted"], 100.0)
    error["predicted"][..., 5:, :] = math.nan

    torch.testing.assert_close(masked_error(**error), expected)


def test_gradients_are_where_it_counts_alone(error):
    error["target"].masked_fill_(~error["counted"], math.nan).requires_grad_()
    error["predicted"].requires_grad_()

    masked_error(**error).backward()

    gradient = error["predicted"].grad
    assert error["target"].grad is None
    assert torch.equal(gradient[..., :5, :7] != 0, error["counted"])
    assert not gradient[..., 5:, :].any()
    assert not gradient[..., 7:].any()


def test_nothing_that_counts_is_zero_with_a_graph(error):
    error["predicted"].requires_grad_()
    error["counted"].zero_()

    loss = masked_error(**error)
    loss.backward()

    assert loss == 0
    assert not error["predicted"].grad.any()
    assert masked_error(*(x[:0] for x in error.values())) == 0
