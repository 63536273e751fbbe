"""Groups of places: parity with loops, exact matching, and what order and masks may not change."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.pretrain.losses.object import (
    match_groups,
    object_pairs,
    object_vectors,
    sinkhorn_kmeans,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def literal_kmeans(features, groups, iterations, temperature):
    """One sample's valid places, in plain loops and double precision."""
    unit = [row / row.norm() for row in features.double()]
    n, mean = len(unit), sum(unit)
    first = min(range(n), key=lambda i: (unit[i] @ mean).item())
    chosen = [first]
    while len(chosen) < groups:
        likeness = [max((unit[i] @ unit[j]).item() for j in chosen) for i in range(n)]
        chosen.append(min(range(n), key=likeness.__getitem__))
    centers = [unit[i] for i in chosen]
    for _ in range(iterations):
        share = [[math.exp((u @ c).item() / temperature) for c in centers] for u in unit]
        for _ in range(3):
            for g in range(groups):
                total = sum(row[g] for row in share)
                for row in share:
                    row[g] /= total
            share = [[value / sum(row) for value in row] for row in share]
        sums = [sum(share[i][g] * unit[i] for i in range(n)) for g in range(groups)]
        centers = [vector / vector.norm() for vector in sums]
    return torch.stack(centers).float(), torch.tensor(share)


@pytest.mark.parametrize("groups", [1, 3, 4])
@pytest.mark.parametrize("iterations", [1, 3])
def test_kmeans_is_parity_with_plain_loops(groups, iterations):
    features, valid = torch.randn(2, 10, 6), torch.ones(2, 10, dtype=torch.bool)
    valid[1, 3:6] = False

    centers, assignment = sinkhorn_kmeans(features, valid, groups, iterations, 0.1)

    for b in range(2):
        expected = literal_kmeans(features[b, valid[b]], groups, iterations, 0.1)
        torch.testing.assert_close(centers[b], expected[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(assignment[b, valid[b]], expected[1], atol=1e-4, rtol=1e-3)
    assert (assignment[1, 3:6] == 0).all()


def test_kmeans_finds_groups_and_balances_them():
    directions = torch.linalg.qr(torch.randn(8, 8))[0][:4]
    features = (directions[:, None] + 0.1 * torch.randn(4, 25, 8)).flatten(0, 1)[None]

    centers, assignment = sinkhorn_kmeans(features, torch.ones(1, 100).bool(), 4)

    assert (centers[0] @ directions.T).max(0).values.min() > 0.99
    torch.testing.assert_close(assignment.sum(1), torch.full((1, 4), 25.0), atol=0.5, rtol=0)


def test_order_scale_and_masked_places_change_nothing():
    features, valid = torch.randn(2, 12, 6), torch.rand(2, 12) > 0.3
    centers, assignment = sinkhorn_kmeans(features, valid, 3)
    order = torch.randperm(12)
    changed = torch.where(valid[..., None], features * 5, 1e3)[:, order]

    again, moved = sinkhorn_kmeans(changed, valid[:, order], 3)

    torch.testing.assert_close(again, centers)
    torch.testing.assert_close(moved, assignment[:, order])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_places_than_groups_are_no_error(count):
    valid = torch.zeros(1, 5, dtype=torch.bool)
    valid[:, :count] = True

    own, other, weight = object_pairs(torch.randn(1, 5, 6), valid, torch.randn(1, 5, 6), valid, 4)

    assert own.isfinite().all()
    assert other.isfinite().all()
    assert weight.tolist() == [float(count > 0)] * 4


def test_no_sample_gives_no_rows():
    features, valid = torch.randn(0, 5, 6), torch.ones(0, 5, dtype=torch.bool)

    own, other, weight = object_pairs(features, valid, features, valid, 4)

    assert own.shape == other.shape == (0, 6)
    assert weight.shape == (0,)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10_000))
def test_matching_is_the_best_of_all(groups, seed):
    torch.manual_seed(seed)
    a, b = torch.randn(2, groups, 3), torch.randn(2, groups, 3)

    partner = match_groups(a, b)

    for i in range(2):
        totals = [
            sum(F.cosine_similarity(a[i, g], b[i, p], dim=0).item() for g, p in enumerate(order))
            for order in itertools.permutations(range(groups))
        ]
        assert sorted(partner[i].tolist()) == list(range(groups))
        got = F.cosine_similarity(a[i], b[i, partner[i]], dim=-1).sum().item()
        assert got == pytest.approx(max(totals), abs=1e-5)


def test_matching_undoes_a_permutation():
    a, order = torch.randn(3, 8, 16), torch.randperm(8)

    partner = match_groups(a, 3 * a[:, order])

    assert torch.equal(order[partner], torch.arange(8).expand(3, -1))


def test_too_many_groups_are_refused():
    with pytest.raises(ValueError, match="9 groups cannot be matched: ask for at most 8"):
        match_groups(torch.randn(1, 9, 2), torch.randn(1, 9, 2))


def test_vectors_are_weighted_means():
    features, assignment = torch.randn(2, 7, 3), torch.rand(2, 7, 4)

    vectors = object_vectors(features, assignment)

    for b, g in itertools.product(range(2), range(4)):
        total = sum(assignment[b, n, g] * features[b, n] for n in range(7))
        torch.testing.assert_close(vectors[b, g], total / assignment[b, :, g].sum())


def test_pairs_of_a_view_with_itself_turned_are_equal():
    features, valid = torch.randn(2, 12, 6), torch.rand(2, 12) > 0.2
    order = torch.randperm(12)

    own, other, weight = object_pairs(features, valid, features[:, order], valid[:, order], 4)

    torch.testing.assert_close(own, other)
    assert own.shape == (8, 6)
    assert (weight == 1).all()


def test_gradient_flows_to_the_valid_places_of_the_student_alone():
    student, teacher = torch.randn(1, 6, 4).requires_grad_(), torch.randn(1, 5, 4).requires_grad_()
    valid = torch.tensor([[True, True, True, True, True, False]])

    own, other, _ = object_pairs(student, valid, teacher, torch.ones(1, 5).bool(), 2)
    own.square().sum().backward()

    assert not other.requires_grad
    assert (student.grad[0, :5] != 0).any(1).all()
    assert (student.grad[0, 5] == 0).all()
