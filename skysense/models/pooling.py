"""From the features of an image to one vector: the choices, and what they keep.

Legend: B samples, T acquisitions, h w cells, D width.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from skysense.models.features import Features, Level

Pooling = Literal["fused", "last", "stages", "spread", "texture", "all"]
"""How features become one vector. `fused`: mean of the fused map [paper]. `last`: mean of the
modality's last level. `stages`: means of its four levels. `spread`: their means and standard
deviations. `texture`: these, and how much places one and two apart differ, as a variogram says it.
`all`: those of `spread`, and those of the fused map. All but the first are [ours]."""

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
"""All of them."""

LAGS = (1, 2)
"""Distances in places at which `texture` compares them."""

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
    if pooling == "texture":
        return [torch.cat([*_moments(level), *_variogram(level)], 1) for level in levels]
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
    if pooling == "texture":
        return [(2 + len(LAGS)) * width for width in levels]
    return [2 * width for width in (*levels, fused)[: len(levels) + (pooling == "all")]]


def _moments(level: Level) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the valid places and dates, `(B, D)` each."""
    values, valid = level.values.float(), level.valid.unsqueeze(2).float()
    count = valid.sum((1, 3, 4)).clamp(min=1)  # (B, 1)
    mean = (values * valid).sum((1, 3, 4)) / count
    apart = (values - mean[:, None, :, None, None]) * valid
    return mean, (apart.square().sum((1, 3, 4)) / count + TINY).sqrt()


def _variogram(level: Level) -> list[Tensor]:
    """Root of the mean squared difference of valid places of a row or column, `(B, D)` a lag."""
    values, valid = level.values.float(), level.valid.unsqueeze(2).float()
    found = []
    for lag in LAGS:
        total, count = values.new_zeros(()), values.new_zeros(())
        for axis in (3, 4):
            pairs = max(0, values.shape[axis] - lag)
            near, far = (
                [x.narrow(axis, start, pairs) for x in (values, valid)]
                for start in (0, min(lag, values.shape[axis]))
            )
            both = near[1] * far[1]  # (B, T, 1, h, w), fewer rows or columns
            total = total + ((far[0] - near[0]) * both).square().sum((1, 3, 4))
            count = count + both.sum((1, 3, 4))
        found.append((total / count.clamp(min=1) + TINY).sqrt())
    return found
