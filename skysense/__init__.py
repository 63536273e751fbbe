"""SkySense V2 and SkySense: remote sensing foundation models, open, complete and practical."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skysense.hub import list_models, load
    from skysense.models.features import Features, Level
    from skysense.models.skysense_v2 import SkySenseV2, SkySenseV2Config
    from skysense.sample import Batch, Sample, Series, collate
    from skysense.sensors import SENSORS, SensorCard

__version__ = "0.1.0"

_HOME = {
    "load": "skysense.hub",
    "list_models": "skysense.hub",
    "Features": "skysense.models.features",
    "Level": "skysense.models.features",
    "SkySenseV2": "skysense.models.skysense_v2",
    "SkySenseV2Config": "skysense.models.skysense_v2",
    "Batch": "skysense.sample",
    "Sample": "skysense.sample",
    "Series": "skysense.sample",
    "collate": "skysense.sample",
    "SENSORS": "skysense.sensors",
    "SensorCard": "skysense.sensors",
}
"""Where each public name lives; it is imported when it is first asked for."""

__all__ = [
    "SENSORS",
    "Batch",
    "Features",
    "Level",
    "Sample",
    "SensorCard",
    "Series",
    "SkySenseV2",
    "SkySenseV2Config",
    "__version__",
    "collate",
    "list_models",
    "load",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'skysense' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
