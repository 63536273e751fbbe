"""Sensor cards: which bands, which units, which statistics; plain data without torch."""

import difflib

from skysense.sensors.cards import (
    EIGHT_BIT,
    EXTRA_BANDS,
    MODALITIES,
    TOKENIZER_BANDS,
    Band,
    Modality,
    SensorCard,
)
from skysense.sensors.catalog import DEFAULT_SENSORS, SENSORS
from skysense.sensors.match import find_bands, missing_bands

__all__ = [
    "DEFAULT_SENSORS",
    "EIGHT_BIT",
    "EXTRA_BANDS",
    "MODALITIES",
    "SENSORS",
    "TOKENIZER_BANDS",
    "Band",
    "Modality",
    "SensorCard",
    "find_bands",
    "get_sensor",
    "missing_bands",
]


def get_sensor(name: str) -> SensorCard:
    """The card called `name`.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    if name in SENSORS:
        return SENSORS[name]
    close = difflib.get_close_matches(name, SENSORS, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else ""
    raise ValueError(f"unknown sensor `{name}`{hint} (known: {', '.join(SENSORS)})")
