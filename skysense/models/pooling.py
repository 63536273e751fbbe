"""From the features of an image to one vector: the choices, and what they keep.

Legend: B samples, T acquisitions, h w cells, D width.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from skysense.models.features import Features, Level

Pooling = Literal["fused", "last", "stages", "spread", "all"]
"""How features become one vector. `fused`: mean of the fused map [paper]. `last`: mean of the
modality's last level. `stages`: means of its four levels. `spread`: their means and standard
deviations. `all`: these, and those of the fused map. The latter four are [ours]."""

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
"""All of them."""

TINY = 1e-8
"""Added to a variance, whose root has no slope at 0."""


def pool_features(features: Features, pooling: Pooling, modality: str) -> Tensor:
    """One vector a sample.

    Args:
        features: of a batch.
        pooling: which vector.
        modality: whose levels are pooled, where levels are.

    Returns:
        `(B, D)`; zero where a sample lacks the modality.
    """
    return torch.cat(pool_parts(features, pooling, modality), 1)


def pool_parts(features: Features, pooling: Pooling, modality: str) -> list[Tensor]:
    """The parts `(B, D)` of that vector, level by level, the finest first."""
    if pooling == "fused":
        assert features.pooled is not None
        return [features.pooled]
    levels = features.pyramid[modality]
    if pooling == "last":
        return [_moments(levels[-1])[0]]
    if pooling == "stages":
        return [_moments(level)[0] for level in levels]
    if pooling == "all":
        assert features.fused is not None
        assert features.fused_valid is not None
        levels = (*levels, Level(features.fused.unsqueeze(1), features.fused_valid.unsqueeze(1)))
    return [torch.cat(_moments(level), 1) for level in levels]


def part_widths(pooling: Pooling, levels: Sequence[int], fused: int) -> list[int]:
    """Widths of the parts.

    Args:
        pooling: which vector.
        levels: widths of a modality's four levels.
        fused: width of the fused features.
    """
    if pooling == "fused":
        return [fused]
    if pooling == "last":
        return [levels[-1]]
    if pooling == "stages":
        return list(levels)
    return [2 * width for width in (*levels, fused)[: len(levels) + (pooling == "all")]]


def _moments(level: Level) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the valid places and dates, `(B, D)` each."""
    values, valid = level.values.float(), level.valid.unsqueeze(2).float()
    count = valid.sum((1, 3, 4)).clamp(min=1)  # (B, 1)
    mean = (values * valid).sum((1, 3, 4)) / count
    apart = (values - mean[:, None, :, None, None]) * valid
    return mean, (apart.square().sum((1, 3, 4)) / count + TINY).sqrt()
