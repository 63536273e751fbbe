"""Which sensor card a file is of: from band names, metadata, file name, pixel size and values.

Every card is scored by the bands it finds by name; cards whose unit the values cannot be in are
out. What is left the file's name, its metadata and its pixel size decide. [ours]
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skysense.data.doctor.findings import Guess
from skysense.data.doctor.forms import Form, form_of_card, forms_of
from skysense.data.doctor.look import Look
from skysense.data.doctor.offset import Offset
from skysense.sensors import SENSORS, SensorCard, find_bands
from skysense.sensors.match import tokens

_SAME_AS_ANOTHER = ("hr",)
"""Cards that are never guessed: `hr` is `rgb8` without a product."""

_LATER = ("s2_l2a_n0400", "s2_l1c_n0400")
"""Cards with the offset of baseline 04.00: chosen by `offset`, not by score."""

_HINTS: tuple[tuple[re.Pattern[str], tuple[str, ...], str], ...] = (
    (re.compile(r"(MSI|S2|(?<![A-Z0-9]))L2A(?![A-Z0-9])"), ("s2_l2a",), "Sentinel-2 L2A"),
    (re.compile(r"(MSI|S2|(?<![A-Z0-9]))L1C(?![A-Z0-9])"), ("s2_l1c",), "Sentinel-2 L1C"),
    (re.compile(r"NAIP|(?:^|[^A-Z])M_\d{7}_"), ("naip", "naip_rgbn"), "NAIP"),
    (re.compile(r"PSSCENE|PLANET|ANALYTICMS"), ("planet",), "PlanetScope"),
)
"""What names say that are not a product's own, in upper case."""

_ORDERS: Mapping[tuple[int, Form], tuple[str, tuple[str, ...]]] = {
    (2, Form.DECIBEL): ("s1", ("VV", "VH")),
    (2, Form.FRACTION): ("s1_linear", ("VV", "VH")),
    (3, Form.BRIGHTNESS): ("rgb8", ("R", "G", "B")),
    (4, Form.BRIGHTNESS): ("naip", ("R", "G", "B", "N")),
    **{
        (len(names), form): (card, names)
        for form, card in ((Form.NUMBERS, "s2_l2a"), (Form.FRACTION, "s2"))
        for names in (
            tuple(b.name for b in SENSORS["s2"].bands),
            ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"),
        )
    },
    (13, Form.NUMBERS): (
        "s2_l1c",
        ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"),
    ),
}
"""The usual order of bands without names, by their number and unit."""


@dataclass(frozen=True)
class Fit:
    """How well a card fits a file."""

    card: SensorCard
    found: Mapping[str, int]
    """Card band to band of the file, by name."""
    score: float
    reasons: tuple[str, ...]
    is_in_unit: bool
    """Whether the values can be in the card's unit."""

    @property
    def is_complete(self) -> bool:
        """All bands are there."""
        return len(self.found) == len(self.card.bands)


def found_in(card: SensorCard, names: Sequence[str | None]) -> dict[str, int]:
    """The card's bands by name; empty where two bands claim to be the same."""
    try:
        return find_bands(card, names)
    except ValueError:
        return {}


def fits_of(look: Look) -> list[Fit]:
    """All cards of which a band is named in a file, the best first."""
    names = [name if i in look.measured else None for i, name in enumerate(look.names)]
    forms = forms_of(look)
    fits = []
    for card in SENSORS.values():
        if card.name in (*_SAME_AS_ANOTHER, *_LATER):
            continue
        found = found_in(card, names)
        if found:
            fits.append(_fit(look, card, found, sum(n is not None for n in names), forms))
    return sorted(fits, key=lambda fit: -fit.score)


def _fit(
    look: Look, card: SensorCard, found: Mapping[str, int], named: int, forms: tuple[Form, ...]
) -> Fit:
    """Score one card: bands of it that are there, bands of the file that it takes, hints."""
    part = "" if len(found) == len(card.bands) else f"{len(found)} of {len(card.bands)} "
    reasons = [f"{part}bands by name ({', '.join(found)})"]
    score = 2 * len(found) / len(card.bands) + len(found) / named
    product = look.found.product
    if product is not None and card.name in product.cards:
        score += 5 if card.name == product.cards[0] else 3.5  # a pair, for each of its files
        reasons.append(f"of the product {product.name}")
    text = " ".join([str(look.path.absolute().parent.name), look.path.name, *_titles(look)]).upper()
    for pattern, cards, what in _HINTS:
        if card.name in cards and pattern.search(text):
            score += 3
            reasons.append(f"named like {what}")
            break
    if card.name == "naip_rgbn":
        score -= 0.3  # models of four bands are rare
    metres = look.file.metres if look.file else math.nan
    if math.isfinite(metres):
        score -= 0.3 * min(3.0, abs(math.log2(metres / card.gsd)))
    form = form_of_card(card)
    if forms:
        reasons.append(f"median {look.sample.median:.4g} of {_kind(look)}, which is {form}")
    in_unit = not forms or (form in forms and not (card.name == "planet" and metres < 2))
    return Fit(card, found, score, tuple(reasons), in_unit)


def _kind(look: Look) -> str:
    """The stored type in a word."""
    assert look.header is not None
    return np.result_type(*look.header.dtypes).name


def _titles(look: Look) -> list[str]:
    """Values of metadata that may name the product."""
    tags = look.header.tags if look.header else {}
    return [value for key, value in tags.items() if "PRODUCT" in key or "TITLE" in key]


def is_nameless(look: Look) -> bool:
    """Whether no band that may be a measurement has a name."""
    return bool(look.measured) and not any(look.names[i] for i in look.measured)


def duplicates(look: Look) -> list[str]:
    """Names that two measured bands share, up to case and zeros."""
    words = [_words(look, i) for i in look.measured]
    twice = {word for word in words if word and words.count(word) > 1}
    return sorted({str(look.names[i]) for i in look.measured if _words(look, i) in twice})


def _words(look: Look, index: int) -> frozenset[str]:
    """The comparable words of a band's name."""
    return frozenset(tokens(look.names[index] or ""))


def usual_names(look: Look, card: SensorCard) -> tuple[str, ...] | None:
    """Band names in the order that files of a card have them, by their number."""
    count = len(look.measured)
    if count == len(card.bands):
        return tuple(band.name for band in card.bands)
    orders = [names for (n, _), (name, names) in _ORDERS.items() if n == count]
    fitting = [names for names in orders if len(found_in(card, names)) == len(card.bands)]
    return fitting[0] if fitting else None


def guess_of(look: Look, offset: Offset) -> Guess | None:
    """The sensor card of a file.

    Args:
        look: the file.
        offset: what is known of the Sentinel-2 offset of its series.

    Returns:
        `None` if no card can mean it.
    """
    if look.header is None:
        return None
    if is_nameless(look) or duplicates(look):
        return _by_order(look, offset)
    fitting = [fit for fit in fits_of(look) if fit.is_in_unit]
    if not fitting:
        return None
    best = fitting[0]
    rest = [fit for fit in fitting[1:] if fit.score > best.score - 1]
    others = [fit.card.name for fit in rest if fit.is_complete or not best.is_complete]
    return _settled(best.card.name, list(best.reasons), others, offset, None)


def _by_order(look: Look, offset: Offset) -> Guess | None:
    """Bands without names: their number and unit, in the usual order."""
    for form in forms_of(look):
        if (len(look.measured), form) in _ORDERS:
            card, names = _ORDERS[len(look.measured), form]
            reasons = [f"{len(names)} bands without names in {form}, taken in the usual order"]
            given = iter(names)
            every = tuple(
                next(given) if i in look.measured else f"other{i + 1}"
                for i in range(len(look.names))
            )
            return _settled(card, reasons, [], offset, every)
    return None


def _settled(
    card: str,
    reasons: list[str],
    others: list[str],
    offset: Offset,
    bands: tuple[str, ...] | None,
) -> Guess:
    """Choose between the two Sentinel-2 cards of a level, and say what else it could be."""
    if f"{card}_n0400" in _LATER:
        twin = f"{card}_n0400"
        card, twin = (twin, card) if offset.is_there else (card, twin)
        if offset.is_there is not None:
            reasons.append(offset.reason)
        if not offset.is_certain:
            others = [twin, *others]
    return Guess(card, tuple(reasons), tuple(others), bands)


def best_by_name(look: Look) -> Fit | None:
    """The card that most band names point to, whatever unit the values are in."""
    fits = [fit for fit in fits_of(look) if len(fit.found) >= 0.5 * len(fit.card.bands)]
    return fits[0] if fits else None
