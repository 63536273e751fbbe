"""The examination: look at every file, judge it alone and among the others, advise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from skysense.data.doctor.among import across, commands_for
from skysense.data.doctor.chosen import Chosen
from skysense.data.doctor.findings import FileReport, Finding, Report, worst_first
from skysense.data.doctor.judging import judge
from skysense.data.doctor.look import SIDE, Look, find, look_at
from skysense.data.doctor.series import Case
from skysense.data.products import Found
from skysense.sensors import DEFAULT_SENSORS, SENSORS, get_sensor

_QUICK_SIDE = 64
"""Side of the windows of the check before embedding."""


def examine(
    inputs: Sequence[str | Path],
    sensor: str | None = None,
    names: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Say what rasters are, what is wrong with them, and what mends it.

    Args:
        inputs: files and folders; folders are searched as `embed` searches them.
        sensor: the card they are to be read with; default: guess it for each file.
        names: band names to use instead of what the files say.
        progress: is told of each file that was looked at.

    Raises:
        ValueError: a path does not exist, a folder holds no raster, or the card is unknown.
    """
    return _examine(inputs, sensor, names, progress, SIDE)


def first_errors(
    inputs: Sequence[str | Path],
    sensor: str | None = None,
    names: Sequence[str] | None = None,
    modality: str | None = None,
    progress: Callable[[int], None] | None = None,
    chosen: Chosen | None = None,
) -> list[Finding]:
    """What `embed` must not start on: the errors alone, from smaller samples.

    Args:
        inputs: files, folders and archives of one modality.
        sensor: the card they are read with; default: that of the products, else the modality's.
        names: band names to use instead of what the files say.
        modality: whose default card to take, where no product says one.
        progress: is told of each file, looked at or left out.
        chosen: what a scene takes of the inputs; other files are left out. What the reader says of
            them is known then and not asked again. Default: all.

    Raises:
        ValueError: as `examine`.
    """
    card = sensor or _usual(inputs, modality)
    report = _examine(inputs, card, names, progress, _QUICK_SIDE, chosen)
    return [finding for finding in report.findings if finding.severity == "error"]


def _usual(inputs: Sequence[str | Path], modality: str | None) -> str | None:
    """The card that the readers take where none is named."""
    found = [one for path in inputs if Path(path).exists() for one in _found(Path(path))]
    products = [one.product for one in found if isinstance(one, Found) and one.product]
    cards = [product.cards[0] for product in products if product.cards]
    own = [card for card in cards if modality in (None, SENSORS[card].modality)]
    defaults: dict[str | None, str] = dict(DEFAULT_SENSORS)  # type: ignore[arg-type]
    return own[0] if own else defaults.get(modality)


def _examine(
    inputs: Sequence[str | Path],
    sensor: str | None,
    names: Sequence[str] | None,
    progress: Callable[[int], None] | None,
    side: int,
    chosen: Chosen | None = None,
) -> Report:
    """Look, judge, compare, advise."""
    told = get_sensor(sensor) if sensor is not None else None
    given = [Path(path) for path in inputs]
    if not given:
        raise ValueError("no input: give rasters, or folders of them")
    absent = [str(path) for path in given if not path.exists()]
    if absent:
        raise ValueError(f"{absent[0]}: there is no such file")
    looks: dict[Path, Look] = {}
    for path in given:
        for one in _found(path):
            left_out = chosen and (one.found if isinstance(one, Look) else one) not in chosen
            if not left_out and (one.path not in looks or one.path == path):
                looks[one.path] = one if isinstance(one, Look) else look_at(one, names, side)
            if progress is not None:
                progress(1)
    cases = judge(list(looks.values()), told, names)
    series = list(across(cases, told))
    commands, tried = commands_for(cases, series) if chosen is None else ((), [])
    alone = [replace(f, files=(str(c.look.path),)) for c in cases for f in c.findings]
    return Report(tuple(map(_report, cases)), worst_first(alone + series + tried), commands)


def _found(path: Path) -> Sequence[Found | Look]:
    """The rasters of a path, or what is wrong with it as a whole."""
    found = find(path)
    return [found] if isinstance(found, Look) else found


def count_files(inputs: Sequence[str | Path]) -> int:
    """How many files `examine` is going to look at.

    Raises:
        ValueError: as `examine`.
    """
    return sum(len(_found(Path(path))) for path in inputs if Path(path).exists())


def _report(case: Case) -> FileReport:
    """The facts of a file."""
    look, header = case.look, case.look.header
    date = None if np.isnat(look.date) else str(look.date)
    if header is None:
        return FileReport(str(look.path), look.bytes, date=date)
    nodata = header.nodata
    return FileReport(
        path=str(look.path),
        bytes=look.bytes,
        shape=header.shape,
        metres=look.file.metres if look.file else None,
        crs=header.crs,
        bands=look.names,
        dtype=" ".join(dict.fromkeys(header.dtypes)),
        date=date,
        nodata=nodata if nodata is None or math.isfinite(nodata) else str(nodata),
        median=None if math.isnan(look.sample.median) else look.sample.median,
        guess=case.guess,
    )
