"""Mixture of experts against a loop over the tokens, and what its router reports."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.layers.mlp import Mlp
from skysense.layers.moe import MixtureOfExperts, RouterStatistics

DIM, EXPERTS = 8, 5


def make_layer(experts=EXPERTS):
    torch.manual_seed(0)
    layer = MixtureOfExperts(DIM, experts)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def loop(layer, x):
    """One token at a time."""
    out = []
    for token in x.reshape(-1, DIM):
        gates = (layer.gate.weight @ token).softmax(0)
        e = int(gates.argmax())
        hidden = F.gelu(layer.w1[e] @ token + layer.b1[e])
        out.append(gates[e] * (layer.w2[e] @ hidden + layer.b2[e]))
    return torch.stack(out).view_as(x)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99))
@torch.no_grad()
def test_parity_with_a_loop_over_tokens(shape, seed):
    layer = make_layer()
    x = torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))

    out, statistics = layer(x)

    torch.testing.assert_close(out, loop(layer, x), atol=1e-5, rtol=1e-5)
    gates = layer.gate(x).softmax(-1).view(-1, EXPERTS)
    torch.testing.assert_close(statistics.probability, gates.mean(0))
    counts = torch.bincount(gates.argmax(1), minlength=EXPERTS)
    torch.testing.assert_close(statistics.fraction, counts / len(gates))


def test_gradients_are_those_of_the_loop():
    layer = make_layer()
    x = torch.randn(4, 6, DIM)

    def gradients(run):
        layer.zero_grad()
        run(x).square().sum().backward()
        return [p.grad.clone() for p in layer.parameters()]

    for got, expected in zip(
        gradients(lambda t: layer(t)[0]), gradients(lambda t: loop(layer, t)), strict=True
    ):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        assert got.abs().sum() > 0


@torch.no_grad()
def test_one_expert_is_the_dense_mlp():
    layer, dense = make_layer(1), Mlp(DIM)
    dense.load_state_dict(
        {
            "fc1.weight": layer.w1[0],
            "fc1.bias": layer.b1[0],
            "fc2.weight": layer.w2[0],
            "fc2.bias": layer.b2[0],
        }
    )
    x = torch.randn(3, 7, DIM)

    torch.testing.assert_close(layer(x)[0], dense(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_output_does_not_depend_on_order_or_company():
    layer, x = make_layer(), torch.randn(40, DIM)
    order = torch.randperm(40)

    out = layer(x)[0]

    torch.testing.assert_close(layer(x[order])[0], out[order], atol=1e-6, rtol=1e-5)
    for i in (0, 17):
        torch.testing.assert_close(layer(x[i])[0], out[i], atol=1e-6, rtol=1e-5)


def send_all_to(layer, expert):
    """Make the gate prefer one expert for tokens whose first channel is positive."""
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[expert, 0] = 100.0
    return layer


def test_empty_experts_work_and_get_zero_gradients():
    layer = send_all_to(make_layer(), 2)
    x = torch.rand(10, DIM) + 0.5

    out, statistics = layer(x)
    (out.sum() + statistics.load_balance).backward()

    torch.testing.assert_close(out, loop(layer, x), atol=1e-5, rtol=1e-5)
    assert statistics.fraction.tolist() == [0, 0, 1, 0, 0]
    assert layer.w1.grad[2].abs().sum() > 0
    assert layer.w1.grad[[0, 1, 3, 4]].abs().sum() == 0
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_load_balance_is_one_when_even_and_the_number_of_experts_when_collapsed():
    even = torch.full((EXPERTS,), 1 / EXPERTS)
    collapsed = F.one_hot(torch.tensor(3), EXPERTS).float()

    assert RouterStatistics(even, even).load_balance.item() == pytest.approx(1)
    assert RouterStatistics(collapsed, collapsed).load_balance.item() == pytest.approx(EXPERTS)
    _, statistics = send_all_to(make_layer(), 1)(torch.rand(10, DIM) + 0.5)
    assert statistics.load_balance.item() == pytest.approx(EXPERTS)


def test_an_even_router_has_balance_one():
    layer = make_layer(4)
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[:, :4] = 3 * torch.eye(4)
    x = torch.eye(4).repeat(5, 2)  # five tokens for each expert

    _, statistics = layer(x)

    torch.testing.assert_close(statistics.fraction, torch.full((4,), 0.25))
    assert statistics.load_balance.item() == pytest.approx(1)


def test_load_balance_has_a_gradient_that_evens():
    layer = make_layer()
    x = torch.randn(200, DIM)
    before = layer(x)[1].load_balance
    before.backward()

    with torch.no_grad():
        layer.gate.weight -= 0.5 * layer.gate.weight.grad
        assert layer(x)[1].load_balance < before


@torch.no_grad()
def test_masked_tokens_are_routed_but_not_counted():
    layer, x = make_layer(), torch.randn(3, 8, DIM)
    valid = torch.rand(3, 8) < 0.5

    out, statistics = layer(x, valid)
    _, alone = layer(x[valid])

    torch.testing.assert_close(out, layer(x)[0])
    torch.testing.assert_close(statistics.fraction, alone.fraction)
    torch.testing.assert_close(statistics.probability, alone.probability)
    other = torch.where(valid[..., None], x, 50 * torch.randn_like(x))
    changed, again = layer(other, valid)
    torch.testing.assert_close(changed[valid], out[valid])
    torch.testing.assert_close(again.probability, alone.probability)


def test_no_tokens_at_all():
    layer = make_layer()

    out, statistics = layer(torch.zeros(0, DIM))
    (out.sum() + statistics.load_balance).backward()

    assert out.shape == (0, DIM)
    assert statistics.load_balance == 0
    _, none = layer(torch.randn(4, DIM), torch.zeros(4, dtype=torch.bool))
    assert none.load_balance == 0


def test_mixed_precision():
    layer, x = make_layer(), torch.randn(20, DIM)

    with torch.autocast("cpu", torch.bfloat16):
        out, statistics = layer(x)
    (out.float().sum() + statistics.load_balance).backward()

    assert all(p.grad.isfinite().all() for p in layer.parameters())
