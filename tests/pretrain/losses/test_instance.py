"""Instance level: parity with a double loop, rows that are not there, and learning."""

import math

import pytest
import torch
import torch.nn.functional as F

from skysense.pretrain.losses.instance import InstanceHead, instance_loss


def literal_loss(vectors, present, samples, temperature):
    losses = []
    rows = [i for i in range(len(vectors)) if present[i] > 0]
    for i in rows:
        similar = {
            j: math.exp(float(vectors[i] @ vectors[j]) / temperature) for j in rows if j != i
        }
        partners = [j for j in similar if j % samples == i % samples]
        if partners:
            shares = [math.log(similar[j] / sum(similar.values())) for j in partners]
            losses.append(-sum(shares) / len(shares))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("views", [2, 3])
def test_is_parity_with_a_double_loop(views):
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(views * 5, 4), dim=-1)
    present = torch.ones(views * 5)
    some = present.clone()
    some[[0, 3, 5]] = 0  # sample 0 has fewer views, 3 as well

    for there in (present, some):
        found = instance_loss(vectors, there, 5, 0.2).item()
        assert found == pytest.approx(literal_loss(vectors, there, 5, 0.2), rel=1e-4)


def test_rows_that_are_not_there_change_nothing():
    torch.manual_seed(0)
    head, x = InstanceHead(6, 8, 4), torch.randn(10, 6)
    present = torch.ones(10)
    present[[2, 7]] = 0
    other = x.clone()
    other[[2, 7]] = 1e3

    first, second = (instance_loss(head(rows, present), present, 5, 0.1) for rows in (x, other))

    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("present", [torch.zeros(4), torch.tensor([1.0, 0, 0, 0])])
def test_without_partners_it_is_zero_with_a_gradient(present):
    vectors = F.normalize(torch.randn(4, 3), dim=-1).requires_grad_()

    loss = instance_loss(vectors, present, 2, 0.1)
    loss.backward()

    assert loss.item() == 0
    assert vectors.grad.isfinite().all()


def test_equal_rows_have_a_finite_gradient():
    head, x = InstanceHead(3, 8, 4), torch.ones(6, 3, requires_grad=True)

    instance_loss(head(x, torch.ones(6)), torch.ones(6), 3, 0.1).backward()

    assert x.grad.isfinite().all()


def test_scale_and_offset_of_the_input_change_nothing():
    torch.manual_seed(0)
    head, x, weight = InstanceHead(6), torch.randn(12, 6), torch.ones(12)
    moved = x * torch.rand(6).add(0.5) + torch.randn(6)

    torch.testing.assert_close(head(moved, weight), head(x, weight), atol=1e-4, rtol=1e-3)


def test_descent_brings_views_together():
    torch.manual_seed(0)
    vectors = torch.randn(12, 4)
    start = instance_loss(F.normalize(vectors, dim=-1), torch.ones(12), 6, 0.2).item()
    for _ in range(50):
        vectors.requires_grad_()
        loss = instance_loss(F.normalize(vectors, dim=-1), torch.ones(12), 6, 0.2)
        (gradient,) = torch.autograd.grad(loss, vectors)
        vectors = vectors.detach() - gradient

    assert loss.item() < start - 1
