"""Sheets of small pictures: nearest neighbors, attention of the queries, use of the experts.

Legend: H W pixels of an image, Q neighbor queries, k neighbors, n scenes, m queries of QSACL,
h w cells of an attention map, E experts.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from skysense._optional import require
from skysense.pretrain.report.charts import EXTRA, draw_heat, encode
from skysense.pretrain.report.page import Section, card, cards, paragraph, sheet, tile
from skysense.pretrain.report.pictures import (
    AttentionSheet,
    ByteArray,
    FloatArray,
    NeighborSheet,
)

QUERIES, NEIGHBORS = 12, 6
"""Shown of a `NeighborSheet` at most."""
SCENES, LOOKS = 4, 6
"""Scenes and queries shown of an `AttentionSheet` at most."""
_SIDE, _SCENE_SIDE = 112, 160
"""Longest side in pixels of a small picture."""
_UNUSED = 0.1
"""An expert with less than this part of an even share counts as unused [ours]."""


def neighbors_section(found: NeighborSheet) -> Section:
    """A query a row, its neighbors after it."""
    reading = "Each row: an image that is asked for, in a black frame, then the images nearest to "
    reading += "it, nearest first, with their cosine similarity."
    if found.classes is not None:
        reading += (
            " A green frame and ✓: the same class; a broken red one and ✗: another. "
            f"{100 * agreement(found):.0f}% of all {found.scores.size} neighbors agree."
        )
    rows = _spread(len(found.order), QUERIES)
    shown = "".join(sheet(_neighbor_tiles(found, row)) for row in rows)
    return Section("Nearest neighbors", paragraph(reading) + shown)


def agreement(found: NeighborSheet) -> float:
    """Share of neighbors that have the class of their query."""
    assert found.classes is not None
    classes = np.asarray(found.classes)[found.order]  # (Q, 1 + k)
    return float((classes[:, 1:] == classes[:, :1]).mean())


def _neighbor_tiles(found: NeighborSheet, row: int) -> list[str]:
    """The query and its neighbors."""
    query, *others = (int(place) for place in found.order[row, : 1 + NEIGHBORS])
    classes = found.classes
    label = (classes or found.names)[query]
    made = [tile(_small(found.images[query]), label, "first", f"query {found.names[query]}")]
    for other, score in zip(others, found.scores[row, : len(others)], strict=True):
        kind, text = "", f"{score:.2f} {found.names[other]}"
        if classes is not None:
            same = classes[other] == classes[query]
            kind = "same" if same else "other"
            text = f"{'✓' if same else '✗'} {score:.2f} {classes[other]}"
        made.append(tile(_small(found.images[other]), text, kind, found.names[other]))
    return made


def attention_section(found: AttentionSheet) -> Section:
    """A scene a row, the same queries in each."""
    _, count = found.attention.shape[:2]
    reading = (
        "Each row: a scene, then where single queries look in it. Color marks cells that get "
        "more than an even share, and the number is how many even shares the strongest gets; "
        "a good set of queries divides the scene, and a query finds the same in all scenes."
    )
    if count > 1:
        reading += (
            f" The mean correlation between the maps of two queries is {overlap(found):.2f}: at 1 "
            "all look at the same places."
        )
    queries = _spread(count, LOOKS)
    rows = _spread(len(found.images), SCENES)
    shown = "".join(sheet(_attention_tiles(found, row, queries)) for row in rows)
    return Section("Attention of the queries", paragraph(reading) + shown)


def overlap(found: AttentionSheet) -> float:
    """Mean correlation of the maps of two different queries over the same scene."""
    maps = np.nan_to_num(relative(found.attention), nan=1.0) - 1
    flat = maps.reshape(*maps.shape[:2], -1)  # (n, m, h w)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-12)
    alike = flat @ flat.transpose(0, 2, 1)  # (n, m, m)
    count = alike.shape[1]
    own = np.trace(alike, axis1=1, axis2=2).sum()
    return float((alike.sum() - own) / (len(alike) * count * (count - 1)))


def relative(attention: FloatArray) -> npt.NDArray[np.float64]:
    """Maps `(..., h, w)` as multiples of an even share over the cells that are there."""
    values = attention.astype(np.float64)
    here = np.isfinite(values)
    count = np.maximum(here.sum((-2, -1), keepdims=True), 1)
    mean = np.where(here, values, 0).sum((-2, -1), keepdims=True) / count
    return values / np.where(mean > 0, mean, 1)


def _attention_tiles(found: AttentionSheet, row: int, queries: list[int]) -> list[str]:
    """The scene, and the heat of some queries over it."""
    scene = shrink(found.images[row], _SCENE_SIDE)
    made = [tile(encode(scene), f"scene {row + 1}", "first")]
    for query in queries:
        heat = relative(found.attention[row, query])
        here = heat[np.isfinite(heat)]
        peak = float(here.max()) if here.size else 0.0
        made.append(tile(encode(overlay(scene, heat)), f"query {query + 1}: {peak:.1f}"))
    return made


def overlay(scene: ByteArray, heat: FloatArray) -> ByteArray:
    """A scene in gray, with the cells in color that get more than an even share.

    The colors end at the strongest cell, or at twice an even share: a flat map stays gray.

    Args:
        scene: `(3, H, W)`.
        heat: `(h, w)` multiples of an even share; NaN where there is no cell.

    Returns:
        `(3, H, W)` uint8.
    """
    heat = np.nan_to_num(heat, nan=0.0)
    strength = np.clip((heat - 1) / (max(heat.max(), 2.0) - 1), 0, 1)
    rows = np.arange(scene.shape[1]) * heat.shape[0] // scene.shape[1]
    cols = np.arange(scene.shape[2]) * heat.shape[1] // scene.shape[2]
    strength = strength[rows][:, cols]  # (H, W)
    colors = require("matplotlib", EXTRA).colormaps["plasma"](0.15 + 0.85 * strength)
    gray = 0.25 + 0.75 * np.broadcast_to(scene.mean(0) / 255, scene.shape)
    weight = 0.75 * strength**0.5
    mixed = (1 - weight) * gray + weight * colors[..., :3].transpose(2, 0, 1)
    shown: ByteArray = np.round(255 * mixed).astype(np.uint8)
    return shown


def experts_section(shares: Mapping[str, FloatArray]) -> Section:
    """A heat map a modality, all on one scale."""
    even = {name: values * values.shape[1] for name, values in shares.items()}
    top = max(2.0, *(float(np.nanmax(values, initial=0)) for values in even.values()))
    made = []
    for modality, values in even.items():
        unused = int((values < _UNUSED).sum())
        reading = (
            f"1 is an even share of a block's tokens; {unused} of {values.size} experts get less "
            f"than a tenth of that."
        )
        made.append(card(f"Experts: {modality}", draw_heat(values, top), reading))
    return Section("Use of the experts", cards(made))


def shrink(image: ByteArray, side: int) -> ByteArray:
    """Means of blocks, so that no side is longer than `side`; what is small stays as it is."""
    step = -(-max(image.shape[1:]) // side)
    rows, cols = (max(length // step, 1) for length in image.shape[1:])
    step_row, step_col = min(step, image.shape[1]), min(step, image.shape[2])
    whole = image[:, : rows * step_row, : cols * step_col]
    blocks = whole.reshape(3, rows, step_row, cols, step_col)
    means: ByteArray = np.round(blocks.mean((2, 4))).astype(np.uint8)  # (3, rows, cols)
    return means


def _small(image: ByteArray) -> bytes:
    """A PNG of a small picture."""
    return encode(shrink(image, _SIDE))


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the first `count` numbers, evenly from all of them."""
    return [int(place) for place in np.unique(np.linspace(0, count - 1, min(count, most)).round())]
