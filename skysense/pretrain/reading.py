"""The read-out of the trained model, fitted on its training images as they are.

Legend: N samples, D width of a part.
"""

import dataclasses
from contextlib import closing

import torch
from torch import Tensor

from skysense.data.shards import ShardLoader
from skysense.hub.catalog import Model
from skysense.models.pooling import pool_parts
from skysense.models.readout import Readout
from skysense.pretrain.recipe import Recipe

_BATCH = 32


@torch.no_grad()
def fit_readout(model: Model, recipe: Recipe) -> None:
    """Fit the read-out of every modality that it has.

    Args:
        model: with an empty read-out; in evaluation mode.
        recipe: of the run: its data, and how many samples are looked at.

    Raises:
        ValueError: a modality has fewer than two samples.
    """
    assert isinstance(model.readout, Readout)
    assert recipe.readout is not None
    for key in recipe.readout.modalities:
        parts = _collect(model, recipe, key, recipe.readout.samples)
        model.readout.fit(key, parts)


def _collect(model: Model, recipe: Recipe, key: str, count: int) -> list[Tensor]:
    """Pooled parts `(N, D)` of a modality alone, of at most `count` samples, in a fixed order."""
    assert recipe.readout is not None
    data = recipe.data
    loader = ShardLoader(
        data.shards,
        _BATCH,
        seed=recipe.seed,
        max_dates={str(name): dates for name, dates in data.max_dates.items()},
        modalities=[key],
    )
    device = next(model.parameters()).device
    found: list[list[Tensor]] = []
    with closing(loader.batches(0)) as batches:
        for _ in range(max(1, min(count, len(loader)) // _BATCH)):
            batch = next(batches).batch.to(device)
            alone = dataclasses.replace(batch, modalities={key: batch.modalities[key]})
            parts = pool_parts(model(alone), recipe.readout.pooling, key)
            found.append([part.float().cpu() for part in parts])
    return [torch.cat(of_part) for of_part in zip(*found, strict=True)]
