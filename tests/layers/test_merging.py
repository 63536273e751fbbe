"""Adaptive patch merging: the order of the weights, and keeping as merging of equal neighbours."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.layers.merging import AdaptivePatchMerging, fill_invalid

C = 6


@pytest.fixture
def merging():
    torch.manual_seed(0)
    layer = AdaptivePatchMerging(C)
    with torch.no_grad():
        layer.norm.weight.uniform_(0.5, 1.5)
        layer.norm.bias.normal_()
    return layer


def loop(layer, x, valid):
    """One merged token at a time; `(B, h, w, C)`, `(B, h, w)`."""
    b, h, w, c = x.shape
    out = torch.zeros(b, -(-h // 2), -(-w // 2), 2 * c)
    mask = torch.zeros(out.shape[:3], dtype=torch.bool)
    for s in range(b):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                places = [(2 * i + di, 2 * j + dj) for di in (0, 1) for dj in (0, 1)]
                good = [p for p in places if p[0] < h and p[1] < w and valid[(s, *p)]]
                mean = sum((x[(s, *p)] for p in good), torch.zeros(c)) / max(len(good), 1)
                four = [x[(s, *p)] if p in good else mean for p in places]
                ordered = torch.stack([four[k][channel] for channel in range(c) for k in range(4)])
                out[s, i, j] = layer.norm(layer.reduction.weight @ ordered)
                mask[s, i, j] = bool(good)
    return out, mask


@torch.no_grad()
def test_order_of_the_weights_is_channel_row_column(merging):
    x = torch.randn(2, 6, 8, C)

    out, mask = merging(x)

    columns = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2)  # (B, 4C channel-major, N)
    expected = merging.norm(columns.transpose(1, 2) @ merging.reduction.weight.T)
    torch.testing.assert_close(out.flatten(1, 2), expected, atol=1e-5, rtol=1e-5)
    kernel = merging.reduction.weight.view(2 * C, C, 2, 2)
    convolved = F.conv2d(x.permute(0, 3, 1, 2), kernel, stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(out, merging.norm(convolved), atol=1e-5, rtol=1e-5)
    assert mask is None


@pytest.mark.parametrize("shape", [(4, 6), (5, 3), (1, 1), (2, 1), (7, 7)])
@torch.no_grad()
def test_merge_is_parity_with_a_plain_loop(merging, shape):
    x = torch.randn(2, *shape, C)
    valid = torch.rand(2, *shape) < 0.5

    for mask in (valid, torch.ones_like(valid)):
        out, merged = merging(x, mask)
        expected, expected_mask = loop(merging, x, mask)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(merged, expected_mask)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
@torch.no_grad()
def test_keep_of_equal_neighbours_equals_their_merge(h, w, seed):
    torch.manual_seed(seed)
    layer = AdaptivePatchMerging(C)
    x = torch.randn(1, h, w, C)
    repeated = x.repeat_interleave(2, 1).repeat_interleave(2, 2)  # (1, 2h, 2w, C)

    kept, _ = layer(x, mode="keep")
    merged, _ = layer(repeated, mode="merge")

    assert kept.shape == merged.shape == (1, h, w, 2 * C)
    torch.testing.assert_close(kept, merged, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_keep_leaves_grid_and_mask(merging):
    x, valid = torch.randn(2, 5, 7, C), torch.rand(2, 5, 7) < 0.5

    out, mask = merging(x, valid, "keep")

    assert out.shape == (2, 5, 7, 2 * C)
    assert mask is valid
    alone, _ = merging(x[:1, 2:3, 4:5], None, "keep")
    torch.testing.assert_close(out[:1, 2:3, 4:5], alone)


def test_keeping_needs_no_parameters_of_its_own(merging):
    assert sum(p.numel() for p in merging.parameters()) == 8 * C**2 + 4 * C


@pytest.mark.parametrize("mode", ["merge", "keep"])
def test_masked_tokens_have_no_influence(merging, mode):
    x, valid = torch.randn(2, 5, 7, C), torch.rand(2, 5, 7) < 0.5
    other = torch.where(valid[..., None], x, torch.nan)

    (first, mask), (second, _) = merging(x, valid, mode), merging(other, valid, mode)

    assert torch.equal(first[mask], second[mask])
    if mode == "merge":
        assert second.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["merge", "keep"]))
@torch.no_grad()
def test_a_constant_map_stays_constant(h, w, mode):
    torch.manual_seed(1)
    layer, token = AdaptivePatchMerging(C), torch.randn(C)

    out, _ = layer(token.expand(1, h, w, C), None, mode)
    expected, _ = layer(token.expand(1, 2, 2, C), None, "merge")

    torch.testing.assert_close(out, expected[:, :1, :1].expand_as(out), atol=1e-5, rtol=1e-5)


def test_gradients_are_finite_with_masks(merging):
    x = torch.randn(1, 5, 7, C, requires_grad=True)
    valid = torch.zeros(1, 5, 7, dtype=torch.bool)
    valid[0, 4, 6] = True

    merging(x, valid)[0].sum().backward()

    assert x.grad.isfinite().all()
    assert (x.grad[~valid] == 0).all()


def test_fill_invalid_worked_example():
    blocks = torch.tensor([[1.0], [2.0], [torch.nan], [9.0]])

    filled = fill_invalid(blocks, torch.tensor([True, True, False, False]))

    assert filled.flatten().tolist() == [1, 2, 1.5, 1.5]
    assert fill_invalid(blocks, torch.zeros(4, dtype=torch.bool)).abs().sum() == 0
