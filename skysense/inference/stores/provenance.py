"""Where a map comes from, in a form that every store can carry: JSON under the key `skysense`."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skysense.geo import Grid

METADATA_KEY = "skysense"
"""Name under which all stores keep it."""

_FORMAT = 1


@dataclass(frozen=True)
class InputFile:
    """A file that was read."""

    path: str
    """As it was given."""
    bytes: int
    """Its size; of a folder, that of all files in it."""
    modified: str
    """When it was last changed, UTC, ISO 8601; of a folder, its latest file."""


@dataclass(frozen=True)
class Provenance:
    """What made a map, from what, how."""

    model: str
    """Name of the model."""
    trained: bool
    """Whether its weights were trained."""
    weights: str
    """`weights_hash` of the model."""
    package: str
    """Version of this package."""
    inputs: tuple[InputFile, ...]
    """What was read."""
    dates: Mapping[str, Sequence[str | None]]
    """Modality to acquisition days, ISO 8601, `None` where unknown."""
    options: Mapping[str, Any]
    """How it was run; numbers, texts, lists and mappings."""

    def __post_init__(self) -> None:
        """Check that it can be written.

        Raises:
            ValueError: something in it is not JSON.
        """
        try:
            self.text()
        except (TypeError, ValueError) as error:
            raise ValueError(f"the provenance of a map must be JSON: {error}") from None

    def as_dict(
        self, storage: Mapping[str, Any] | None = None, grid: Grid | None = None
    ) -> dict[str, Any]:
        """It as plain JSON values.

        Args:
            storage: how the numbers are stored, added under `storage`.
            grid: cells of the map, added under `grid` as `crs`, `transform` and `shape`, for
                stores that have no other place for it.
        """
        facts = {"format": _FORMAT, **asdict(self)}
        if grid is not None:
            facts["grid"] = asdict(grid)
        return facts if storage is None else {**facts, "storage": dict(storage)}

    def text(self, storage: Mapping[str, Any] | None = None, grid: Grid | None = None) -> str:
        """It as JSON in one line of ASCII, with sorted keys; arguments as of `as_dict`."""
        return json.dumps(self.as_dict(storage, grid), sort_keys=True, allow_nan=False)


def make_provenance(
    model: nn.Module,
    paths: Iterable[str | Path],
    dates: Mapping[str, Sequence[np.datetime64]],
    options: Mapping[str, Any],
) -> Provenance:
    """Gather what is to be said of a map.

    Args:
        model: has `name` and `trained`; before `hub.pack`, which changes how weights are stored.
        paths: files that were read.
        dates: modality to acquisition days, NaT where unknown.
        options: how it is run.

    Raises:
        ValueError: an option is not JSON.
        OSError: an input is not there.
    """
    described: Any = model
    days = {
        key: [None if np.isnat(day) else str(day.astype("datetime64[D]")) for day in values]
        for key, values in dates.items()
    }
    return Provenance(
        model=str(described.name),
        trained=bool(described.trained),
        weights=weights_hash(model),
        package=package_version(),
        inputs=describe_inputs(paths),
        dates=days,
        options=options,
    )


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's state: names, types, shapes and bytes, in order of name.

    The device, the order in which parts were added and the file they came from do not matter.

    Args:
        model: as it was loaded; packing it (`hub.pack`) changes the bytes.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, Tensor):  # what `get_extra_state` of a module gave
            digest.update(json.dumps([name, repr(value)]).encode())
            continue
        head = [name, str(value.dtype).removeprefix("torch."), list(value.shape)]
        digest.update(json.dumps(head).encode())
        dense = value.detach().cpu()
        dense = dense if dense.layout == torch.strided else dense.to_dense()
        digest.update(dense.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def package_version() -> str:
    """Version of this package as it is installed, `unknown` where it is not."""
    try:
        return version("skysense")
    except PackageNotFoundError:
        return "unknown"


def describe_inputs(paths: Iterable[str | Path]) -> tuple[InputFile, ...]:
    """Sizes and times of files and folders, each once, in the order given.

    Raises:
        OSError: one is not there.
    """
    return tuple(_describe(Path(path)) for path in dict.fromkeys(map(str, paths)))


def _describe(path: Path) -> InputFile:
    """Facts of one file or folder."""
    files = [item for item in sorted(path.rglob("*")) if item.is_file()] if path.is_dir() else []
    facts = [item.stat() for item in files or [path]]
    latest = datetime.fromtimestamp(max(fact.st_mtime for fact in facts), UTC)
    size = sum(fact.st_size for fact in facts) if files or not path.is_dir() else 0
    return InputFile(str(path), size, latest.isoformat(timespec="seconds"))
