"""Geo-context: regions of equal area, balanced assignment, and prototypes that follow features."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.models.geo_context import GeoContext, region_of, sinkhorn

NAN = float("nan")


def region(lon, lat, regions=64):
    return region_of(torch.tensor([[lon, lat]]), regions).item()


@settings(max_examples=50, deadline=None)
@given(st.floats(-180, 180), st.floats(-90, 90), st.sampled_from([1, 4, 64, 4096]))
def test_every_place_has_a_region(lon, lat, regions):
    index = region(lon, lat, regions)
    side = math.isqrt(regions)

    assert 0 <= index < regions
    row, col = divmod(index, side)
    height = (1 - math.sin(math.radians(lat))) / 2 * side
    width = (lon + 180) / 360 * side
    assert row - 1e-3 <= height <= row + 1 + 1e-3
    assert min(abs(width - edge) for edge in (col, col + 1, col + side)) <= 1 + 1e-3


def test_corners():
    assert region(-179.9, 89.9) == 0
    assert region(179.9, 89.9) == 7
    assert region(-179.9, -89.9) == 56
    assert region(179.9, -89.9) == 63
    assert region(0.1, -0.1) == 8 * 4 + 4


def test_poles_are_in_the_first_and_last_row():
    for lon in (-180.0, -7.0, 0.0, 123.0, 180.0):
        assert region(lon, 90.0) < 8
        assert region(lon, -90.0) >= 56


@pytest.mark.parametrize("lat", [-90.0, -45.0, 0.0, 33.3, 90.0])
def test_the_antimeridian_is_one_place(lat):
    assert region(180.0, lat) == region(-180.0, lat)


def test_regions_have_equal_area():
    """Places spread evenly over the sphere fall evenly into the regions."""
    n = 200_000
    generator = torch.Generator().manual_seed(0)
    points = F.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=1)
    lat = torch.rad2deg(points[:, 2].asin())
    lon = torch.rad2deg(torch.atan2(points[:, 1], points[:, 0]))

    counts = torch.bincount(region_of(torch.stack([lon, lat], 1), 64), minlength=64)

    assert counts.shape == (64,)
    assert (counts / n * 64 - 1).abs().max() < 0.1  # five standard deviations


def test_unknown_places_have_no_region():
    places = torch.tensor([[NAN, NAN], [NAN, 3.0], [3.0, NAN], [3.0, 3.0]])

    assert region_of(places, 16).tolist()[:3] == [-1, -1, -1]
    assert region_of(places, 16)[3] >= 0
    assert region_of(places, 16).dtype == torch.int64


def literal_sinkhorn(similarity, epsilon, iterations):
    """Plain sums of exponentials in double precision."""
    matrix = (similarity.double() / epsilon).exp()
    for _ in range(iterations):
        matrix = matrix / matrix.sum(0, keepdim=True)
        matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7), (200, 10)])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_sinkhorn_is_parity_with_plain_sums(shape, iterations):
    similarity = 2 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 1

    got = sinkhorn(similarity, iterations=iterations)

    expected = literal_sinkhorn(similarity, 0.05, iterations).float()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-3)


def test_sinkhorn_balances():
    assignment = sinkhorn(torch.rand(100, 5), iterations=100)

    torch.testing.assert_close(assignment.sum(1), torch.ones(100))
    torch.testing.assert_close(assignment.sum(0), torch.full((5,), 20.0), atol=0.1, rtol=0)


def test_sinkhorn_does_not_overflow():
    for epsilon in (1e-2, 1e-3):
        assert sinkhorn(2 * torch.rand(50, 4) - 1, epsilon).isfinite().all()


@pytest.fixture
def bank():
    torch.manual_seed(0)
    context = GeoContext(regions=4, prototypes=3, dim=8)
    context.prototypes.normal_()
    return context


def test_context_is_attention_to_the_prototypes_of_the_region(bank):
    fused = torch.randn(3, 2, 5, 8)
    location = torch.tensor([[10.0, 40.0], [-100.0, -20.0], [NAN, NAN]])

    out = bank(fused, location)

    assert out.shape == (3, 2, 5, 16)
    assert torch.equal(out[..., :8], fused)
    for sample, index in enumerate(region_of(location, 4).tolist()[:2]):
        prototypes = bank.prototypes[index]
        for i in range(2):
            for j in range(5):
                weights = (prototypes @ fused[sample, i, j] / math.sqrt(8)).softmax(0)
                torch.testing.assert_close(
                    out[sample, i, j, 8:], weights @ prototypes, atol=1e-5, rtol=1e-5
                )
    assert (out[2, ..., 8:] == 0).all()


def test_prototypes_are_saved_but_have_no_gradient(bank):
    assert list(bank.state_dict()) == ["prototypes"]
    assert not list(bank.parameters())
    fused = torch.randn(1, 2, 2, 8, requires_grad=True)

    bank(fused, torch.tensor([[0.5, 0.5]])).sum().backward()

    assert fused.grad.isfinite().all()
    assert not bank.prototypes.requires_grad


def test_update_is_the_formula(bank):
    features, before = torch.randn(20, 8), bank.prototypes.clone()
    center = before[2].mean(0)
    cosine = F.cosine_similarity(features[:, None] - center, before[2][None] - center, dim=-1)
    share = literal_sinkhorn(cosine, 0.05, 3).float()
    mean = (share / share.sum(0)).T @ features

    bank.update(features, 2, momentum=0.9)

    torch.testing.assert_close(
        bank.prototypes[2], 0.9 * before[2] + 0.1 * mean, atol=1e-5, rtol=1e-4
    )
    rest = [0, 1, 3]
    assert torch.equal(bank.prototypes[rest], before[rest])


@pytest.mark.parametrize("offset", [0, 100])
def test_update_moves_prototypes_to_the_clusters_of_the_features(bank, offset):
    centres = torch.linalg.qr(torch.randn(8, 8))[0][:3] * 5 + offset
    bank.prototypes += offset
    features = (centres[:, None] + 0.1 * torch.randn(3, 50, 8)).flatten(0, 1)

    for _ in range(200):
        bank.update(features, 1, momentum=0.9)

    distances = torch.cdist(centres, bank.prototypes[1])
    assert distances.min(1).values.max() < 0.5
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2]


def test_update_without_features_changes_nothing(bank):
    before = bank.prototypes.clone()

    bank.update(torch.zeros(0, 8), 1)

    assert torch.equal(bank.prototypes, before)


def test_update_takes_features_with_gradients(bank):
    bank.update(torch.randn(5, 8, requires_grad=True), 0)

    assert not bank.prototypes.requires_grad


def test_regions_must_be_a_square():
    with pytest.raises(ValueError, match="`geo_regions` must be a square number, got 6"):
        GeoContext(6, 3, 8)
