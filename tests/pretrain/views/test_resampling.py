"""Crops against a naive loop, and what must not happen in them: bleeding, aliasing, shifting."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.pretrain.views.resampling import axis_kernel, crop

STRAIGHT = torch.tensor([0])


def naive(image, mask, box, size, blur):
    """One `(H, W)` image, pixel by pixel."""
    height, width = image.shape
    out, valid = torch.zeros(size, size), torch.zeros(size, size, dtype=torch.bool)
    for i in range(size):
        for j in range(size):
            total = share = whole = 0.0
            for y in range(height):
                for x in range(width):
                    weight = 1.0
                    for at, length, start, span, n in (
                        (y, height, box[0], box[2], i),
                        (x, width, box[1], box[3], j),
                    ):
                        step = span * length / size
                        centre = start * length + (n + 0.5) * step - 0.5
                        support = math.sqrt(max(step, 1) ** 2 + 6 * (blur * step) ** 2)
                        weight *= max(0.0, 1 - abs(at - centre) / support)
                    whole += weight
                    if mask[y, x]:
                        share += weight
                        total += weight * float(image[y, x])
            valid[i, j] = share / whole >= 0.5
            out[i, j] = total / share if share else 0
    return out, valid


@pytest.mark.parametrize("size", [3, 9])
@pytest.mark.parametrize("blur", [0.0, 0.8])
def test_crop_matches_naive_loop(size, blur):
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(7, 11, generator=generator)
    mask = torch.rand(7, 11, generator=generator) > 0.3
    box = (0.1, 0.2, 0.8, 0.5)
    padded = torch.full((1, 1, 1, 9, 12), float("nan"))
    padded_mask = torch.zeros(1, 1, 9, 12, dtype=torch.bool)
    padded[..., :7, :11], padded_mask[..., :7, :11] = image, mask

    found, valid = crop(
        padded, padded_mask, torch.tensor([[7, 11]]), torch.tensor([box]), STRAIGHT, size,
        torch.tensor([blur]),
    )  # fmt: skip

    expected, expected_valid = naive(image, mask, box, size, blur)
    assert torch.equal(valid[0, 0], expected_valid)
    torch.testing.assert_close(found[0, 0, 0][expected_valid], expected[expected_valid])


@given(
    start=st.floats(0, 0.9),
    share=st.floats(0.05, 1),
    size=st.integers(1, 40),
    count=st.integers(1, 20),
    blur=st.floats(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_kernel_is_a_weighing_of_what_is_there(start, share, size, count, blur):
    span = torch.tensor([share * (1 - start)])
    rows = axis_kernel(
        torch.tensor([start]), span, torch.tensor([float(size)]), count, 43, torch.tensor([blur])
    )

    assert rows.shape == (1, count, 43)
    assert (rows >= 0).all()
    torch.testing.assert_close(rows.sum(-1), torch.ones(1, count))
    assert not rows[..., size:].any()


def test_nothing_of_masked_pixels_is_seen():
    pixels = torch.full((2, 1, 1, 16, 16), 5.0)
    mask = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    mask[:, :, 4:9, 3:12] = False
    pixels[~mask.unsqueeze(2)] = float("nan")
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 0.5, 0.6]])

    found, valid = crop(pixels, mask, torch.full((2, 2), 16), box, torch.tensor([1, 6]), 8)

    assert 0 < valid.float().mean() < 1
    torch.testing.assert_close(found[:, :, 0][valid], torch.full((int(valid.sum()),), 5.0))


def test_without_mask_is_as_with_a_full_one():
    pixels = torch.randn(2, 3, 2, 16, 16)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.1, 0.5, 0.6]])
    sizes, turn = torch.full((2, 2), 16), torch.tensor([3, 5])

    found, none = crop(pixels, None, sizes, box, turn, 8)
    other, valid = crop(pixels, torch.ones(2, 3, 16, 16, dtype=torch.bool), sizes, box, turn, 8)

    assert none is None
    assert valid.all()
    torch.testing.assert_close(found, other)


def test_shrinking_does_not_alias():
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float()
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])

    found, _ = crop(board[None, None, None], None, torch.tensor([[64, 64]]), whole, STRAIGHT, 16)

    assert (found - 0.5).abs().max() < 0.01


def test_blur_has_the_width_it_says():
    pixels = torch.zeros(1, 1, 1, 41, 41)
    pixels[..., 20, 20] = 1
    whole, sigma = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), 2.0

    found, _ = crop(
        pixels, None, torch.tensor([[41, 41]]), whole, STRAIGHT, 41, torch.tensor([sigma])
    )

    profile = found[0, 0, 0].sum(1)
    variance = (profile * (torch.arange(41) - 20.0).square()).sum() / profile.sum()
    assert math.isclose(variance, 1 / 6 + sigma**2, rel_tol=0.05)


def test_a_sample_without_the_modality_stays_empty():
    pixels, mask = torch.zeros(1, 1, 2, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])

    found, valid = crop(pixels, mask, torch.zeros(1, 2, dtype=torch.int64), whole, STRAIGHT, 4)

    assert not found.any()
    assert not valid.any()
