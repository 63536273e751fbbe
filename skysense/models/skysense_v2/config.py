"""Configurations of SkySense V2: one class, one table, one code path."""

from collections.abc import Mapping

from pydantic import Field, model_validator

from skysense.config import Config
from skysense.models.encoder import Schedule
from skysense.models.readout import ReadoutConfig

MERGE: Schedule = ("merge", "merge", "merge")
KEEP: Schedule = ("keep", "keep", "keep")


class SkySenseV2Config(Config):
    """Sizes of a SkySense V2. Source: docs/sources.md 12; defaults are `v2_nano` [ours]."""

    width: int = Field(default=32, ge=4)
    """C: width of the first stage; the others have 2C, 4C, 8C. 352 in the paper."""
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    """Blocks of each stage. 2, 2, 18, 2 in the paper."""
    head_width: int = Field(default=32, ge=4)
    """Channels of an attention head."""
    window: int = Field(default=8, ge=2)
    """Side of an attention window in stages 1 and 2, in tokens."""
    patch: int = Field(default=4, ge=1)
    """Side of a patch in pixels."""
    prompts: int = Field(default=4, ge=0)
    """Modality prompt tokens in stage 3 and again in stage 4."""
    experts: int = Field(default=0, ge=0)
    """Experts of a mixture-of-experts block; 0 for a dense model. 8 in the paper."""
    moe_blocks: int = Field(default=6, ge=0)
    """How many of the last blocks (of stages 3 and 4) have experts, if there are any."""
    schedule: dict[str, Schedule] = Field(
        default_factory=lambda: {"hr": MERGE, "s2": KEEP, "s1": KEEP}
    )
    """Merging schedule of each modality between the stages; can be overridden at each call."""
    fusion_width: int = Field(default=192, ge=8)
    """Width of the fusion transformer and of the fused features. 1024 in the paper."""
    fusion_depth: int = Field(default=4, ge=1)
    """Layers of the fusion transformer. 24 in the paper."""
    fusion_heads: int = Field(default=6, ge=1)
    """Heads of the fusion transformer. 16 in the paper."""
    geo_regions: int = Field(default=0, ge=0)
    """Regions of the globe with geo-context prototypes, a square number; 0 for none. 4096 in the
    paper."""
    geo_prototypes: int = Field(default=100, ge=1)
    """Prototypes of a region."""
    centered: bool = False
    """Whether the fused map is brought to mean 0 and spread 1 by numbers fitted after training."""
    readout: ReadoutConfig | None = None
    """The read-out that makes one vector of an image; `None` for the mean of the fused map."""

    @model_validator(mode="after")
    def _check(self) -> "SkySenseV2Config":
        if self.width % self.head_width:
            raise ValueError(f"width {self.width} is not a multiple of {self.head_width} a head")
        if self.head_width % 4:  # rotary positions turn rows and columns, in pairs
            raise ValueError(f"`head_width` must be a multiple of 4, got {self.head_width}")
        if self.moe_blocks > self.depths[2] + self.depths[3]:
            raise ValueError("experts can only be in stages 3 and 4: `moe_blocks` is too large")
        if self.fusion_width % self.fusion_heads:
            raise ValueError(f"{self.fusion_heads} heads do not divide {self.fusion_width}")
        if self.centered and self.geo_regions:
            raise ValueError("`centered` would part the fused map from its geo-context prototypes")
        if set(self.schedule) != {"hr", "s2", "s1"}:
            raise ValueError("`schedule` needs an entry for each of hr, s2, s1")
        return self

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """C, 2C, 4C, 8C."""
        c = self.width
        return c, 2 * c, 4 * c, 8 * c

    @property
    def fused_width(self) -> int:
        """Width of the fused features: doubled where geo-context is concatenated."""
        return self.fusion_width * (2 if self.geo_regions else 1)


_DENSE: Mapping[str, SkySenseV2Config] = {
    "v2_tiny": SkySenseV2Config(
        depths=(2, 2, 2, 1), moe_blocks=2, fusion_width=64, fusion_depth=2, fusion_heads=2
    ),
    "v2_nano": SkySenseV2Config(),
    "v2_small": SkySenseV2Config(width=64, fusion_width=256, fusion_depth=6, fusion_heads=8),
    "v2_base": SkySenseV2Config(
        width=96, depths=(2, 2, 18, 2), fusion_width=384, fusion_depth=8, fusion_heads=12
    ),
    "v2_large": SkySenseV2Config(
        width=192, depths=(2, 2, 18, 2), fusion_width=768, fusion_depth=12, fusion_heads=12
    ),
    "v2_huge": SkySenseV2Config(
        width=352, depths=(2, 2, 18, 2), fusion_width=1024, fusion_depth=24, fusion_heads=16
    ),
}

V2_CONFIGS: Mapping[str, SkySenseV2Config] = {
    **_DENSE,
    **{f"{name}_moe": config.model_copy(update={"experts": 8}) for name, config in _DENSE.items()},
}
"""Every named configuration; `v2_huge` and `v2_huge_moe` are the paper's sizes."""
