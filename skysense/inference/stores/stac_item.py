"""A STAC item beside a map: what, where, when, made of what, in which files.

Source: STAC 1.1.0, extensions projection 2.0.0, processing 1.2.0, file 2.1.0.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skysense.data.writing import working_folder, writing
from skysense.inference.stores.footprint import footprint
from skysense.inference.stores.places import crs_code, crs_of
from skysense.inference.stores.provenance import METADATA_KEY
from skysense.inference.stores.quantize import INT8_NODATA, Quantization
from skysense.inference.stores.source import MapSource, StoreType

STAC_VERSION = "1.1.0"

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)

_MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".tiff": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".zarr": "application/vnd.zarr; version=3",
    ".parquet": "application/vnd.apache.parquet",
    ".lance": "application/x-lance",
    ".png": "image/png",
    ".json": "application/json",
    ".csv": "text/csv",
}
"""Lance has none that is registered."""

_TITLES = {
    ".tif": "Feature map, Cloud Optimized GeoTIFF",
    ".tiff": "Feature map, Cloud Optimized GeoTIFF",
    ".zarr": "Feature map, Zarr v3",
    ".parquet": "Vectors of the cells, GeoParquet",
    ".lance": "Vectors of the cells, LanceDB table",
}


def write_stac_item(
    source: MapSource,
    path: Path,
    *,
    dtype: StoreType | None = None,
    quantization: Quantization | None = None,
    others: Mapping[str, Path] | None = None,
) -> Path:
    """Describe a map that was written.

    Args:
        source: the map.
        path: the output; the item is `<stem>.json` beside it, or `<name>.json` where the former is
            another file's.
        dtype: type of its numbers, if it is to be said.
        quantization: what `write_store` gave.
        others: further files by asset key, such as a `quicklook`.

    Returns:
        Where the item is.

    Raises:
        ValueError: a file is there that is no STAC item, an asset is missing, or it cannot be
            written.
    """
    path = Path(path)
    target = _place(path)
    item = stac_item(source, path, dtype=dtype, quantization=quantization, others=others)
    with writing(target), working_folder(target) as folder:
        made = folder / target.name
        made.write_text(json.dumps(item, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(made, target)
    return target


def stac_item(
    source: MapSource,
    path: Path,
    *,
    dtype: StoreType | None = None,
    quantization: Quantization | None = None,
    others: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """The item as JSON values; arguments as of `write_stac_item`.

    Raises:
        ValueError: an asset is missing, or the map has no place on the Earth.
    """
    files = {"data": path, **(others or {})}
    missing = [str(file) for file in files.values() if not file.exists()]
    if missing:
        raise ValueError(f"a STAC item describes files that are there; missing: {missing[0]}")
    geometry, box = footprint(source.grid)
    assets = {key: _asset(file, key, path.parent) for key, file in files.items()}
    if dtype is not None:
        nodata = INT8_NODATA if dtype == "int8" else "nan"
        assets["data"] |= {"data_type": dtype, "nodata": nodata}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(_EXTENSIONS),
        "id": path.stem,
        "geometry": geometry,
        "bbox": box,
        "properties": _properties(source, path, dtype, quantization),
        "links": [],
        "assets": assets,
    }


def _properties(
    source: MapSource, path: Path, dtype: StoreType | None, quantization: Quantization | None
) -> dict[str, Any]:
    """When, on which grid, made by what."""
    made = source.provenance
    crs = crs_of(source.grid)
    storage = None if dtype is None else {"dtype": dtype}
    if storage is not None and quantization is not None:
        storage |= quantization.as_dict()
    return {
        **_times(source, path),
        "title": f"Feature map of {made.model}",
        "proj:code": crs_code(crs),
        "proj:wkt2": crs.to_wkt(),
        "proj:shape": list(source.grid.shape),
        "proj:transform": list(map(float, source.grid.transform)),
        "proj:bbox": list(map(float, source.grid.bounds)),
        "processing:software": {"skysense": made.package},
        "processing:lineage": _lineage(source),
        "skysense:dimensions": source.channels,
        METADATA_KEY: made.as_dict(storage),
    }


def _lineage(source: MapSource) -> str:
    """How the map came about, in a sentence."""
    made = source.provenance
    trained = "" if made.trained else ", whose weights are not trained"
    series = ", ".join(f"{key} ({len(days)} dates)" for key, days in made.dates.items())
    return (
        f"{source.channels} features a cell, computed by {made.model}{trained} (weights "
        f"{made.weights[:12]}) from {series or 'imagery'}"
    )


def _times(source: MapSource, path: Path) -> dict[str, Any]:
    """`datetime`, or `start_datetime` and `end_datetime`; without dates, when the inputs were made.

    The standard asks for a time; where no acquisition day is known the files' own times stand in.
    """
    if source.period is not None:
        first, last = (str(day) for day in source.period)
        if first == last:
            return {"datetime": f"{first}T00:00:00Z"}
        return _span(f"{first}T00:00:00Z", f"{last}T23:59:59Z")
    changed = [datetime.fromisoformat(file.modified) for file in source.provenance.inputs]
    changed = changed or [datetime.fromtimestamp(path.stat().st_mtime, UTC)]
    first, last = (t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in (min(changed), max(changed)))
    return {**_span(first, last), "skysense:undated": True}


def _span(first: str, last: str) -> dict[str, Any]:
    """A period."""
    return {"datetime": None, "start_datetime": first, "end_datetime": last}


def _asset(file: Path, key: str, folder: Path) -> dict[str, Any]:
    """Link, type and role of a file or folder; sizes of files."""
    suffix = file.suffix.lower()
    nearby = file.absolute().parent == folder.absolute()
    picture = suffix in (".png", ".jpg", ".jpeg")
    role = "data" if suffix in _TITLES else "overview" if picture else "metadata"
    facts: dict[str, Any] = {
        "href": f"./{file.name}" if nearby else str(file.absolute()),
        "title": _TITLES.get(suffix, key.capitalize()),
        "roles": [role],
    }
    if suffix in _MEDIA_TYPES:
        facts["type"] = _MEDIA_TYPES[suffix]
    return {**facts, "file:size": file.stat().st_size} if file.is_file() else facts


def _place(path: Path) -> Path:
    """Where the item of an output goes.

    Raises:
        ValueError: files that are not to be replaced lie at both places.
    """
    places = path.with_suffix(".json"), path.with_name(f"{path.name}.json")
    problems = [_taken(place, path) for place in places]
    for place, problem in zip(places, problems, strict=True):
        if problem is None:
            return place
    raise ValueError("; ".join(filter(None, problems)))


def _taken(target: Path, path: Path) -> str | None:
    """Why a file is not to be replaced: it is no STAC item, or that of another output."""
    if not target.exists():
        return None
    try:
        item = json.loads(target.read_text(encoding="utf-8"))
        known = "stac_version" in item
    except (OSError, ValueError, TypeError):
        known = False
    if not known:
        return f"{target} is there and is no STAC item; move it, or choose another output"
    with suppress(KeyError, TypeError):
        other = target.parent / item["assets"]["data"]["href"]
        if other.exists() and not other.samefile(path):
            return f"{target} is that of {other}; choose another name than {path.name}"
    return None
