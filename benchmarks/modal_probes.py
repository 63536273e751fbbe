"""Do more modalities and more dates make better maps, and do masks keep clouds out?

Probes the fused map of a frozen model cell by cell, beside that of its random twin, and the last
level of the model's own pyramid (mean over dates, modalities side by side):

1. Land cover of DFC2020 and TerraMesh with Sentinel-2 alone, Sentinel-1 alone, and both.
2. Crops of three places with 1, 4, 12 and all dates, clouds masked: Sentinel-2 of the place that
   has all ten bands, Sentinel-1 of another one, and the months of Sentinel-1 of a third.
3. A cloudy date more: how far the fused map moves when its clouds are masked, and when not.

A label is what most pixels of a cell have. Every tile is cut into 4 x 4 blocks; blocks are held out
whole (four folds) and resampled whole (95% intervals). The tiles of land cover are computed block
by block, so that nothing of a tested block is in the features of a training block. All sets of
modalities or dates are probed on the same cells and folds, so that their differences are paired.

Limits, for the fused map: both modalities are at least as accurate as either alone; no step to more
dates is surely worse (its interval lies below zero); masked clouds move the map less than clouds.
Run: python benchmarks/modal_probes.py --data FOLDER [--model NAME_OR_FOLDER]

Legend: T acquisitions, H W pixels, h w cells, B samples, N labelled cells of all samples, D width.
"""

import argparse
import itertools
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
import torch.nn.functional as F
from _common import finish
from _nano_data import S1_BANDS, SNOW, WHOLE, dfc2020, windows_of

from skysense.data.scene import CLOUDY
from skysense.data.shards import Draft, StoredSeries, pairs, scene
from skysense.hub import load, pack
from skysense.hub.catalog import Model
from skysense.models.encoder import UntrainedModelWarning
from skysense.models.features import Features
from skysense.sample import Sample, Series, collate
from skysense.tasks.probe import random_twin
from skysense.tasks.probe.pixels import (
    UNLABELLED,
    BlockScores,
    Labels,
    Measure,
    block_folds,
    blocks_of,
    cell_labels,
    predict_folds,
    score_blocks,
)

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FOLDS, PER_SIDE = 4, 4
KINDS = ("fused", "last level")
MEASURES: tuple[Measure, ...] = ("accuracy", "macro_f1")
MODALITY_SETS = {"s2": ("s2",), "s1": ("s1",), "both": ("s2", "s1")}
DATE_SETS = {"1": 1, "4": 4, "12": 12, "all": None}
MESH_BLOCK = 56
"""Pixels of a side of a block of TerraMesh: a quarter of a tile."""
CROPS = {  # name: (file, modality, year that is probed)
    "crops, s2": ("00002806639B424A.npz", "s2", 2018),
    "crops, s1": ("000028085BF08E7E.npz", "s1", 2019),
    "cropland, s1 by month": ("belgium_monthly_2020-08_2022-03.npz", "s1", 2021),
}
CLOUDED = (0.5, 0.95)
"""Share of a cloudy date's pixels that are masked: mostly cloud, and something left to see."""


@dataclass(frozen=True)
class Window:
    """A block of ground of a tile."""

    series: Mapping[str, Series]
    labels: Labels
    """`(H, W)`."""


def dfc_windows(data: Path) -> Iterator[Window]:
    """Blocks of 64 pixels with the high-resolution labels of DFC2020."""
    for draft in dfc2020(data):
        tile = draft.name.split("/")[1]
        labels = data / "dfc2020_samples" / f"{tile.replace('_s2_', '_dfc_')}.tif"
        yield from labelled(labels, draft)


def mesh_windows(data: Path) -> Iterator[Window]:
    """Blocks of 56 pixels with the annual land cover of TerraMesh."""
    mesh, cards = data / "terramesh_multimodal", {"s2": "s2_l2a", "s1": "s1"}
    for tile, inputs in pairs({"s2": mesh / "S2L2A", "s1": mesh / "S1RTC"}).items():
        draft = windows_of(scene(tile, inputs, cards, WHOLE), MESH_BLOCK, MESH_BLOCK)
        yield from labelled(mesh / "LULC" / f"{tile}.tif", draft)


def labelled(path: Path, draft: Draft) -> Iterator[Window]:
    """The windows of a draft, which are named after their place, with their part of a raster."""
    with rasterio.open(path) as file:
        labels = file.read(1).astype(np.int64)
    for sample in draft.read():
        found = re.fullmatch(r".*\[(\d+),(\d+)\]", sample.source)
        assert found is not None
        row, col = map(int, found.groups())
        series = {key: stored.to_series() for key, stored in sample.series.items()}
        height, width = next(iter(series.values())).mask.shape[1:]
        part = labels[row : row + height, col : col + width]
        yield Window(series, np.where(part > 0, part, UNLABELLED))


@dataclass(frozen=True)
class Maps:
    """What a model says of B samples of the same shape."""

    vectors: Mapping[str, Floats]
    """Each of `KINDS`: `(B, h, w, D)`."""
    valid: Bools
    """`(B, h, w)`."""


@torch.inference_mode()
def maps_of(model: Model, samples: Sequence[Sample], batch: int = 16) -> Maps:
    """Compute the maps of samples of the same shape and modalities."""
    parts = [
        model(collate(samples[start : start + batch])) for start in range(0, len(samples), batch)
    ]
    found = {
        "fused": [features.fused.permute(0, 2, 3, 1) for features in parts],
        "last level": [last_level(features) for features in parts],
    }
    valid = torch.cat([features.fused_valid for features in parts])
    return Maps({k: torch.cat(own).float().numpy() for k, own in found.items()}, valid.numpy())


def last_level(features: Features) -> torch.Tensor:
    """The last levels of all modalities side by side on the fused grid, `(B, h, w, D)`."""
    assert features.fused is not None
    shape = features.fused.shape[2:]
    means = [levels[-1].over_dates()[0] for levels in features.pyramid.values()]
    return torch.cat([F.interpolate(mean, shape) for mean in means], 1).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Cells:
    """The cells that every set is probed on."""

    chosen: Bools
    """`(B, h, w)`."""
    labels: Labels
    """`(N,)` from 0."""
    blocks: Labels
    """`(N,)`."""
    folds: Labels
    """`(N,)`."""
    names: tuple[int, ...]
    """The class code of each label."""


def choose_cells(labels: Labels, blocks: Labels, valid: Bools) -> Cells:
    """Cells with a label that all sets see, of classes that can be both learnt and tested.

    Args:
        labels: `(B, h, w)` class codes, below 0 where not known.
        blocks: `(B, h, w)`; a class must be in as many of them as there are folds.
        valid: `(B, h, w)`.
    """
    seen = valid & (labels >= 0)
    codes = np.unique(labels[seen])
    names = [code for code in codes if len(np.unique(blocks[seen & (labels == code)])) >= FOLDS]
    chosen = seen & np.isin(labels, names)
    label, block = np.searchsorted(names, labels[chosen]), blocks[chosen]
    return Cells(chosen, label, block, block_folds(label, block, FOLDS), tuple(map(int, names)))


Scored = dict[str, dict[str, BlockScores]]
"""Kind of vector to set to scores."""


def probe(sets: Mapping[str, Maps], cells: Cells, kinds: Sequence[str]) -> Scored:
    """Probe every set on the same cells."""
    classes, found = len(cells.names), Scored()
    for kind in kinds:
        for name, maps in sets.items():
            vectors = maps.vectors[kind][cells.chosen]
            predictions = predict_folds(vectors, cells.labels, cells.folds, classes)
            scores = score_blocks(cells.labels, predictions, cells.blocks, classes)
            found.setdefault(kind, {})[name] = scores
    return found


def report(
    title: str, cells: Cells, scored: Scored, compared: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Print the scores and the paired differences of sets; the same as plain values."""
    share = np.bincount(cells.labels).max() / len(cells.labels)
    blocks = len(np.unique(cells.blocks))
    print(
        f"\n### {title}\n\n{len(cells.labels)} cells in {blocks} blocks, classes {cells.names}, ",
        end="",
    )
    print(
        f"{share:.3f} of the largest\n\n| vector | set | accuracy | macro F1 |\n|---|---|---|---|"
    )
    for kind, sets in scored.items():
        for name, own in sets.items():
            told = [shown(own.value(m), own.interval(m)) for m in MEASURES]
            print(f"| {kind} | {name} | {' | '.join(told)} |")
        for ours, other in compared:
            told = [shown(*sets[ours].minus(sets[other], m), sign="+") for m in MEASURES]
            print(f"| {kind} | {ours} minus {other} | {' | '.join(told)} |", flush=True)
    return {
        "cells": len(cells.labels),
        "blocks": blocks,
        "classes": list(cells.names),
        "largest_class": round(float(share), 4),
        "scores": {
            kind: {name: facts_of(own) for name, own in sets.items()}
            for kind, sets in scored.items()
        },
        "differences": {
            kind: {f"{a} minus {b}": gains(sets[a], sets[b]) for a, b in compared}
            for kind, sets in scored.items()
        },
    }


def shown(value: float, interval: tuple[float, float], sign: str = "") -> str:
    """A number with its interval."""
    low, high = interval
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def facts_of(own: BlockScores) -> dict[str, Any]:
    """Both measures as plain values."""
    return {m: rounded(own.value(m), own.interval(m)) for m in MEASURES}


def gains(ours: BlockScores, other: BlockScores) -> dict[str, Any]:
    """Both differences as plain values."""
    return {m: rounded(*ours.minus(other, m)) for m in MEASURES}


def rounded(value: float, interval: tuple[float, float]) -> dict[str, Any]:
    """A number with its interval as plain values."""
    return {"value": round(value, 4), "interval": [round(x, 4) for x in interval]}


def land_cover(
    model: Model, name: str, windows: Sequence[Window], kinds: Sequence[str] = KINDS
) -> dict[str, Any]:
    """Probe with each set of modalities."""
    stride = model.fused_stride("s2")
    sets = {
        title: maps_of(model, [Sample({key: w.series[key] for key in keys}) for w in windows])
        for title, keys in MODALITY_SETS.items()
    }
    labels = np.stack([cell_labels(window.labels, stride) for window in windows])
    blocks = np.broadcast_to(np.arange(len(windows))[:, None, None], labels.shape)
    valid = np.logical_and.reduce([maps.valid for maps in sets.values()])
    compared = (("both", "s2"), ("both", "s1"))
    cells = choose_cells(labels, blocks, valid)
    scored = probe(sets, cells, kinds)
    facts = report(f"{model.name}, {name}", cells, scored, compared)
    fused = scored["fused"]
    best = all(fused["both"].value() >= fused[alone].value() for alone in ("s2", "s1"))
    return {**facts, "both_best": best}


@dataclass(frozen=True)
class Field:
    """A place with crops and a series of one modality."""

    series: StoredSeries
    """Its mask leaves clouds out."""
    labels: Labels
    """`(H, W)`."""
    year: int


def read_field(path: Path, key: str, year: int) -> Field:
    """One place of the crop series; what has pixels of 20 m is repeated to 10 m."""
    have = np.load(path)
    if "s1_10m" in have:
        return _monthly_field(have, year)
    codes = have["label_CT"].astype(np.int64)
    labels = np.where(codes > 0, codes, UNLABELLED)
    if key == "s1":
        stored = _repeated(have["s1_20m_dBx100"])
        decibel = np.where(stored == np.iinfo(np.int16).min, np.nan, stored / 100)
        dates = have["s1_dates"].astype("datetime64[D]")
        return Field(StoredSeries(decibel.astype(np.float32), dates, "s1", S1_BANDS), labels, year)
    pixels = np.concatenate([have["s2_10m"], _repeated(have["s2_20m"])], 1)  # (T, 10, H, W)
    bands = tuple(map(str, (*have["s2_10m_bands"], *have["s2_20m_bands"])))
    clear = ~np.isin(_repeated(have["scl_20m"]), (*CLOUDY, SNOW)) & (pixels > 0).all(1)
    dates = have["s2_dates"].astype("datetime64[D]")
    return Field(StoredSeries(pixels, dates, "s2_l2a", bands, clear), labels, year)


def _monthly_field(have: Mapping[str, npt.NDArray[Any]], year: int) -> Field:
    """Months of Sentinel-1, and where temporary crops grow (100) or do not (0)."""
    stored = have["s1_10m"].view(np.uint16).astype(np.float32)  # kept as int16
    known = (stored > 0) & (stored < np.iinfo(np.uint16).max)
    decibel = np.where(known, 20 * np.log10(np.maximum(stored, 1)) - 83, np.nan)
    dates = have["months"].astype("datetime64[D]")
    series = StoredSeries(decibel.astype(np.float32), dates, "s1", S1_BANDS)
    return Field(series, have["label_temporarycrops_2021"].astype(np.int64), year)


def _repeated(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`(..., H, W)` to `(..., 2 H, 2 W)`."""
    return pixels.repeat(2, -1).repeat(2, -2)


def even_dates(field: Field, count: int | None) -> list[int]:
    """Of each of `count` equal parts of the year the clearest date, nearest to the part's middle.

    All dates of the series, of other years too, where there is no count; none of either that
    shows nothing.
    """
    clear = field.series.measured().mean((1, 2))
    dates = field.series.dates
    if count is None:
        return np.flatnonzero(clear > 0).tolist()
    own = np.flatnonzero(dates.astype("datetime64[Y]") == np.datetime64(str(field.year)))
    since = (dates - dates[own[0]]).astype(np.int64)
    length = (int(since[own[-1]]) + 1) / count
    chosen = []
    for part in range(count):
        members = own[since[own] // length == part]
        middle = (part + 0.5) * length
        ranked = sorted(members, key=lambda i: (-round(clear[i], 1), abs(since[i] - middle)))
        chosen += [int(i) for i in ranked[:1] if clear[i] > 0]
    return chosen


def sample_at(series: StoredSeries, dates: Sequence[int]) -> Sample:
    """Some dates of a place."""
    own = series.at(sorted(dates)).to_series()
    return Sample({own.modality: own})


def crops(model: Model, name: str, field: Field, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """Probe with more and more dates."""
    dates = {title: even_dates(field, count) for title, count in DATE_SETS.items()}
    sets = {title: maps_of(model, [sample_at(field.series, d)]) for title, d in dates.items()}
    labels = cell_labels(field.labels, model.fused_stride("s2"))[None]
    blocks = blocks_of(labels.shape[1:], PER_SIDE)[None]
    valid = np.logical_and.reduce([maps.valid for maps in sets.values()])
    cells = choose_cells(labels, blocks, valid)
    scored = probe(sets, cells, kinds)
    steps = [(more, fewer) for fewer, more in itertools.pairwise(DATE_SETS)] + [("all", "1")]
    facts = report(f"{model.name}, {name}", cells, scored, steps)
    fused = scored["fused"]
    ends = [fused[more].minus(fused[fewer])[1][1] for more, fewer in steps]
    return {
        **facts,
        "dates": {title: len(own) for title, own in dates.items()},
        "more_dates_do_not_hurt": min(ends) >= 0,
    }


def distance(maps: Doubles, other: Doubles) -> Doubles:
    """`1 - cosine` of maps `(..., D)`, which may be too small for float32."""
    lengths = np.linalg.norm(maps, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray(1 - (maps * other).sum(-1) / np.maximum(lengths, 1e-12))


def clouds(model: Model, field: Field) -> dict[str, Any]:
    """How far a cloudy date more moves the fused map of four clear ones, masked and not."""
    masked, clear = field.series, field.series.measured().mean((1, 2))
    unmasked = replace(masked, mask=np.all(np.greater(masked.pixels, 0), 1))
    base = even_dates(field, 4)
    least, most = CLOUDED
    cloudy = [int(i) for i in np.flatnonzero((1 - clear >= least) & (1 - clear <= most))]
    without = maps_of(model, [sample_at(masked, base)]).vectors["fused"].astype(np.float64)
    moved = {}
    for title, series in (("masked", masked), ("unmasked", unmasked)):
        added = maps_of(model, [sample_at(series, [*base, i]) for i in cloudy])
        moved[title] = distance(added.vectors["fused"].astype(np.float64), without)  # (dates, h, w)
    cells = without.reshape(-1, without.shape[-1])
    apart = float(distance(cells, cells[np.random.default_rng(0).permutation(len(cells))]).mean())
    under = np.stack([cell_share(masked.measured()[i], moved["masked"].shape[1:]) for i in cloudy])
    by_date = {title: own.mean((1, 2)) for title, own in moved.items()}
    means = {title: float(own.mean()) for title, own in by_date.items()}
    hidden = {title: float(own[under == 0].mean()) for title, own in moved.items()}
    smaller = int((by_date["masked"] < by_date["unmasked"]).sum())
    print(f"\n{model.name}, a cloudy date more ({len(cloudy)} dates, {least} to {most} cloud): the")
    print("cosine distance of the fused map to the one without it\n")
    print("| cells | masked | unmasked | masked / unmasked |\n|---|---|---|---|")
    for title, own in (("all", means), ("under the clouds", hidden)):
        told = own["masked"], own["unmasked"], own["masked"] / max(own["unmasked"], 1e-12)
        print(f"| {title} | {told[0]:.3g} | {told[1]:.3g} | {told[2]:.3f} |")
    print(
        f"\nmasked moves less in {smaller} of {len(cloudy)} dates; two places differ by {apart:.3g}"
    )
    return {
        "dates": [str(masked.dates[i]) for i in cloudy],
        "moved": {title: float(f"{x:.4g}") for title, x in means.items()},
        "moved_under_the_clouds": {title: float(f"{x:.4g}") for title, x in hidden.items()},
        "two_places_differ": float(f"{apart:.4g}"),
        "dates_where_masked_moves_less": smaller,
        "masked_moves_less": means["masked"] < means["unmasked"],
    }


def cell_share(clear: Bools, shape: tuple[int, ...]) -> Doubles:
    """Share of clear pixels in each cell, `(H, W)` to `(h, w)`."""
    height, width = (length // cells for length, cells in zip(clear.shape, shape, strict=True))
    cut = clear[: height * shape[0], : width * shape[1]]
    return np.asarray(cut.reshape(shape[0], height, shape[1], width).mean((1, 3)))


def study(model: Model, data: Path, kinds: Sequence[str]) -> dict[str, Any]:
    """All that is asked of one model, with some of `KINDS`."""
    fields = {
        name: read_field(data / "s1s2_crop_timeseries" / file, key, year)
        for name, (file, key, year) in CROPS.items()
    }
    return {
        "land_cover": {
            "dfc2020": land_cover(model, "dfc2020", list(dfc_windows(data)), kinds),
            "terramesh": land_cover(model, "terramesh", list(mesh_windows(data)), kinds),
        },
        "crops": {name: crops(model, name, field, kinds) for name, field in fields.items()},
        "clouds": clouds(model, fields["crops, s2"]),
    }


def verdicts(found: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each limit is kept."""
    both = {f"{k}: both best": own["both_best"] for k, own in found["land_cover"].items()}
    dates = {
        f"{name}: more dates do not hurt": own["more_dates_do_not_hurt"]
        for name, own in found["crops"].items()
    }
    return {**both, **dates, "masked moves less": found["clouds"]["masked_moves_less"]}


def main() -> None:
    """Study the model and its twin, judge the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("SKYSENSE_DATA"))
    parser.add_argument("--model", default="v2_nano", help="a name or a folder")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the folder of imagery with --data or SKYSENSE_DATA")
    warnings.simplefilter("ignore", UntrainedModelWarning)
    start = time.monotonic()
    model = load(options.model)
    twin = random_twin(model)
    models = {"model": (pack(model), KINDS), "random_twin": (pack(twin), KINDS[:1])}
    found = {name: study(own, Path(options.data), kinds) for name, (own, kinds) in models.items()}
    judged = {name: verdicts(own) for name, own in found.items()}
    print("\n| limit | model | random twin |\n|---|---|---|")
    for limit, kept in judged["model"].items():
        told = ["pass" if own else "FAIL" for own in (kept, judged["random_twin"][limit])]
        print(f"| {limit} | {' | '.join(told)} |")
    facts = {
        "model": options.model,
        "trained": model.trained,
        "limits": judged,
        "seconds": round(time.monotonic() - start),
        "found": found,
    }
    passed = all(judged["model"].values())
    finish("modal_probes", facts, passed, save=options.model == "v2_nano")


if __name__ == "__main__":
    main()
