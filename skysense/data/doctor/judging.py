"""Checks of one file, read with the card that was told or guessed."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from skysense.data.doctor.findings import Finding, Guess
from skysense.data.doctor.forms import Form, forms_of
from skysense.data.doctor.guess import (
    best_by_name,
    duplicates,
    found_in,
    guess_of,
    is_nameless,
    usual_names,
)
from skysense.data.doctor.look import Look
from skysense.data.doctor.numbers import (
    band_faults,
    clouds,
    nodata_fault,
    offset_fault,
    scale_fault,
    unit_fault,
)
from skysense.data.doctor.offset import Offset, offset_of
from skysense.data.doctor.places import places_of
from skysense.data.doctor.series import Case
from skysense.data.doctor.spectra import exchanged
from skysense.data.doctor.structure import structure
from skysense.sensors import SENSORS, SensorCard

_ODD_PIXELS, _WRONG_PIXELS = 4.0, 50.0
"""How many times a pixel may be larger or smaller than the card's: a note, a warning."""


def judge(
    looks: Sequence[Look], told: SensorCard | None, names: Sequence[str] | None = None
) -> list[Case]:
    """Guess and check every file by itself."""
    cases = []
    days: dict[tuple[int | None, str], list[Look]] = {}
    places = places_of(looks)
    for place, look in zip(places, looks, strict=True):
        days.setdefault((place, str(look.date)), []).append(look)
    offsets = {day: offset_of(together) for day, together in days.items() if day[0] is not None}
    for place, look in zip(places, looks, strict=True):
        offset = offset_of([look]) if place is None else offsets[place, str(look.date)]
        guess = guess_of(look, offset)
        card = told if told else (SENSORS[guess.card] if guess else None)
        if offset.is_named and offset.is_there and card and f"{card.name}_n0400" in SENSORS:
            card = SENSORS[f"{card.name}_n0400"]  # as `embed` does
        guess = _named(look, guess, card)
        if guess is not None and names is not None and look.names == tuple(names):
            guess = replace(guess, bands=tuple(names))
        case = Case(look, place, guess, card, told is not None)
        case.findings += structure(look)
        if not case.is_out:
            case.findings += _judged(case, offset)
        cases.append(_corrected(case))
    return cases


def _corrected(case: Case) -> Case:
    """The case with the band names that were found to be right."""
    wrong = (f for f in case.findings if f.code == "polarizations-exchanged")
    fix = next((finding.fix for finding in wrong), None)
    if fix is None or case.guess is None:
        return case
    names = tuple(fix.removeprefix("--bands ").split(","))
    return replace(case, guess=replace(case.guess, bands=names))


def _named(look: Look, guess: Guess | None, card: SensorCard | None) -> Guess | None:
    """The guess, with band names for the card that was told where the file has none."""
    if card is None or not (is_nameless(look) or duplicates(look)):
        return guess
    if guess is not None and guess.card == card.name:
        return guess
    names = usual_names(look, card)
    if names is None or len(names) != len(look.names):
        return guess
    reason = f"{len(names)} bands without names, taken in the usual order"
    return replace(guess or Guess(card.name, (reason,)), bands=names)


def _judged(case: Case, offset: Offset) -> Iterator[Finding]:
    """Checks that need a card; those of units and bands stop at the first fault."""
    look, card = case.look, case.card
    yield from clouds(look)
    nodata = nodata_fault(look, card)
    if nodata is not None and card is not None:
        yield nodata
    if case.is_classes and not case.found:
        return
    yield from _naming(case)
    fault = None
    if card is None:
        fit = best_by_name(look)
        fault = unit_fault(look, fit.card, fit.found) if fit else None
    elif case.found:
        fault = unit_fault(look, card, case.found) or offset_fault(look, card, offset)
        fault = fault or scale_fault(look, card, case.found)
    if fault is not None:
        yield fault
    if card is None or not case.found or not look.sample.valid:
        return
    yield from band_faults(look, card, case.found)
    yield from _pixel_size(case, card)
    yield from _as_picture(case, card)
    swapped = None if fault else exchanged(look, card, case.found)
    if swapped is not None:
        yield swapped


def _naming(case: Case) -> Iterator[Finding]:
    """Bands without names, or with the same."""
    look = case.look
    if look.file is None:
        return
    bands = case.guess.bands if case.guess else None
    fix = f"--bands {','.join(bands)}" if bands else "name them by --bands"
    usual = "; the usual order is a guess, make sure of it" if bands else ""
    if is_nameless(look):
        text = f"its {len(look.names)} bands have no names, and position alone says nothing"
        yield Finding("error", "no-band-names", text + usual, fix)
    elif twice := duplicates(look):
        text = f"several bands are named {', '.join(twice)}"
        yield Finding("error", "duplicate-band", text + usual, fix)


def _pixel_size(case: Case, card: SensorCard) -> Iterator[Finding]:
    """Pixels that are far larger or smaller than the sensor's."""
    file = case.look.file
    if file is None:
        return
    times = max(file.metres / card.gsd, card.gsd / file.metres)
    if times > _ODD_PIXELS:
        text = (
            f"its pixels are {file.metres:.3g} m wide; sensor `{card.name}` is made for "
            f"{card.gsd:g} m"
        )
        severe = times > _WRONG_PIXELS
        fix = "make sure of the georeference" if severe else None
        yield Finding("warning" if severe else "note", "pixel-size", text, fix)


def _as_picture(case: Case, card: SensorCard) -> Iterator[Finding]:
    """Bands of a satellite's reflectance, named as such, in a stretched 8-bit picture."""
    if (
        card.modality != "hr"
        or card.unit == "reflectance"
        or Form.BRIGHTNESS not in forms_of(case.look)
    ):
        return
    numbered = [name for name in case.names if name and found_in(SENSORS["s2"], [name])]
    coded = [name for name in numbered if any(letter.isdigit() for letter in name)]
    if coded:
        text = (
            f"{', '.join(coded)} are bands of reflectance, but the file holds an 8-bit picture of "
            f"them: it can be embedded as `{card.name}` alone"
        )
        yield Finding("warning", "eight-bit", text, f"--sensor {card.name}")
