"""An asset as a source of pixels: from what its item says, or else from the file itself.

Where an item gives grid and type (extensions proj and raster) nothing is opened before it is read;
a file that turns out to be another is then refused.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import numpy as np

from skysense.data.ground import metres
from skysense.data.rasters import RasterFile, Signer, canonical, inspect
from skysense.data.stac.items import day_of
from skysense.data.stac.kinds import bands_of
from skysense.geo import Grid

if TYPE_CHECKING:
    import pystac

_TYPES = {
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
}
_REMOTE = ("http", "https", "s3", "gs")


def source_of(item: "pystac.Item", key: str, sign: Signer | None) -> RasterFile:
    """The facts of an asset.

    Args:
        item: where it belongs.
        key: which asset.
        sign: turns its address into the one to read, each time that it is opened.

    Raises:
        ValueError: it cannot be reached, is no raster, or has no place on the ground.
    """
    asset = item.assets[key]
    path, address = _address(item, asset)
    bands = bands_of(asset)
    names = (key,) if len(bands) == 1 else None
    day = day_of(item)
    grid = _grid(item, asset)
    if grid is not None and len(bands) == 1 and bands[0].dtype in _TYPES:
        nodata = bands[0].nodata
        return RasterFile(
            path=path,
            address=address,
            sign=sign if address else None,
            grid=grid,
            metres=metres(grid),
            names=(key,),
            dtype=str(bands[0].dtype),
            nodata=nodata,
            date=day,
            product=item.id,
        )
    try:
        file = inspect(path, names, address, sign if address else None)
    except ValueError as error:
        raise ValueError(f"item {item.id}, asset {key}: {error}") from None
    return replace(file, date=file.date if np.isnat(day) else day, product=item.id)


def _address(item: "pystac.Item", asset: "pystac.Asset") -> tuple[Path, str]:
    """A file of this machine, or a path to show and the address, not yet signed.

    Raises:
        ValueError: it is of a kind that cannot be opened.
    """
    href = asset.get_absolute_href() or asset.href
    parts = urlsplit(href)
    if parts.scheme == "file":
        return Path(unquote(parts.path)), ""
    if len(parts.scheme) < 2:  # none, or a drive's letter
        return Path(href) if Path(href).exists() else Path(unquote(href)), ""
    if parts.scheme not in _REMOTE:
        raise ValueError(
            f"item {item.id}: {href} cannot be opened; known are files, http(s), s3 and gs"
        )
    return Path(unquote(parts.path).lstrip("/")), href


def _grid(item: "pystac.Item", asset: "pystac.Asset") -> Grid | None:
    """The pixels on the ground, if the item tells all of it and it makes sense."""
    told = {**item.properties, **asset.extra_fields}
    code = told.get("proj:code") or (
        f"EPSG:{told['proj:epsg']}" if told.get("proj:epsg") else told.get("proj:wkt2")
    )
    own = asset.extra_fields if "proj:transform" in asset.extra_fields else told
    transform, shape = own.get("proj:transform"), own.get("proj:shape")
    if not code or not transform or not shape:
        return None
    try:
        height, width = (int(side) for side in shape)
        a, b, c, d, e, f = (float(value) for value in transform[:6])
        grid = Grid(canonical(str(code)), (a, b, c, d, e, f), (height, width))
        return grid if math.isfinite(metres(grid)) else None
    except (ValueError, TypeError):  # the file itself may know better
        return None
