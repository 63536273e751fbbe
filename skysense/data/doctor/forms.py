"""Which unit stored numbers are in, from the numbers alone, and which one a card wants."""

import math
from enum import StrEnum

import numpy as np

from skysense.data.doctor.look import Look
from skysense.sensors import EIGHT_BIT, SensorCard


class Form(StrEnum):
    """Kinds of stored numbers."""

    BRIGHTNESS = EIGHT_BIT
    NUMBERS = "digital numbers"
    FRACTION = "fractions around 0 to 1"
    DECIBEL = "decibel"
    OTHER = "numbers of no known unit"


_LARGEST_FRACTION = 1.5
"""Median up to which floats are reflectance or backscatter power."""

_LEAST_NUMBER = 20.0
"""Median from which on floats are digital numbers."""


def form_of_card(card: SensorCard) -> Form:
    """What a card expects in a file."""
    if card.power_to_decibel:
        return Form.FRACTION
    if card.unit == "dB":
        return Form.DECIBEL
    if card.unit == "reflectance":
        return Form.FRACTION if card.scale == 1.0 else Form.NUMBERS
    return Form.BRIGHTNESS


def forms_of(look: Look) -> tuple[Form, ...]:
    """What the numbers of a file can be, the likeliest first; nothing where it has none."""
    median = look.sample.median
    if look.header is None or math.isnan(median):
        return ()
    dtype = np.result_type(*(look.header.dtypes[i] for i in look.measured))
    if dtype == np.uint8:
        return (Form.BRIGHTNESS,)
    if -60 <= median <= -1:
        return (Form.DECIBEL,)
    small = all(
        0 <= look.sample.quantile(i, q) <= 255 for i in look.measured for q in (0.001, 0.999)
    )
    if np.issubdtype(dtype, np.integer):
        if median < 0:
            return (Form.OTHER,)
        return (Form.NUMBERS, Form.BRIGHTNESS) if small else (Form.NUMBERS,)
    if -0.2 <= median <= _LARGEST_FRACTION:
        return (Form.FRACTION,)
    if median < _LEAST_NUMBER:
        return (Form.OTHER, Form.BRIGHTNESS) if small else (Form.OTHER,)
    return (Form.NUMBERS, Form.BRIGHTNESS) if small else (Form.NUMBERS,)
