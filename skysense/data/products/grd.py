"""Sentinel-1 GRD as ESA delivers it: gamma nought in decibel, on any grid, window by window.

A measurement file holds digital numbers in lines and pixels of the radar, without a map. Of a
window the numbers beneath are read, calibrated (calibration.py), and interpolated at the places
that the control points give (control.py): once, straight onto the grid that is asked for. Power is
interpolated, decibel are given.

This is geocoding on the ground of the control points and no terrain correction: on mountains,
places are off by up to the height that lies between them, and slopes keep their brightness.

Source: ESA "Sentinel-1 Product Specification" (S1-RS-MDA-52-7441).

Legend: C bands (one), H W pixels of the wanted window.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import windows
from rasterio.errors import NotGeoreferencedWarning

from skysense.data import rasters
from skysense.data.ground import metres, moved
from skysense.data.products.archives import read_text
from skysense.data.products.calibration import (
    Calibration,
    Floats,
    Ints,
    numbers,
    parse_calibration,
    parse_noise,
    parse_xml,
)
from skysense.data.products.control import ControlPoints, Point, control_points
from skysense.data.products.naming import GRD_FILE
from skysense.data.rasters import IO_ERRORS, Pixels, RasterFile, parse_date, reason
from skysense.geo import Grid

FLOOR = 1e-4
"""Least gamma nought, -40 dB: where the noise is taken out, water may come out below zero."""

_NODES = 16
"""Places are found on every 16th row and column of a grid, and are linear in between."""

_BLOCK = 256
"""Rows and columns that are read at once: the image beneath a wide window is long and high."""

_COARSER = 1.5
"""How many times the image's own pixels those of a grid may be and still be interpolated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundRange(RasterFile):
    """A measurement file and what places and calibrates it."""

    image: tuple[int, int]
    """Lines and pixels of the file."""
    points: ControlPoints
    """Where they lie."""
    calibration: Calibration
    """What the numbers mean."""

    def onto(self, grid: Grid) -> RasterFile:
        """The same image on another grid, unless its pixels are much coarser."""
        if metres(grid) > _COARSER * self.metres:
            return self
        return replace(self, grid=grid, metres=metres(grid))

    def open(self) -> Pixels:
        """Open it as pixels of its grid."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the annotation places it
            return _View(self, super().open())


class _View:
    """An open measurement file, as rasterio's datasets give theirs, on a grid."""

    count = 1
    driver = "GRD"

    def __init__(self, source: GroundRange, dataset: Any) -> None:  # noqa: ANN401 - rasterio's own
        self._source = source
        self.dataset = dataset  # what GDAL holds open
        self.height, self.width = source.grid.shape
        if dataset.shape != source.image:
            dataset.close()
            raise OSError(f"has {dataset.shape} pixels in place of {source.image}: it was replaced")

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()

    def read_masks(self, indexes: int, *, window: windows.Window) -> npt.NDArray[Any]:
        """`(H, W)`, 0 where nothing was measured."""
        measured = np.isfinite(self.read([indexes], window=window)[0])
        return np.where(measured, np.uint8(255), np.uint8(0))

    def read(
        self,
        indexes: list[int] | None = None,
        *,
        window: windows.Window,
        out_shape: tuple[int, int, int] | None = None,
    ) -> npt.NDArray[Any]:
        """`(1, H, W)` float32 gamma nought in decibel, NaN where nothing was measured."""
        row, col, height, width = (
            int(n) for n in (window.row_off, window.col_off, window.height, window.width)
        )
        values = np.full((1, height, width), np.nan, np.float32)
        for top in range(0, height, _BLOCK):
            for left in range(0, width, _BLOCK):
                part = values[0, top : top + _BLOCK, left : left + _BLOCK]
                part[...] = self._block(row + top, col + left, *part.shape)
        if out_shape is not None:
            rows, cols = (
                ((np.arange(n) + 0.5) * size / n).astype(int)
                for n, size in zip(out_shape[1:], (height, width), strict=True)
            )
            values = values[:, rows][:, :, cols]
        return values

    def _block(self, row: int, col: int, height: int, width: int) -> npt.NDArray[np.float32]:
        """`(H, W)` of a small window."""
        lines, pixels = self._places(row, col, height, width)
        high, wide = self._source.image
        with np.errstate(invalid="ignore"):  # NaN: no such place
            inside = (lines >= -0.5) & (lines <= high - 0.5)
            inside &= (pixels >= -0.5) & (pixels <= wide - 0.5)
        values = np.full((height, width), np.nan, np.float32)
        if not inside.any():
            return values
        lines, pixels = lines[inside], pixels[inside]
        top, bottom = _reach(lines, high)
        left, right = _reach(pixels, wide)
        beneath = windows.Window(left, top, right - left, bottom - top)
        stored = self.dataset.read(1, window=beneath)
        power = self._source.calibration.power(
            stored, np.arange(top, bottom), np.arange(left, right)
        )
        power = _interpolate(power, stored > 0, lines - top, pixels - left)
        values[inside] = 10 * np.log10(np.maximum(power, FLOOR))
        return values

    def _places(self, row: int, col: int, height: int, width: int) -> tuple[Floats, Floats]:
        """`(H, W)` line and pixel beneath the centres of a window's pixels.

        The nodes are counted from the corner of the grid, so that windows agree.
        """
        grid, points = self._source.grid, self._source.points
        rows, cols = np.arange(row, row + height), np.arange(col, col + width)
        down = np.arange(rows[0] // _NODES, rows[-1] // _NODES + 2)
        across = np.arange(cols[0] // _NODES, cols[-1] // _NODES + 2)
        a, b, c, d, e, f = grid.transform
        i, j = np.meshgrid(down * float(_NODES), across * float(_NODES), indexing="ij")
        x, y = moved(grid.crs, points.crs, a * j + b * i + c, d * j + e * i + f)
        lines, pixels = points.locate(x, y)
        return (
            _linear(lines, rows, cols, int(down[0]), int(across[0])),
            _linear(pixels, rows, cols, int(down[0]), int(across[0])),
        )


def _linear(nodes: Floats, rows: Ints, cols: Ints, first: int, left: int) -> Floats:
    """`(H, W)` values between nodes at the centres of pixels; `first` and `left` are nodes 0."""
    i, j = rows // _NODES - first, cols // _NODES - left
    v = ((rows % _NODES + 0.5) / _NODES)[:, None]
    u = (cols % _NODES + 0.5) / _NODES
    along = nodes[i] * (1 - v) + nodes[i + 1] * v
    return np.asarray(along[:, j] * (1 - u) + along[:, j + 1] * u)


def _reach(places: Floats, size: int) -> tuple[int, int]:
    """First line or pixel, and the one behind the last, that bilinear weights look at."""
    return max(int(np.floor(places.min())), 0), min(int(np.floor(places.max())) + 2, size)


def _interpolate(power: Floats, valid: npt.NDArray[np.bool_], rows: Floats, cols: Floats) -> Floats:
    """Bilinear values of what was measured; NaN where that has less than half of the weight."""
    above, before = np.floor(rows), np.floor(cols)
    down, across = rows - above, cols - before
    width = power.shape[1] + 2
    corner = ((above + 1) * width + before + 1).astype(np.int64)
    shares = (
        (corner, (1 - down) * (1 - across)),
        (corner + 1, (1 - down) * across),
        (corner + width, down * (1 - across)),
        (corner + width + 1, down * across),
    )
    flat = np.pad(np.where(valid, power, 0), 1, mode="edge").ravel()  # half a pixel at the border
    total = sum((share * flat.take(place) for place, share in shares), np.zeros(1))
    if valid.all():
        return total
    flat = np.pad(~valid, 1, mode="edge").ravel()
    weight = 1 - sum((share * flat.take(place) for place, share in shares), np.zeros(1))
    measured = weight >= 0.5
    return np.where(measured, total / np.where(measured, weight, 1), np.nan)


def inspect(path: Path, names: Sequence[str] | None = None) -> RasterFile:
    """The facts of a measurement file, on a grid of its own.

    Args:
        path: the file in its SAFE folder, or a member of an archive.
        names: band names to use instead of what the file's name says.

    Raises:
        ValueError: it or its annotation cannot be read, or there is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the annotation places it
            with rasterio.open(path) as dataset:
                shape, kind, is_map = dataset.shape, dataset.dtypes[0], dataset.crs is not None
                ties = dataset.gcps[0]
    except IO_ERRORS as error:
        if not rasters.is_member(path) and not path.exists():
            raise ValueError(f"{path}: there is no such file") from None
        raise ValueError(f"{path}: cannot be read as a raster ({reason(error)})") from None
    if is_map or "complex" in kind:
        return rasters.inspect(path, names)
    if names is not None and len(names) != 1:
        raise ValueError(f"{path}: has 1 band, but {len(names)} names were given")
    calibration = _calibration(path)
    points = [(tie.row, tie.col, tie.x, tie.y, tie.z or 0.0) for tie in ties]
    try:
        placed = control_points(points or list(_annotated(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    grid = placed.grid(shape)
    match = GRD_FILE.match(path.name)
    assert match is not None
    return GroundRange(
        path=path,
        grid=grid,
        metres=metres(grid),
        names=tuple(names) if names is not None else (match["polarization"].upper(),),
        dtype="float32",
        nodata=float("nan"),
        date=parse_date(path.name),
        image=shape,
        points=placed,
        calibration=calibration,
    )


def _calibration(path: Path) -> Calibration:
    """The tables beside a measurement file.

    Raises:
        ValueError: there are none, or they are damaged.
    """
    folder = path.parent.parent / "annotation" / "calibration"
    name = folder / f"calibration-{path.stem}.xml"
    text = read_text(name)
    if text is None:
        raise ValueError(
            f"{path}: is a Sentinel-1 GRD measurement without its calibration (there is no "
            f"{name.name} in annotation/calibration): give the whole SAFE folder or its zip"
        )
    gamma = parse_calibration(name, text)
    name = folder / f"noise-{path.stem}.xml"
    text = read_text(name)
    if text is None:
        warnings.warn(f"{path}: has no {name.name}; its noise stays in", stacklevel=2)
        return Calibration(gamma)
    return Calibration(gamma, *parse_noise(name, text))


def _annotated(path: Path) -> Iterator[Point]:
    """Control points of the annotation, for a file that has none.

    Raises:
        ValueError: there is no annotation, or it is damaged.
    """
    name = path.parent.parent / "annotation" / f"{path.stem}.xml"
    text = read_text(name)
    if text is None:
        raise ValueError(
            f"has no ground control points, and there is no annotation/{name.name}: give the whole "
            f"SAFE folder or its zip"
        )
    for point in parse_xml(name, text).iter("geolocationGridPoint"):
        line, pixel, lon, lat, height = (
            float(numbers(name, point, field)[0])
            for field in ("line", "pixel", "longitude", "latitude", "height")
        )
        yield line, pixel, lon, lat, height
