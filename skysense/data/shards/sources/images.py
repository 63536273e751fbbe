"""Pictures and small rasters, one undated or dated image of one sensor each.

Folders have no meaning: class folders give no labels.

Legend: C bands, H W pixels.
"""

import functools
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from skysense.data.folders import below
from skysense.data.ground import lon_lat
from skysense.data.rasters import IO_ERRORS, parse_date, reason
from skysense.data.shards.drafts import Draft
from skysense.data.shards.stored import AnyArray, BoolArray, StoredSample, StoredSeries, storable
from skysense.geo import Grid
from skysense.sensors import SensorCard, find_bands, get_sensor, missing_bands

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2")
"""File endings that folders and archives are searched for."""

_COLOURS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}


def images(
    source: Path,
    sensor: str,
    bands: Sequence[str] | None = None,
    max_size: int | None = None,
) -> list[Draft]:
    """One draft an image of a file, a folder with all below it, or a zip archive.

    Args:
        source: the file, folder or archive.
        sensor: name of the sensor card of all images.
        bands: names of their bands, where they do not say it.
        max_size: an image with a longer side is cut into equal parts that have none.

    Raises:
        ValueError: unknown sensor, or a damaged archive.
    """
    read = partial(_read, card=get_sensor(sensor), bands=bands, max_size=max_size)
    if source.suffix.lower() == ".zip":
        names = sorted(name for name in _names_in(source) if _is_image(Path(name)))
        return [
            Draft(f"{source.name}/{name}", partial(read, f"{source.name}/{name}", source, name))
            for name in names
        ]
    if source.is_dir():
        found = [path for path in below(source) if _is_image(path.relative_to(source))]
        named = [(f"{source.name}/{path.relative_to(source).as_posix()}", path) for path in found]
    else:
        named = [(source.name, source)]
    return [Draft(name, partial(read, name, path)) for name, path in named]


def _is_image(path: Path) -> bool:
    """Whether a path below a folder may be an image; hidden ones are passed over."""
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def _names_in(archive: Path) -> list[str]:
    """Files of a zip archive."""
    try:
        return _open_archive(archive).namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive}: is no whole zip archive ({error})") from None


@functools.lru_cache(maxsize=1)  # its list of files takes longer to read than one of them
def _open_archive(archive: Path) -> zipfile.ZipFile:
    """An open zip archive."""
    return zipfile.ZipFile(archive)


def _read(
    name: str,
    path: Path,
    member: str | None = None,
    *,
    card: SensorCard,
    bands: Sequence[str] | None,
    max_size: int | None,
) -> Iterator[StoredSample]:
    """The samples of one image."""
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        stack.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"))
        try:
            if member is None:
                dataset = stack.enter_context(rasterio.open(path))
            else:
                content = _open_archive(path).read(member)
                memory = stack.enter_context(rasterio.MemoryFile(content))
                dataset = stack.enter_context(memory.open())
            pixels, mask = _pixels(dataset, card, bands)
        except (*IO_ERRORS, zipfile.BadZipFile) as error:
            raise ValueError(f"cannot be read as an image ({reason(error)})") from None
        grid = _grid(dataset)
    date = parse_date(Path(member or path).stem)
    names = tuple(band.name for band in card.bands)
    for top, left, height, width in _parts(pixels.shape[1:], max_size):
        part = (slice(top, top + height), slice(left, left + width))
        series = StoredSeries(
            pixels[None, :, *part],
            np.array([date], "datetime64[D]"),
            card.name,
            names,
            None if mask is None else mask[None, *part],
        )
        series.check_scale("an image")
        place = None if grid is None else _location(grid, top + height / 2, left + width / 2)
        cut = (height, width) != pixels.shape[1:]
        yield StoredSample({card.modality: series}, place, f"{name}[{top},{left}]" if cut else name)


def _pixels(
    dataset: rasterio.DatasetReader, card: SensorCard, bands: Sequence[str] | None
) -> tuple[AnyArray, BoolArray | None]:
    """`(C, H, W)` of the card's bands in its order, and the image's own mask."""
    alpha = dataset.colorinterp[-1] == ColorInterp.alpha and not dataset.descriptions[-1]
    count = dataset.count - alpha
    names = list(bands) if bands is not None else _names(dataset)[:count]
    if len(names) not in (count, dataset.count):
        raise ValueError(f"has {count} bands, but {len(names)} names were given")
    found = find_bands(card, names)
    missing = missing_bands(card, list(found))
    if missing:
        listed = ", ".join(name or "(no name)" for name in names)
        raise ValueError(
            f"sensor `{card.name}` needs {', '.join(missing)}; found {listed}; name the bands with "
            f"`--bands`, or choose another `--sensor`"
        )
    pixels = storable(dataset.read([found[band.name] + 1 for band in card.bands]))
    mask = None
    if alpha and len(names) < dataset.count:
        mask = dataset.read(dataset.count) > 0
    elif MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        mask = dataset.read_masks(1) > 0
    elif dataset.nodata is not None and dataset.nodata != card.nodata:
        mask = (pixels != dataset.nodata).any(0)
    return pixels, None if mask is None or mask.all() else mask


def _names(dataset: rasterio.DatasetReader) -> list[str | None]:
    """A name a band: its description, else its colour."""
    if any(dataset.descriptions):
        return list(dataset.descriptions)
    return [_COLOURS.get(colour) for colour in dataset.colorinterp]


def _parts(shape: Sequence[int], most: int | None) -> Iterator[tuple[int, int, int, int]]:
    """`(row, col, height, width)` of equal parts whose sides are at most so long."""
    counts = [1 if most is None else -(-side // most) for side in shape]
    rows, cols = (
        [(i * side // n, (i + 1) * side // n) for i in range(n)]
        for side, n in zip(shape, counts, strict=True)
    )
    for top, bottom in rows:
        for left, right in cols:
            yield top, left, bottom - top, right - left


def _grid(dataset: rasterio.DatasetReader) -> Grid | None:
    """The pixels on the ground, if the image says where it lies."""
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    return Grid(dataset.crs.to_wkt(), (a, b, c, d, e, f), (dataset.height, dataset.width))


def _location(grid: Grid, row: float, col: float) -> tuple[float, float] | None:
    """`(lon, lat)` of a pixel position, if that is a place on Earth."""
    try:
        lon, lat = lon_lat(grid, row, col)
    except ValueError:
        return None
    return (lon, lat) if abs(lon) <= 180 and abs(lat) <= 90 else None
