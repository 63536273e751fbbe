"""What a model of either family can do: all that its uses may rely on."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from torch import nn

from skysense.layers.merging import MergeMode
from skysense.models.features import Features
from skysense.sample import Batch

Schedule = tuple[MergeMode, MergeMode, MergeMode]
Schedules = Mapping[str, Schedule] | None
BUDGETS: dict[str, Schedule] = {
    "fast": ("merge", "merge", "merge"),
    "balanced": ("merge", "merge", "keep"),
    "fine": ("merge", "keep", "keep"),
}
"""Schedules of `hr` by what they cost: cells of 32, 16 and 8 pixels with patches of 4. What each
costs and is worth: `benchmarks/merge_schedule.py`. Source: the paper's table of schedules."""


class UntrainedModelWarning(UserWarning):
    """The model's weights are random: its features show structure, not meaning."""


class Encoder(Protocol):
    """A model that turns a batch into features, and says on which grids."""

    name: str
    trained: bool
    training: bool
    whole_tiles: bool
    """Edge tiles are padded to a whole tile, with masks, and not cut to the scene."""

    def __call__(
        self, batch: Batch, schedule: Schedules = None, last_stage: int | None = None
    ) -> Features:
        """Features of a batch, up to a stage or fused."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """All parameters."""
        ...

    @property
    def fused_width(self) -> int:
        """Width of the fused features."""
        ...

    def level_width(self, modality: str, level: int) -> int:
        """Width of a level (1...4) of a modality's pyramid."""
        ...

    def stride(self, modality: str, level: int, schedule: Schedules = None) -> int:
        """Pixels from one cell to the next on a level (1...4) of a modality's pyramid."""
        ...

    def fused_stride(self, modality: str, schedule: Schedules = None) -> int:
        """Pixels from one cell to the next of a modality's map as it is fused."""
        ...

    def period(self, modality: str, schedule: Schedules = None) -> int:
        """Pixels after which attention windows and merging repeat."""
        ...

    def default_tile(self, modality: str) -> int:
        """Side in pixels of the tiles that a scene of this modality is best cut into."""
        ...

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part, and their total."""
        ...

    def save(self, folder: str | Path) -> Path:
        """Write the model into a folder."""
        ...


def warn_if_untrained(model: Encoder) -> None:
    """Say once a place of use that a model in evaluation mode has random weights."""
    if not model.trained and not model.training:
        warnings.warn(
            f"`{model.name}` is untrained: its weights are random, so its features show the "
            "structure of the input and no learned meaning",
            UntrainedModelWarning,
            stacklevel=3,
        )
