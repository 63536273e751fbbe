"""What decays, whose learning rate differs, and that AdamW repeats itself."""

import pytest
import torch
from torch import nn

from skysense.engine.optim import build_adamw, parameter_groups, set_lr_and_decay


class Parts(nn.Module):
    """One of each kind of parameter."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.conv = nn.Conv2d(2, 3, 1)
        self.norm = nn.LayerNorm(3)
        self.table = nn.Embedding(5, 3)
        self.w1 = nn.Parameter(torch.ones(2, 3, 3))  # experts
        self.b1 = nn.Parameter(torch.ones(2, 3))
        self.class_token = nn.Parameter(torch.ones(1, 1, 3))
        self.position = nn.Parameter(torch.ones(1, 9, 3))
        self.logit_scale = nn.Parameter(torch.ones(2, 1, 1))
        self.prompts = nn.ParameterDict({"hr_stage3": nn.Parameter(torch.ones(4, 3))})
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)


def named(module, groups, key):
    """Name to one value of its group."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(p)]: group[key] for group in groups for p in group["params"]}


def test_matrices_of_layers_decay_and_nothing_else():
    module = Parts()

    decay = named(module, parameter_groups(module, 0.1), "weight_decay")

    assert {name for name, value in decay.items() if value} == {
        "layer.weight",
        "conv.weight",
        "w1",
    }
    assert set(decay.values()) == {0.0, 0.1}
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert decay.keys() == trained


@pytest.mark.parametrize("name", ["v2_tiny"])
def test_tables_of_the_model_do_not_decay(fresh, name):
    model = fresh(name)
    decay = named(model, parameter_groups(model, 0.1), "weight_decay")

    decayed = {key for key, value in decay.items() if value}
    assert "backbone.stages.2.0.attn.qkv.weight" in decayed
    assert "tokenizers.s2.projection.weight" in decayed
    assert all(key.endswith("weight") for key in decayed)
    tables = ("prompts.", "calendar", "token.", "extra_token", "logit_scale", "norm")
    assert not [key for key in decayed if any(part in key for part in tables)]


def test_multipliers_and_layer_decay():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    groups = parameter_groups(
        module,
        0.0,
        multipliers={"2": 3.0, "2.bias": 5.0},
        layer_of=lambda name: int(name[0]),
        layer_decay=0.5,
    )

    scale = named(module, groups, "lr_scale")
    assert [scale[f"{i}.weight"] for i in range(3)] == [0.25, 0.5, 3.0]
    assert scale["2.bias"] == 5.0


def test_schedules_reach_the_groups():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = parameter_groups(module, 0.0, multipliers={"1": 0.1})
    optimizer = build_adamw(groups, 1.0)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.1, 1.0]

    set_lr_and_decay(optimizer, 2.0, 0.3)

    rates = named(module, optimizer.param_groups, "lr")
    decay = named(module, optimizer.param_groups, "weight_decay")
    assert (rates["0.weight"], rates["1.bias"]) == (2.0, 0.2)
    assert (decay["0.weight"], decay["0.bias"]) == (0.3, 0.0)
    set_lr_and_decay(optimizer, 1.0)
    assert optimizer.param_groups[0]["weight_decay"] == 0.3


def test_adamw_agrees_with_its_formula_and_repeats_to_the_bit():
    def train():
        layer = nn.Linear(3, 2)
        nn.init.constant_(layer.weight, 0.5)
        optimizer = build_adamw(parameter_groups(layer, 0.1), 0.01)
        for step in range(3):
            layer.weight.grad = torch.arange(6.0).view(2, 3) - step
            optimizer.step()
        return layer.weight.detach()

    weight, first, second = torch.full((2, 3), 0.5), torch.zeros(2, 3), torch.zeros(2, 3)
    for step in range(3):
        gradient = torch.arange(6.0).view(2, 3) - step
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        ahead = (
            first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        )
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * ahead

    assert torch.allclose(train(), weight, atol=1e-6)
    assert torch.equal(train(), train())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multipliers": {"backbon": 2.0}}, "starts with `backbon`; they start with: bias, weight"),
        ({"layer_decay": 0.9}, "needs `layer_of`"),
    ],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        parameter_groups(nn.Linear(1, 1), 0.1, **options)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(nn.Linear(1, 1).requires_grad_(False), 0.1)
