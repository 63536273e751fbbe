"""Whether Sentinel-2 digital numbers carry the offset of processing baseline 04.00.

Since 25 January 2022 the products hold reflectance x 10,000 + 1,000. Names and metadata say it;
where they do not, the darkest pixels do: shadows and water reflect next to nothing in most bands,
so they lie near 0 without the offset and near 1,000 with it. Bright desert has neither. [ours]
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from skysense.data.doctor.forms import Form, forms_of
from skysense.data.doctor.look import Look

OFFSET = 1000.0
"""Digital numbers added since baseline 04.00."""

_DARK = (900.0, 1400.0)
"""Where the darkest pixels of a band with the offset lie, if it has dark pixels."""

_BELOW = 850.0
"""Digital numbers that, with the offset, would be reflectance below -0.015."""

_BASELINE = re.compile(r"(?<![A-Z0-9.])N?(\d\d)\.?(\d\d)(?![0-9.])")


@dataclass(frozen=True)
class Offset:
    """What is known."""

    is_there: bool | None = None
    """`None`: cannot be told."""
    reason: str = ""
    """Why, in words."""
    is_certain: bool = False
    """Said by name or metadata, not seen in the values."""
    is_named: bool = False
    """Said by the product's name, from which `embed` reads it, too."""


def offset_of(looks: Sequence[Look]) -> Offset:
    """What the files of one date say together."""
    for look in looks:
        said = _said(look)
        if said.is_certain:
            return said
    return seen_offset(looks)


def _said(look: Look) -> Offset:
    """Name and metadata of one file."""
    if look.file is not None and look.file.scaling is not None:
        scale, offset = look.file.scaling
        text = f"the product's metadata give scale {scale:g} and offset {offset:g}"
        return Offset(offset < 0, text, True, True)
    baseline = look.file.baseline if look.file else None
    if baseline is not None and baseline != 9999:
        text = f"the name says processing baseline {baseline / 100:05.2f}"
        return Offset(baseline >= 400, text, True, True)
    if look.header is None:
        return Offset()
    for key, value in look.header.tags.items():
        match = _BASELINE.fullmatch(value.strip())
        if "BASELINE" in key and match:
            number = int(match[1] + match[2])
            return Offset(number >= 400, f"the metadata say {key}={value}", True)
        if key.startswith(("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")):
            return Offset("1000" in value, f"the metadata say {key}={value}", True)
    declared = [offset for offset in look.header.offsets if offset in (-1000.0, -0.1)]
    if declared:
        return Offset(True, f"the bands declare an offset of {declared[0]:g}", True)
    return Offset()


def seen_offset(looks: Sequence[Look]) -> Offset:
    """What the darkest pixels say."""
    darkest = [
        look.sample.quantile(i, 0.001)
        for look in looks
        if Form.NUMBERS in forms_of(look)
        for i in look.measured
        if look.sample.ordered[i].size
    ]
    if not darkest:
        return Offset()
    if min(darkest) < _BELOW:
        text = f"its darkest pixels lie at {min(darkest):.0f}, below the offset of 1000"
        return Offset(False, text)
    near = [value for value in darkest if _DARK[0] <= value <= _DARK[1]]
    if len(darkest) >= 3 and 2 * len(near) >= len(darkest):
        text = f"the darkest pixels of {len(near)} of {len(darkest)} bands lie near 1000"
        return Offset(True, f"{text} ({min(near):.0f} to {max(near):.0f})")
    return Offset()
