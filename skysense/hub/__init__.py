"""Named models, saved models, hub models."""

from skysense.hub.catalog import ModelInfo, describe, list_models
from skysense.hub.loading import load

__all__ = ["ModelInfo", "describe", "list_models", "load"]
