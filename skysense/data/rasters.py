"""What a raster file says of itself: grid, band names, date, what is missing.

A `Source` is a place that pixels come from, whatever holds them: a file here or far away, a member
of an archive, an array (`skysense.data.arrays`). Readers ask it for its facts, and for its pixels
by windows.

Everything that is wrong with a file is a `ValueError` of one line that names it.
"""

import functools
import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import windows
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError

from skysense.data.folders import below
from skysense.data.ground import metres
from skysense.geo import Grid

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
_BASELINE = re.compile(r"_N(\d{4})_")
_COLOURS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}
_ALPHA_NAMES = ("a", "alpha", "mask", "opacity")

DATE_TAGS = (
    "ACQUISITION_DATE",
    "DATE_ACQUIRED",
    "ACQUISITIONDATETIME",
    "ACQUISITION_TIME",
    "SENSING_TIME",
    "START_TIME",
    "TIFFTAG_DATETIME",
)
"""Metadata that hold the day, best first; the last may be the day the file was made."""

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
"""File endings that a folder is searched for."""

_NO_MEASUREMENT = re.compile(r"(?:^|_)(?:MSK|TCI|PVI)(?:_|$)")
"""Masks and pictures of a Sentinel-2 product, whose names or colours claim to be its bands."""

IO_ERRORS = (RasterioError, CPLE_BaseError, OSError)
"""What rasterio raises when a file or a disk fails; GDAL's own errors slip through at places."""


REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
}
"""GDAL's settings while a remote file is opened: no listing of its folder, a few retries."""

_HANDLERS = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/"}

_SIGNATURE = re.compile(
    r"s[veprtis]|s(?:rt|pr|ip|dd|ig|cid|aoid|uoid|koid|ktid|kt|ke|ks|kv)"
    r"|x-[a-z]+-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
    r"|(?:access_?|auth_?|security-)?token|api_?key",
    re.IGNORECASE,
)
"""Parameters of an address that let one in: of Azure, AWS, Google Cloud and others."""

Signer = Callable[[str], str]
"""Turns a remote file's address into one that can be read, for a while."""


class Pixels(Protocol):
    """What an open source is: windows of stored numbers, as rasterio's datasets give them."""

    height: int
    width: int
    count: int

    def read(
        self,
        indexes: list[int],
        *,
        window: windows.Window,
        out_shape: tuple[int, int, int] | None = None,
    ) -> npt.NDArray[Any]:
        """`(C, H, W)` stored numbers of bands (from 1), of `window`, thinned to `out_shape`."""
        ...

    def read_masks(self, indexes: int, *, window: windows.Window) -> npt.NDArray[Any]:
        """`(H, W)` of a band's mask, 0 where nothing was measured."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """The facts of a place that pixels come from."""

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
    alpha: int | None = None
    """Index of a band that is a mask and not a measurement."""
    masked: bool = False
    """It has an internal or side-car mask."""
    date: np.datetime64
    """Day of acquisition, NaT if unknown."""
    product: str = ""
    """The product of an archive that it is part of: bands of two are never put together."""
    scaling: tuple[float, float] | None = None
    """`(scale, offset)`: physical = stored * scale + offset, where its metadata say so."""
    gain: float = 1.0
    """stored * gain + bias are the stored numbers that the sensor card speaks of."""
    bias: float = 0.0
    """See `gain`."""

    @property
    def label(self) -> str:
        """What messages call it."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """What tells it from other sources; it may hold what is not to be shown."""
        return self.label

    @property
    def identity(self) -> str:
        """`key` as it may be shown, the same however it is signed."""
        return self.label

    @property
    def found(self) -> str:
        """The band names in words, for messages."""
        named = [f"{i + 1}={name or '(no name)'}" for i, name in enumerate(self.names)]
        return f"{Path(self.label).name} has {len(self.names)} bands: {', '.join(named)}"

    def onto(self, grid: Grid) -> "Source":
        """Itself; or the same on another grid, where the source can be read on any."""
        return self

    def open(self) -> Pixels:
        """Open it, in the thread that reads it.

        Raises:
            OSError: or another of `IO_ERRORS`: it cannot be opened.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class RasterFile(Source):
    """The facts of one file."""

    path: Path
    """Where it is; of a member of an archive `/vsizip/{ARCHIVE}/MEMBER`."""
    address: str = ""
    """URL of a remote file (http, https, s3, gs), not yet signed; opened instead of `path`."""
    sign: Signer | None = field(default=None, repr=False, compare=False)
    """Turns `address` into what is opened, anew each time."""
    false_alpha: bool = False
    """Its last band is coloured as alpha but named as a measurement (NAIP's near infrared)."""
    baseline: int | None = None
    """Sentinel-2 processing baseline from the product's name or metadata, e.g. 400."""

    @property
    def label(self) -> str:
        """Path, or address without what signs it."""
        return public(self.address) if self.address else str(self.path)

    @property
    def key(self) -> str:
        """Path, or address with all that is asked of it."""
        return self.address or str(self.path)

    @property
    def identity(self) -> str:
        """`label`, and a digest of what an address asks for besides leave to read."""
        asked = parse_qsl(self.address.partition("?")[2], keep_blank_values=True)
        own = [f"{name}={value}" for name, value in asked if not _SIGNATURE.fullmatch(name)]
        digest = hashlib.sha256("&".join(own).encode()).hexdigest()[:16]
        return f"{self.label}#{digest}" if own else self.label

    @property
    def local(self) -> Path | None:
        """The file of this machine that holds it, which is the archive of a member."""
        if self.address:
            return None
        text = str(self.path)
        return Path(text[text.index("{") + 1 : text.index("}")]) if is_member(text) else self.path

    def open(self) -> Pixels:
        """Open it with GDAL, a remote one signed anew.

        Raises:
            ValueError: there is no signature to be had.
        """
        if self.address:
            with rasterio.Env(**REMOTE):
                return rasterio.open(_readable(self.address, self.sign))  # type: ignore[no-any-return]
        return rasterio.open(_without_alpha(self) if self.false_alpha else self.path)  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        """Its fields; in place of a signer that stays in this process, what it gives now."""
        state = dict(self.__dict__)
        try:
            pickle.dumps(self.sign)
        except (pickle.PicklingError, AttributeError, TypeError):
            assert self.sign is not None
            state["sign"] = _Signed(self.sign(self.address))
        return state


@dataclass(frozen=True)
class _Signed:
    """A signer that knows one answer."""

    address: str

    def __call__(self, _: str) -> str:
        """That."""
        return self.address


def _readable(address: str, sign: Signer | None) -> str:
    """What GDAL opens for a URL."""
    signed = address if sign is None else sign(address)
    scheme, _, rest = signed.partition("://")
    handler = _HANDLERS.get(scheme, "")
    return handler + (signed if handler == "/vsicurl/" else rest) if handler else signed


def is_member(path: str | Path) -> bool:
    """Whether a path names a member of an archive, `/vsizip/{ARCHIVE}/MEMBER`."""
    return str(path).startswith(("/vsizip/{", "/vsitar/{"))


def public(address: str) -> str:
    """An address as it may be shown: without GDAL's prefix, signature and password."""
    text = re.sub(r"^/vsicurl/", "", address).partition("?")[0]
    text = re.sub(r"^/vsi(s3|gs)/", lambda m: f"{m.group(1)}://", text)
    return re.sub(r"//[^/@]*@", "//", text)


_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}


def _without_alpha(file: RasterFile) -> str:
    """A virtual file of the same bands whose last one is no longer taken for a mask."""
    bands = "".join(
        f'<VRTRasterBand dataType="{_GDAL_TYPES[file.dtype]}" band="{i + 1}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{escape(str(file.path.absolute()))}</SourceFilename>'
        f"<SourceBand>{i + 1}</SourceBand></SimpleSource></VRTRasterBand>"
        for i in range(len(file.names))
    )
    a, b, c, d, e, f = file.grid.transform
    height, width = file.grid.shape
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f"<SRS>{escape(file.grid.crs)}</SRS>"
        f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>"
        f"{bands}</VRTDataset>"
    )


def is_missing(
    stored: npt.NDArray[np.generic], nodata: float, dtype: str | np.dtype[Any]
) -> npt.NDArray[np.bool_]:
    """Which pixels hold the nodata value.

    Where it may be a measurement too (0, and all values of 8 bits), all bands must hold it: one of
    Sentinel-2 may be 0 in deep shadow. Where it cannot be one, such as -9999, one is enough.

    Args:
        stored: `(C, H, W)`, or `(C, N)`.
        nodata: declared value; NaN equals nothing.
        dtype: stored type.

    Returns:
        `(H, W)`, or `(N,)`.
    """
    equal = stored == nodata
    ambiguous = nodata == 0 or np.dtype(dtype).itemsize == 1
    return np.asarray(equal.all(0) if ambiguous else equal.any(0))


def parse_date(text: str) -> np.datetime64:
    """First `YYYYMMDD` or `YYYY-MM-DD` in a text, NaT if there is none."""
    for match in _DATE.finditer(text):
        year, _, month, day = match.groups()
        try:
            return np.datetime64(f"{year}-{month}-{day}", "D")
        except ValueError:  # 31 February
            continue
    return np.datetime64("NaT", "D")


def named_date(path: Path) -> np.datetime64:
    """Day that a file's name, else its folder's, says; NaT if neither does."""
    dates = (parse_date(text) for text in (path.stem, path.parent.name))
    return next((date for date in dates if not np.isnat(date)), np.datetime64("NaT", "D"))


def inspect(
    path: str | Path,
    names: Sequence[str] | None = None,
    address: str = "",
    sign: Signer | None = None,
) -> RasterFile:
    """Read a file's facts.

    Args:
        path: the file, or a member of an archive (`/vsizip/{ARCHIVE}/MEMBER`).
        names: band names to use instead of what the file says.
        address: URL that is opened instead, for a remote file.
        sign: turns the address into what is opened.

    Raises:
        ValueError: not a raster, not georeferenced, or of a type that cannot be used.
    """
    path = Path(path)
    if not address and not is_member(path) and not path.exists():
        raise ValueError(f"{path}: there is no such file")
    shown = public(address) if address else str(path)
    try:
        with warnings.catch_warnings(), rasterio.Env(**(REMOTE if address else {})):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said as an error below
            with rasterio.open(_readable(address, sign) if address else path) as dataset:
                return replace(_describe(path, dataset, names, address), sign=sign)
    except IO_ERRORS as error:
        raise ValueError(f"{shown}: cannot be read as a raster ({reason(error)})") from None


def reason(error: BaseException) -> str:
    """The innermost message of a chain of errors, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _describe(
    path: Path, dataset: rasterio.DatasetReader, names: Sequence[str] | None, address: str
) -> RasterFile:
    """Facts of an open dataset."""
    shown = public(address) if address else str(path)
    _check(shown, dataset)
    if names is not None and len(names) != dataset.count:
        raise ValueError(f"{shown}: has {dataset.count} bands, but {len(names)} names were given")
    grid, size = _grid(shown, dataset)
    described = tuple(names) if names is not None else _names(path, dataset)
    alpha, masked = own_mask(dataset, described)
    baselines = _BASELINE.findall(str(path.absolute()))
    return RasterFile(
        path=path,
        address=address,
        grid=grid,
        metres=size,
        names=described,
        dtype=np.result_type(*dataset.dtypes).name,
        nodata=dataset.nodata,
        alpha=alpha,
        false_alpha=alpha is None and _is_coloured_alpha(dataset),
        masked=masked,
        date=_date(path, dataset),
        baseline=int(baselines[-1]) if baselines else None,
    )


def own_mask(
    dataset: rasterio.DatasetReader, names: Sequence[str | None]
) -> tuple[int | None, bool]:
    """What an open dataset says of its mask.

    Args:
        dataset: it.
        names: of its bands; there may be fewer of them than bands.

    Returns:
        Index of the band that is a mask and not a measurement, if there is one, and whether there
        is a mask inside or beside the file.
    """
    flags = dataset.mask_flag_enums[0]
    last = names[-1] if len(names) == dataset.count else None
    measured = bool(last) and str(last).lower() not in _ALPHA_NAMES
    alpha = dataset.count - 1 if _is_coloured_alpha(dataset) and not measured else None
    return alpha, MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def _is_coloured_alpha(dataset: rasterio.DatasetReader) -> bool:
    """Whether the last of several bands is coloured as alpha."""
    return bool(dataset.colorinterp[-1] == ColorInterp.alpha and dataset.count > 1)


def _date(path: Path, dataset: rasterio.DatasetReader) -> np.datetime64:
    """Day of acquisition: of the file's name, else its folder's, else its metadata."""
    named = named_date(path)
    if not np.isnat(named):
        return named
    tags = {**dataset.tags(ns="IMAGERY"), **dataset.tags()}
    known = {name.upper(): str(value) for name, value in tags.items()}
    for name in DATE_TAGS:
        date = parse_date(known.get(name, "").replace(":", "-"))
        if not np.isnat(date):
            return date
    return np.datetime64("NaT", "D")


def _check(path: str, dataset: rasterio.DatasetReader) -> None:
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
    if dataset.crs is None and dataset.gcps[0]:
        raise ValueError(
            f"{path}: has ground control points only, as Sentinel-1 GRD is delivered: give the "
            f"whole SAFE folder or its zip, whose annotation calibrates it, or RTC (ASF HyP3, or "
            f"`sentinel-1-rtc` of the Planetary Computer)"
        )
    if dataset.crs is None:
        raise ValueError(
            f"{path}: has no coordinate reference system; assign it first, for example with "
            f"`rio edit-info --crs EPSG:... {Path(path).name}`"
        )
    if dataset.transform.is_identity:
        raise ValueError(f"{path}: has no geotransform, so its place on the ground is unknown")


@functools.lru_cache(maxsize=64)
def canonical(crs: str) -> str:
    """One spelling, as WKT, of a coordinate system: by its EPSG code where it has one.

    Grids are of one system where these texts are equal, and are then never warped.

    Raises:
        ValueError: it is none.
    """
    try:
        own = CRS.from_user_input(crs)
        code = own.to_epsg()
        registered = CRS.from_epsg(code) if code else None
        return str((registered if registered == own else own).to_wkt())
    except (CRSError, CPLE_BaseError, ValueError) as error:
        raise ValueError(f"{crs!r} is no coordinate system ({reason(error)})") from None


def _grid(path: str, dataset: rasterio.DatasetReader) -> tuple[Grid, float]:
    """Pixels on the ground, and their side in metres."""
    try:
        transform = tuple(dataset.transform)[:6]
        grid = Grid(canonical(dataset.crs.to_wkt()), transform, (dataset.height, dataset.width))
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
        inside = [p for p in below(path) if is_wanted(p.relative_to(path))]
        if not inside:
            raise ValueError(f"{path}: this folder holds no raster ({', '.join(RASTER_SUFFIXES)})")
        files.extend(inside)
    return files


def is_wanted(path: Path) -> bool:
    """Whether a file below a searched folder may hold a measurement."""
    hidden = any(part.startswith(".") for part in path.parts)
    fitting = path.suffix.lower() in RASTER_SUFFIXES and not _NO_MEASUREMENT.search(path.stem)
    return fitting and not hidden
