"""Patches to tokens: parity with a convolution, and what masked pixels count as."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.layers.tokenizer import PatchTokenizer

BANDS, DIM = 3, 8


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    layer = PatchTokenizer(BANDS, DIM)
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 1.5)
        layer.norm.bias.normal_()
    return layer


def convolve(layer, pixels):
    return layer.norm(layer.projection(pixels).permute(0, 2, 3, 1))


@torch.no_grad()
def test_whole_patches_are_parity_with_a_convolution(tokenizer):
    pixels = torch.randn(2, BANDS, 12, 20)

    for valid in (None, torch.ones(2, 12, 20, dtype=torch.bool)):
        tokens, mask = tokenizer(pixels, valid)
        assert tokens.shape == (2, 3, 5, DIM)
        torch.testing.assert_close(tokens, convolve(tokenizer, pixels), atol=1e-5, rtol=1e-5)
        assert mask is None or mask.all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.sampled_from([0.1, 0.7, 1.0]), st.integers(0, 99))
@torch.no_grad()
def test_ragged_and_masked_patches_count_as_their_mean(height, width, share, seed):
    torch.manual_seed(seed)
    layer = PatchTokenizer(BANDS, DIM)
    pixels = torch.randn(1, BANDS, height, width)
    valid = torch.rand(1, height, width) < share
    h, w = -(-height // 4), -(-width // 4)
    full, expected_mask = torch.zeros(1, BANDS, 4 * h, 4 * w), torch.zeros(1, h, w).bool()
    for i in range(h):
        for j in range(w):
            rows, cols = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
            part, inside = pixels[0, :, rows, cols], valid[0, rows, cols]
            if inside.any():
                full[0, :, rows, cols] = part[:, inside].mean(1)[:, None, None]
                full[0, :, rows, cols][:, : part.shape[1], : part.shape[2]][:, inside] = part[
                    :, inside
                ]
                expected_mask[0, i, j] = True

    tokens, mask = layer(pixels.masked_fill(~valid[:, None], torch.nan), valid)

    torch.testing.assert_close(tokens, convolve(layer, full), atol=1e-5, rtol=1e-5)
    assert torch.equal(mask, expected_mask)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13))
@torch.no_grad()
def test_a_constant_image_gives_equal_tokens(height, width):
    torch.manual_seed(1)
    layer, colour = PatchTokenizer(BANDS, DIM), torch.randn(1, BANDS, 1, 1)

    tokens, mask = layer(colour.expand(1, BANDS, height, width), None)
    one, _ = layer(colour.expand(1, BANDS, 4, 4), None)

    torch.testing.assert_close(tokens, one.expand_as(tokens), atol=1e-5, rtol=1e-5)
    assert mask is None or mask.all()


@torch.no_grad()
def test_other_patch_sizes():
    layer = PatchTokenizer(BANDS, DIM, patch=7)
    pixels = torch.randn(1, BANDS, 14, 21)

    tokens, _ = layer(pixels, None)

    torch.testing.assert_close(tokens, convolve(layer, pixels), atol=1e-5, rtol=1e-5)


def test_gradients_are_finite_with_nan_under_the_mask(tokenizer):
    pixels = torch.randn(1, BANDS, 9, 9)
    pixels[:, :, 2:] = torch.nan

    tokens, _ = tokenizer(pixels, pixels.isfinite().all(1))
    tokens.sum().backward()

    assert all(p.grad.isfinite().all() for p in tokenizer.parameters())
