"""Temporal fusion against a literal reading of it, one place at a time."""

import pytest
import torch
import torch.nn.functional as F

from skysense.models.fusion import DAYS, FusionTransformer

IN, DIM, DEPTH, HEADS = 6, 8, 3, 2


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    model = FusionTransformer(IN, DIM, DEPTH, HEADS)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    tokens = torch.randn(2, 5, 3, 4, IN)
    days = torch.tensor([[1, 366, 0, 60, 60], [200, 0, 0, 0, 7]])
    valid = torch.rand(2, 5, 3, 4) < 0.6
    valid[0, :, 0, 0] = False
    valid[1, :, 2, 3] = True
    return tokens, days, valid


def literal(model, tokens, days, valid):
    """All places one by one, all rows of all layers, masked tokens left out of the sequence."""
    b, n, h, w, _ = tokens.shape
    out = torch.zeros(b, h, w, DIM)
    for s in range(b):
        for i in range(h):
            for j in range(w):
                x = [model.extra_token[0, 0]]
                for k in range(n):
                    if valid[s, k, i, j]:
                        token = tokens[s, k, i, j]
                        if days[s, k] > 0:
                            token = token + model.calendar[days[s, k] - 1]
                        x.append(model.proj(token))
                if len(x) == 1:
                    continue
                x = torch.stack(x)
                for layer in model.layers:
                    q, k, v = layer.attn.qkv(layer.norm1(x)).chunk(3, -1)
                    heads = [
                        F.softmax(a @ b.T / (DIM // HEADS) ** 0.5, -1) @ c
                        for a, b, c in zip(
                            *(t.split(DIM // HEADS, -1) for t in (q, k, v)), strict=True
                        )
                    ]
                    x = x + layer.attn.proj(torch.cat(heads, -1))
                    x = x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.norm2(x))))
                out[s, i, j] = x[0]
    return out


@torch.no_grad()
def test_parity_with_a_literal_reading(fusion, inputs):
    tokens, days, valid = inputs

    for mask in (valid, torch.ones_like(valid), torch.zeros_like(valid)):
        out = fusion(tokens, days, mask)
        torch.testing.assert_close(out, literal(fusion, tokens, days, mask), atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_acquisitions_have_no_order(fusion, inputs):
    tokens, days, valid = inputs
    order = [3, 0, 4, 2, 1]

    out = fusion(tokens[:, order], days[:, order], valid[:, order])

    torch.testing.assert_close(out, fusion(*inputs), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_masked_tokens_and_their_days_have_no_influence(fusion, inputs):
    tokens, days, valid = inputs
    valid[:, 2] = False
    other = torch.where(valid[..., None], tokens, 1e3 * torch.randn_like(tokens))
    changed = days.clone()
    changed[:, 2] = 99

    out = fusion(other, changed, valid)

    torch.testing.assert_close(out, fusion(tokens, days, valid), atol=0, rtol=0)
    keep = [0, 1, 3, 4]
    absent = fusion(tokens[:, keep], days[:, keep], valid[:, keep])
    torch.testing.assert_close(out, absent, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_places_know_nothing_of_each_other(fusion, inputs):
    tokens, days, valid = inputs
    alone = fusion(tokens[1:, :, 1:2, 2:3], days[1:], valid[1:, :, 1:2, 2:3])

    torch.testing.assert_close(fusion(*inputs)[1:, 1:2, 2:3], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_every_day_has_its_row(fusion):
    count = DAYS + 1
    tokens = torch.randn(IN).expand(count, 1, 1, 1, IN)
    valid = torch.ones(count, 1, 1, 1, dtype=torch.bool)
    outs = fusion(tokens, torch.arange(count)[:, None], valid).flatten(0, 2)

    assert torch.pdist(outs).min() > 1e-4


def test_gradients_reach_everything_and_are_finite(fusion, inputs):
    tokens, days, valid = inputs
    tokens.requires_grad_()

    fusion(tokens, days, valid).square().sum().backward()

    assert (tokens.grad[~valid] == 0).all()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("depth", [1, 2])
@torch.no_grad()
def test_the_last_layer_computes_the_extra_token_alone(depth, inputs):
    torch.manual_seed(2)
    model = FusionTransformer(IN, DIM, depth, HEADS)
    rows = []
    model.layers[-1].register_forward_hook(lambda _, __, out: rows.append(out.shape[1]))

    model(*inputs)

    assert rows == [1]
