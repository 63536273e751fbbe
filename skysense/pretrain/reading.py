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
    assert isinstance(model, SkySenseV2)
    assert model.fused_mean is not None
    assert model.fused_scale is not None
    keys = recipe.readout.modalities
    found = {key: _collect(model, recipe, key) for key in keys}
    mean = torch.stack([moments[0] for _, moments in found.values()]).mean(0)
    square = torch.stack([moments[1] for _, moments in found.values()]).mean(0)
    model.fused_mean.copy_(mean)  # each modality weighs the same
    model.fused_scale.copy_((square - mean.square()).clamp(min=LEAST_VARIANCE).rsqrt())
    if recipe.readout.pooling in ("fused", "all"):  # parts of the map as it is from now on
        found = {key: _collect(model, recipe, key) for key in keys}
    for key, (parts, _) in found.items():
        model.readout.fit(key, parts)


def _collect(
    model: Model, recipe: Recipe, key: Modality
) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """Pooled parts `(N, D)` of a modality alone, of the recipe's samples in a fixed order.

    And the mean `(D,)` of the valid cells of their fused maps, and of their squares, in float64.
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
    sums, squares, cells = torch.zeros(()), torch.zeros(()), 0
    with closing(loader.batches(0)) as batches:
        for _ in range(max(1, min(recipe.readout.samples_of(key), len(loader)) // _BATCH)):
            batch = next(batches).batch
            part = batch.modalities[key]
            alone = dataclasses.replace(batch, modalities={key: part})
            features = model(alone.to(device))
            assert features.fused is not None
            assert features.fused_valid is not None
            here = features.fused.movedim(1, -1)[features.fused_valid].double().cpu()  # (M, D)
            sums, squares = sums + here.sum(0), squares + here.square().sum(0)
            cells += len(here)
            enlarged = enlarge(part, least)
            if enlarged is not part:  # maps are made of images as they are, vectors of these
                alone = dataclasses.replace(batch, modalities={key: enlarged})
                features = model(alone.to(device))
            parts = pool_parts(features, recipe.readout.pooling, key)
            found.append([part.float().cpu() for part in parts])
    moments = sums / max(cells, 1), squares / max(cells, 1)
    return [torch.cat(of_part) for of_part in zip(*found, strict=True)], moments
