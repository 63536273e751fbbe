"""A map as a Zarr v3 group with CF and GeoZarr attributes.

`features` is `(time, band, y, x)`, or `(band, y, x)` where no date is known. It has one time: the
last acquisition day, with the period in `time_bounds`. int8 has its scales as the coordinate
`scale` along `band`, since `scale_factor` of CF is one number for a whole array. The number of
cells that hold a vector is in the group's attributes, at `skysense.storage.cells`: a chunk that is
lost looks like one that is empty.

Metadata are consolidated: Zarr v3 has no word for that yet, so zarr-python warns whoever writes it,
but xarray warns whoever reads a store without.

Source: Zarr v3 core; CF-1.11; the `proj` and `spatial` conventions v0.1 of GeoZarr.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense._optional import require
from skysense.geo import Grid
from skysense.inference.stores.places import crs_code, crs_of
from skysense.inference.stores.provenance import METADATA_KEY
from skysense.inference.stores.quantize import INT8_NODATA, Coding
from skysense.inference.stores.source import MapSource, Progress, valid_cells

ZarrGroup = Any
"""`zarr.Group`, of an optional package."""

ZarrArray = Any
"""`zarr.Array`."""

_CHUNK_BYTES = 4 << 20
_WINDOW = 64
_PROJ_UUID = "f17cb550-5864-4468-aeb7-f3180cfb622f"
_SPATIAL_UUID = "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"


def write_zarr(
    source: MapSource, path: Path, coding: Coding, progress: Progress, window: int | None = None
) -> int:
    """Write a map.

    Args:
        source: the map.
        path: folder to make.
        coding: type of the numbers.
        progress: called with the number of rows after each row of chunks.
        window: cells along a window of the map; chunks are a multiple or a divisor of it.

    Returns:
        How many cells hold a vector.

    Raises:
        ValueError: zarr is not installed.
        OSError: it cannot be written.
    """
    library = require("zarr", "stores")
    group = library.open_group(str(path), mode="w-", zarr_format=3)
    side = chunk_side(source.channels, np.dtype(coding.dtype).itemsize, window)
    leading = ("time", "band") if source.period else ("band",)
    group.attrs.update(_group_attributes(source))
    features = _features(group, source, coding, side, leading)
    _coordinates(group, source, coding)
    count = _fill(features, source, coding, side, progress)
    group.attrs[METADATA_KEY] = source.provenance.as_dict({**coding.storage(), "cells": count})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        library.consolidate_metadata(str(path), zarr_format=3)
    return count


def chunk_side(channels: int, itemsize: int, window: int | None = None) -> int:
    """Cells along a chunk: windows halved or doubled until all bands fill up to 4 MB.

    Worked example: windows of 96 cells, 192 bands of float16: 3.5 MB, and doubling would exceed.
    """
    if window is not None and window < 1:
        raise ValueError(f"a window has at least one cell, got {window}")
    side = window or _WINDOW
    while side % 2 == 0 and side > 1 and channels * itemsize * side**2 > _CHUNK_BYTES:
        side //= 2
    while channels * itemsize * (2 * side) ** 2 <= _CHUNK_BYTES:
        side *= 2
    return side


def _features(
    group: ZarrGroup,
    source: MapSource,
    coding: Coding,
    side: int,
    leading: tuple[str, ...],
) -> ZarrArray:
    """The empty array of the vectors."""
    codecs = require("zarr.codecs", "stores")
    height, width = source.grid.shape
    ones = (1,) * (len(leading) - 1)
    attributes: dict[str, Any] = {
        "long_name": f"features of {source.provenance.model}",
        "grid_mapping": "spatial_ref",
        **_geo_attributes(source.grid),
    }
    attributes["coordinates"] = "spatial_ref"
    if coding.quantization is not None:
        attributes |= {"_FillValue": INT8_NODATA, "coordinates": "spatial_ref scale"}
        attributes["comment"] = "a vector is features * scale"
    return group.create_array(
        "features",
        shape=(*ones, source.channels, height, width),
        chunks=(*ones, source.channels, min(side, height), min(side, width)),
        dtype=coding.dtype,
        fill_value=INT8_NODATA if coding.quantization is not None else np.nan,
        compressors=codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
        dimension_names=(*leading, "y", "x"),
        attributes=attributes,
    )


def _fill(
    features: ZarrArray, source: MapSource, coding: Coding, side: int, progress: Progress
) -> int:
    """Write all vectors and count the valid cells.

    Chunk by chunk: of several that are written at once some would still be under way after one has
    failed, and make files in a folder that is being removed.
    """
    height, width = source.grid.shape
    ones = (1,) * (features.ndim - 3)
    count = 0
    for first in range(0, height, side):
        stop = min(first + side, height)
        row = source.rows(first, stop)  # (D, n, w)
        for left in range(0, width, side):
            values = row[:, :, left : left + side]
            valid = valid_cells(values)
            count += int(valid.sum())
            stored = coding.encode(np.where(valid, values, np.float32(np.nan)))
            place = (..., slice(first, stop), slice(left, left + stored.shape[2]))
            features[place] = stored.reshape(*ones, *stored.shape)
        progress(stop - first)
    return count


def _group_attributes(source: MapSource) -> dict[str, Any]:
    """What is said of the whole store."""
    return {
        "Conventions": "CF-1.11",
        "title": f"feature map of {source.provenance.model}",
        **_geo_attributes(source.grid, whole=True),
    }


def _geo_attributes(grid: Grid, whole: bool = False) -> dict[str, Any]:
    """The `proj` and `spatial` conventions, for the array or, without dimensions, the group."""
    crs = crs_of(grid)
    code = crs_code(crs)
    facts: dict[str, Any] = {
        "zarr_conventions": [
            _convention("proj", _PROJ_UUID, "Coordinate reference system of geospatial data"),
            _convention("spatial", _SPATIAL_UUID, "Where array indices lie in space"),
        ],
        **({"proj:code": code} if code else {}),
        "proj:wkt2": crs.to_wkt(),
        "spatial:transform_type": "affine",
        "spatial:transform": list(map(float, grid.transform)),
        "spatial:shape": list(grid.shape),
        "spatial:bbox": list(map(float, grid.bounds)),
        "spatial:registration": "pixel",
    }
    return facts if whole else {**facts, "spatial:dimensions": ["y", "x"]}


def _convention(name: str, uuid: str, description: str) -> dict[str, str]:
    """Registration of a convention."""
    home = f"zarr-conventions/{name}"
    return {
        "name": name,
        "uuid": uuid,
        "description": description,
        "schema_url": f"https://raw.githubusercontent.com/{home}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/{home}/blob/v0.1/README.md",
    }


def _coordinates(group: ZarrGroup, source: MapSource, coding: Coding) -> None:
    """Coordinate variables; a grid that is not north-up has no `x` and `y`, but its transform."""
    grid, crs = source.grid, crs_of(source.grid)
    a, b, c, d, e, f = grid.transform
    height, width = grid.shape
    geo_transform = " ".join(repr(float(v)) for v in (c, a, b, f, d, e))
    mapping = {**crs.to_cf(), "spatial_ref": crs.to_wkt(), "GeoTransform": geo_transform}
    _variable(group, "spatial_ref", np.int64(0), (), mapping)
    _variable(group, "band", np.arange(source.channels), ("band",), {"long_name": "dimension"})
    if b == d == 0:
        axes = {facts["axis"].lower(): facts for facts in crs.cs_to_cf() if "axis" in facts}
        _variable(group, "x", c + a * (np.arange(width) + 0.5), ("x",), axes.get("x", {}))
        _variable(group, "y", f + e * (np.arange(height) + 0.5), ("y",), axes.get("y", {}))
    if source.period is not None:
        days = np.array(source.period, "datetime64[D]").astype(np.int64)
        units = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
        facts = {"standard_name": "time", "axis": "T", "bounds": "time_bounds", **units}
        _variable(group, "time", days[1:], ("time",), facts)
        _variable(group, "time_bounds", days[None], ("time", "bounds"), {})
    if coding.quantization is not None:
        facts = {"long_name": "step of a code along its dimension"}
        _variable(group, "scale", coding.quantization.scale, ("band",), facts)


def _variable(
    group: ZarrGroup,
    name: str,
    values: npt.ArrayLike,
    dimensions: tuple[str, ...],
    attributes: dict[str, Any],
) -> None:
    """A small array of one chunk."""
    data = np.asarray(values)
    array = group.create_array(
        name,
        shape=data.shape,
        chunks=data.shape,
        dtype=data.dtype,
        dimension_names=dimensions,
        attributes=attributes,
    )
    array[...] = data
