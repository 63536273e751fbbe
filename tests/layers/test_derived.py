"""What is kept is never stale: every way in which a parameter may change."""

import copy
import pickle

import pytest
import torch
from torch import nn

from skysense.layers.derived import Derived


@pytest.fixture
def weight():
    return nn.Parameter(torch.arange(4.0))


def doubled(kept, weight):
    return kept.get([weight], lambda: 2 * weight)


def test_it_is_computed_once_and_without_gradients(weight):
    kept = Derived()
    first = doubled(kept, weight)

    assert doubled(kept, weight) is first
    assert not first.requires_grad


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.add_(1),
        lambda weight: torch._foreach_lerp_([weight], [torch.ones(4)], 0.5),
        lambda weight: weight.copy_(torch.ones(4)),
        lambda weight: setattr(weight, "data", torch.ones(4)),
        lambda weight: setattr(weight, "data", weight.data.double()),
    ],
    ids=["in place", "average", "copy", "replace", "convert"],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_follows_changes(weight, change, mode):
    kept = Derived()
    doubled(kept, weight)
    with mode():
        change(weight)

    assert torch.equal(doubled(kept, weight), 2 * weight)


def test_new_memory_is_never_taken_for_the_old():
    kept = Derived()
    weight = nn.Parameter(torch.zeros(1000))
    for i in range(20):
        weight.data = torch.full((1000,), float(i))
        assert doubled(kept, weight)[0] == 2 * i


def test_inference_tensors_are_computed_anew():
    with torch.inference_mode():
        weight = torch.arange(4.0)
        kept = Derived()
        doubled(kept, weight)
        weight.add_(1)
        assert torch.equal(doubled(kept, weight), 2 * weight)


def test_what_inference_kept_serves_gradients():
    weight = nn.Parameter(torch.arange(4.0), requires_grad=False)
    kept = Derived()
    with torch.inference_mode():
        doubled(kept, weight)

    x = torch.ones(4, requires_grad=True)
    (x * doubled(kept, weight)).sum().backward()

    assert torch.equal(x.grad, 2 * weight)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_start_empty(clone):
    kept = Derived()
    doubled(kept, torch.ones(1))

    assert clone(kept)._kept is None


def test_clear_forgets(weight):
    kept = Derived()
    first = doubled(kept, weight)
    kept.clear()

    assert doubled(kept, weight) is not first
