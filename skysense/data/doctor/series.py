"""What is wrong among files: dates, grids, baselines, bands that no file of a date has."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from skysense.data.doctor.findings import Finding, Guess
from skysense.data.doctor.look import Look
from skysense.data.doctor.numbers import used
from skysense.data.doctor.places import overlaps
from skysense.data.products import find_masks
from skysense.sensors import SENSORS, SensorCard, missing_bands
from skysense.sensors.match import matches

_SAME_GROUND = 0.5
"""Part of the smaller file's ground from which on two files of a day are duplicates."""

_COARSER = 1.5
"""From this ratio of pixel sizes on one file is the coarser copy of another."""

_SHIFTED = 0.02
"""From this part of a pixel on edges do not meet."""

_LAUNCHES = {
    "s2": "2015-06-23",
    "s1": "2014-04-03",
    "landsat": "2013-02-11",
    "planet": "2013-04-21",
}
"""First days of Sentinel-2A, Sentinel-1A, Landsat 8, and Dove-1."""

_FIRST_IMAGE = "1970-01-01"
"""Before it there is no digital image of the Earth to be had."""


@dataclass(eq=False)
class Case:
    """A file under examination; but for its findings it stays as it is made."""

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

    @cached_property
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

    @cached_property
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


def dates(case: Case, is_dated: bool, today: np.datetime64) -> Iterator[Finding]:
    """A date that is missing or cannot be; `is_dated` says whether others of its kind have one."""
    date, card = case.look.date, case.card
    if np.isnat(date):
        text = "no date (YYYYMMDD) in the name of the file or its folder, nor in its metadata"
        fix = f"rename the file to YYYYMMDD_{case.look.path.name}"
        yield Finding("warning" if is_dated else "note", "no-date", text, fix)
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
    days: dict[tuple[str, frozenset[str]], list[int]] = {}
    for i, case in enumerate(cases):
        if case.look.box is not None and not np.isnat(case.look.date):
            days.setdefault((str(case.look.date), frozenset(case.found)), []).append(i)
    pairs = [pair for day in days.values() for pair in _twice([cases[i].look for i in day], day)]
    for first, second in sorted(pairs, key=lambda pair: pair[1]):
        case = cases[second]
        text = (
            f"both hold {', '.join(case.found)} of {case.look.date} on the same ground: "
            f"they count as two dates"
        )
        both = paths([cases[first], case])
        yield Finding("warning", "duplicate-date", text, "leave one out", both)


def _twice(looks: Sequence[Look], numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of files on the same ground, of each file the first with an earlier one.

    A coarser copy is passed over.

    Args:
        looks: files that have a place on the ground.
        numbers: what they are called in the result.
    """
    boxes = np.array([look.box for look in looks])  # (N, 4)
    sizes = np.array([look.file.metres if look.file else np.nan for look in looks])  # (N,)
    for i in range(1, len(looks)):
        large, small = np.maximum(sizes[:i], sizes[i]), np.minimum(sizes[:i], sizes[i])
        same = (overlaps(boxes[i], boxes[:i]) > _SAME_GROUND) & (large < _COARSER * small)
        if same.any():
            yield numbers[int(same.argmax())], numbers[i]


def grids(cases: Sequence[Case]) -> Iterator[Finding]:
    """Coordinate systems and pixel edges of one place and modality."""
    files = [(case, case.look.file) for case in cases if case.look.file is not None]
    systems = sorted({case.look.header.crs or "?" for case, _ in files if case.look.header})
    if len({file.grid.crs for _, file in files}) > 1:
        text = f"the files are in {len(systems)} coordinate systems ({', '.join(systems)})"
        fix = "none needed: embed resamples them to the finest file's grid"
        yield Finding("note", "mixed-crs", text, fix, paths([case for case, _ in files]))
        return
    transforms = np.array([file.grid.transform for _, file in files])  # (N, 6)
    for i in range(1, len(files)):
        off = _off(transforms[:i], transforms[i])
        if off.any():
            text = "pixels of the same size whose edges do not meet"
            fix = "none needed: embed resamples one of them"
            both = paths([files[int(off.argmax())][0], files[i][0]])
            yield Finding("note", "mixed-grids", text, fix, both)
            return


def _off(grids: npt.NDArray[np.float64], grid: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which of `(N, 6)` grids of the pixels of another, `(6,)`, are shifted by parts of a pixel."""
    a, b, c, d, e, f = grids.T
    sizes = [0, 1, 3, 4]
    alike = np.isclose(grids[:, sizes], grid[sizes], rtol=1e-3).all(1)
    dx, dy = grid[2] - c, grid[5] - f
    shifts = np.stack([a * dy - d * dx, e * dx - b * dy]) / (a * e - b * d)  # (2, N)
    return np.asarray(alike & (np.abs(shifts - shifts.round()) > _SHIFTED).any(0))


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
