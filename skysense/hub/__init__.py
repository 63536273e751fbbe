"""Named models, saved models, converted models, hub models."""

from skysense.hub.catalog import ModelInfo, describe, list_models
from skysense.hub.loading import load, load_part
from skysense.layers.packing import pack

__all__ = ["ModelInfo", "describe", "list_models", "load", "load_part", "pack"]
