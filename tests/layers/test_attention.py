"""Global attention against plain loops over its formulas."""

import math

import pytest
import torch

from skysense.layers.attention import PROMPT_RIVALS, Attention
from skysense.layers.positions import rotary_2d, rotate

DIM, HEADS = 16, 2
GRID = (3, 4)
N = GRID[0] * GRID[1]
CPU = torch.device("cpu")


@pytest.fixture
def attention():
    torch.manual_seed(0)
    layer = Attention(DIM, HEADS)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.fixture
def valid():
    mask = torch.rand(2, N, generator=torch.Generator().manual_seed(1)) < 0.6
    assert mask.any(1).all()
    assert not mask.all()
    return mask


def naive(layer, x, valid=None, rotary=None, prompts=0):
    """One query, one head, one key at a time."""
    b, count, dim = x.shape
    d = dim // layer.heads
    q, k, v = (
        x @ w.T + c for w, c in zip(*(t.chunk(3) for t in layer.qkv.parameters()), strict=True)
    )
    out = torch.zeros_like(x)
    for sample in range(b):
        for head in range(layer.heads):
            s = slice(head * d, head * d + d)
            turned_q, turned_k = q[sample, :, s].clone(), k[sample, :, s].clone()
            if rotary is not None:
                turned_q[prompts:] = rotate(turned_q[prompts:], rotary)
                turned_k[prompts:] = rotate(turned_k[prompts:], rotary)
            seen = [j for j in range(prompts, count) if valid is None or valid[sample, j - prompts]]
            mean_k = sum(k[sample, j, s] for j in seen) / len(seen)
            for i in range(count):
                own_q = q[sample, i, s]
                keys = [(turned_k if i >= prompts else k[sample, :, s])[j] for j in seen]
                asked = turned_q[i] if i >= prompts else own_q
                logits = torch.stack([asked @ key for key in keys]) / math.sqrt(d)
                row = sum(w * v[sample, j, s] for w, j in zip(logits.softmax(0), seen, strict=True))
                if prompts:
                    logits = torch.stack([own_q @ k[sample, p, s] for p in range(prompts)])
                    scores = (logits / math.sqrt(d)).exp()
                    rival = PROMPT_RIVALS * (own_q @ mean_k / math.sqrt(d)).exp()
                    share = scores.sum() / (scores.sum() + rival)
                    told = sum(w * v[sample, p, s] for p, w in enumerate(scores / scores.sum()))
                    row = (1 - share) * row + share * told
                out[sample, i, s] = row
    return layer.proj(out)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("prompts", [0, 3])
@torch.no_grad()
def test_parity_with_plain_loops(attention, valid, masked, turned, prompts):
    x = torch.randn(2, prompts + N, DIM, generator=torch.Generator().manual_seed(2))
    mask = valid if masked else None
    rotary = rotary_2d(GRID, DIM // HEADS, CPU) if turned else None

    out = attention(x, mask, rotary, prompts)

    torch.testing.assert_close(
        out, naive(attention, x, mask, rotary, prompts), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_first_token_alone(attention, valid):
    x = torch.randn(2, N, DIM)

    for mask in (None, valid):
        alone = attention(x, mask, first_only=True)
        assert alone.shape == (2, 1, DIM)
        torch.testing.assert_close(alone, attention(x, mask)[:, :1], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_prompts_equal_a_joint_softmax_where_64_image_tokens_have_one_key(attention):
    prompts = torch.randn(1, 3, DIM)
    image = torch.randn(1, 1, DIM).expand(1, PROMPT_RIVALS, DIM)
    x = torch.cat([prompts, image], 1)

    torch.testing.assert_close(attention(x, prompts=3), attention(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_share_of_the_prompts_does_not_depend_on_the_size(attention):
    prompts = torch.randn(1, 3, DIM)
    token = torch.randn(1, 1, DIM)

    outs = []
    for shape in ((1, 1), (2, 3), (9, 9)):
        n = shape[0] * shape[1]
        x = torch.cat([prompts, token.expand(1, n, DIM)], 1)
        outs.append(attention(x, None, rotary_2d(shape, DIM // HEADS, CPU), 3))

    for out in outs:
        torch.testing.assert_close(out[:, :3], outs[0][:, :3], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            out[:, 3:], outs[0][:, 3:4].expand_as(out[:, 3:]), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("prompts", [0, 3])
@torch.no_grad()
def test_masked_tokens_have_no_influence(attention, valid, prompts):
    x = torch.randn(2, prompts + N, DIM)
    rotary = rotary_2d(GRID, DIM // HEADS, CPU)
    kept = torch.cat([torch.ones(2, prompts, dtype=torch.bool), valid], 1)
    other = torch.where(kept[..., None], x, 1e4 * torch.randn_like(x))

    first, second = (attention(t, valid, rotary, prompts) for t in (x, other))

    torch.testing.assert_close(first[kept], second[kept], atol=0, rtol=0)


def test_gradients_are_finite_with_masks(attention, valid):
    x = torch.randn(2, 3 + N, DIM, requires_grad=True)

    attention(x, valid, rotary_2d(GRID, DIM // HEADS, CPU), 3).square().sum().backward()

    assert all(p.grad.isfinite().all() for p in (x, *attention.parameters()))
    assert x.grad.abs().sum() > 0


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads do not divide the width 16"):
        Attention(16, 3)
