"""The inference form computes the same numbers, and refuses what it cannot do."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skysense.layers.attention import Attention
from skysense.layers.merging import AdaptivePatchMerging
from skysense.layers.mlp import Mlp
from skysense.layers.moe import MixtureOfExperts
from skysense.layers.packing import PackedLinear, can_pack, pack
from skysense.layers.windows import SwinBlock, WindowAttention

pytestmark = pytest.mark.skipif(
    not can_pack(nn.Linear(1, 1)), reason="this PyTorch has no oneDNN operators to pack with"
)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def noisy(module):
    """In evaluation mode, with no parameter that is trivially zero or one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 70), st.integers(1, 70), st.integers(1, 70), st.booleans(), st.booleans())
def test_a_map_is_parity_with_plain_torch(rows, width, out, with_bias, gelu):
    weight, bias = torch.randn(out, width), torch.randn(out) if with_bias else None
    x = torch.randn(2, width, rows).transpose(1, 2)  # of any layout
    expected = F.linear(x, weight, bias)
    expected = F.gelu(expected) if gelu else expected

    actual = PackedLinear(weight, bias, "gelu" if gelu else "none")(x)

    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * width**0.5)


X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
GRID = torch.randn(2, 6, 10, 16, generator=torch.Generator().manual_seed(2))
VALID = torch.arange(10).view(2, 5) % 3 > 0
BRICKS = {
    "mlp": (lambda: Mlp(16), lambda m: m(X)),
    "attention": (lambda: Attention(16, 2), lambda m: m(X, VALID)),
    "first token": (lambda: Attention(16, 2), lambda m: m(X, VALID, first_only=True)),
    "prompts": (lambda: Attention(16, 2), lambda m: m(X, VALID[:, 2:], prompts=2)),
    "window": (lambda: SwinBlock(16, 2, 4, True), lambda m: m(GRID)),
    "merge": (lambda: AdaptivePatchMerging(16), lambda m: m(GRID, mode="merge")[0]),
    "keep": (lambda: AdaptivePatchMerging(16), lambda m: m(GRID, mode="keep")[0]),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", BRICKS)
def test_bricks_compute_the_same(name, mode):
    build, run = BRICKS[name]
    brick = noisy(build())
    count = sum(p.numel() for p in brick.parameters())
    expected = run(brick).detach()

    packed = pack(brick)

    assert packed is brick
    with mode():
        close(run(packed), expected)
    kept = 16 * 32 if name in ("merge", "keep") else 0
    absent = 3 * 16 if name == "window" else 0  # its biases in one
    assert sum(p.numel() for p in packed.parameters()) == count + kept + absent


def test_no_plain_weight_is_left():
    block = pack(SwinBlock(16, 2, 4).eval())

    plain = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
    assert plain == ["attn.cpb_mlp.0", "attn.cpb_mlp.2"]  # computed once


def test_packing_twice_is_packing_once():
    mlp = pack(noisy(Mlp(16)))
    expected = mlp(X)

    assert torch.equal(pack(mlp)(X), expected)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda m: m.state_dict(),
        lambda m: m.load_state_dict({}),
        lambda m: m.train(),
        lambda m: m.to("meta"),
        lambda m: m.half(),
        lambda m: copy.deepcopy(m),
        lambda m: pickle.dumps(m),
        lambda m: m(X.clone().requires_grad_()),
        lambda m: m(X.double()),
        lambda m: m(X.to("meta")),
    ],
    ids=["state", "load", "train", "to", "half", "copy", "pickle", "gradient", "double", "device"],
)
@pytest.mark.parametrize("build", [lambda: Mlp(16), lambda: Attention(16, 2)])
def test_what_it_cannot_do_is_one_clear_error(build, attempt):
    with pytest.raises(ValueError, match=r"a packed model .* load the model again"):
        attempt(pack(build().eval()))


def test_evaluation_mode_stays_possible():
    mlp = pack(Mlp(16).eval())

    assert mlp.eval() is mlp
    assert mlp.train(False) is mlp


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"training mode cannot be packed: call `model.eval\(\)`"):
        pack(Mlp(16))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Mlp(16).double(),
        lambda: Mlp(16).to("meta"),
        lambda: Mlp(16).bfloat16(),
    ],
)
def test_where_it_is_not_possible_nothing_changes(build):
    model = build().eval()

    assert isinstance(pack(model).fc1, nn.Linear)
    assert model.fc1.weight.requires_grad


def test_without_the_operators_nothing_changes(monkeypatch):
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)

    assert isinstance(pack(Mlp(16).eval()).fc1, nn.Linear)


def test_experts_stay_as_they_are():
    experts = noisy(MixtureOfExperts(16, 3))
    expected = experts(X)[0].detach()

    torch.testing.assert_close(pack(experts)(X)[0], expected)


def test_the_position_bias_is_kept():
    attn = pack(WindowAttention(16, 2, 4).eval())

    assert attn.position_bias() is attn.position_bias()
