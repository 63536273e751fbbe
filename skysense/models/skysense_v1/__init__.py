"""SkySense (CVPR 2024): the factorized encoder whose weights were released."""

from skysense.models.skysense_v1.config import (
    V1_CONFIGS,
    SkySenseV1Config,
    SwinConfig,
    VitConfig,
)
from skysense.models.skysense_v1.model import SkySenseV1
from skysense.models.skysense_v1.swin import SwinBackbone
from skysense.models.skysense_v1.vit import UpHead, VisionTransformer

__all__ = [
    "V1_CONFIGS",
    "SkySenseV1",
    "SkySenseV1Config",
    "SwinBackbone",
    "SwinConfig",
    "UpHead",
    "VisionTransformer",
    "VitConfig",
]
