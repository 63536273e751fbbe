"""Group files into acquisitions: the bands of one date may sit in several files.

Legend: T acquisitions.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skysense.data.ground import bounds_in, footprint
from skysense.data.rasters import RasterFile, expand, inspect
from skysense.geo import Bounds, Grid, Window, intersect
from skysense.sensors import SENSORS, SensorCard, find_bands, get_sensor, missing_bands
from skysense.sensors.match import matches

SCENE_CLASSES = "SCL"
"""Name of the Sentinel-2 scene classification band."""

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
    sources: dict[str, tuple[RasterFile, int]] = field(default_factory=dict)
    """Card band to `(file, band index)`."""
    classes: tuple[RasterFile, int] | None = None
    """Scene classification, if there is one."""

    @property
    def files(self) -> list[RasterFile]:
        """Its files, each once, in order of first use."""
        sources = [*self.sources.values(), *([self.classes] if self.classes else [])]
        return list({file.path: file for file, _ in sources}.values())


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
    paths: Sequence[str | Path], sensor: str, names: Sequence[str] | None = None
) -> Layer:
    """Find the acquisitions of one sensor in files and folders.

    Args:
        paths: files, or folders that are searched for files.
        sensor: name of the sensor card.
        names: band names to use instead of what the files say.

    Raises:
        ValueError: a file is unusable, or a band is missing; the message lists what was found.
    """
    card = get_sensor(sensor)
    given = {Path(p) for p in paths}
    files = [inspect(path, names) for path in dict.fromkeys(expand(paths))]
    card = _by_baseline(card, files)
    acquisitions: list[Acquisition] = []
    for file in sorted(files, key=lambda f: (float(f"{f.metres:.2g}"), str(f.path))):
        try:
            found = find_bands(card, file.names)
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from None
        classes = [i for i, name in enumerate(file.names) if _is_classes(name)]
        if not found and not classes:
            if file.path in given:
                raise ValueError(_lacking(card, [band.name for band in card.bands], [file]))
            continue  # a folder may hold other products
        _place(acquisitions, file, found, classes[0] if classes else None)
        if file.path in given and not any(file in a.files for a in acquisitions):
            warnings.warn(
                f"{file.path} is not used: its bands are there in finer pixels", stacklevel=2
            )
    acquisitions = [a for a in acquisitions if a.sources]
    if not acquisitions:
        raise ValueError(_lacking(card, [band.name for band in card.bands], files))
    for acquisition in acquisitions:
        missing = missing_bands(card, list(acquisition.sources))
        if missing:
            raise ValueError(_lacking(card, missing, acquisition.files, acquisition.date))
    acquisitions.sort(key=lambda a: (np.isnat(a.date), a.date))
    return Layer(card, tuple(acquisitions), _union_grid(acquisitions))


def _is_classes(name: str | None) -> bool:
    """Whether a band name is the scene classification's."""
    return name is not None and SCENE_CLASSES in name.upper().replace("-", "_").split("_")


def _by_baseline(card: SensorCard, files: Sequence[RasterFile]) -> SensorCard:
    """The baseline 04.00 twin of a Sentinel-2 card, where the product names say so."""
    baselines = {file.baseline for file in files if file.baseline is not None}
    newer = {baseline >= 400 and baseline != 9999 for baseline in baselines}
    if card.name not in ("s2_l2a", "s2_l1c") or True not in newer:
        return card
    if len(newer) > 1:
        raise ValueError(
            "the files mix Sentinel-2 processing baselines before and after 04.00 "
            f"({sorted(baselines)}), whose digital numbers differ by 1000; embed them separately"
        )
    return SENSORS[f"{card.name}_n0400"]


def _place(
    acquisitions: list[Acquisition],
    file: RasterFile,
    found: dict[str, int],
    classes: int | None,
) -> None:
    """Put a file's bands into the acquisition they belong to, or start a new one.

    Files of one date belong together where they share ground, and most with what they share most
    with, unless they hold the same band at the same pixel size; a band that is there at a finer
    size already is not taken again.
    """
    target, most = Acquisition(file.date), 0.0
    for acquisition in acquisitions:
        if _same_day(acquisition.date, file.date) and not _twice(acquisition, file, found, classes):
            shared = _shared(acquisition, file)
            if shared > most:
                target, most = acquisition, shared
    if not most:
        acquisitions.append(target)
    for name, index in found.items():
        target.sources.setdefault(name, (file, index))
    if classes is not None and target.classes is None:
        target.classes = (file, classes)


def _same_day(first: np.datetime64, second: np.datetime64) -> bool:
    """Equal days; two unknown days count as equal."""
    return bool(first == second or (np.isnat(first) and np.isnat(second)))


def _twice(
    acquisition: Acquisition, file: RasterFile, found: dict[str, int], classes: int | None
) -> bool:
    """Whether an acquisition has a band of the file already, at about the same pixel size."""
    same = [acquisition.sources[name][0] for name in found if name in acquisition.sources]
    if classes is not None and acquisition.classes is not None:
        same.append(acquisition.classes[0])
    return any(file.metres < _COARSER * other.metres for other in same)


def _shared(acquisition: Acquisition, file: RasterFile) -> float:
    """The ground that a file shares with one of an acquisition, as a part of its own."""
    return max(_part(bounds_in(file.grid, o.grid.crs), o.grid.bounds) for o in acquisition.files)


def _part(bounds: Bounds, other: Bounds) -> float:
    """How much of a bounding box lies in another: 0...1."""
    common = intersect(bounds, other)
    return _area(common) / _area(bounds) if common else 0.0


def _area(bounds: Bounds) -> float:
    """Width times height."""
    return (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])


def _union_grid(acquisitions: Sequence[Acquisition]) -> Grid:
    """Pixels of the finest file (the first of those), extended over the ground of all files.

    Raises:
        ValueError: the files lie so far apart that nearly all of it would be empty.
    """
    files = [file for acquisition in acquisitions for file in acquisition.files]
    least = _ALIKE * min(file.metres for file in files)
    finest = next(file for file in files if file.metres <= least).grid
    windows = [
        Window(0, 0, *finest.shape) if file.grid == finest else footprint(finest, file.grid)
        for file in files
    ]
    top, left = min(w.row for w in windows), min(w.col for w in windows)
    height = max(w.row + w.height for w in windows) - top
    width = max(w.col + w.width for w in windows) - left
    if height * width > max(_LARGE, _SPARSE * sum(w.height * w.width for w in windows)):
        raise ValueError(
            f"the files lie too far apart for one map, from {files[0].path} to {files[-1].path}; "
            f"embed them separately"
        )
    return finest.window(Window(top, left, height, width))


def _lacking(
    card: SensorCard,
    missing: Sequence[str],
    files: Sequence[RasterFile],
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
    fitting = [
        other.name
        for other in SENSORS.values()
        if other.modality == card.modality
        and other.name != card.name
        and all(any(matches(band, name) for name in have) for band in other.bands)
    ]
    if fitting and not nameless:
        hint = f"these bands would fit `--sensor {fitting[0]}`"
    return (
        f"sensor `{card.name}` needs {', '.join(missing)}{when}, not found by name in: "
        f"{listed}{more}; {hint}"
    )
