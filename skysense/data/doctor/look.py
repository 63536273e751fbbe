"""A look at a raster: its header and a sample of its pixels, in bounded memory and time.

Legend: H W pixels.
"""

import math
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import windows
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from skysense.data.caching import block_cache
from skysense.data.doctor.sample import Sample, Tile, summarize
from skysense.data.ground import bounds_in
from skysense.data.products import Found, find_files, find_masks, inspect_found
from skysense.data.products.grd import GroundRange
from skysense.data.rasters import IO_ERRORS, RasterFile, is_member, parse_date, reason
from skysense.geo import Bounds, Window
from skysense.sensors.match import tokens

SIDE = 256
"""Side of a window of the sample, in pixels."""

_ACROSS = 4
"""Windows a side."""

_MOST = 16_000_000
"""Values that the sample of one file may have, over all bands: 64 MB of float32."""

_NO_MEASUREMENT = {"QA", "MSK", "MASK", "ALPHA", "CLDPRB", "SNWPRB", "AOT", "WVP"}
"""Words in the name of a band that is no measurement of the ground, besides the cloud masks."""

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"PK\3\4")
"""First bytes of TIFF, BigTIFF, JPEG 2000 and zip."""


@dataclass(frozen=True)
class Header:
    """What a file says before a pixel is read."""

    driver: str
    count: int
    shape: tuple[int, int]
    """`(H, W)`."""
    dtypes: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    colours: tuple[ColorInterp, ...]
    nodata: float | None
    tags: dict[str, str]
    """Metadata of the file and its bands, keys in upper case."""
    offsets: tuple[float, ...]
    """Offsets that the bands declare."""
    crs: str | None
    """In short: `EPSG:...`, else the name."""
    is_geographic: bool
    transform: tuple[float, ...]
    """Affine coefficients `(a, b, c, d, e, f)`."""
    is_striped: bool
    has_overviews: bool


@dataclass(frozen=True)
class Look:
    """All that is known of a file."""

    found: Found
    """Where it is, under which path it was given, and its product."""
    bytes: int
    date: np.datetime64
    """Day of acquisition, NaT if not known."""
    header: Header | None = None
    """`None` where it cannot be opened."""
    file: RasterFile | None = None
    """As the readers see it; `None` where they refuse it."""
    trouble: str | None = None
    """Why it cannot be opened, or why the readers refuse it."""
    names: tuple[str | None, ...] = ()
    """A name a band."""
    sample: Sample = field(default_factory=Sample)
    """Of its pixels; empty where none could be read."""
    failures: tuple[str, ...] = ()
    """Windows that could not be read, each with the reason."""
    is_whole: bool = False
    """The sample is of the whole file."""

    @property
    def path(self) -> Path:
        """The file, or the member of an archive."""
        return self.found.path

    @property
    def is_truncated(self) -> bool:
        """Whether the first bytes are a raster's or an archive's, though it does not open."""
        if not self.path.is_file():
            return is_member(self.path)
        with self.path.open("rb") as stream:
            return stream.read(12).startswith(_MAGIC)

    @cached_property
    def box(self) -> Bounds | None:
        """West, south, east, north in degrees; `None` where it has no place on the ground."""
        try:
            return bounds_in(self.file.grid, "EPSG:4326") if self.file else None
        except ValueError:
            return None

    @cached_property
    def measured(self) -> tuple[int, ...]:
        """Bands that may be measurements: neither masks nor classes nor a known alpha."""
        if self.header is None or any("complex" in dtype for dtype in self.header.dtypes):
            return ()
        masks = {*find_masks(self.names).values(), self.file.alpha if self.file else None}
        return tuple(
            i
            for i, name in enumerate(self.names)
            if i not in masks and not (name and _NO_MEASUREMENT & tokens(name))
        )


def find(given: Path) -> list[Found] | Look:
    """The rasters of a path, or why an archive or a product's metadata cannot be read.

    Raises:
        ValueError: a folder holds no raster.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notes of products are findings
            return find_files([given])
    except ValueError as error:
        if given.is_dir() and "holds no raster" in str(error):
            raise
        size = given.stat().st_size
        nothing = Look(Found(given, given, None), size, np.datetime64("NaT", "D"))
        return replace(nothing, trouble=str(error).removeprefix(f"{given}: "))


def look_at(found: Found, names: Sequence[str] | None = None, side: int = SIDE) -> Look:
    """Open a file, read its header and at most 16 windows.

    Nothing that is wrong with it raises: it is said in the result.

    Args:
        found: an existing file or member.
        names: band names to use instead of what the file says.
        side: of a window in pixels.
    """
    path = found.path
    date = parse_date(path.stem)
    date = parse_date(path.absolute().parent.name) if np.isnat(date) else date
    held = found.given if is_member(path) else path
    nothing = Look(found, held.stat().st_size if held.exists() else 0, date)
    try:
        with (
            block_cache(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said as a finding
            with rasterio.open(path) as dataset:
                return _look(nothing, dataset, names, side)
    except (*IO_ERRORS, ValueError) as error:
        return replace(nothing, trouble=reason(error))


def _look(
    nothing: Look, dataset: rasterio.DatasetReader, names: Sequence[str] | None, side: int
) -> Look:
    """Look at an open file."""
    file, trouble = None, None
    try:
        file = inspect_found(nothing.found, names)
    except ValueError as error:
        trouble = str(error).removeprefix(f"{nothing.path}: ")
    header = _header(dataset)
    named = file.names if file else tuple(names or header.descriptions)
    if len(named) != header.count:
        named = header.descriptions
    date = file.date if file else nothing.date
    look = replace(
        nothing, date=date, header=header, file=file, trouble=trouble, names=tuple(named)
    )
    if header.count == 0:
        return look
    if isinstance(file, GroundRange):
        header = replace(header, **_as_read(file))
        look = replace(look, header=header)
        dataset = file.open()
    with closing(dataset):
        tiles, failures, whole = _read(dataset, file, side)
    decimated = len(tiles) == 1 and not whole and not failures
    shape = tiles[0].mask.shape if decimated else header.shape
    sample = summarize(tiles, (shape[0], shape[1]), look.measured, named, header.nodata)
    return replace(look, sample=sample, failures=tuple(failures), is_whole=whole)


def _as_read(file: GroundRange) -> dict[str, Any]:
    """What is another in the header of the map that the readers make of an image.

    Its layout is as it has to be: the annotation goes with no other file.
    """
    return {
        "shape": file.grid.shape,
        "dtypes": (file.dtype,),
        "nodata": file.nodata,
        "crs": f"EPSG:{CRS.from_wkt(file.grid.crs).to_epsg()}",
        "transform": file.grid.transform,
        "is_striped": False,
        "has_overviews": True,
    }


def _header(dataset: rasterio.DatasetReader) -> Header:
    """Facts of an open file."""
    tags: dict[str, str] = {}
    for found in (*(dataset.tags(i) for i in dataset.indexes), dataset.tags()):
        tags.update({str(key).upper(): str(value) for key, value in found.items()})
    crs = dataset.crs
    code = crs.to_epsg() if crs else None
    name = crs.to_dict().get("proj", "unnamed") if crs and not code else None
    blocks = dataset.block_shapes[0] if dataset.count else dataset.shape
    return Header(
        driver=dataset.driver,
        count=dataset.count,
        shape=(dataset.height, dataset.width),
        dtypes=dataset.dtypes,
        descriptions=tuple(dataset.descriptions),
        colours=tuple(dataset.colorinterp),
        nodata=dataset.nodata if dataset.count else None,
        tags=tags,
        offsets=tuple(dataset.offsets),
        crs=f"EPSG:{code}" if code else name,
        is_geographic=bool(crs and crs.is_geographic),
        transform=tuple(dataset.transform)[:6],
        is_striped=blocks[1] == dataset.width and blocks[0] < dataset.height,
        has_overviews=bool(dataset.count and dataset.overviews(1)),
    )


def _read(
    dataset: rasterio.DatasetReader, file: RasterFile | None, side: int
) -> tuple[list[Tile], list[str], bool]:
    """Windows, those that failed, and whether they are the whole file."""
    height, width, count = dataset.height, dataset.width, dataset.count
    side = min(side, max(16, math.isqrt(_MOST // (_ACROSS**2 * count))))
    whole = max(height, width) <= side * _ACROSS
    if whole:
        places = [Window(0, 0, height, width)]
    elif dataset.driver.startswith("JP2") and dataset.overviews(1):
        return _decimated(dataset, side * _ACROSS)
    else:
        rows, cols = (_starts(size, side) for size in (height, width))
        tall, wide = min(side, height), min(side, width)
        places = [Window(row, col, tall, wide) for row in rows for col in cols]
    tiles, failures = [], []
    for place in places:
        try:
            tiles.append(_tile(dataset, file, place))
        except IO_ERRORS as error:
            failures.append(f"rows {place.row} to {place.row + place.height}: {reason(error)}")
    if whole and failures:  # a part may still tell what it is
        half = Window(0, 0, max(1, height // 4), width)
        try:
            tiles.append(_tile(dataset, file, half))
        except IO_ERRORS:
            tiles = []
    return tiles, failures, whole and not failures


def _starts(size: int, side: int) -> list[int]:
    """First rows or columns of the windows: from edge to edge."""
    last = max(0, size - side)
    return sorted({round(last * i / (_ACROSS - 1)) for i in range(_ACROSS)})


def _tile(dataset: rasterio.DatasetReader, file: RasterFile | None, place: Window) -> Tile:
    """One window."""
    inside = windows.Window(place.col, place.row, place.width, place.height)
    pixels = dataset.read(window=inside)
    mask = np.ones(pixels.shape[1:], bool)
    if file is not None and file.alpha is not None:
        mask = pixels[file.alpha] > 0
    elif file is not None and file.masked:
        mask = dataset.read_masks(1, window=inside) > 0
    return Tile(place, pixels, mask)


def _decimated(dataset: rasterio.DatasetReader, longest: int) -> tuple[list[Tile], list[str], bool]:
    """The whole of a JPEG 2000 file from its coarser levels, far cheaper than its windows."""
    factor = max(dataset.height, dataset.width) / longest
    shape = (max(1, int(dataset.height / factor)), max(1, int(dataset.width / factor)))
    try:
        pixels = dataset.read(out_shape=(dataset.count, *shape))
    except IO_ERRORS as error:
        return [], [f"the coarse levels: {reason(error)}"], False
    return [Tile(Window(0, 0, *shape), pixels, np.ones(shape, bool))], [], False
