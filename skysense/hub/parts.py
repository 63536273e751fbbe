"""The parts of SkySense V1 that are released one by one, and how each is named, sized and built."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from skysense.config import Config
from skysense.hub import released
from skysense.models.fusion import FusionTransformer
from skysense.models.skysense_v1 import (
    SwinBackbone,
    SwinConfig,
    UpHead,
    VisionTransformer,
    VitConfig,
)

Part = SwinBackbone | VisionTransformer | FusionTransformer | UpHead


class FusionConfig(Config):
    """The fusion transformer. Source: docs/sources.md 4 [code]; defaults are the released sizes."""

    in_width: int = 2816
    """Width of what is fused."""
    width: int = 1024
    """Width of the fused features."""
    depth: int = 24
    """Layers."""
    heads: int = 16
    """Attention heads."""
    ratio: float = 4.0
    """Hidden width of the MLP over the width."""


class UpHeadConfig(Config):
    """An up-sampling head. Source: docs/sources.md 5 [code]; defaults are the released sizes."""

    in_width: int = 1024
    """Width of the map that comes in."""
    out_width: int = 2816
    """Width of the map that goes out."""
    scale: int = 4
    """Cells a side that one cell becomes."""


def _fusion(config: FusionConfig) -> FusionTransformer:
    """Build the fusion transformer, with the drop path of the whole model."""
    sizes = (config.in_width, config.width, config.depth, config.heads)
    return FusionTransformer(*sizes, config.ratio, drop_path=0.3)


def _up_head(config: UpHeadConfig) -> UpHead:
    """Build an up-sampling head."""
    return UpHead(config.in_width, config.out_width, config.scale)


@dataclass(frozen=True)
class PartKind:
    """One kind of part."""

    family: str
    """What `config.json` calls it."""
    title: str
    """What messages call it."""
    prefix: str
    """In front of its keys in the merged checkpoint."""
    config: type[Config]
    """Its sizes."""
    build: Callable[[Any], Part]
    """From sizes to an untrained module."""
    rules: released.Rules
    """From official names to ours."""
    back: released.Rules
    """From our names to official ones."""


_SWIN = (SwinConfig, SwinBackbone, released.SWIN, released.SWIN_BACK)
_VIT = (VitConfig, VisionTransformer, released.VIT, released.VIT_BACK)
_FUSION = (FusionConfig, _fusion, released.FUSION, released.FUSION_BACK)
_UP_HEAD = (UpHeadConfig, _up_head, released.UP_HEAD, released.UP_HEAD_BACK)

KINDS: Mapping[str, PartKind] = {
    "hr": PartKind("skysense_v1_hr", "HR backbone", "backbone_gep.", *_SWIN),
    "s2": PartKind("skysense_v1_s2", "S2 backbone", "backbone_s2.", *_VIT),
    "s1": PartKind("skysense_v1_s1", "S1 backbone", "backbone_s1.", *_VIT),
    "up_s2": PartKind("skysense_v1_up_head", "S2 up-sampling head", "head_s2.", *_UP_HEAD),
    "up_s1": PartKind("skysense_v1_up_head", "S1 up-sampling head", "head_s1.", *_UP_HEAD),
    "fusion": PartKind("skysense_v1_fusion", "fusion transformer", "fusion.", *_FUSION),
}
"""Every part, by its name in `SkySenseV1`."""

PART_FAMILIES: Mapping[str, PartKind] = {kind.family: kind for kind in KINDS.values()}
"""Every kind of part, by what `config.json` calls it."""


def build_empty(kind: PartKind, config: Config, where: str) -> Part:
    """A part on the meta device: shapes without values.

    Raises:
        ValueError: sizes that make no module, such as heads that do not divide the width.
    """
    try:
        with torch.device("meta"):
            return kind.build(config)
    except (ValueError, RuntimeError, ZeroDivisionError, IndexError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise ValueError(f"{where}: no {kind.title} has these sizes: {reason}") from None


def parameter_count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
