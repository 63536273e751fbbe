"""Spread and rank of features: known clouds, and that a collapse is told."""

import math

import pytest
import torch

from skysense.pretrain.observation import effective_rank, feature_std


def test_directions_all_over():
    vectors = torch.eye(6).repeat(3, 1)

    assert feature_std(vectors) == pytest.approx(math.sqrt(5 / 6))
    assert effective_rank(vectors) == pytest.approx(5, rel=1e-4)  # one is lost to the center


def test_two_directions():
    vectors = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]] * 4)

    assert feature_std(vectors) == pytest.approx(1)
    assert effective_rank(vectors) == pytest.approx(1, abs=1e-3)


def test_length_does_not_matter():
    vectors = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    longer = vectors * torch.rand(20, 1).add(0.5)

    assert feature_std(longer) == pytest.approx(feature_std(vectors), rel=1e-4)
    assert effective_rank(longer) == pytest.approx(effective_rank(vectors), rel=1e-4)


def test_one_and_the_same_vector():
    vectors = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).repeat(32, 1)

    assert feature_std(vectors) == pytest.approx(0, abs=1e-6)
    assert effective_rank(vectors) == pytest.approx(1, abs=0.01)


def test_nearly_one_vector_has_no_rank_of_rounding_errors():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 64, generator=generator) + 1e-7 * torch.randn(
        32, 64, generator=generator
    )

    assert effective_rank(vectors) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_to_say(count):
    assert math.isnan(feature_std(torch.randn(count, 4)))
    assert math.isnan(effective_rank(torch.randn(count, 4)))


def test_half_precision_is_fine():
    vectors = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))

    assert effective_rank(vectors.bfloat16()) == pytest.approx(effective_rank(vectors), rel=0.05)
