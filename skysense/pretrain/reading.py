"""The read-out of the trained model, fitted on its training images as they are.

Legend: N samples, D width of a part.
"""

import dataclasses
from contextlib import closing

import torch
from torch import Tensor

from skysense.data.shards import ShardLoader
from skysense.hub.catalog import Model
from skysense.models.enlarging import enlarge
from skysense.models.pooling import pool_parts
from skysense.models.readout import Readout
from skysense.models.skysense_v2 import SkySenseV2
from skysense.pretrain.recipe import Recipe
from skysense.sensors import Modality

_BATCH = 32
LEAST_VARIANCE = 1e-12
"""Of a channel of the fused map that is scaled up."""


@torch.no_grad()
def fit_readout(model: Model, recipe: Recipe) -> None:
    """Fit the center of the fused map, and the read-out of every modality that it has.

    What contrast learns is free to have any mean, and without a norm behind the fusion it may lie
    far from zero beside a small spread, which half precision would not keep.

    Args:
        model: with an empty read-out; in evaluation mode.
        recipe: of the run: its data, and how many samples are looked at.

    Raises:
        ValueError: a modality has fewer than two samples.
    """
    assert isinstance(model.readout, Readout)
    assert recipe.readout is not None
    means, squares = [], []
    for key in recipe.readout.modalities:
        parts, cells = _collect(model, recipe, key, recipe.readout.samples)
        model.readout.fit(key, parts)
        means.append(cells.mean(0))
        squares.append(cells.square().mean(0))
    assert isinstance(model, SkySenseV2)
    assert model.fused_mean is not None
    assert model.fused_scale is not None
    mean = torch.stack(means).mean(0)  # each modality weighs the same
    variance = torch.stack(squares).mean(0) - mean.square()
    model.fused_mean.copy_(mean)
    model.fused_scale.copy_(variance.clamp(min=LEAST_VARIANCE).rsqrt())


def _collect(
    model: Model, recipe: Recipe, key: Modality, count: int
) -> tuple[list[Tensor], Tensor]:
    """Pooled parts `(N, D)` of a modality alone, of at most `count` samples in a fixed order.

    And the valid cells `(M, D)` of their fused maps, in float64.
    """
    assert recipe.readout is not None
    data, least = recipe.data, recipe.readout.least_sizes.get(key, 0)
    loader = ShardLoader(
        data.shards,
        _BATCH,
        seed=recipe.seed,
        max_dates={str(name): dates for name, dates in data.max_dates.items()},
        modalities=[key],
    )
    device = next(model.parameters()).device
    found: list[list[Tensor]] = []
    cells: list[Tensor] = []
    with closing(loader.batches(0)) as batches:
        for _ in range(max(1, min(count, len(loader)) // _BATCH)):
            batch = next(batches).batch
            part = batch.modalities[key]
            alone = dataclasses.replace(batch, modalities={key: part})
            features = model(alone.to(device))
            assert features.fused is not None
            assert features.fused_valid is not None
            cells.append(features.fused.movedim(1, -1)[features.fused_valid].double().cpu())
            enlarged = enlarge(part, least)
            if enlarged is not part:  # maps are made of images as they are, vectors of these
                alone = dataclasses.replace(batch, modalities={key: enlarged})
                features = model(alone.to(device))
            parts = pool_parts(features, recipe.readout.pooling, key)
            found.append([part.float().cpu() for part in parts])
    return [torch.cat(of_part) for of_part in zip(*found, strict=True)], torch.cat(cells)
