"""Scenes of xarray datasets: arrays in memory or lazy ones (dask), read window by window.

An array is a source like a file. Its place on the ground comes from the coordinates `x` and `y`
(centres of pixels) and its coordinate system from `spatial_ref`, as rioxarray and odc-geo write it.

Legend: T dates, C bands, H W pixels.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rasterio import windows

from skysense._optional import require
from skysense.data.acquisitions import Layer, group, on_card
from skysense.data.ground import metres
from skysense.data.products import find_masks
from skysense.data.rasters import Pixels, Source, canonical
from skysense.data.scene import Scene, lay_over
from skysense.geo import Grid
from skysense.sensors import DEFAULT_SENSORS, MODALITIES, get_sensor

if TYPE_CHECKING:
    import xarray

_ACROSS = ("x", "lon", "longitude", "easting")
_DOWN = ("y", "lat", "latitude", "northing")
_TIMES = ("time", "date")
_BANDS = ("band", "bands", "variable")
_OF_EACH_BAND = {"scales": "scale_factor", "offsets": "add_offset"}
"""Attributes of rioxarray that list what is not the same for all bands."""
_REGULAR = 0.01
"""How far, in pixels, coordinates may be from equal steps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySource(Source):
    """One date of an array."""

    title: str
    """What messages call it."""
    bands: tuple[Any, ...]
    """A two-dimensional `xarray.DataArray` a band, `(y, x)`, lazy or not."""

    @property
    def label(self) -> str:
        """Its title."""
        return self.title

    def open(self) -> Pixels:
        """A view that reads windows."""
        return _ArrayPixels(self.bands)


class _ArrayPixels:
    """Bands of an array, as rasterio's datasets give theirs."""

    def __init__(self, bands: Sequence[Any]) -> None:
        self._bands = bands
        self.height, self.width = bands[0].shape
        self.count = len(bands)

    def read(
        self,
        indexes: list[int],
        *,
        window: windows.Window,
        out_shape: tuple[int, int, int] | None = None,
    ) -> npt.NDArray[Any]:
        """`(C, H, W)`; only what lies in the window is computed."""
        rows = np.arange(window.row_off, window.row_off + window.height)
        cols = np.arange(window.col_off, window.col_off + window.width)
        if out_shape is not None:
            rows, cols = (
                own[((np.arange(n) + 0.5) * len(own) / n).astype(int)]
                for own, n in zip((rows, cols), out_shape[1:], strict=True)
            )
            parts = [self._bands[i - 1].data[rows][:, cols] for i in indexes]
        else:
            place = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
            parts = [self._bands[i - 1].data[place] for i in indexes]
        return np.stack([_usual(part) for part in _computed(parts)])

    def read_masks(self, indexes: int, *, window: windows.Window) -> npt.NDArray[Any]:
        """`(H, W)`: arrays have no mask besides their values."""
        return np.full((window.height, window.width), 255, np.uint8)

    def close(self) -> None:
        """Nothing to let go of."""


def _computed(parts: list[Any]) -> list[Any]:
    """NumPy arrays of parts; lazy ones are computed together, since they may share work."""
    if all(hasattr(part, "dask") for part in parts):
        compute = require("dask.base", "stac").compute
        return list(compute(*parts, scheduler="synchronous"))
    return parts


def _usual(values: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - whatever holds numbers
    """Of a type that GDAL has."""
    array = np.asarray(values)
    if array.dtype == bool:
        return array.astype(np.uint8)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def scene_from_xarray(
    data: "Mapping[str, xarray.Dataset | xarray.DataArray]",
    sensors: Mapping[str, str] | None = None,
    crs: str | None = None,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    bbox: Sequence[float] | None = None,
    max_cloud: float | None = None,
) -> Scene:
    """A scene of arrays, read window by window like one of files.

    Args:
        data: modality to data. Of a DataArray the dimensions are y, x and, where there are
            several, `time` and `band` in any order; a Dataset has one variable a band. A band
            called `SCL`, `QA_PIXEL` or `cloud_mask` is a cloud mask.
        sensors: modality to sensor card; the modality's default where it is not given.
        crs: coordinate system of data that do not tell it.
        names: modality to band names, where the data have none.
        bbox: as of `skysense.data.scene.lay_over`.
        max_cloud: likewise.

    Raises:
        ValueError: dimensions, coordinates or bands are not as said above, or the layers do not
            lie over each other.
    """
    if not data:
        raise ValueError("no data: give a mapping such as {'s2': dataset}")
    layers: dict[str, Layer] = {}
    for key, own in data.items():
        if key not in MODALITIES:
            raise ValueError(f"unknown modality `{key}`; known: {', '.join(MODALITIES)}")
        card = (sensors or {}).get(key, DEFAULT_SENSORS[key])
        layers[key] = layer_from_xarray(key, own, card, crs, (names or {}).get(key))
    return lay_over(layers, bbox=bbox, max_cloud=max_cloud)


def layer_from_xarray(
    key: str,
    data: "xarray.Dataset | xarray.DataArray",
    sensor: str,
    crs: str | None = None,
    names: Sequence[str] | None = None,
) -> Layer:
    """One modality of `scene_from_xarray`.

    Raises:
        ValueError: as there.
    """
    card = get_sensor(sensor)
    if card.modality != key:
        raise ValueError(f"sensor `{sensor}` is {card.modality}, not {key}")
    bands = _bands(key, data, names)
    first = next(iter(bands.values()))
    grid = _grid(key, first, _wkt(key, crs) if crs else _crs(key, data))
    size = metres(grid)
    times = _dimension(first, _TIMES)
    dates = _dates(key, first, times)
    sources = []
    for t, date in enumerate(dates):
        flat = tuple(own if times is None else own.isel({times: t}) for own in bands.values())
        day = "" if np.isnat(date) else f" of {date}"
        sources += _sources(f"{key} array{day} [{t}]", tuple(bands), flat, grid, size, date)
    return group(card, [on_card(source, card) for source in sources])


def _sources(
    title: str,
    names: tuple[str | None, ...],
    bands: tuple[Any, ...],
    grid: Grid,
    size: float,
    date: np.datetime64,
) -> list[ArraySource]:
    """A source for each type, missing value and scaling; classes are apart from measurements."""
    alike: dict[tuple[str, ...], list[int]] = {}
    for i, band in enumerate(bands):
        facts = band.dtype.name, str(_nodata(band)), str(_scaling(title, band))
        alike.setdefault((*facts, str(bool(find_masks([names[i]])))), []).append(i)
    return [
        ArraySource(
            title=title if len(alike) == 1 else f"{title} {names[at[0]]}",
            bands=tuple(bands[i] for i in at),
            grid=grid,
            metres=size,
            names=tuple(names[i] for i in at),
            dtype=dtype,
            nodata=_nodata(bands[at[0]]),
            date=date,
            product=title,
            scaling=_scaling(title, bands[at[0]]),
        )
        for (dtype, *_), at in alike.items()
    ]


def _bands(
    key: str, data: "xarray.Dataset | xarray.DataArray", names: Sequence[str] | None
) -> dict[str, Any]:
    """Name to `(time?, y, x)` array of each band."""
    if hasattr(data, "data_vars"):
        found = {
            str(name): own for name, own in data.data_vars.items() if _spatial(own) is not None
        }
        if not found:
            raise ValueError(f"{key}: no variable of the dataset has the dimensions y and x")
        stacked = [name for name, own in found.items() if _dimension(own, _BANDS)]
        if len(found) > 1 and stacked:
            raise ValueError(
                f"{key}: variable {stacked[0]!r} has a dimension of bands besides other variables; "
                f"give one of both"
            )
        if not stacked:
            return _ordered(key, _named(key, list(found.values()), names or list(found)))
        data = found[stacked[0]]
    if _spatial(data) is None:
        raise ValueError(
            f"{key}: the dimensions are {', '.join(map(str, data.dims))}; expected y and x, and "
            f"time and band where there are several"
        )
    across = _dimension(data, _BANDS)
    if across is None:
        own = names or [str(data.name)] if data.name or names else None
        return _ordered(key, _named(key, [data], own))
    parts = [data.isel({across: i}) for i in range(data.sizes[across])]
    for told, own in _OF_EACH_BAND.items():
        values = data.attrs.get(told)
        if isinstance(values, tuple | list | np.ndarray) and len(values) == len(parts):
            parts = [
                part.assign_attrs({own: value}) for part, value in zip(parts, values, strict=True)
            ]
    return _ordered(key, _named(key, parts, names or _band_names(data, across)))


def _named(key: str, parts: Sequence[Any], names: Sequence[str] | None) -> dict[str, Any]:
    """Bands by name.

    Raises:
        ValueError: there are none, too few or equal names.
    """
    if names is None:
        raise ValueError(
            f"{key}: the bands have no names; give the coordinate `band` their names, or `names`"
        )
    if len(names) != len(parts) or len(set(names)) != len(names):
        raise ValueError(f"{key}: {len(parts)} bands, but the names {', '.join(map(str, names))}")
    return dict(zip(map(str, names), parts, strict=True))


def _band_names(data: Any, across: str) -> list[str] | None:  # noqa: ANN401 - an optional type
    """Names of the bands: their coordinate, else rioxarray's `long_name`."""
    if across in data.coords and data.coords[across].dtype.kind in "UOST":
        return [str(name) for name in data.coords[across].values]
    names = data.attrs.get("long_name")
    return list(names) if isinstance(names, tuple | list) else None


def _ordered(key: str, bands: dict[str, Any]) -> dict[str, Any]:
    """Bands as `(time?, y, x)`.

    Raises:
        ValueError: another dimension, or bands of different shapes.
    """
    ordered = {}
    for name, band in bands.items():
        down, across = _spatial(band) or ("", "")
        times = _dimension(band, _TIMES)
        other = set(band.dims) - {down, across, times}
        if other:
            raise ValueError(f"{key}: cannot use the dimension {', '.join(map(str, other))}")
        ordered[name] = band.transpose(*([times] if times else []), down, across)
    shapes = {band.shape for band in ordered.values()}
    if len(shapes) > 1:
        raise ValueError(f"{key}: the bands differ in shape: {sorted(shapes)}; give one grid")
    if 0 in next(iter(shapes)):
        raise ValueError(f"{key}: the data are empty: {next(iter(shapes))}")
    return ordered


def _dimension(data: Any, names: Sequence[str]) -> str | None:  # noqa: ANN401 - an optional type
    """The dimension that goes by one of some names."""
    return next((name for name in names if name in data.dims), None)


def _spatial(data: Any) -> tuple[str, str] | None:  # noqa: ANN401 - an optional type
    """Names of the dimensions down and across."""
    down, across = _dimension(data, _DOWN), _dimension(data, _ACROSS)
    return (down, across) if down and across else None


def _grid(key: str, band: Any, crs: str) -> Grid:  # noqa: ANN401 - an optional type
    """Pixels on the ground from the coordinates of their centres.

    Raises:
        ValueError: no coordinates, or not at equal steps.
    """
    down, across = band.dims[-2:]
    y0, dy = _steps(key, band, down)
    x0, dx = _steps(key, band, across)
    transform = (dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2)
    try:
        return Grid(crs, transform, band.shape[-2:])
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _steps(key: str, band: Any, name: str) -> tuple[float, float]:  # noqa: ANN401 - an optional type
    """First coordinate, and the step to the next."""
    if name not in band.coords:
        raise ValueError(f"{key}: dimension {name!r} has no coordinates, so its place is unknown")
    values = np.asarray(band.coords[name].values, np.float64)
    if len(values) < 2:
        raise ValueError(f"{key}: one coordinate along {name!r} does not tell the pixel's size")
    step = (values[-1] - values[0]) / (len(values) - 1)
    expected = values[0] + step * np.arange(len(values))
    if step == 0 or not np.abs(values - expected).max() <= _REGULAR * abs(step):
        raise ValueError(f"{key}: the coordinates along {name!r} are not at equal steps")
    digits = 12 - int(np.floor(np.log10(max(np.abs(values).max(), abs(step)))))
    return float(values[0]), round(float(step), max(digits, 0))


def _crs(key: str, data: "xarray.Dataset | xarray.DataArray") -> str:
    """Coordinate system, as rioxarray and odc-geo write it, as WKT.

    Raises:
        ValueError: the data do not tell it.
    """
    own = next(iter(data.data_vars.values())) if hasattr(data, "data_vars") else data
    mapping = own.encoding.get("grid_mapping", own.attrs.get("grid_mapping", "spatial_ref"))
    told = [data.coords[mapping].attrs] if mapping in data.coords else []
    for attributes in (*told, own.attrs, data.attrs):
        for name in ("crs_wkt", "spatial_ref", "crs"):
            if attributes.get(name):
                return _wkt(key, attributes[name])
    raise ValueError(
        f"{key}: nothing tells the coordinate system (no `spatial_ref`); give `crs='EPSG:...'`"
    )


def _wkt(key: str, crs: object) -> str:
    """Any way to write a coordinate system, as the WKT that files have."""
    text = crs.to_wkt() if hasattr(crs, "to_wkt") else str(crs)
    try:
        return canonical(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _dates(key: str, band: Any, times: str | None) -> npt.NDArray[np.datetime64]:  # noqa: ANN401
    """`(T,)` days; a scalar coordinate counts, NaT where there is none.

    Raises:
        ValueError: the coordinate holds no dates.
    """
    count = 1 if times is None else band.sizes[times]
    name = times or next((name for name in _TIMES if name in band.coords), None)
    if name is None or name not in band.coords:
        return np.full(count, np.datetime64("NaT", "D"))
    values = np.atleast_1d(band.coords[name].values)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # time zones
            days = _days(values)
    except (ValueError, TypeError):
        raise ValueError(
            f"{key}: the coordinate {name!r} holds no dates, but {values.dtype} such as "
            f"{values[0]}; open the data with `decode_times=True`, or give it dates: "
            f"`data.assign_coords({name}=np.array(['2021-06-01', ...], 'datetime64[D]'))`"
        ) from None
    return days


def _days(values: npt.NDArray[Any]) -> npt.NDArray[np.datetime64]:
    """Days of times, of texts, or of objects of which each is one of both.

    Raises:
        ValueError: they are numbers, or texts that are no days of the years 1900 to 2199.
        TypeError: they are something else.
    """
    numbers = values.dtype.kind == "O" and any(
        isinstance(v, int | float | np.number) for v in values
    )
    if values.dtype.kind not in "MUSO" or numbers:
        raise ValueError("numbers")
    days = values.astype("datetime64[D]")
    known = days[~np.isnat(days)]
    if np.any((known < np.datetime64("1900-01-01")) | (known >= np.datetime64("2200-01-01"))):
        raise ValueError("years")
    return days


def _nodata(band: Any) -> float | None:  # noqa: ANN401 - an optional type
    """The value that is missing, if the data declare one."""
    for place in (band.attrs, band.encoding if band.dtype.kind != "f" else {}):
        for name in ("_FillValue", "nodata", "missing_value"):
            if place.get(name) is not None:
                return float(place[name])
    return None


def _scaling(title: str, band: Any) -> tuple[float, float] | None:  # noqa: ANN401 - an optional type
    """`(scale, offset)` that are still to be applied, as CF and rioxarray write them.

    Decoding moves them from the attributes elsewhere; rioxarray writes 1 and 0 where there are
    none.

    Raises:
        ValueError: they are no numbers.
    """
    told = band.attrs.get("scale_factor"), band.attrs.get("add_offset")
    try:
        scale = 1.0 if told[0] is None else float(told[0])
        offset = 0.0 if told[1] is None else float(told[1])
    except (TypeError, ValueError):
        raise ValueError(
            f"{title}: the attributes scale_factor {told[0]!r} and add_offset {told[1]!r} are no "
            f"numbers"
        ) from None
    return None if (scale, offset) == (1.0, 0.0) else (scale, offset)
