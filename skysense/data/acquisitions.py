"""Group files into acquisitions: the bands of one date may sit in several files.

Legend: T acquisitions.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from skysense.data.ground import bounds_in, footprint
from skysense.data.products import Found, find_files, find_masks, inspect_found
from skysense.data.rasters import RasterFile, Source
from skysense.geo import Bounds, Grid, Window, enclosing, intersect
from skysense.sensors import (
    DEFAULT_SENSORS,
    SENSORS,
    SensorCard,
    find_bands,
    get_sensor,
    missing_bands,
)
from skysense.sensors.match import matches

SourceT = TypeVar("SourceT", bound=Source)

_ALIKE = 1.05
"""Up to this ratio of sizes pixels count as equally fine; UTM alone stretches by 0.1 %."""

_COARSER = 1.5
"""From this ratio of pixel sizes on a band is the coarser copy of another, as products have it."""

_SPARSE = 100
"""How many times the pixels of its files the grid of a layer may have, if it is large."""

_LARGE = 10_000_000
"""Pixels from which on a nearly empty grid is refused."""


@dataclass
class Acquisition:
    """One date: which band of which file feeds which band of the card."""

    date: np.datetime64
    """Day, NaT if unknown."""
    sources: dict[str, tuple[Source, int]] = field(default_factory=dict)
    """Card band to `(file, band index)`."""
    masks: dict[str, tuple[Source, int]] = field(default_factory=dict)
    """Kind of cloud mask (of `skysense.data.products.find_masks`) to `(file, band index)`."""
    cloud_cover: float | None = None
    """Share of clouds that a catalog gives, 0 to 1."""

    @property
    def classes(self) -> tuple[Source, int] | None:
        """Sentinel-2 scene classification, if there is one."""
        return self.masks.get("scl")

    @property
    def files(self) -> list[Source]:
        """Its files, each once, in order of first use."""
        sources = [*self.sources.values(), *self.masks.values()]
        return list({file.key: file for file, _ in sources}.values())

    @property
    def measured(self) -> list[Source]:
        """Its files that are more than masks; all of them where there is no other."""
        own = {file.key: file for file, _ in self.sources.values()}
        return list(own.values()) or self.files

    @property
    def product(self) -> str:
        """The product that its files are of, if one of them says so."""
        return next((file.product for file in self.files if file.product), "")


@dataclass(frozen=True)
class Layer:
    """One modality of a scene: its sensor, its dates, its native grid."""

    card: SensorCard
    """The sensor."""
    acquisitions: tuple[Acquisition, ...]
    """In order of date, unknown dates last."""
    grid: Grid
    """Pixels of the finest file, over all files."""

    @property
    def dates(self) -> np.ndarray:
        """`(T,)` datetime64[D]."""
        return np.array([a.date for a in self.acquisitions], "datetime64[D]")


def open_layer(
    paths: Sequence[str | Path],
    sensor: str | None,
    names: Sequence[str] | None = None,
    modality: str | None = None,
    wanted: Callable[[np.datetime64], bool] | None = None,
) -> Layer:
    """Find the acquisitions of one sensor in files, folders and archives.

    Args:
        paths: files, or folders and archives that are searched for files.
        sensor: name of the sensor card; `None` takes that of the products, else the modality's.
        names: band names to use instead of what the files say.
        modality: whose default card to take, where `sensor` is not given.
        wanted: whether a day is of use: files whose names say another are not opened, where some
            say one that is. Acquisitions of other days may be among the rest.

    Raises:
        ValueError: a file is unusable, or a band is missing; the message lists what was found.
    """
    found = find_files(paths)
    if wanted is not None and any(wanted(one.date) for one in found):
        found = [one for one in found if np.isnat(one.date) or wanted(one.date)]
    card = _card(found, sensor, modality)
    kept, other = _of_card(card, found)
    given = {one.path for one in kept if one.path == one.given}
    files = [inspect_found(one, names) for one in kept]
    if other and not any(_has_bands(card, file) for file in files):
        raise ValueError(_of_another(card, other[0]))
    card = _by_baseline(card, files)
    return group(card, [on_card(file, card) for file in files], {str(path) for path in given})


def group(card: SensorCard, files: Sequence[Source], given: set[str] | None = None) -> Layer:
    """Put files together to acquisitions.

    Args:
        card: whose bands are looked for.
        files: what was found.
        given: labels of files that must be of use, since the user named them.

    Raises:
        ValueError: a band is missing, or a given file has none; the message lists what was found.
    """
    given = given or set()
    acquisitions: list[Acquisition] = []
    for file in sorted(files, key=lambda f: (float(f"{f.metres:.2g}"), f.label)):
        try:
            found = find_bands(card, file.names)
        except ValueError as error:
            raise ValueError(f"{file.label}: {error}") from None
        masks = find_masks(file.names)
        if not found and not masks:
            if file.label in given:
                raise ValueError(_lacking(card, [band.name for band in card.bands], [file]))
            continue  # a folder may hold other products
        _place(acquisitions, file, found, masks)
        if file.label in given and not any(file in a.files for a in acquisitions):
            warnings.warn(
                f"{file.label} is not used: its bands are there in finer pixels", stacklevel=3
            )
    return finish(card, [a for a in acquisitions if a.sources], files)


def finish(
    card: SensorCard, acquisitions: list[Acquisition], files: Sequence[Source] = ()
) -> Layer:
    """A layer of complete acquisitions, in order of date.

    Args:
        card: the sensor.
        acquisitions: what was put together.
        files: what was looked at, for the message.

    Raises:
        ValueError: a band is missing, or there is nothing.
    """
    if not acquisitions:
        raise ValueError(_lacking(card, [band.name for band in card.bands], files))
    for acquisition in acquisitions:
        missing = missing_bands(card, list(acquisition.sources))
        if missing:
            _say_where(missing, acquisition, acquisitions)
            raise ValueError(_lacking(card, missing, acquisition.files, acquisition.date))
    acquisitions.sort(key=lambda a: (np.isnat(a.date), a.date))
    return Layer(card, tuple(acquisitions), union_grid(acquisitions))


def _card(found: Sequence[Found], sensor: str | None, modality: str | None) -> SensorCard:
    """The card that is asked for, else that of the products, else the modality's default.

    Raises:
        ValueError: the products are read with different cards.
    """
    if sensor is not None:
        return get_sensor(sensor)
    default = {str(key): name for key, name in DEFAULT_SENSORS.items()}.get(modality or "")
    cards = {one.product.cards[0] for one in found if one.product and one.product.cards}
    own = sorted(name for name in cards if modality in (None, SENSORS[name].modality))
    if len(own) > 1:
        raise ValueError(
            f"the files are products of several sensors ({', '.join(own)}); choose one with "
            f"`--sensor`, and give only its files"
        )
    if not own and default is None:
        raise ValueError("nothing says which sensor these files are of; choose a `--sensor`")
    return get_sensor(own[0] if own else default or "")


def _of_card(card: SensorCard, found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """What the card may read, and the products of another sensor that a folder holds besides.

    Raises:
        ValueError: a product of another sensor was named.
    """
    kept: list[Found] = []
    other: list[Found] = []
    for one in found:
        cards = one.product.cards if one.product else ()
        fits = not cards or card.name in cards or SENSORS[cards[0]].modality != card.modality
        fits = fits and not (one.product and one.product.problem)
        (kept if fits else other).append(one)
    wrong = [one for one in other if one.by_name]
    if wrong:
        raise ValueError(_of_another(card, wrong[0]))
    return kept, other


def _of_another(card: SensorCard, found: Found) -> str:
    """The message for a product that the card cannot read."""
    product = found.product
    assert product is not None
    return product.problem or (
        f"{product.name} is a product of sensor `{product.cards[0]}`, but `{card.name}` is asked "
        f"for; choose `--sensor {product.cards[0]}`"
    )


def _has_bands(card: SensorCard, file: Source) -> bool:
    """Whether a file has a band of the card, or claims to have one twice."""
    try:
        return bool(find_bands(card, file.names))
    except ValueError:
        return True


def _shifted(file: RasterFile) -> bool | None:
    """Whether Sentinel-2 numbers hold the offset of baseline 04.00; `None` if not known."""
    if file.scaling is not None:
        return file.scaling[1] < 0
    return None if file.baseline is None else file.baseline >= 400 and file.baseline != 9999


def _by_baseline(card: SensorCard, files: Sequence[RasterFile]) -> SensorCard:
    """The baseline 04.00 twin of a Sentinel-2 card, where the products say so."""
    shifted = {file.label: _shifted(file) for file in files}
    if card.name not in ("s2_l2a", "s2_l1c") or True not in shifted.values():
        return card
    unscaled = any(file.scaling is None and file.baseline is not None for file in files)
    if False in shifted.values() and unscaled:
        baselines = sorted({file.baseline for file in files if file.baseline is not None})
        raise ValueError(
            "the files mix Sentinel-2 processing baselines before and after 04.00 "
            f"({baselines}), whose digital numbers differ by 1000; embed them separately"
        )
    return SENSORS[f"{card.name}_n0400"]


def on_card(file: SourceT, card: SensorCard) -> SourceT:
    """A file whose numbers are brought to those that the card speaks of, where it says how."""
    if file.scaling is None or card.name == card.modality or find_masks(file.names):
        return file
    scale, offset = file.scaling
    gain, bias = scale / card.scale, (offset - card.offset) / card.scale
    return replace(file, gain=float(f"{gain:.12g}"), bias=float(f"{bias:.12g}"))


def _place(
    acquisitions: list[Acquisition], file: Source, found: dict[str, int], masks: dict[str, int]
) -> None:
    """Put a file's bands into the acquisition they belong to, or start a new one.

    Files of one date and product belong together where they share ground, and most with what they
    share most with, unless they hold the same band at the same pixel size; a band that is there at
    a finer size already is not taken again.
    """
    target, most = Acquisition(file.date), 0.0
    for acquisition in acquisitions:
        together = not file.product or acquisition.product in ("", file.product)
        together = together and _same_day(acquisition.date, file.date)
        if together and not _twice(acquisition, file, found, masks):
            shared = _shared(acquisition, file)
            if shared > most:
                target, most = acquisition, shared
    if not most:
        acquisitions.append(target)
    for name, index in found.items():
        target.sources.setdefault(name, (file, index))
    for kind, index in masks.items():
        target.masks.setdefault(kind, (file, index))


def _same_day(first: np.datetime64, second: np.datetime64) -> bool:
    """Equal days; two unknown days count as equal."""
    return bool(first == second or (np.isnat(first) and np.isnat(second)))


def _twice(
    acquisition: Acquisition, file: Source, found: dict[str, int], masks: dict[str, int]
) -> bool:
    """Whether an acquisition has a band of the file already, at about the same pixel size."""
    same = [acquisition.sources[name][0] for name in found if name in acquisition.sources]
    same += [acquisition.masks[kind][0] for kind in masks if kind in acquisition.masks]
    return any(file.metres < _COARSER * other.metres for other in same)


def _shared(acquisition: Acquisition, file: Source) -> float:
    """The ground that a file shares with one of an acquisition, as a part of its own."""
    return max(_part(bounds_in(file.grid, o.grid.crs), o.grid.bounds) for o in acquisition.files)


def _part(bounds: Bounds, other: Bounds) -> float:
    """How much of a bounding box lies in another: 0...1."""
    common = intersect(bounds, other)
    return _area(common) / _area(bounds) if common else 0.0


def _area(bounds: Bounds) -> float:
    """Width times height."""
    return (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])


def union_grid(acquisitions: Sequence[Acquisition]) -> Grid:
    """Pixels of the finest file (the first of those), extended over the ground of all files.

    Raises:
        ValueError: the files lie so far apart that nearly all of it would be empty.
    """
    files = [file for acquisition in acquisitions for file in acquisition.measured]
    least = _ALIKE * min(file.metres for file in files)
    finest = next(file for file in files if file.metres <= least).grid
    windows = [
        Window(0, 0, *finest.shape) if file.grid == finest else footprint(finest, file.grid)
        for file in files
    ]
    whole = enclosing(windows)
    if whole.height * whole.width > max(_LARGE, _SPARSE * sum(w.height * w.width for w in windows)):
        raise ValueError(
            f"the files lie too far apart for one map, from {files[0].label} to {files[-1].label}; "
            f"embed them separately"
        )
    return finest.window(whole)


def _say_where(
    missing: Sequence[str], acquisition: Acquisition, acquisitions: Sequence[Acquisition]
) -> None:
    """Refuse bands that are there on the same day but go with another file, or lie elsewhere.

    Raises:
        ValueError: so it is; the message says which files.
    """
    for other in acquisitions:
        same = other is not acquisition and _same_day(other.date, acquisition.date)
        if not same or not set(missing) <= set(other.sources):
            continue
        file, lone = other.sources[missing[0]][0], acquisition.files[0]
        why = "which lies elsewhere: give files of one place, or complete ones"
        if _shared(acquisition, file):
            why = "and the rest of its bands are there twice: leave one of the files out"
        raise ValueError(
            f"{lone.label} lacks {', '.join(missing)}; of {acquisition.date} they are in "
            f"{file.label}, {why}"
        )


def _lacking(
    card: SensorCard,
    missing: Sequence[str],
    files: Sequence[Source],
    date: np.datetime64 | None = None,
) -> str:
    """The message for missing bands: what is needed, what was found, what to do."""
    when = "" if date is None or np.isnat(date) else f" of {date}"
    listed = "; ".join(file.found for file in files[:4])
    more = "" if len(files) <= 4 else f"; and {len(files) - 4} more files"
    nameless = any(name is None for file in files for name in file.names)
    hint = "add the file that has them, or choose another `--sensor`"
    if nameless:
        hint = "name the bands with `--bands`"
    have = {name for file in files for name in file.names if name}
    product = any(file.product for file in files)
    fitting = [
        other.name
        for other in SENSORS.values()
        if other.modality == card.modality
        and other.name != card.name
        and (not product or other.name.partition("_")[0] == card.name.partition("_")[0])
        and all(any(matches(band, name) for name in have) for band in other.bands)
    ]
    if fitting and not nameless:
        hint = f"these bands would fit `--sensor {fitting[0]}`"
    return (
        f"sensor `{card.name}` needs {', '.join(missing)}{when}, not found by name in: "
        f"{listed}{more}; {hint}"
    )
