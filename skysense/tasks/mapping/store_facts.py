"""What a store of `skysense embed` says of itself: JSON under the key `skysense`.

The key and its content are the format that `skysense.inference.stores` writes; tests hold both
sides together.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.geo import Grid
from skysense.tasks.mapping.sources import FloatArray

STORE_KEY = "skysense"
"""Where it stands: in the attributes of a Zarr group, in the metadata of an Arrow schema."""

_NOT_OF_THE_RUN = ("storage", "grid")
_NOTHING = -128
"""The code of a number that is not there, in an int8 store."""


@dataclass(frozen=True)
class StoreFacts:
    """What is needed to read a store."""

    grid: Grid
    """Cells of the map."""
    tags: dict[str, str]
    """As on a GeoTIFF of the same run."""
    scale: FloatArray | None
    """`(D,)` step of a code along its dimension, for int8."""
    written: int | None
    """Cells that hold a vector, where the store says it."""

    @property
    def channels(self) -> int | None:
        """D, where the scales tell it."""
        return None if self.scale is None else len(self.scale)

    def decode(self, stored: npt.NDArray[Any], axis: int) -> FloatArray:
        """Stored numbers to values, NaN where there is nothing; `axis` is that of D."""
        if self.scale is None:
            return stored.astype(np.float32)
        sides = [1] * stored.ndim
        sides[axis] = -1
        values = stored.astype(np.float32) * self.scale.reshape(sides)
        values[stored == _NOTHING] = np.nan
        return np.asarray(values, np.float32)


def read_facts(path: Path, described: object, grid: Grid | None = None) -> StoreFacts:
    """Understand what a store says.

    Args:
        path: of the store, for errors.
        described: what stands under `STORE_KEY`: a mapping, or JSON; `None` if there is nothing.
        grid: cells of the map, where the store says them in another place.

    Raises:
        ValueError: it is not a store of `skysense embed`, is damaged, or does not tell its grid.
    """
    if described is None:
        raise ValueError(
            f"{path} is not a store of `skysense embed`: it says nothing under `{STORE_KEY}`"
        )
    try:
        facts = described if isinstance(described, Mapping) else json.loads(str(described))
        storage, tags = dict(facts["storage"]), _tags(facts)
        scale = np.array(storage["scale"], np.float32) if storage["dtype"] == "int8" else None
        if scale is not None and not (scale.ndim == 1 and np.isfinite(scale).all()):
            raise ValueError("the scales are not a list of numbers")
        where = facts.get("grid")
        if grid is None and where is not None:
            height, width = map(int, where["shape"])
            a, b, c, d, e, f = map(float, where["transform"])
            grid = Grid(str(where["crs"]), (a, b, c, d, e, f), (height, width))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: what the store says of itself is damaged ({error!r})") from None
    if grid is None:
        raise ValueError(
            f"{path} does not say where its cells lie: an older version wrote it; run `skysense "
            "embed` again"
        )
    written = storage.get("cells")
    return StoreFacts(grid, tags, scale, written if isinstance(written, int) else None)


def _tags(facts: Mapping[str, Any]) -> dict[str, str]:
    """The tags that the same run gives to a GeoTIFF."""
    options, dates = facts["options"], facts["dates"]
    run = {key: value for key, value in facts.items() if key not in _NOT_OF_THE_RUN}
    tags = {
        "SKYSENSE_MODEL": str(facts["model"]),
        "SKYSENSE_TRAINED": str(facts["trained"]).lower(),
        "SKYSENSE_PROVENANCE": json.dumps(run, sort_keys=True),
    }
    if "stage" in options:
        tags["SKYSENSE_STAGE"] = str(options["stage"] or "fused")
    if {"tile", "overlap"} <= set(options):
        tags["SKYSENSE_TILE"] = f"{options['tile']} overlap {options['overlap']}"
    for key, card in options.get("sensors", {}).items():
        days = " ".join(day or "undated" for day in dates.get(key, ()))
        tags[f"SKYSENSE_{key.upper()}"] = f"{card} {days}"
    return tags
