"""Which models there are: names to configurations, and whether weights come with the package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from skysense.models.saving import WEIGHTS_NAME
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.models.skysense_v2 import V2_CONFIGS, SkySenseV2

Model = SkySenseV1 | SkySenseV2
"""A whole model of either family."""


WEIGHTS = Path(__file__).parents[1] / "weights"
"""Where trained weights lie in this package, a folder a name."""


@dataclass(frozen=True)
class ModelInfo:
    """One named model."""

    name: str
    """Key for `skysense.load`."""
    parameters: Mapping[str, int]
    """Counts by part: tokenizers, backbone, prompts, fusion, geo_context, total."""
    trained: bool
    """Whether trained weights are available under this name."""


def shipped(name: str) -> Path | None:
    """The folder in this package that holds trained weights of that name, if there is one."""
    folder = WEIGHTS / name
    return folder if (folder / WEIGHTS_NAME).is_file() else None


def list_models() -> list[str]:
    """Names that `skysense.load` takes: those of V2, then those of V1."""
    return [*V2_CONFIGS, *V1_CONFIGS]


def build(name: str) -> Model:
    """An untrained model of a named configuration.

    Raises:
        ValueError: there is no such name; the message lists those that exist.
    """
    if name in V2_CONFIGS:
        return SkySenseV2(V2_CONFIGS[name], name)
    if name in V1_CONFIGS:
        return SkySenseV1(V1_CONFIGS[name], name)
    raise ValueError(f"unknown model `{name}` (known: {', '.join(list_models())})")


def describe(name: str) -> ModelInfo:
    """Count a model's parameters without allocating them."""
    with torch.device("meta"):
        return ModelInfo(name, build(name).parameter_counts(), shipped(name) is not None)
