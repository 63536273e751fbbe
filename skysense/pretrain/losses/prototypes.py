"""GCPL, geo-context prototype learning: the bank of regions follows the teacher's features.

Legend: B samples, h w cells, D width, P = `places`, R regions, K prototypes of a region.
"""

import torch
from torch import Tensor

from skysense.engine.distributed import gather_rows
from skysense.models.geo_context import GeoContext, region_of

LEAST_SPREAD = 0.01
"""Least standard deviation of a new region's prototypes, as a share of the features' size: equal
prototypes would get equal shares and stay equal. [ours]"""


@torch.no_grad()
def update_prototypes(
    bank: GeoContext,
    fused: Tensor,
    valid: Tensor,
    location: Tensor,
    momentum: float = 0.99,
    places: int = 16,
) -> None:
    """Move the prototypes of the regions seen in a step, the same way on every rank.

    Source: SkySense section 3.3, docs/sources.md 13 [paper], without gradient. That a few places of
    a sample stand for it, and how a region starts, is [ours].

    Args:
        bank: changed in place.
        fused: `(B, h, w, D)` fused features, without context; the same B on each rank.
        valid: `(B, h, w)` bool.
        location: `(B, 2)` `(lon, lat)` in degrees; samples without, NaN, take no part.
        momentum: m of `P <- m P + (1 - m) S' F`.
        places: P, places of a sample at most.
    """
    index, kept = _even_places(valid.flatten(1), places)
    rows = fused.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, fused.shape[-1]))
    region = region_of(location, bank.regions)
    rows, kept, region = (gather_rows(x) for x in (rows.float(), kept, region))
    for number in region[region >= 0].unique().tolist():
        chosen = region == number
        features = rows[chosen][kept[chosen]]  # (N, D)
        if len(features):
            _start_region(bank, features, number)
            bank.update(features, number, momentum)


def _even_places(valid: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """Evenly spaced ones of the valid places, in their order.

    Args:
        valid: `(B, N)` bool.
        places: P.

    Returns:
        Indices `(B, P)`, and which of them are meant `(B, P)` bool: where no more than P places
        are valid, each of these once.
    """
    count = valid.sum(1, keepdim=True)  # (B, 1)
    step = torch.arange(places, device=valid.device)
    wanted = torch.where(count > places, step * count // places, step)  # (B, P)
    found = torch.searchsorted(valid.cumsum(1), wanted + 1)
    return found.clamp(max=valid.shape[1] - 1), wanted < count


def _start_region(bank: GeoContext, features: Tensor, region: int) -> None:
    """Give a region that has never been seen prototypes spread as its first features are.

    The noise depends on the region alone, so that all ranks and all resumed runs draw the same.
    """
    prototypes = bank.prototypes[region]  # (K, D)
    if bool(prototypes.any()):
        return
    mean = features.mean(0)
    least = LEAST_SPREAD * features.square().mean().sqrt()
    spread = features.std(0, correction=0).clamp(min=least)
    generator = torch.Generator().manual_seed(region)
    noise = torch.randn(prototypes.shape, generator=generator).to(features.device)
    bank.prototypes[region] = mean + spread * noise
