"""SkySense V2 (ICCV 2025)."""

from skysense.models.skysense_v2.config import V2_CONFIGS, SkySenseV2Config
from skysense.models.skysense_v2.model import SkySenseV2

__all__ = ["V2_CONFIGS", "SkySenseV2", "SkySenseV2Config"]
