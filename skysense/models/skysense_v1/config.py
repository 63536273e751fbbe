"""Configurations of SkySense (V1): one class a part, one table of named models."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from skysense.config import Config


class SwinConfig(Config):
    """The `hr` backbone. Source: docs/sources.md 2 [code]; defaults are Swin V2 Huge."""

    bands: int = 3
    """Input bands; 4 with near infrared."""
    width: int = 352
    """Width of the first stage; doubles with each."""
    depths: tuple[int, ...] = (2, 2, 18, 2)
    """Blocks of each stage."""
    heads: tuple[int, ...] = (8, 16, 32, 64)
    """Attention heads of each stage."""
    windows: tuple[int, ...] = (8, 8, 8, 8)
    """Side of the attention window of each stage, in tokens."""
    pretrained_windows: tuple[int, ...] = (0, 0, 0, 0)
    """Side used in pre-training; 0 for the same."""
    extra_norm_every: int = 6
    """Every so many blocks of a stage end in one more norm; 0 for none."""
    outputs: tuple[int, ...] = (0, 1, 2, 3)
    """Stages that are put out, each with a norm of its own."""
    keep_shift: bool = False
    """Shift windows also where the map is no larger than a window (`pad_small_map`)."""
    norm_before_merging: bool = False
    """Norm before the merging's linear map instead of after it; in no released weights."""
    position_grid: tuple[int, int] | None = None
    """Grid of an absolute position table; in no released weights."""
    drop_path: float = 0.2
    """Rate of the last block; rises linearly from 0."""
    patch: int = 4
    """Side of a patch in pixels."""


class VitConfig(Config):
    """The `s2` and `s1` backbones. Source: docs/sources.md 3 [code]; defaults are ViT-L."""

    bands: int = 10
    """Input bands."""
    width: int = 1024
    """Width."""
    depth: int = 24
    """Layers."""
    heads: int = 16
    """Attention heads."""
    ratio: float = 4.0
    """Hidden width of the MLP over the width."""
    patch: int = 4
    """Side of a patch in pixels."""
    position_grid: tuple[int, int] = (16, 16)
    """Grid of the position table."""
    class_position: bool = True
    """The position table has an entry for the class token."""
    class_token: bool = True
    """The class token stays in the sequence."""
    eps: float = 1e-5
    """Of the layer norms; 1e-6 for the released SkySense++ weights."""
    final_norm: bool = False
    """A norm after the last layer; in no released weights."""
    resize: Literal["bicubic", "bilinear"] = "bicubic"
    """How the position table is brought to another grid."""
    outputs: tuple[int, ...] = (5, 11, 17, 23)
    """Layers that are put out."""
    drop_path: float = 0.3
    """Rate of the last layer; rises linearly from 0."""


class SkySenseV1Config(Config):
    """The whole model. Source: docs/sources.md 1 to 5 [code]; defaults are the released sizes."""

    hr: SwinConfig = Field(default_factory=SwinConfig)
    """Backbone of `hr`."""
    s2: VitConfig = Field(default_factory=VitConfig)
    """Backbone of `s2`."""
    s1: VitConfig = Field(default_factory=lambda: VitConfig(bands=2))
    """Backbone of `s1`."""
    fusion_width: int = 1024
    """Width of the fusion transformer and of the fused features."""
    fusion_depth: int = 24
    """Layers of the fusion transformer."""
    fusion_heads: int = 16
    """Heads of the fusion transformer."""
    calendar: tuple[Literal["hr", "s2", "s1"], ...] = ("s2",)
    """Modalities whose tokens get the day of the year: `s2` in the released code."""
    geo_regions: int = 0
    """Regions with geo-context prototypes, a square number; 0 for none. 4096 in the paper."""
    geo_prototypes: int = 100
    """Prototypes of a region."""

    @property
    def fused_width(self) -> int:
        """Width of the fused features: doubled where geo-context is concatenated."""
        return self.fusion_width * (2 if self.geo_regions else 1)


def _sized(
    width: int, depths: tuple[int, ...], head: int, vit: int, layers: int, fusion: int, deep: int
) -> SkySenseV1Config:
    """A smaller model of the same make [ours]; the last output is the last layer."""
    heads = tuple(width * 2**i // head for i in range(4))
    outputs = tuple((i + 1) * layers // 4 - 1 for i in range(4))
    s2 = VitConfig(width=vit, depth=layers, heads=vit // 32, outputs=outputs)
    return SkySenseV1Config(
        hr=SwinConfig(width=width, depths=depths, heads=heads),
        s2=s2,
        s1=s2.model_copy(update={"bands": 2}),
        fusion_width=fusion,
        fusion_depth=deep,
        fusion_heads=fusion // 32,
    )


V1_CONFIGS: Mapping[str, SkySenseV1Config] = {
    "v1_tiny": _sized(16, (2, 2, 2, 2), 16, 64, 4, 64, 2),
    "v1_small": _sized(64, (2, 2, 6, 2), 32, 256, 8, 256, 6),
    "v1_base": _sized(128, (2, 2, 18, 2), 32, 512, 12, 512, 12),
    "v1_huge": SkySenseV1Config(),
}
"""Every named configuration; `v1_huge` is the released one."""
