"""What is wrong among files: dates, grids, baselines, bands that no file of a date has."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from skysense.data.doctor.findings import Finding, Guess
from skysense.data.doctor.look import Look
from skysense.data.doctor.numbers import used
from skysense.data.doctor.places import overlap
from skysense.data.products import find_masks
from skysense.sensors import SENSORS, SensorCard, missing_bands
from skysense.sensors.match import matches

_SAME_GROUND = 0.5
"""Part of the smaller file's ground from which on two files of a day are duplicates."""

_COARSER = 1.5
"""From this ratio of pixel sizes on one file is the coarser copy of another."""

_LAUNCHES = {
    "s2": "2015-06-23",
    "s1": "2014-04-03",
    "landsat": "2013-02-11",
    "planet": "2013-04-21",
}
"""First days of Sentinel-2A, Sentinel-1A, Landsat 8, and Dove-1."""

_FIRST_IMAGE = "1970-01-01"
"""Before it there is no digital image of the Earth to be had."""


@dataclass
class Case:
    """A file under examination."""

    look: Look
    place: int | None
    guess: Guess | None
    card: SensorCard | None
    """The card it is read with: as told, else as guessed."""
    told: bool = False
    """The user named the card."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def names(self) -> tuple[str | None, ...]:
        """Band names, those to be given included."""
        bands = self.guess.bands if self.guess else None
        return bands if bands and len(bands) == len(self.look.names) else self.look.names

    @property
    def found(self) -> dict[str, int]:
        """The card's bands in the file."""
        if self.card is None or self.is_of_another_product:
            return {}
        return used(self.look, self.card, self.names)

    @property
    def is_of_another_product(self) -> bool:
        """Its product is of another card than was told, so that the readers leave it out."""
        product = self.look.found.product
        if not self.told or self.card is None or product is None or not product.cards:
            return False
        same = SENSORS[product.cards[0]].modality == self.card.modality
        return same and self.card.name not in product.cards

    @property
    def is_classes(self) -> bool:
        """A file of a cloud mask."""
        return bool(find_masks(self.look.names))

    @property
    def is_out(self) -> bool:
        """Nothing can be made of it, whatever option is given."""
        return any(finding.is_fatal for finding in self.findings)


def paths(cases: Sequence[Case]) -> tuple[str, ...]:
    """Their files."""
    return tuple(str(case.look.path) for case in cases)


def dates(case: Case, together: Sequence[Case], today: np.datetime64) -> Iterator[Finding]:
    """A date that is missing or cannot be."""
    date, card = case.look.date, case.card
    if np.isnat(date):
        text = "no date (YYYYMMDD) in the name of the file or its folder, nor in its metadata"
        lone = not any(not np.isnat(c.look.date) for c in together if c is not case)
        fix = f"rename the file to YYYYMMDD_{case.look.path.name}"
        yield Finding("note" if lone else "warning", "no-date", text, fix)
        return
    if date > today:
        text = f"its date {date} lies in the future"
        yield Finding("warning", "future-date", text, "mend the date in the file's name")
        return
    product = card.name.partition("_")[0] if card else ""
    launch = np.datetime64(_LAUNCHES.get(product, _FIRST_IMAGE))
    if date < launch:
        text = f"its date {date} lies before the first image of the kind, {launch}"
        yield Finding("warning", "early-date", text, "mend the date in the file's name")


def missing(cases: Sequence[Case], told: bool) -> Iterator[Finding]:
    """Bands of the card that no file of a date has; `cases` are of one place and modality."""
    days: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if case.card is not None and case.found:
            days.setdefault((str(case.look.date), case.card.name), []).append(case)
    for (day, name), group in days.items():
        card = SENSORS[name]
        lacking = missing_bands(card, [band for case in group for band in case.found])
        if not lacking:
            continue
        when = "" if day == "NaT" else f" of {day}"
        text = f"sensor `{name}` needs {', '.join(lacking)} as well, which no file{when} has"
        have = {band for case in group for band in case.names if band}
        others = [o.name for o in SENSORS.values() if o.name != card.name and _covered(o, have)]
        others = [o for o in others if SENSORS[o].unit == card.unit and o != "hr"]
        fix = f"--sensor {others[0]}" if others else "add the file that has them"
        yield Finding("error" if told else "warning", "missing-bands", text, fix, paths(group))


def _covered(card: SensorCard, have: set[str]) -> bool:
    """Whether names name all bands of a card."""
    return all(any(matches(band, name) for name in have) for band in card.bands)


def duplicates_among(cases: Sequence[Case]) -> Iterator[Finding]:
    """Files of one day with the same bands on the same ground."""
    for i, case in enumerate(cases):
        for other in cases[:i]:
            same = case.look.date == other.look.date and case.found.keys() == other.found.keys()
            if same and _alike(case, other) and overlap(case.look, other.look) > _SAME_GROUND:
                text = (
                    f"both hold {', '.join(case.found)} of {case.look.date} on the same ground: "
                    f"they count as two dates"
                )
                yield Finding(
                    "warning", "duplicate-date", text, "leave one out", paths([other, case])
                )
                break


def _alike(first: Case, second: Case) -> bool:
    """Whether two files have pixels of about one size; a coarser copy is passed over."""
    sizes = [case.look.file.metres for case in (first, second) if case.look.file]
    return len(sizes) == 2 and max(sizes) < _COARSER * min(sizes)


def grids(cases: Sequence[Case]) -> Iterator[Finding]:
    """Coordinate systems and pixel edges of one place and modality."""
    files = [(case, case.look.file) for case in cases if case.look.file is not None]
    systems = sorted({case.look.header.crs or "?" for case, _ in files if case.look.header})
    if len({file.grid.crs for _, file in files}) > 1:
        text = f"the files are in {len(systems)} coordinate systems ({', '.join(systems)})"
        fix = "none needed: embed resamples them to the finest file's grid"
        yield Finding("note", "mixed-crs", text, fix, paths([case for case, _ in files]))
        return
    for i, (case, file) in enumerate(files):
        for other, first in files[:i]:
            if _off(first.grid.transform, file.grid.transform):
                text = "pixels of the same size whose edges do not meet"
                fix = "none needed: embed resamples one of them"
                yield Finding("note", "mixed-grids", text, fix, paths([other, case]))
                return


def _off(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    """Whether two grids of equal pixels are shifted by parts of a pixel."""
    a, b, c, d, e, f = first
    if not np.allclose(np.delete(first, [2, 5]), np.delete(second, [2, 5]), rtol=1e-3):
        return False
    determinant = a * e - b * d
    dx, dy = second[2] - c, second[5] - f
    shifts = ((a * dy - d * dx) / determinant, (e * dx - b * dy) / determinant)
    return any(abs(shift - round(shift)) > 0.02 for shift in shifts)


def is_scaled(cases: Sequence[Case]) -> bool:
    """Whether metadata say what the numbers of all files mean; readers even it out then."""
    return all(case.look.file and case.look.file.scaling for case in cases)


def products(cases: Sequence[Case]) -> Iterator[Finding]:
    """A series of several products: with and without the offset, or of several levels."""
    counts = Counter(case.card.name for case in cases if case.card)
    listed = ", ".join(f"{count} files of `{name}`" for name, count in sorted(counts.items()))
    levels = {name.removesuffix("_n0400") for name in counts}
    if len(levels) < len(counts) and not is_scaled(cases):
        text = f"the digital numbers of one series differ by 1000: {listed}"
        fix = "embed them separately, or take harmonized products"
        yield Finding("error", "mixed-baselines", text, fix, paths(cases))
    elif len({SENSORS[name].bands for name in counts}) > 1:
        text = f"one place has {listed}: a map takes one of them"
        fix = "embed them separately, naming the files of one"
        yield Finding("warning", "mixed-products", text, fix, paths(cases))
