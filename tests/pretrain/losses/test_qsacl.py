"""Queries: parity with PyTorch's decoder layer and with the formula of the pairs."""

import pytest
import torch
from torch import nn

from skysense.pretrain.losses.contrast import contrast
from skysense.pretrain.losses.qsacl import SemanticQueries, query_pairs


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = SemanticQueries(8, queries=3, heads=2, ratio=2.0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def reference(module):
    """PyTorch's pre-norm decoder layer with the same weights."""
    layer = nn.TransformerDecoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    own = {name: value.detach() for name, value in module.named_parameters()}
    pairs = {
        "self_attn.in_proj_weight": own["attn.qkv.weight"],
        "self_attn.in_proj_bias": own["attn.qkv.bias"],
        "multihead_attn.in_proj_weight": torch.cat([own["cross.q.weight"], own["cross.kv.weight"]]),
        "multihead_attn.in_proj_bias": torch.cat([own["cross.q.bias"], own["cross.kv.bias"]]),
    }
    names = {
        "self_attn.out_proj": "attn.proj",
        "multihead_attn.out_proj": "cross.proj",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
        "norm1": "norm1",
        "norm2": "norm2",
        "norm3": "norm3",
    }
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            pairs[f"{theirs}.{kind}"] = own[f"{ours}.{kind}"]
    layer.load_state_dict(pairs)
    return layer.eval()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("with_attention", [False, True])
def test_is_parity_with_the_decoder_layer(module, masked, with_attention):
    tokens = torch.randn(4, 7, 8)
    valid = torch.rand(4, 7) > 0.4 if masked else None
    expected = reference(module)(
        module.queries.expand(4, -1, -1),
        module.norm_tokens(tokens),
        memory_key_padding_mask=None if valid is None else ~valid,
    )

    got = module(tokens, valid, with_attention)

    torch.testing.assert_close(got[0] if with_attention else got, expected, atol=1e-5, rtol=1e-4)


def test_attention_is_shares_of_what_is_valid(module):
    valid = torch.rand(4, 7) > 0.4

    _, attention = module(torch.randn(4, 7, 8), valid, with_attention=True)

    torch.testing.assert_close(attention.sum(-1), torch.ones(4, 3))
    assert (attention.movedim(1, -1)[~valid] == 0).all()


def test_order_and_masked_tokens_change_nothing(module):
    tokens, valid = torch.randn(2, 7, 8), torch.rand(2, 7) > 0.4
    order = torch.randperm(7)
    changed = torch.where(valid[..., None], tokens, 9.0)[:, order]

    torch.testing.assert_close(module(changed, valid[:, order]), module(tokens, valid))


def test_permuting_queries_permutes_what_they_find(module):
    tokens, order = torch.randn(2, 7, 8), torch.tensor([2, 0, 1])
    before = module(tokens)
    with torch.no_grad():
        module.queries.copy_(module.queries[order])

    torch.testing.assert_close(module(tokens), before[:, order])


def test_nothing_valid_is_finite(module):
    tokens = torch.randn(2, 7, 8, requires_grad=True)

    module(tokens, torch.zeros(2, 7, dtype=torch.bool)).sum().backward()

    assert tokens.grad.isfinite().all()
    assert module.queries.grad.isfinite().all()


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="3 heads do not divide the width 8"):
        SemanticQueries(8, heads=3)


def test_pairs_give_the_formula():
    torch.manual_seed(0)
    b, m, k = 3, 4, 5
    student = tuple(torch.randn(b, m, k).requires_grad_() for _ in range(2))
    teacher = tuple(torch.randn(b, m, k).requires_grad_() for _ in range(2))
    weight = torch.tensor([1.0, 0, 1])

    own, other, rows = query_pairs(student, teacher, weight)
    loss = contrast(own, other.softmax(-1), 0.1, rows)
    loss.backward()

    total = 0.0
    for sample in (0, 2):
        for i in range(m):
            for a, z in ((0, 1), (1, 0)):
                target = teacher[z][sample, i].softmax(-1)
                total -= (target * (student[a][sample, i] / 0.1).log_softmax(-1)).sum() / (2 * m)
    torch.testing.assert_close(loss, total / 2)
    assert all(x.grad is None for x in teacher)
    assert all((x.grad[1] == 0).all() and x.grad[0].any() for x in student)
