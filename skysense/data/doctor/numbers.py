"""What is wrong with a file's numbers, read with a sensor card: unit, offset, range, nodata."""

import math
import shlex
from collections.abc import Iterator, Mapping

import numpy as np

from skysense.data.doctor.findings import Finding
from skysense.data.doctor.forms import Form, form_of_card, forms_of
from skysense.data.doctor.guess import found_in
from skysense.data.doctor.look import Look
from skysense.data.doctor.offset import OFFSET, Offset, seen_offset
from skysense.data.products import find_masks
from skysense.sensors import SENSORS, SensorCard
from skysense.sensors.match import tokens

_CLIPPED = 0.05
"""Share of the valid pixels at the upper end from which on a band is called saturated."""

_CAPS = (255.0, 1.0, 4095.0, 10_000.0, 16_383.0)
"""Ends of ranges, besides those of the types."""

_NEGATIVE = 0.1
"""Share of values that the missing offset must make negative to be sure of it."""

_CLOUDY, _ALL_CLOUDY = 0.05, 0.9
"""Shares of cloud that are worth a word, and a warning."""


def used(look: Look, card: SensorCard, names: tuple[str | None, ...]) -> dict[str, int]:
    """The card's bands in the file, without masks."""
    return {name: i for name, i in found_in(card, names).items() if i in look.measured}


def unit_fault(look: Look, card: SensorCard, found: Mapping[str, int]) -> Finding | None:
    """Numbers that are not in the unit that the card expects."""
    forms, wanted = forms_of(look), form_of_card(card)
    if not forms or wanted in forms:
        return None
    have = f"the median is {look.sample.median:.4g} ({forms[0]})"
    expects = f"sensor `{card.name}` expects {wanted}"
    code, fix = _unit_code(look, card, wanted, forms[0], found)
    return Finding("error", code, f"{have}, but {expects}", fix)


def _unit_code(
    look: Look, card: SensorCard, wanted: Form, have: Form, found: Mapping[str, int]
) -> tuple[str, str]:
    """The name of a wrong unit, and what mends it."""
    file = shlex.quote(str(look.path))
    if card.modality == "s1":
        if wanted is Form.DECIBEL and have is Form.FRACTION:
            return "not-decibel", "--sensor s1_linear" if len(found) == 2 else _decibel(look, found)
        if have is Form.DECIBEL:
            return "not-power", "--sensor s1" if len(found) == 2 else "--sensor s1_vv"
        return "radar-numbers", "calibrate it to sigma0 or gamma0 (terrain-corrected), in dB"
    if have is Form.DECIBEL:
        return "implausible-values", "--sensor s1"
    if wanted is Form.BRIGHTNESS:
        if have is Form.FRACTION:
            convert = f"rio convert {file} bytes.tif --dtype uint8 --scale-ratio 255"
            return "brightness-fraction", convert
        convert = f"rio convert {file} bytes.tif --dtype uint8 --scale-ratio 0.0255"
        return "sixteen-bit", f"{convert} (or --sensor planet, where it is reflectance x 10,000)"
    if have is Form.BRIGHTNESS:
        picture = len(found_in(SENSORS["rgb8"], look.names)) == 3
        return "eight-bit", "--sensor rgb8" if picture else "get the product, not its picture"
    if wanted is Form.NUMBERS and have is Form.FRACTION:
        convert = f"rio convert {file} numbers.tif --dtype uint16 --scale-ratio 10000"
        return "not-numbers", "--sensor s2" if card.name.startswith("s2") else convert
    if wanted is Form.FRACTION and have is Form.NUMBERS:
        later = seen_offset([look]).is_there
        return "not-reflectance", "--sensor s2_l2a_n0400" if later else "--sensor s2_l2a"
    return "implausible-values", "see `skysense info` for the units of the sensor cards"


def _decibel(look: Look, found: Mapping[str, int]) -> str:
    """The command that brings one polarization to decibel; its name keeps the day and the band.

    Masked, `rio calc` fails on files that declare no nodata value (rasterio 1.4).
    """
    name, index = next(iter(found.items()))
    masked = "" if look.header and look.header.nodata is not None else "--not-masked "
    stem = look.path.stem
    stem += "" if tokens(name) <= tokens(stem) else f"_{name}"
    source, target = shlex.quote(str(look.path)), shlex.quote(f"{stem}_decibel.tif")
    return f"rio calc {masked}'(* 10 (log10 (read 1 {index + 1})))' {source} {target}"


def offset_fault(look: Look, card: SensorCard, offset: Offset) -> Finding | None:
    """The offset of Sentinel-2 baseline 04.00, there or missing against the card."""
    pairs = ("s2_l2a", "s2_l1c", "s2_l2a_n0400", "s2_l1c_n0400")
    scaled = look.file is not None and look.file.scaling is not None  # the readers see to it
    if card.name not in pairs or scaled:
        return None
    plain = card.name.removesuffix("_n0400")
    if card.name == plain:
        if not offset.is_there:
            return None
        text = f"{offset.reason}, but sensor `{card.name}` takes no offset off: reflectance + 0.1"
        severe = "error" if offset.is_certain else "warning"
        return Finding(severe, "offset-there", text, f"--sensor {plain}_n0400")  # type: ignore[arg-type]
    below = float(np.mean([look.sample.share_below(i, OFFSET - 100) for i in look.measured]))
    said = offset.is_certain and offset.is_there is False
    if not said and below < _NEGATIVE:
        return None
    text = offset.reason if said else f"{100 * below:.0f} % of the values lie below 900"
    text = f"{text}, but sensor `{card.name}` takes 1000 off: they would become negative"
    fix = f"--sensor {plain}"
    if offset.is_named and offset.is_there:
        fix = f"rename the file without its _N0400_ (or later) part and give --sensor {plain}"
    return Finding("error", "offset-missing", text, fix)


def scale_fault(look: Look, card: SensorCard, found: Mapping[str, int]) -> Finding | None:
    """What the readers' own check of the median refuses."""
    parts = [look.sample.ordered[i] for i in found.values() if look.sample.ordered[i].size]
    if not parts:
        return None
    physical = card.to_physical(np.concatenate(parts).astype(np.float32))
    try:
        card.check_scale(physical[np.isfinite(physical)], look.path.name)
    except ValueError as error:
        text = str(error).removeprefix(f"{look.path.name}: ").partition("; choose")[0]
        return Finding(
            "error", "implausible-values", text, "give another card, see `skysense info`"
        )
    return None


def band_faults(look: Look, card: SensorCard, found: Mapping[str, int]) -> Iterator[Finding]:
    """Bands of one value, and bands that were clipped."""
    for name, i in found.items():
        values = look.sample.ordered[i]
        if values.size < 2:
            continue
        low, high = values[0], values[-1]
        if low == high == 0:
            text = f"band {i + 1} ({name}) holds nothing but 0, though other bands do not"
            yield Finding("error", "zero-band", text, "get the band again")
        elif low == high:
            text = f"band {i + 1} ({name}) holds {low:g} everywhere"
            yield Finding("warning", "constant-band", text, "get the band again")
    yield from _clipped(look, found)


def _clipped(look: Look, found: Mapping[str, int]) -> Iterator[Finding]:
    """The bands in which many values sit at the end of a range."""
    shares = {}
    for name, i in found.items():
        values = look.sample.ordered[i]
        if values.size < 2 or values[0] == values[-1] or values[-1] not in _ends(look, i):
            continue
        share = 1 - look.sample.share_below(i, float(values[-1]))
        if share >= _CLIPPED:
            shares[name] = share
    if shares:
        worst = max(shares, key=lambda name: shares[name])
        end = look.sample.quantile(found[worst], 1.0)
        text = (
            f"{100 * shares[worst]:.0f} % of {worst} sit at {end:g}, the end of the range "
            f"(also: {', '.join(name for name in shares if name != worst) or 'none'})"
        )
        yield Finding("warning", "saturated", text, "make the image again with a wider range")


def _ends(look: Look, index: int) -> tuple[float, ...]:
    """Upper ends of the range that a band can have."""
    assert look.header is not None
    dtype = np.dtype(look.header.dtypes[index])
    if np.issubdtype(dtype, np.integer):
        return (float(np.iinfo(dtype).max), *_CAPS)
    return _CAPS


def nodata_fault(look: Look, card: SensorCard | None) -> Finding | None:
    """A border of one value that is not declared, or declared wrongly."""
    if look.sample.border is None or look.header is None:
        return None
    value, share = look.sample.border
    declared = look.header.nodata
    fix = f"rio edit-info --nodata {value:g} {shlex.quote(str(look.path))}"
    border = f"{100 * share:.0f} % of the pixels, from a corner on, are {value:g} in all bands"
    known = math.isnan(value) or (card is not None and declared is None and card.nodata == value)
    if declared is None:
        text = f"{border}, and no nodata value is declared"
        text += "; it is masked all the same" if known else ": they would be read as measurements"
        return Finding("note" if known else "warning", "no-nodata", text, fix)
    if not look.sample.has_nodata:
        text = f"nodata is declared as {declared:g}, which never occurs, but {border}"
        return Finding("note" if known else "warning", "wrong-nodata", text, fix)
    text = f"nodata is declared as {declared:g}, but {border}, too"
    return Finding("note" if known else "warning", "wrong-nodata", text, fix)


def clouds(look: Look) -> Iterator[Finding]:
    """What a cloud mask takes away."""
    share = look.sample.cloud
    if share is None:
        return
    kind = next(iter(find_masks(look.names)))
    text = f"the mask `{kind}` takes {100 * share:.0f} % of the pixels away, cloud and shadow"
    if share >= _ALL_CLOUDY:
        yield Finding("warning", "all-cloudy", f"{text}: hardly any ground is left", "leave it out")
    elif share >= _CLOUDY:
        yield Finding("note", "clouds", f"{text} (--keep-clouds keeps them)")
