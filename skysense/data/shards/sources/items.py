"""STAC items: their assets, on disk or remote, become the files of places.

Items that cover mostly the same ground are one place; their modality, date and bands are read
from the item. Each asset is seen through a small virtual raster that says what the item says, so
that items are read like any other files.

Source: STAC 1.0 and 1.1, extensions eo, raster-bands, processing, sentinel-2 [paper].
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlparse
from xml.sax.saxutils import escape

import numpy as np
import rasterio

from skysense.data.rasters import IO_ERRORS, parse_date, reason
from skysense.data.shards.drafts import Draft
from skysense.data.shards.sources.scenes import Cut, read_windows
from skysense.data.shards.stored import StoredSample
from skysense.geo import Bounds, intersect
from skysense.sensors import DEFAULT_SENSORS, MODALITIES, find_bands, get_sensor

_SAME_PLACE = 0.5
"""From this part of the smaller one's ground on, two items that share it are one place. [ours]"""

_REMOTE = {"https": "/vsicurl/", "http": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/"}
"""How GDAL reaches what is not on disk."""

_PICTURES = ("visual", "preview", "TCI")
"""Keys of assets that are for looking at; those that end with `-jp2` are copies of others."""

_GDAL_TYPES = {
    "uint8": "Byte",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}

_GUESSES: tuple[tuple[str, str], ...] = (
    (r"sentinel-?2.*l1c", "s2_l1c"),
    (r"sentinel-?2", "s2_l2a"),
    (r"sentinel-?1.*rtc", "s1_linear"),
    (r"sentinel-?1", "s1"),
    (r"naip", "naip"),
    (r"landsat-?(c2|8|9|oli)", "landsat_c2_l2"),
)
"""Collection, constellation or platform to sensor card; the first that fits."""


@dataclass(frozen=True)
class Item:
    """What an item says."""

    name: str
    """Its id."""
    sensor: str
    """Name of the sensor card."""
    date: np.datetime64
    """Day, NaT if unknown."""
    bounds: Bounds
    """In degrees."""
    assets: tuple[tuple[str, tuple[str, ...]], ...]
    """Address of each raster, and the names of its bands; none where it does not say them."""


def items(
    path: Path, sensors: Mapping[str, str] | None = None, cut: Cut | None = None
) -> list[Draft]:
    """One draft a place of a file of STAC items.

    Args:
        path: an item, a list of items, or a feature collection, in JSON.
        sensors: modality to sensor card, in place of what the items suggest.
        cut: how large windows are.

    Raises:
        ValueError: no JSON, or no items that can be used in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
    found = content.get("features", [content]) if isinstance(content, dict) else content
    try:
        read = [_item(item, path.parent, sensors or {}) for item in found]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} holds no STAC items ({type(error).__name__}: {error})") from None
    if not read:
        raise ValueError(f"{path} holds no STAC items")
    chosen: dict[str, str] = {
        key: (sensors or {}).get(key, DEFAULT_SENSORS[key]) for key in MODALITIES
    }
    return [
        Draft(f"{path.name}/{own[0].name}", partial(_read, own, chosen, cut or Cut()))
        for own in _by_place(read)
    ]


def _item(item: Mapping[str, Any], folder: Path, sensors: Mapping[str, str]) -> Item:
    """One item.

    Raises:
        ValueError: nothing says which sensor it is of.
    """
    facts = item["properties"]
    sensor = _sensor(item)
    if sensor is None:
        if len(sensors) != 1:
            raise ValueError(f"the item {item['id']} names no known sensor; name one `--sensor`")
        sensor = next(iter(sensors.values()))
    sensor = sensors.get(get_sensor(sensor).modality, sensor)
    left, bottom, right, top = (
        item["bbox"][i] for i in ((0, 1, 2, 3), (0, 1, 3, 4))[len(item["bbox"]) == 6]
    )
    assets = [
        (_address(asset["href"], folder), bands)
        for key, asset in item["assets"].items()
        if (bands := _bands(key, asset, sensor)) is not None
    ]
    date = parse_date(str(facts.get("datetime") or facts.get("start_datetime") or "")[:10])
    return Item(str(item["id"]), sensor, date, (left, bottom, right, top), tuple(assets))


def _sensor(item: Mapping[str, Any]) -> str | None:
    """The sensor card that an item suggests."""
    facts = item["properties"]
    words = [item.get("collection"), facts.get("constellation"), facts.get("platform")]
    text = " ".join(str(word).lower() for word in words if word)
    card = next((card for pattern, card in _GUESSES if re.search(pattern, text)), None)
    version = str(facts.get("s2:processing_baseline") or facts.get("processing:version") or "")
    number = re.match(r"\d+\.\d+", version)
    newer = number is not None and float(number[0]) >= 4
    harmonized = bool(facts.get("earthsearch:boa_offset_applied"))
    if card in ("s2_l2a", "s2_l1c") and newer and not harmonized:
        return f"{card}_n0400"
    return card


def _bands(key: str, asset: Mapping[str, Any], sensor: str) -> tuple[str, ...] | None:
    """Names of an asset's bands, if it holds some of the sensor's or a scene classification."""
    if not re.search(r"\.(tiff?|jp2|vrt)$", urlparse(asset["href"]).path.lower()):
        return None
    listed = asset.get("bands") or asset.get("eo:bands") or []
    names = tuple(str(band.get("name") or band.get("eo:common_name") or "") for band in listed)
    if not any(names):
        names = (key,)
    roles = set(asset.get("roles", ()))
    if roles & {"thumbnail", "overview"} or key in _PICTURES or key.endswith("-jp2"):
        return None
    wanted = find_bands(get_sensor(sensor), names) or "SCL" in key.upper()
    return names if wanted else None


def _address(href: str, folder: Path) -> str:
    """What GDAL opens."""
    parts = urlparse(href)
    if parts.scheme in _REMOTE:
        bucket = parts.scheme in ("s3", "gs")
        return _REMOTE[parts.scheme] + (parts.netloc + parts.path if bucket else href)
    path = unquote(parts.path) if parts.scheme == "file" else href
    return str((folder / path).absolute())


def _by_place(read: Sequence[Item]) -> list[list[Item]]:
    """Items of mostly the same ground."""
    found: list[list[Item]] = []
    for item in read:
        for own in found:
            if any(_shared(item.bounds, other.bounds) >= _SAME_PLACE for other in own):
                own.append(item)
                break
        else:
            found.append([item])
    return found


def _shared(one: Bounds, other: Bounds) -> float:
    """Common ground as a part of the smaller."""
    common = intersect(one, other)
    if common is None:
        return 0.0
    return _area(common) / min(_area(one), _area(other))


def _area(bounds: Bounds) -> float:
    """In square degrees."""
    return (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])


def _read(own: Sequence[Item], sensors: Mapping[str, str], cut: Cut) -> Iterator[StoredSample]:
    """The samples of one place."""
    inputs: dict[str, list[Path]] = {}
    chosen = dict(sensors)
    with TemporaryDirectory(prefix="items") as folder:
        for i, item in enumerate(own):
            modality = get_sensor(item.sensor).modality
            chosen[modality] = item.sensor
            for j, (address, bands) in enumerate(item.assets):
                day = "" if np.isnat(item.date) else f"{item.date}_"
                file = Path(folder) / f"{day}{i}_{j}.vrt"
                file.write_text(_virtual(address, bands), encoding="utf-8")
                inputs.setdefault(modality, []).append(file)
        mixed = {item.sensor for item in own} - set(chosen.values())
        if mixed or not inputs:
            raise ValueError(f"items of {sorted(mixed)} and {sorted(set(chosen.values()))} mix")
        yield from read_windows(own[0].name, inputs, chosen, cut, None, True)


def _virtual(address: str, bands: Sequence[str]) -> str:
    """A virtual raster of all bands of a raster under other names.

    Raises:
        ValueError: it cannot be opened.
    """
    try:
        with rasterio.open(address) as file:
            types = [_GDAL_TYPES[dtype] for dtype in file.dtypes]
            nodata, shape, descriptions = file.nodata, file.shape, file.descriptions
            transform, crs = file.transform.to_gdal(), file.crs.to_wkt() if file.crs else ""
    except KeyError as error:
        raise ValueError(f"{address}: holds numbers of type {error}") from None
    except IO_ERRORS as error:
        raise ValueError(f"{address}: cannot be read as a raster ({reason(error)})") from None
    names = bands if len(bands) == len(types) else [name or "" for name in descriptions]
    empty = "" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>"
    parts = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><Description>{escape(name)}</Description>'
        f'{empty}<SimpleSource><SourceFilename relativeToVRT="0">{escape(address)}'
        f"</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (kind, name) in enumerate(zip(types, names, strict=True), start=1)
    )
    place = ", ".join(repr(float(value)) for value in transform)
    return (
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}">'
        f"<SRS>{escape(crs)}</SRS><GeoTransform>{place}</GeoTransform>{parts}</VRTDataset>"
    )
