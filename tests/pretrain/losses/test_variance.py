"""The variance term: parity with its formula, what counts, and what it is there for."""

import pytest
import torch
from torch import nn

from skysense.pretrain.image_level import variance_level
from skysense.pretrain.losses.variance import TINY, variance_loss
from skysense.pretrain.network import FUSED, Encoded, FeatureMap


def test_is_parity_with_the_formula():
    torch.manual_seed(0)
    vectors = torch.randn(9, 4) * torch.tensor([0.1, 0.4, 1.0, 3.0])
    spread = (vectors.var(0) + TINY).sqrt()
    expected = (0.5 - spread).clamp(min=0).mean()

    assert expected > 0.05
    torch.testing.assert_close(variance_loss(vectors, torch.ones(9), 0.5), expected)


def test_rows_of_weight_zero_do_not_count():
    vectors = 0.1 * torch.randn(8, 3)
    weight = torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 1])
    holes = vectors.masked_fill((weight == 0)[:, None], torch.nan).requires_grad_()

    loss = variance_loss(holes, weight, 1.0)
    loss.backward()

    torch.testing.assert_close(
        loss, variance_loss(vectors[weight > 0], torch.ones(6), 1.0), rtol=1e-5, atol=1e-6
    )
    assert holes.grad.isfinite().all()
    assert not holes.grad[weight == 0].any()


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_say_nothing(rows):
    weight = torch.tensor([1.0, 1.0])[:rows]
    vectors = torch.ones(rows, 3, requires_grad=True)

    loss = variance_loss(vectors, weight, 1.0)
    loss.backward()

    assert loss.item() == 0
    assert not vectors.grad.any()


def test_enough_is_enough():
    vectors = torch.tensor([[-2.0], [2.0]], requires_grad=True)
    variance_loss(vectors, torch.ones(2), 1.0).backward()

    assert not vectors.grad.any()


def test_equal_vectors_have_a_finite_gradient():
    vectors = torch.ones(4, 3, requires_grad=True)
    variance_loss(vectors, torch.ones(4), 1.0).backward()

    assert vectors.grad.isfinite().all()


def test_a_large_constant_in_front_of_a_norm_goes_away():
    """What standardized losses do not see: the norm lets through the constant alone."""
    torch.manual_seed(0)
    norm = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8))
    with torch.no_grad():
        norm[0].bias.add_(100 * torch.randn(8))
    x = torch.randn(64, 4)
    before = norm(x).std(0).mean()
    optimizer = torch.optim.Adam(norm.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        variance_loss(norm(x), torch.ones(64), 0.5).backward()
        optimizer.step()

    assert before < 0.02
    assert norm(x).std(0).mean() > 0.4


def test_a_level_counts_by_its_rows():
    """Means are looked at, spreads are not; a modality counts by the rows that show it."""
    maps = {
        key: FeatureMap(torch.zeros(4, 1, 1, 1), valid.view(4, 1, 1), torch.ones(4, 2))
        for key, valid in (
            ("hr", torch.tensor([True] * 4)),
            ("s2", torch.tensor([True, True, False, False])),
            (FUSED, torch.tensor([True] * 4)),
        )
    }
    constant, varied = torch.ones(4, 1), torch.tensor([[3.0], [-3], [3], [-3]])
    parts = {
        "hr": [torch.cat([varied, constant], 1)],  # varies enough
        "s2": [torch.cat([constant, varied], 1)],  # does not
    }
    widths = {key: [2] for key in ("hr", "s2", "s1")}

    loss = variance_level(widths, [Encoded(maps, {}, parts)], 0.5)

    assert loss.item() == pytest.approx((0.5 - TINY**0.5) * 2 / 6)
