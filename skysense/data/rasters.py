"""What a raster file says of itself: grid, band names, date, what is missing.

Everything that is wrong with a file is a `ValueError` of one line that names it.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from skysense.data.ground import metres
from skysense.geo import Grid

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
_BASELINE = re.compile(r"_N(\d{4})_")
_COLOURS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}
_ALPHA_NAMES = ("a", "alpha", "mask", "opacity")

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
"""File endings that a folder is searched for."""

_NO_MEASUREMENT = re.compile(r"(?:^|_)(?:MSK|TCI|PVI)(?:_|$)")
"""Masks and pictures of a Sentinel-2 product, whose names or colours claim to be its bands."""

IO_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises when a file or a disk fails; GDAL's own errors slip through at places."""


@dataclass(frozen=True)
class RasterFile:
    """The facts of one file."""

    path: Path
    """Where it is."""
    grid: Grid
    """Its pixels on the ground."""
    metres: float
    """Side of a pixel on the ground."""
    names: tuple[str | None, ...]
    """A name a band: its description, else its colour, else (single band) the file's name."""
    dtype: str
    """Stored type."""
    nodata: float | None
    """Declared nodata value."""
    alpha: int | None
    """Index of a band that is a mask and not a measurement."""
    false_alpha: bool
    """Its last band is coloured as alpha but named as a measurement (NAIP's near infrared)."""
    masked: bool
    """It has an internal or side-car mask."""
    date: np.datetime64
    """Day of acquisition, NaT if unknown."""
    baseline: int | None
    """Sentinel-2 processing baseline from the product's name, e.g. 400."""

    @property
    def found(self) -> str:
        """The band names in words, for messages."""
        named = [f"{i + 1}={name or '(no name)'}" for i, name in enumerate(self.names)]
        return f"{self.path.name} has {len(self.names)} bands: {', '.join(named)}"


def parse_date(text: str) -> np.datetime64:
    """First `YYYYMMDD` or `YYYY-MM-DD` in a text, NaT if there is none."""
    for match in _DATE.finditer(text):
        year, _, month, day = match.groups()
        try:
            return np.datetime64(f"{year}-{month}-{day}", "D")
        except ValueError:  # 31 February
            continue
    return np.datetime64("NaT", "D")


def inspect(path: str | Path, names: Sequence[str] | None = None) -> RasterFile:
    """Read a file's facts.

    Args:
        path: the file.
        names: band names to use instead of what the file says.

    Raises:
        ValueError: not a raster, not georeferenced, or of a type that cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said as an error below
            dataset = rasterio.open(path)
        with dataset:
            return _describe(path, dataset, names)
    except IO_ERRORS as error:
        raise ValueError(f"{path}: cannot be read as a raster ({reason(error)})") from None


def reason(error: BaseException) -> str:
    """The innermost message of a chain of errors, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _describe(
    path: Path, dataset: rasterio.DatasetReader, names: Sequence[str] | None
) -> RasterFile:
    """Facts of an open dataset."""
    _check(path, dataset)
    if names is not None and len(names) != dataset.count:
        raise ValueError(f"{path}: has {dataset.count} bands, but {len(names)} names were given")
    grid, size = _grid(path, dataset)
    flags = dataset.mask_flag_enums[0]
    described = tuple(names) if names is not None else _names(path, dataset)
    coloured = dataset.colorinterp[-1] == ColorInterp.alpha and dataset.count > 1
    measured = bool(described[-1]) and str(described[-1]).lower() not in _ALPHA_NAMES
    date = parse_date(path.stem)
    baselines = _BASELINE.findall(str(path.absolute()))
    return RasterFile(
        path=path,
        grid=grid,
        metres=size,
        names=described,
        dtype=np.result_type(*dataset.dtypes).name,
        nodata=dataset.nodata,
        alpha=dataset.count - 1 if coloured and not measured else None,
        false_alpha=coloured and measured,
        masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags,
        date=parse_date(path.parent.name) if np.isnat(date) else date,
        baseline=int(baselines[-1]) if baselines else None,
    )


def _check(path: Path, dataset: rasterio.DatasetReader) -> None:
    """Refuse what no sensor card can mean, and what has no place on the ground."""
    if dataset.count == 0:
        raise ValueError(
            f"{path}: is a container without bands of its own; save the wanted layer as a GeoTIFF"
        )
    complex_types = [dtype for dtype in dataset.dtypes if "complex" in dtype]
    if complex_types:
        raise ValueError(
            f"{path}: holds complex numbers ({complex_types[0]}); give backscatter (VV, VH in dB) "
            f"instead"
        )
    if dataset.crs is None:
        raise ValueError(
            f"{path}: has no coordinate reference system; assign it first, for example with "
            f"`rio edit-info --crs EPSG:... {path.name}`"
        )
    if dataset.transform.is_identity:
        raise ValueError(f"{path}: has no geotransform, so its place on the ground is unknown")


def _grid(path: Path, dataset: rasterio.DatasetReader) -> tuple[Grid, float]:
    """Pixels on the ground, and their side in metres."""
    try:
        transform = tuple(dataset.transform)[:6]
        grid = Grid(dataset.crs.to_wkt(), transform, (dataset.height, dataset.width))
        return grid, metres(grid)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _names(path: Path, dataset: rasterio.DatasetReader) -> tuple[str | None, ...]:
    """Band descriptions; colours or the file's name where there are none."""
    if any(dataset.descriptions):
        return tuple(dataset.descriptions)
    if dataset.count == 1:
        return (path.stem,)
    return tuple(_COLOURS.get(colour) for colour in dataset.colorinterp)


def expand(paths: Sequence[str | Path]) -> list[Path]:
    """Replace folders by the raster files below them, sorted.

    Hidden files and folders are passed over: what an interrupted run left, what other systems
    store beside a file. So are the masks and pictures of a Sentinel-2 product.

    Raises:
        ValueError: a path does not exist, or a folder holds no raster.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(p for p in path.rglob("*") if _is_wanted(p.relative_to(path)))
        if not inside:
            raise ValueError(f"{path}: this folder holds no raster ({', '.join(RASTER_SUFFIXES)})")
        files.extend(inside)
    return files


def _is_wanted(path: Path) -> bool:
    """Whether a file below a searched folder may hold a measurement."""
    hidden = any(part.startswith(".") for part in path.parts)
    fitting = path.suffix.lower() in RASTER_SUFFIXES and not _NO_MEASUREMENT.search(path.stem)
    return fitting and not hidden
