"""GCPL: regions are updated as their rule says, whatever the order and padding of what was seen."""

import pytest
import torch

from skysense.models.geo_context import GeoContext, region_of
from skysense.models.skysense_v2 import V2_CONFIGS, SkySenseV2
from skysense.pretrain.losses.prototypes import update_prototypes

NAN = float("nan")
PLACES = torch.tensor([[10.0, 40], [-100, -20], [11, 41], [NAN, NAN]])
BANK = {"geo_regions": 16, "geo_prototypes": 4}


@pytest.fixture
def bank():
    torch.manual_seed(0)
    context = GeoContext(regions=16, prototypes=3, dim=8)
    context.prototypes.normal_()
    return context


def features(b=4, h=3, w=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(b, h, w, 8, generator=generator), torch.ones(b, h, w, dtype=torch.bool)


def copy_of(bank):
    other = GeoContext(16, 3, 8)
    other.prototypes.copy_(bank.prototypes)
    return other


def test_each_region_follows_its_samples(bank):
    fused, valid = features()
    valid[0, 1:] = False
    expected = copy_of(bank)
    region = region_of(PLACES, 16)
    both = torch.cat([fused[0][valid[0]], fused[2].flatten(0, 1)])
    expected.update(both, region[0].item(), 0.9)
    expected.update(fused[1].flatten(0, 1), region[1].item(), 0.9)

    update_prototypes(bank, fused, valid, PLACES, momentum=0.9)

    assert region[0] == region[2] != region[1]
    torch.testing.assert_close(bank.prototypes, expected.prototypes)


def test_order_padding_and_masked_places_change_nothing(bank):
    fused, valid = features()
    valid[:, 0, :2] = False
    other, order = copy_of(bank), torch.tensor([2, 3, 0, 1])
    changed = torch.where(valid[..., None], fused, 7.0)[order]
    pad = torch.nn.functional.pad

    update_prototypes(bank, fused, valid, PLACES, places=5)
    update_prototypes(
        other,
        pad(changed, (0, 0, 0, 3, 0, 2)),
        pad(valid[order], (0, 3, 0, 2)),
        PLACES[order],
        places=5,
    )

    torch.testing.assert_close(bank.prototypes, other.prototypes)


def test_few_places_of_a_sample_stand_for_it(bank):
    fused, valid = features()
    valid[0, 0, 0] = False  # 11 of 12 are left
    expected = copy_of(bank)
    rows = fused[0].flatten(0, 1)[1:]
    expected.update(rows[[0, 2, 5, 8]], region_of(PLACES, 16)[0].item())

    update_prototypes(bank, fused[:1], valid[:1], PLACES[:1], places=4)

    torch.testing.assert_close(bank.prototypes, expected.prototypes)


def test_nothing_seen_changes_nothing(bank):
    fused, valid = features()
    before = bank.prototypes.clone()

    update_prototypes(bank, fused, torch.zeros_like(valid), PLACES)
    update_prototypes(bank, fused, valid, PLACES[3:].expand(4, -1))

    assert torch.equal(bank.prototypes, before)


def test_a_new_region_starts_near_its_features_and_apart():
    """Equal prototypes would get equal shares of all features, and stay equal for ever."""
    bank, twin = GeoContext(16, 3, 8), GeoContext(16, 3, 8)
    torch.manual_seed(0)
    centers = torch.linalg.qr(torch.randn(8, 8))[0][:3] * 5
    fused = (centers[:, None] + 0.1 * torch.randn(3, 12, 8)).view(1, 6, 6, 8)
    valid = torch.ones(1, 6, 6, dtype=torch.bool)

    for _ in range(200):
        update_prototypes(bank, fused, valid, PLACES[:1], 0.9, places=36)
    for _ in range(200):
        update_prototypes(twin, fused, valid, PLACES[:1], 0.9, places=36)

    region = region_of(PLACES, 16)[0]
    distances = torch.cdist(centers, bank.prototypes[region])
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2]
    assert distances.min(1).values.max() < 0.5
    assert torch.equal(bank.prototypes, twin.prototypes)
    assert bank.prototypes.flatten(1).any(1).sum() == 1


@pytest.mark.parametrize("offset", [0, 5, 50])
def test_a_model_as_built_learns_the_regions_it_sees(offset):
    """Wherever the features lie, a new region's prototypes start among them and stay apart."""
    encoder = SkySenseV2(V2_CONFIGS["v2_tiny"].model_copy(update=BANK), "v2_tiny")
    bank = encoder.geo_context
    torch.manual_seed(0)
    width = bank.prototypes.shape[-1]
    centers = torch.linalg.qr(torch.randn(width, width))[0][:4] * 8 + offset
    fused = (centers[:, None] + 0.1 * torch.randn(4, 9, width)).view(1, 6, 6, width)
    valid = torch.ones(1, 6, 6, dtype=torch.bool)

    for _ in range(300):
        update_prototypes(bank, fused, valid, PLACES[:1], 0.9, places=36)

    found = bank.prototypes[region_of(PLACES, 16)[0]]
    assert torch.cdist(centers, found).min(1).values.max() < 1
    assert bank.prototypes.flatten(1).any(1).sum() == 1


def test_a_region_of_one_constant_feature_still_starts_apart():
    bank = GeoContext(16, 3, 8)

    update_prototypes(bank, torch.ones(1, 1, 1, 8), torch.ones(1, 1, 1).bool(), PLACES[:1])

    started = bank.prototypes[region_of(PLACES, 16)[0]]
    assert started.isfinite().all()
    assert torch.pdist(started).min() > 1e-3


def test_features_with_gradients_and_of_few_bits_are_taken(bank):
    fused, valid = features()

    update_prototypes(bank, fused.bfloat16().requires_grad_(), valid, PLACES)

    assert not bank.prototypes.requires_grad
    assert bank.prototypes.isfinite().all()
