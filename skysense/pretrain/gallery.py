"""Pictures of a trained model: nearest neighbors, where queries look, which experts work.

Legend: N images, D width, m queries, h w cells, E experts.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from skysense.layers.moe import MixtureOfExperts
from skysense.models.embedding import to_series
from skysense.pretrain.knn import Image, RunningKnn
from skysense.pretrain.network import FUSED, Encoded
from skysense.pretrain.preparation import Run
from skysense.pretrain.report import AttentionSheet, NeighborSheet, Pictures
from skysense.sample import Sample, collate
from skysense.sensors import SensorCard, get_sensor

QUERIES, NEIGHBORS = 12, 6
SCENES, SHOWN = 4, 6

_COLORS: Mapping[str, tuple[str, str, str]] = {
    "hr": ("R", "G", "B"),
    "s2": ("B4", "B3", "B2"),
    "s1": ("VV", "VH", "VV"),
}
"""Bands that are shown as red, green and blue."""


@torch.no_grad()
def take_pictures(run: Run) -> Pictures:
    """What the report shows of the teacher; in FSDP all ranks take part."""
    knn = run.knn
    return Pictures(
        neighbors=None if knn is None else _neighbors(run, knn),
        attention=None if knn is None else _attention(run, knn),
        experts=_experts(run),
    )


def show(image: Image, card: SensorCard) -> npt.NDArray[np.uint8]:
    """Stored values `(C, H, W)` as `(3, H, W)` uint8: as they are, or stretched to percentiles."""
    names = [band.name for band in card.bands]
    bands = [names.index(name) if name in names else 0 for name in _COLORS[card.modality]]
    chosen = np.asarray(image[bands], np.float32)
    if image.dtype == np.uint8 and card.modality == "hr":
        return chosen.astype(np.uint8)
    finite = chosen[np.isfinite(chosen)]
    low, high = np.percentile(finite, (2, 98)) if finite.size else (0.0, 1.0)
    shown = (np.nan_to_num(chosen, nan=low) - low) / max(high - low, 1e-6)
    return (shown.clip(0, 1) * 255).astype(np.uint8)


def _neighbors(run: Run, knn: RunningKnn) -> NeighborSheet:
    """A query of each of some classes, among the images that were never trained on."""
    side, card = knn.test, get_sensor(knn.config.sensor)
    vectors = torch.from_numpy(knn.vectors(run.objective.teacher.encoder, side))
    unit = F.normalize(vectors, dim=-1)
    chosen = _spread_over_classes(side.labels, min(QUERIES, len(side.labels)))
    likeness = unit[chosen] @ unit.T  # (Q, N)
    likeness[torch.arange(len(chosen)), torch.from_numpy(chosen)] = -torch.inf
    scores, index = likeness.topk(min(NEIGHBORS, len(unit) - 1), 1)
    order = np.concatenate([chosen[:, None], index.numpy()], 1)
    used, places = np.unique(order, return_inverse=True)
    classes = [knn.classes[side.labels[i]] for i in used]
    return NeighborSheet(
        images=[show(side.images[i], card) for i in used],
        names=[f"{name} {i}" for name, i in zip(classes, used, strict=True)],
        order=places.reshape(order.shape),
        scores=scores.numpy(),
        classes=classes,
    )


def _spread_over_classes(labels: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Indices of `count` images, class after class in turn."""
    rank = np.zeros(len(labels), np.int64)  # the place of an image among those of its class
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rank[own] = np.arange(len(own))
    return np.lexsort((labels, rank))[:count]


def _attention(run: Run, knn: RunningKnn) -> AttentionSheet | None:
    """Where the first queries look, in images of different classes."""
    network, side = run.objective.teacher, knn.test
    if network.queries is None:
        return None
    card = get_sensor(knn.config.sensor)
    chosen = [side.images[i] for i in _spread_over_classes(side.labels, SCENES)]
    batch = collate([Sample({card.modality: to_series(image, card)}) for image in chosen])
    fused = network(batch.to(run.ranks.device)).maps[FUSED]
    tokens, valid = fused.tokens()
    _, attention = network.queries(tokens, valid, with_attention=True)  # (n, m, h w)
    maps: Tensor = attention[:, :SHOWN].unflatten(-1, fused.shape).float()
    maps = maps.masked_fill(~fused.valid[:, None], torch.nan)
    return AttentionSheet([show(image, card) for image in chosen], maps.cpu().numpy())


def _experts(run: Run) -> dict[str, npt.NDArray[np.floating]] | None:
    """By modality: `(blocks, E)` shares of its tokens of the first batch that each expert gets."""
    network = run.objective.teacher
    if not any(isinstance(module, MixtureOfExperts) for module in network.modules()):
        return None
    batches = run.loader.batches(0)
    batch = next(batches).batch
    batches.close()
    taught: Encoded = network(batch.to(run.ranks.device))
    rows: dict[str, list[npt.NDArray[np.floating]]] = {}
    for name, found in taught.routing.items():
        rows.setdefault(name.partition(".")[0], []).append(found.fraction.float().cpu().numpy())
    return {key: np.stack(blocks) for key, blocks in rows.items()}
