"""Geo-context prototypes: what a region of the globe usually looks like.

Legend: R regions, K prototypes of a region, D width, N features, B samples, h w places.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def region_of(location: Tensor, regions: int) -> Tensor:
    """Region of a place: the globe in `sqrt(R) x sqrt(R)` cells of equal area.

    Columns divide the longitude, rows the sine of the latitude [ours; the paper gives R = 4096].

    Args:
        location: `(B, 2)` `(lon, lat)` in degrees; NaN where unknown.
        regions: R, a square number.

    Returns:
        `(B,)` int64, -1 where the location is unknown.
    """
    side = math.isqrt(regions)
    lon, lat = location.unbind(-1)
    col = ((lon + 180) / 360 * side).floor() % side  # 180 is -180
    row = ((1 - torch.sin(torch.deg2rad(lat))) / 2 * side).floor().clamp(0, side - 1)
    region = (row * side + col).nan_to_num(-1)
    return torch.where(torch.isnan(location).any(-1), -1, region).long()


def sinkhorn(similarity: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Balanced soft assignment of features to prototypes.

    Args:
        similarity: `(N, K)`.
        epsilon: temperature [paper: 0.05].
        iterations: alternating normalizations; 3 as SwAV uses [ours].

    Returns:
        `(N, K)` rows that sum to 1, columns that sum to about N / K.
    """
    # Each alternation divides columns, then rows, by their sums; in logarithms, so that nothing
    # overflows at small epsilon.
    log = similarity / epsilon
    for _ in range(iterations):
        log = log - log.logsumexp(0, keepdim=True)
        log = log - log.logsumexp(1, keepdim=True)
    return log.exp()


class GeoContext(nn.Module):
    """A bank of K prototypes for each of R regions, attended to and learned without gradients.

    `softmax(Q K' / sqrt d) V` with the fused feature as query and the region's prototypes as keys
    and values, concatenated to the fused feature. Source: SkySense section 3.3, docs/sources.md 13
    [paper]. Where the location is unknown the context is zero [ours].
    """

    def __init__(self, regions: int, prototypes: int, dim: int) -> None:
        """Build an empty bank, whose context is zero.

        Raises:
            ValueError: `regions` is not a square number.
        """
        super().__init__()
        if math.isqrt(regions) ** 2 != regions:
            raise ValueError(f"`geo_regions` must be a square number, got {regions}")
        self.regions = regions
        self.prototypes: Tensor
        self.register_buffer("prototypes", torch.zeros(regions, prototypes, dim))

    def forward(self, fused: Tensor, location: Tensor) -> Tensor:
        """Concatenate the context.

        Args:
            fused: `(B, h, w, D)`.
            location: `(B, 2)` `(lon, lat)` in degrees, NaN where unknown.

        Returns:
            `(B, h, w, 2D)`.
        """
        region = region_of(location, self.regions)
        bank = self.prototypes[region.clamp(min=0)]  # (B, K, D)
        query = fused.flatten(1, 2)  # (B, h w, D)
        context = F.scaled_dot_product_attention(query, bank, bank).view_as(fused)
        known = (region >= 0)[:, None, None, None]
        return torch.cat([fused, torch.where(known, context, 0)], -1)

    @torch.no_grad()
    def update(self, features: Tensor, region: int, momentum: float = 0.99) -> None:
        """Move a region's prototypes towards the features seen there.

        `P <- m P + (1 - m) S' F` with the Sinkhorn-Knopp assignment S of the features to the
        prototypes by cosine similarity; the columns of S are normalized to sum to 1, so that each
        prototype moves to the mean of what it was given. Source: docs/sources.md 13 [paper]. The
        similarity is that of what sets features and prototypes apart from the prototypes' mean:
        where all share a large mean, every cosine would be 1, and every prototype end there [ours].

        Args:
            features: `(N, D)` fused features of one region.
            region: its index.
            momentum: m.
        """
        if not len(features):
            return
        bank = self.prototypes[region]  # (K, D)
        mean = bank.mean(0)
        similarity = F.normalize(features - mean, dim=-1) @ F.normalize(bank - mean, dim=-1).T
        assignment = sinkhorn(similarity)  # (N, K)
        given = (assignment / assignment.sum(0).clamp(min=1e-6)).T @ features  # (K, D)
        self.prototypes[region] = momentum * bank + (1 - momentum) * given
