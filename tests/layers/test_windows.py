"""Shifted windows against a loop over all pairs of tokens that knows nothing of rolling."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.layers.windows import SwinBlock, WindowAttention, partition, unpartition

DIM, HEADS, WINDOW = 8, 2, 4


def make_block(shifted, window=WINDOW):
    torch.manual_seed(3)
    block = SwinBlock(DIM, HEADS, window, shifted)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name.endswith("logit_scale"):
                parameter.copy_(torch.tensor([1.0, 8.0]).view(2, 1, 1))  # the second is clamped
            elif "norm" not in name or name.endswith("bias"):
                parameter.normal_(std=0.3)
            else:
                parameter.uniform_(0.5, 1.5)
    return block.eval()


def naive_attention(block, x, valid=None):
    """`(h, w, C)` to `(h, w, C)`: a token sees those of its window that are valid, and itself."""
    h, w, c = x.shape
    attn, d = block.attn, c // HEADS
    flat = x.flatten(0, 1)
    q, k, v = (flat @ weight.T for weight in attn.qkv.weight.chunk(3))
    q, v = q + attn.q_bias, v + attn.v_bias
    places = [(row, col) for row in range(h) for col in range(w)]
    out = torch.zeros_like(flat)
    for i, (row, col) in enumerate(places):
        seen = [
            j
            for j, place in enumerate(places)
            if all((a - block.shift) // block.window == (b - block.shift) // block.window
                   for a, b in zip((row, col), place, strict=True))
            and (i == j or valid is None or valid[place])
        ]  # fmt: skip
        for head in range(HEADS):
            s = slice(head * d, head * d + d)
            temperature = min(attn.logit_scale[head].item(), math.log(100))
            logits = []
            for j in seen:
                offset = torch.tensor([row - places[j][0], col - places[j][1]]) / (block.window - 1)
                offset = offset.sign() * (8 * offset.abs() + 1).log2() / 3
                bias = 16 * torch.sigmoid(attn.cpb_mlp(offset))[head]
                cosine = F.cosine_similarity(q[i, s], k[j, s], dim=0)
                logits.append(math.exp(temperature) * cosine + bias)
            weights = torch.stack(logits).softmax(0)
            out[i, s] = sum(a * v[j, s] for a, j in zip(weights, seen, strict=True))
    return attn.proj(out).view(h, w, c)


@pytest.mark.parametrize("shape", [(8, 8), (4, 4), (3, 2), (1, 1), (7, 10), (4, 9), (12, 3)])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_block_is_parity_with_plain_loops(shape, shifted, masked):
    block = make_block(shifted)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *shape, DIM, generator=generator)
    valid = torch.rand(2, *shape, generator=generator) < 0.6 if masked else None

    out = block(x, valid)

    for sample in range(2):
        attended = naive_attention(block, x[sample], None if valid is None else valid[sample])
        middle = x[sample] + block.norm1(attended)
        expected = middle + block.norm2(block.mlp(middle))
        torch.testing.assert_close(out[sample], expected, atol=2e-5, rtol=1e-4)


def test_shift_is_half_a_window():
    assert make_block(False).shift == 0
    assert make_block(True).shift == WINDOW // 2


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_unpartition_undoes_partition(rows, cols, window):
    x = torch.randn(2, rows * window, cols * window, 3)

    parts = partition(x, window)

    assert parts.shape == (2, rows * cols, window * window, 3)
    assert torch.equal(parts[:, 0], x[:, :window, :window].flatten(1, 2))
    assert torch.equal(unpartition(parts, window, x.shape[1:3]), x)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(1, 14)] * 2), st.tuples(*[st.integers(0, 9)] * 2), st.booleans())
@torch.no_grad()
def test_masked_padding_changes_nothing(shape, extra, shifted):
    """A map alone equals the map in the corner of a larger batch."""
    block = make_block(shifted)
    x = torch.randn(1, *shape, DIM)
    larger = 100 * torch.randn(1, shape[0] + extra[0], shape[1] + extra[1], DIM)
    larger[:, : shape[0], : shape[1]] = x
    valid = torch.zeros(larger.shape[:3], dtype=torch.bool)
    valid[:, : shape[0], : shape[1]] = True

    padded = block(larger, valid)[:, : shape[0], : shape[1]]

    torch.testing.assert_close(padded, block(x), atol=1e-5, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(1, 14)] * 2), st.booleans())
@torch.no_grad()
def test_a_constant_map_stays_constant(shape, shifted):
    block = make_block(shifted)
    token = torch.randn(DIM, generator=torch.Generator().manual_seed(1))

    out = block(token.expand(1, *shape, DIM))
    alone = block(token.view(1, 1, 1, DIM))

    torch.testing.assert_close(out, alone.expand_as(out), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_masked_tokens_have_no_influence(shifted):
    block = make_block(shifted)
    x = torch.randn(1, 7, 9, DIM)
    valid = torch.rand(1, 7, 9) < 0.5
    other = torch.where(valid[..., None], x, 1e3 * torch.randn_like(x))

    torch.testing.assert_close(block(x, valid)[valid], block(other, valid)[valid], atol=0, rtol=0)


def test_gradients_are_finite_with_masks():
    block = make_block(True)
    x = torch.randn(1, 7, 9, DIM, requires_grad=True)
    valid = torch.zeros(1, 7, 9, dtype=torch.bool)
    valid[0, 2, 3] = True

    block(x, valid).square().sum().backward()

    assert all(p.grad.isfinite().all() for p in (x, *block.parameters()))


@torch.no_grad()
def test_position_bias_follows_every_way_of_changing_a_weight():
    attn = WindowAttention(DIM, HEADS, WINDOW)
    first = attn.position_bias()

    assert first.shape == (HEADS, WINDOW**2, WINDOW**2)
    torch.testing.assert_close(attn.position_bias(), first)
    attn.cpb_mlp[0].weight.data.mul_(2)
    assert not torch.equal(attn.position_bias(), first)


def test_position_bias_follows_the_optimizer_and_has_gradients():
    attn = WindowAttention(DIM, HEADS, WINDOW)
    optimizer = torch.optim.AdamW(attn.parameters(), 0.1)
    with torch.no_grad():
        before = attn.position_bias()
    attn(torch.randn(1, 1, WINDOW**2, DIM)).square().sum().backward()
    assert attn.cpb_mlp[0].weight.grad.abs().sum() > 0
    optimizer.step()

    with torch.no_grad():
        assert not torch.equal(attn.position_bias(), before)


@torch.no_grad()
def test_position_bias_is_kept_in_evaluation_alone():
    attn = WindowAttention(DIM, HEADS, WINDOW)
    assert attn.position_bias() is not attn.position_bias()
    attn.eval()
    assert attn.position_bias() is attn.position_bias()
    with torch.enable_grad():
        assert attn.position_bias().requires_grad


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_kept_position_bias_follows_any_step(fused, training):
    """Fused optimizers do not count their changes on a tensor."""
    attn = WindowAttention(DIM, HEADS, WINDOW).eval()
    optimizer = torch.optim.AdamW(attn.parameters(), 0.1, fused=fused)
    with torch.no_grad():
        attn.position_bias()
    attn.train(training)
    attn(torch.randn(1, 1, WINDOW**2, DIM)).square().sum().backward()
    optimizer.step()
    attn.eval()

    with torch.no_grad():
        assert torch.equal(attn.position_bias(), attn._position_bias())


@torch.no_grad()
def test_a_kept_position_bias_follows_loading_and_averaging():
    attn, other = (make_block(False).attn for _ in range(2))
    other.cpb_mlp[0].weight.mul_(2)
    attn.position_bias()

    torch._foreach_lerp_(list(attn.parameters()), list(other.parameters()), 0.5)
    assert torch.equal(attn.position_bias(), attn._position_bias())
    attn.load_state_dict(other.state_dict())
    assert torch.equal(attn.position_bias(), other.position_bias())


def test_inference_mode_leaves_nothing_that_training_cannot_use():
    # A window of its own, since region masks are kept by shape and window; float64, since the two
    # ways may take different kernels.
    block = make_block(True, window=3).double()
    x = torch.randn(1, 12, 15, DIM, dtype=torch.float64)
    with torch.inference_mode():
        first = block(x)

    again = block(x)
    again.sum().backward()

    torch.testing.assert_close(again.detach(), first.clone(), atol=1e-6, rtol=1e-5)
    with torch.inference_mode():
        make_block(False).double()(x)


def test_buffers_are_derived_and_not_saved():
    attn = WindowAttention(DIM, HEADS, WINDOW)
    assert not {"offsets", "index"} & set(attn.state_dict())

    with torch.device("meta"):
        empty = WindowAttention(DIM, HEADS, WINDOW)
    empty.load_state_dict(attn.state_dict(), assign=True)
    empty.reset_buffers()

    x = torch.randn(1, 2, WINDOW**2, DIM)
    assert torch.equal(empty(x), attn(x))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads do not divide the width 8"):
        WindowAttention(8, 3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_blocks_without_gradients_change_nothing(monkeypatch, shifted, masked):
    block = make_block(shifted)
    x = torch.randn(2, 13, 20, DIM)
    valid = torch.rand(2, 13, 20) < 0.7 if masked else None
    expected = block(x, valid).detach()  # with gradients: all at once

    monkeypatch.setattr("skysense.layers.windows.BLOCK", 3 * 2 * WINDOW**2 * DIM)
    monkeypatch.setattr("skysense.layers.mlp.BLOCK", 7 * DIM)
    with torch.no_grad():
        torch.testing.assert_close(block(x, valid), expected, atol=1e-6, rtol=1e-5)
