"""A feature map and a handful of labels to a class map; or a number of clusters, without labels.

Legend: n cells of a window, D width, K classes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from skysense._optional import require
from skysense.data.writing import writing
from skysense.tasks.mapping.calibration import probabilities
from skysense.tasks.mapping.clustering import Clusters, fit_clusters, sample_cells
from skysense.tasks.mapping.facts import (
    Classes,
    Tally,
    accuracy_note,
    class_facts,
    label_facts,
    make_legend,
    map_tags,
    number_classes,
    provenance,
)
from skysense.tasks.mapping.features import is_feature_map
from skysense.tasks.mapping.heads import HeadName, Scale
from skysense.tasks.mapping.labels import LabelSet, read_labels
from skysense.tasks.mapping.opening import is_store, open_features
from skysense.tasks.mapping.output import NODATA, ByteMap, Outputs, attribute_table
from skysense.tasks.mapping.palette import class_colors
from skysense.tasks.mapping.picture import Legend, draw_map
from skysense.tasks.mapping.sources import FeatureSource, cell_sides
from skysense.tasks.mapping.training import Trained, find_examples, train

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]
Progress = Callable[[int], None]

_AT_ONCE = 1 << 14
"""Cells that are classified at a time."""


def _silent(windows: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class MapResult:
    """What was made."""

    path: Path
    """The class map."""
    confidence: Path | None
    """The confidence map; clusters have none."""
    metrics_path: Path
    """The metrics as JSON."""
    metrics: dict[str, Any]
    """Their content: classes, scores, settings, provenance."""


@dataclass(frozen=True)
class MapFiles:
    """Where everything goes."""

    classes: Path
    """GeoTIFF."""
    confidence: Path | None
    """GeoTIFF; clusters have none."""
    metrics: Path
    """JSON."""
    picture: Path | None
    """PNG, if one is wanted."""

    @property
    def maps(self) -> list[Path]:
        """The GeoTIFFs."""
        return [path for path in (self.classes, self.confidence) if path]

    @property
    def table(self) -> Path:
        """The raster attribute table, where GDAL looks for it."""
        return self.classes.with_name(f"{self.classes.name}.aux.xml")


def map_classes(
    features: str | Path,
    labels: str | Path | LabelSet,
    output: str | Path,
    *,
    class_field: str | None = None,
    crs: str | None = None,
    layer: str | None = None,
    head: HeadName = "logistic",
    folds: int = 5,
    block: float | None = None,
    picture: str | Path | None = None,
    metrics: str | Path | None = None,
    seed: int = 0,
    progress: Progress = _silent,
) -> MapResult:
    """Map classes from labelled points or polygons.

    Args:
        features: a feature map or store (`.zarr`, `.parquet`, `.lance`) of `skysense embed`.
        labels: a GeoJSON, GeoPackage or CSV of labels, or what `read_labels` made of it.
        output: GeoTIFF of classes to make; `..._confidence.tif` and `....json` appear beside it.
        class_field: the field of the class, guessed if there is one obvious candidate.
        crs: coordinate system of labels that do not say it.
        layer: of a file of several layers.
        head: `logistic`, `knn` or `mlp`.
        folds: of the cross-validation.
        block: side in metres of the blocks of ground that folds are made of; by default chosen.
        picture: PNG to make.
        metrics: JSON to make instead of that beside the map.
        seed: of folds and head: the same input and seed give the same bytes.
        progress: called with 1 after each of the map's windows, see `FeatureSource.windows`.

    Raises:
        ValueError: unusable labels or features, or an output that cannot be written; nothing is
            left under the outputs' names.
    """
    if head not in get_args(HeadName):
        raise ValueError(f"unknown head `{head}` (known: {', '.join(get_args(HeadName))})")
    if folds < 2:
        raise ValueError(f"{folds} folds: at least 2 are needed")
    if block is not None and not block > 0:
        raise ValueError(f"blocks of {block} m: expected a number above 0")
    given = labels.path if isinstance(labels, LabelSet) else Path(labels)
    inputs = [Path(features), given]
    files = check_outputs(output, picture, metrics, inputs, with_confidence=True)
    if not isinstance(labels, LabelSet):
        labels = read_labels(labels, class_field, crs, layer)
    with open_features(features) as source, Outputs() as outputs:
        examples = find_examples(source, labels, seed)
        trained = train(source, examples, head, folds, block, seed)
        classes = number_classes(examples.cells.names)
        maps = {path: outputs.temporary(path) for path in files.maps}
        with writing(files.classes):
            tally = _predict(source, trained, classes, list(maps.values()), progress)
        facts = {
            "task": "classes",
            "classes": class_facts(classes, tally, examples),
            **trained.facts,
            "labels": label_facts(labels, examples),
            **provenance(source, seed, {"folds": folds, "block": block}),
        }
        legend = make_legend(classes, tally.counts, "Classes", accuracy_note(facts))
        places = np.stack([examples.cells.rows, examples.cells.cols], 1).astype(np.float64)
        _finish(outputs, files, maps, source, legend, classes, tally.counts, facts, places)
    return MapResult(files.classes, files.confidence, files.metrics, facts)


def map_clusters(
    features: str | Path,
    count: int,
    output: str | Path,
    *,
    picture: str | Path | None = None,
    metrics: str | Path | None = None,
    seed: int = 0,
    progress: Progress = _silent,
) -> MapResult:
    """Map clusters of like cells, without labels.

    Args:
        features: a feature map or store (`.zarr`, `.parquet`, `.lance`) of `skysense embed`.
        count: clusters, 2...254.
        output: GeoTIFF of clusters to make; `....json` appears beside it.
        picture: PNG to make.
        metrics: JSON to make instead of that beside the map.
        seed: of sample and starts: the same input and seed give the same bytes.
        progress: called with 1 after each of the map's windows, all of which are read twice.

    Raises:
        ValueError: unusable features, too few cells, or an output that cannot be written; nothing
            is left under the outputs' names.
    """
    if not 2 <= count <= 254:
        raise ValueError(f"{count} clusters: expected a number from 2 to 254")
    files = check_outputs(output, picture, metrics, [Path(features)], with_confidence=False)
    with open_features(features) as source, Outputs() as outputs:
        sample = sample_cells(source, seed, progress)
        if len(sample) < count:
            raise ValueError(f"{features}: {len(sample)} valid cells make no {count} clusters")
        scale = Scale.of(sample)
        clusters = fit_clusters(scale(sample), count, seed)
        names = [f"cluster {i + 1}" for i in range(count)]
        classes = Classes(names, range(1, count + 1), class_colors(names))
        maps = {path: outputs.temporary(path) for path in files.maps}
        with writing(files.classes):
            tally = _assign(source, scale, clusters, classes, maps[files.classes], progress)
        facts = {
            "task": "clusters",
            "classes": class_facts(classes, tally, None),
            "sampled_cells": len(sample),
            "mean_squared_distance": clusters.inertia / source.channels,
            **provenance(source, seed, {"clusters": count}),
        }
        legend = make_legend(classes, tally.counts, "Clusters", f"{count} clusters, no labels")
        _finish(outputs, files, maps, source, legend, classes, tally.counts, facts, None)
    return MapResult(files.classes, None, files.metrics, facts)


def check_outputs(
    output: str | Path,
    picture: str | Path | None,
    metrics: str | Path | None,
    inputs: Sequence[Path],
    *,
    with_confidence: bool,
) -> MapFiles:
    """Refuse before the work begins what cannot be written after it.

    Args:
        output: GeoTIFF of classes.
        picture: PNG, if one is wanted.
        metrics: JSON, if not beside the map.
        inputs: files that are not to be overwritten.
        with_confidence: a map of confidence is made too.

    Raises:
        ValueError: a wrong ending, a folder, an input, features or a foreign JSON that would be
            replaced, or no matplotlib for the picture.
    """
    output = Path(output)
    files = MapFiles(
        output,
        output.with_name(f"{output.stem}_confidence.tif") if with_confidence else None,
        Path(metrics) if metrics else output.with_suffix(".json"),
        Path(picture) if picture else None,
    )
    kinds = (
        (files.classes, (".tif", ".tiff")),
        (files.confidence, (".tif", ".tiff")),
        (files.metrics, (".json",)),
        (files.picture, (".png",)),
    )
    for path, endings in kinds:
        if path is None:
            continue
        if path.suffix.lower() not in endings:
            raise ValueError(f"{path}: the output's name must end in {' or '.join(endings)}")
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give the name of a file")
        place, taken = path.resolve(), {given.resolve() for given in inputs}
        if place in taken or any(is_store(own) and own in place.parents for own in taken):
            raise ValueError(f"{path} is an input; choose another output")
    for path in files.maps:
        if path.exists() and is_feature_map(path):
            raise ValueError(f"{path} holds features; choose another output, or remove it")
    if files.metrics.exists() and not _are_metrics(files.metrics):
        raise ValueError(
            f"{files.metrics} is there and holds no scores of a map; choose another output, or "
            f"name another file with --metrics"
        )
    if files.picture is not None:
        require("matplotlib.figure", "plots")
    return files


def _are_metrics(path: Path) -> bool:
    """Whether a file is the metrics of an earlier map, which may be replaced."""
    try:
        return "task" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _predict(
    source: FeatureSource,
    trained: Trained,
    classes: Classes,
    paths: Sequence[Path],
    progress: Progress,
) -> Tally:
    """Write classes and confidence; gives the cells of each class."""
    values = np.array(classes.values, np.uint8)
    tally = Tally(source, classes)
    maps = [ByteMap(path, source.grid) for path in paths]
    try:
        for window, valid, vectors in source.valid_cells():
            found, sure = _classified(trained, vectors)
            tally.add(window, valid, found)
            for map_, numbers in zip(maps, (values[found], sure), strict=True):
                map_.write(window, _spread(valid, numbers))
            progress(1)
        tags = map_tags(source, str(trained.facts["head"]), classes)
        colors = dict(zip(classes.values, classes.colors, strict=True))
        maps[0].finish("class", tags, "MODE", colors)
        maps[1].finish("confidence in percent", tags, "AVERAGE")
    finally:
        for map_ in maps:
            map_.close()
    return tally


def _classified(trained: Trained, vectors: FloatArray) -> tuple[npt.NDArray[np.int64], ByteArray]:
    """Positions of classes `(n,)` and confidence in percent `(n,)` of cells `(n, D)`."""
    found, sure = np.zeros(len(vectors), np.int64), np.zeros(len(vectors), np.uint8)
    for start in range(0, len(vectors), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        logits = trained.classifier.logits(trained.scale(vectors[part]))
        share = probabilities(logits, trained.temperature)
        found[part] = share.argmax(1)
        sure[part] = np.round(100 * share.max(1))
    return found, sure


def _assign(
    source: FeatureSource,
    scale: Scale,
    clusters: Clusters,
    classes: Classes,
    path: Path,
    progress: Progress,
) -> Tally:
    """Write the clusters; gives the cells of each."""
    tally = Tally(source, classes)
    map_ = ByteMap(path, source.grid)
    try:
        for window, valid, vectors in source.valid_cells():
            found = np.zeros(len(vectors), np.int64)
            for start in range(0, len(vectors), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                found[part] = clusters.nearest(scale(vectors[part]))
            tally.add(window, valid, found)
            map_.write(window, _spread(valid, (found + 1).astype(np.uint8)))
            progress(1)
        colors = dict(zip(classes.values, classes.colors, strict=True))
        map_.finish("cluster", map_tags(source, "clusters", classes), "MODE", colors)
    finally:
        map_.close()
    return tally


def _spread(valid: npt.NDArray[np.bool_], numbers: ByteArray) -> ByteArray:
    """Numbers of valid cells in their places `(h, w)`."""
    whole = np.full(valid.shape, NODATA, np.uint8)
    whole[valid] = numbers
    return whole


def _finish(
    outputs: Outputs,
    files: MapFiles,
    maps: Mapping[Path, Path],
    source: FeatureSource,
    legend: Legend,
    classes: Classes,
    counts: Sequence[int],
    facts: dict[str, Any],
    places: npt.NDArray[np.float64] | None,
) -> None:
    """Attribute table, metrics and picture."""
    with writing(files.metrics):
        table = attribute_table(classes.names, classes.values, classes.colors, counts)
        outputs.temporary(files.table).write_text(table, encoding="utf-8")
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        outputs.temporary(files.metrics).write_text(f"{text}\n", encoding="utf-8")
    if files.picture is not None:
        with writing(files.picture):
            confidence = maps[files.confidence] if files.confidence else None
            target = outputs.temporary(files.picture)
            sides = cell_sides(source.grid)
            draw_map(target, maps[files.classes], confidence, legend, sides, places)
