"""Autocast, loss scaling and the guard against NaN."""

import pytest
import torch

from skysense.engine.precision import NotFiniteError, Precision, check_finite

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_on_the_cpu_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` is for GPUs.* choose `float32`"):
        Precision(name, CPU)


def test_float16_with_spread_gradients_is_refused():
    with pytest.raises(ValueError, match="choose `bfloat16`"):
        Precision("float16", torch.device("cuda"), sharded=True)


def test_float32_is_the_plain_step():
    precision, layer = Precision("float32", CPU), torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    before = layer.bias.detach().clone()

    with precision.autocast():
        loss = layer(torch.ones(1, 2)).sum()
    precision.backward(loss)
    precision.unscale(optimizer)
    precision.step(optimizer)

    assert loss.dtype == torch.float32
    assert torch.allclose(layer.bias, before - 1)
    assert precision.state_dict() == {}
    precision.load_state_dict({})


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_trains_on_the_gpu(name):
    device = torch.device("cuda")
    precision, layer = Precision(name, device), torch.nn.Linear(2, 2, device=device)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    before = layer.bias.detach().clone()

    with precision.autocast():
        out = layer(torch.ones(1, 2, device=device))
    precision.backward(out.float().sum())
    precision.unscale(optimizer)
    precision.step(optimizer)

    assert out.dtype == getattr(torch, name)
    assert torch.allclose(layer.bias, before - 1)
    other = Precision(name, device)
    other.load_state_dict(precision.state_dict())
    assert other.state_dict() == precision.state_dict()


def test_numbers_pass():
    assert check_finite({"loss": torch.tensor(0.5), "norm": torch.tensor(2)}) == {
        "loss": 0.5,
        "norm": 2.0,
    }
    assert check_finite({}) == {}


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_what_is_no_number_is_named(bad):
    with pytest.raises(NotFiniteError, match=f"stopped: norm is {bad}") as caught:
        check_finite({"loss": torch.tensor(0.5), "norm": torch.tensor(float(bad))})

    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
