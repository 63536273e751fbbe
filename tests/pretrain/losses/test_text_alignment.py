"""ITA: parity with a double loop, and places without a label."""

import math

import pytest
import torch
import torch.nn.functional as F

from skysense.pretrain.losses.text_alignment import DenseTextAlignment


@pytest.fixture
def alignment():
    torch.manual_seed(0)
    return DenseTextAlignment(6, 4)


LABELS = torch.tensor([0, -1, 2, 2, -1])


def test_is_parity_with_a_double_loop(alignment):
    features, embeddings = torch.randn(5, 6), torch.randn(3, 4)
    total = 0.0
    for n, label in enumerate(LABELS.tolist()):
        if label >= 0:
            cosines = [
                F.cosine_similarity(alignment.proj(features[n]), row, dim=0).item()
                for row in embeddings
            ]
            exponents = [math.exp(value / 0.07) for value in cosines]
            total -= math.log(exponents[label] / sum(exponents)) / 3

    loss = alignment(features, LABELS, embeddings)

    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_permuting_classes_with_their_labels_changes_nothing(alignment):
    features, embeddings, order = torch.randn(5, 6), torch.randn(3, 4), torch.tensor([2, 0, 1])
    moved = torch.where(LABELS >= 0, order.argsort()[LABELS.clamp(min=0)], -1)

    torch.testing.assert_close(
        alignment(features, moved, 3 * embeddings[order]), alignment(features, LABELS, embeddings)
    )


def test_unlabelled_places_change_nothing(alignment):
    features, embeddings = torch.randn(5, 6), torch.randn(3, 4)
    known = LABELS >= 0

    torch.testing.assert_close(
        alignment(features, LABELS, embeddings),
        alignment(features[known], LABELS[known], embeddings),
    )


@pytest.mark.parametrize("count", [0, 5])
def test_no_label_is_zero_with_a_graph(alignment, count):
    features = torch.randn(count, 6, requires_grad=True)

    loss = alignment(features, torch.full((count,), -1), torch.randn(3, 4))
    loss.backward()

    assert loss == 0
    assert (features.grad == 0).all()
    assert all((parameter.grad == 0).all() for parameter in alignment.parameters())


def test_temperature_is_bounded(alignment):
    features, embeddings = torch.randn(5, 6), torch.randn(3, 4)
    with torch.no_grad():
        alignment.log_scale.fill_(math.log(100))
    bound = alignment(features, LABELS, embeddings)
    with torch.no_grad():
        alignment.log_scale.fill_(50)

    torch.testing.assert_close(alignment(features, LABELS, embeddings), bound)


def test_it_learns():
    torch.manual_seed(0)
    alignment, features, embeddings = DenseTextAlignment(6, 4), torch.randn(5, 6), torch.randn(3, 4)
    parameters = list(alignment.parameters())
    for _ in range(200):
        loss = alignment(features, LABELS, embeddings)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.data.sub_(0.05 * gradient)

    assert loss < 0.05
