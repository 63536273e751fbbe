"""Classes of the ground at the places of a view, for dense image-text alignment.

Legend: B samples, G global views, D width, h w cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skysense.pretrain.network import FeatureMap
from skysense.pretrain.views import View, places


@dataclass(frozen=True)
class Labels:
    """Where the class of the ground is known."""

    classes: Tensor
    """`(B, h, w)` int64 over each sample's footprint; -1 where unknown and padded."""
    sizes: Tensor
    """`(B, 2)` int64 rows and columns of each sample's own map; 0 where it has none."""


def label_rows(
    views: Sequence[View], own: FeatureMap, labels: Labels | None
) -> tuple[Tensor, Tensor]:
    """Features of all places of the views, and the class of the ground there.

    Args:
        views: G views of B samples.
        own: their map, `G B` rows.
        labels: `None` where no sample of the batch has any.

    Returns:
        `(G B h w, D)` and `(G B h w,)` int64, -1 where the class is not known or the place is not
        valid.
    """
    features = own.values.permute(0, 2, 3, 1).flatten(0, 2)
    if labels is None:
        return features, torch.full((len(features),), -1, device=features.device)
    samples, found = len(labels.classes), []
    for i, view in enumerate(views):
        rows = slice(i * samples, (i + 1) * samples)
        found.append(_at(places(view, own.cells[rows], own.shape), labels))
    classes = torch.where(own.valid, torch.cat(found), -1)
    return features, classes.flatten()


def _at(ground: Tensor, labels: Labels) -> Tensor:
    """Class at `(row, col)` in shares of the footprint: `(B, h, w, 2)` to `(B, h, w)`."""
    size = labels.sizes[:, None, None, :]
    index = (ground * size).floor().long()  # (B, h, w, 2)
    inside = ((index >= 0) & (index < size)).all(-1)
    index = index.clamp(min=0).minimum((size - 1).clamp(min=0))
    row = torch.arange(len(index), device=index.device)[:, None, None]
    return torch.where(inside, labels.classes[row, index[..., 0], index[..., 1]], -1)
