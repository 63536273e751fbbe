"""KoLeo: parity with a double loop, spread, and twins."""

import math

import pytest
import torch
import torch.nn.functional as F

from skysense.pretrain.losses.koleo import NEAR, koleo
from skysense.pretrain.network import FeatureMap
from skysense.pretrain.objective import _koleo


def literal_koleo(vectors, weight):
    total, rows = 0.0, [i for i in range(len(vectors)) if weight[i] > 0]
    for i in rows:
        nearest = min(
            (F.normalize(vectors[i], dim=0) - F.normalize(vectors[j], dim=0)).square().sum().item()
            for j in rows
            if j != i
        )
        total -= weight[i].item() * math.log(nearest + NEAR) / 2
    return total / weight.sum().item()


def test_is_parity_with_a_double_loop():
    torch.manual_seed(0)
    vectors, weight = torch.randn(9, 4), torch.tensor([1.0, 0, 1, 1, 2, 0, 1, 1, 1])

    assert koleo(vectors, weight).item() == pytest.approx(literal_koleo(vectors, weight), rel=1e-4)
    assert koleo(vectors).item() == pytest.approx(literal_koleo(vectors, torch.ones(9)), rel=1e-4)


def test_order_and_length_change_nothing():
    vectors = torch.randn(9, 4)
    changed = (vectors * torch.rand(9, 1).add(0.5))[torch.randperm(9)]

    torch.testing.assert_close(koleo(changed), koleo(vectors))


def test_descent_spreads():
    vectors = torch.tensor([1.0, 0]) + 0.01 * torch.randn(6, 2)
    start = koleo(vectors).item()
    for _ in range(60):
        vectors.requires_grad_()
        (gradient,) = torch.autograd.grad(koleo(vectors), vectors)
        vectors = vectors.detach() - 0.03 * gradient

    assert koleo(vectors).item() < start - 1


def test_twins_have_a_bounded_gradient():
    vectors = torch.ones(4, 3, requires_grad=True)

    koleo(vectors).backward()

    assert vectors.grad.isfinite().all()
    assert vectors.grad.abs().max() < 0.5 / NEAR**0.5


@pytest.mark.parametrize("weight", [[0.0, 0, 0], [0, 1, 0]])
def test_nobody_to_keep_away_from_is_zero(weight):
    vectors = torch.randn(3, 2, requires_grad=True)

    loss = koleo(vectors, torch.tensor(weight))
    loss.backward()

    assert loss == 0
    assert (vectors.grad == 0).all()


def test_views_of_an_image_do_not_part_from_each_other():
    """Neighbors are other samples of the same view: two views of an image may be alike."""
    torch.manual_seed(0)
    first = torch.randn(5, 8)
    vectors = torch.cat([first, first + 0.01 * torch.randn(5, 8)])  # (2 views x 5, D)
    valid = torch.ones(10, 1, 1, dtype=torch.bool)
    valid[7] = False
    views = FeatureMap(vectors[:, :, None, None], valid, torch.ones(10, 2))
    weight = valid.flatten().float()
    expected = [literal_koleo(vectors[i : i + 5], weight[i : i + 5]) for i in (0, 5)]
    assert _koleo(views, 5).item() == pytest.approx(sum(expected) / 2, rel=1e-4)
