"""What is known of a map, for its metadata, its metrics and its legend.

Legend: K classes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.geo import Window
from skysense.tasks.mapping.labels import LabelSet
from skysense.tasks.mapping.output import NODATA
from skysense.tasks.mapping.palette import Color, class_colors
from skysense.tasks.mapping.picture import Legend
from skysense.tasks.mapping.sources import FeatureSource, cell_areas
from skysense.tasks.mapping.training import Examples

_HEADS = {"logistic": "logistic regression", "knn": "nearest neighbours", "mlp": "small network"}


@dataclass(frozen=True)
class Classes:
    """K classes."""

    names: Sequence[str]
    """What they are called."""
    values: Sequence[int]
    """Their numbers in the map."""
    colors: Sequence[Color]
    """Their colours."""


def number_classes(names: Sequence[str]) -> Classes:
    """Class codes of 0...254 keep their number; else classes are numbered from 1."""
    codes = [int(name) if name.isdecimal() else -1 for name in names]
    kept = all(0 <= code < NODATA for code in codes) and len(set(codes)) == len(codes)
    return Classes(names, codes if kept else range(1, len(names) + 1), class_colors(names))


def map_tags(source: FeatureSource, made_by: str, classes: Classes) -> dict[str, str]:
    """What the map is and where it comes from, as metadata of the file."""
    named = zip(classes.values, classes.names, strict=True)
    return {
        "SKYSENSE_MAP": made_by,
        "SKYSENSE_VERSION": _version(),
        **{f"CLASS_{value}": name for value, name in named},
        **{key.replace("SKYSENSE_", "FEATURES_"): value for key, value in source.tags.items()},
    }


class Tally:
    """Cells of K classes and their ground, counted as a map is written."""

    def __init__(self, source: FeatureSource, classes: Classes) -> None:
        """Start at nothing.

        Args:
            source: of the map; gives its grid.
            classes: K.
        """
        height, self._width = source.grid.shape
        rows, cols = source.extent
        self._areas = cell_areas(source.grid)
        self._areas[-1] *= rows - (height - 1)
        self._beyond = self._width - cols  # share of the last column
        self._rows = np.zeros((height, len(classes.names)), np.int64)
        self._last = np.zeros_like(self._rows)  # of it, the last column

    def add(
        self, window: Window, valid: npt.NDArray[np.bool_], found: npt.NDArray[np.int64]
    ) -> None:
        """Count a window.

        Args:
            window: of the map.
            valid: `(h, w)` its cells that have a class.
            found: `(n,)` the class of each of those, in 0...K - 1.
        """
        height, count = len(valid), self._rows.shape[1]
        rows, cols = np.nonzero(valid)
        last = window.col + cols == self._width - 1
        for total, chosen in ((self._rows, slice(None)), (self._last, last)):
            cells = rows[chosen] * count + found[chosen]
            counts = np.bincount(cells, minlength=height * count).reshape(height, count)
            total[window.row : window.row + height] += counts

    @property
    def counts(self) -> list[int]:
        """Cells of each class."""
        return [int(count) for count in self._rows.sum(0)]

    @property
    def hectares(self) -> list[float]:
        """Ground of each class, as far as cells lie on the scene."""
        return [float(x) / 1e4 for x in self._areas @ (self._rows - self._beyond * self._last)]


def class_facts(classes: Classes, tally: Tally, examples: Examples | None) -> dict[str, Any]:
    """Number, colour, labels and area of each class."""
    counts, hectares = tally.counts, tally.hectares
    whole = max(sum(counts), 1)
    facts: dict[str, Any] = {}
    for i, name in enumerate(classes.names):
        facts[name] = {
            "value": classes.values[i],
            "color": "#{:02x}{:02x}{:02x}".format(*classes.colors[i]),
            "cells": counts[i],
            "share": counts[i] / whole,
            "hectares": hectares[i],
        }
        if examples is not None:
            facts[name]["labelled_cells"] = int((examples.cells.classes == i).sum())
    return facts


def label_facts(labels: LabelSet, examples: Examples) -> dict[str, Any]:
    """What became of the labels."""
    cells = examples.cells
    return {
        "file": str(labels.path),
        "sha256": hashlib.sha256(labels.path.read_bytes()).hexdigest(),
        "class_field": labels.field,
        "labels": len(labels.names),
        "outside": cells.outside,
        "labelled_cells": len(cells.rows),
        "cells_without_features": examples.empty,
        "cells_contradicted": cells.contradicted,
        "cells_tied": cells.ties,
        "cells_not_drawn": examples.unused,
    }


def provenance(source: FeatureSource, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """What it takes to make the map again."""
    return {
        "features": {"file": str(source.path), "bands": source.channels, "tags": source.tags},
        "options": {**options, "seed": seed},
        "version": _version(),
    }


def accuracy_note(facts: Mapping[str, Any]) -> str:
    """The accuracy in a line."""
    cells = facts["labels"]["labelled_cells"]
    start = f"{_HEADS[facts['head']]} of {cells} labelled cells"
    found = facts["cross_validation"]
    if found is None:
        return f"{start}, not cross-validated"
    low, high = found["accuracy_interval"]
    return f"{start}, accuracy {found['accuracy']:.0%} ({low:.0%} to {high:.0%}) on held-out blocks"


def make_legend(classes: Classes, counts: Sequence[int], title: str, note: str) -> Legend:
    """What the picture explains."""
    whole = max(sum(counts), 1)
    shares = [count / whole for count in counts]
    return Legend(classes.names, classes.values, classes.colors, shares, title, note)


def _version() -> str:
    """Of this package; `unknown` where it runs without being installed."""
    try:
        return metadata.version("skysense")
    except metadata.PackageNotFoundError:
        return "unknown"
