"""Read one source onto any grid: straight where its pixels fit, warped where they do not.

Pixels that wanted ones divide into whole numbers are interpolated here and not by GDAL. A file is
warped through a view of it that GDAL keeps; of an array, which GDAL cannot see, the part under each
window is handed to GDAL and warped.

Legend: C bands of the source, H W pixels of the wanted window.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio import windows
from rasterio.enums import Resampling
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from skysense.data.ground import footprint, metres
from skysense.data.rasters import (
    IO_ERRORS,
    Pixels,
    RasterFile,
    Source,
    canonical,
    is_missing,
    own_mask,
    reason,
)
from skysense.data.upsampling import Axis, upsample
from skysense.geo import Grid, Window

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_ALIGNED = 0.01
"""How far, in pixels, a file's grid may lie off the wanted one and still be read straight."""


_EXACT = 1e-6
"""How far, in pixels, GDAL may be off where no seams between windows may be (it fails with 0; its
default is 0.125)."""


_SMALLER = 0.95
"""From this ratio of pixel sizes on a warp interpolates between pixels and does not smooth."""


class GridReader:
    """An open source, read by windows of a grid that need not be its own.

    Not thread-safe: open and use it in one thread.
    """

    def __init__(
        self,
        file: Source,
        grid: Grid,
        nodata: float | None,
        nearest: bool = False,
        exact: bool = False,
    ) -> None:
        """Open.

        Args:
            file: what to read.
            grid: the wanted grid.
            nodata: stored value that is missing, where the file declares none.
            nearest: take the nearest pixel when warping (for classes), not an interpolation.
            exact: warp without the small errors that GDAL allows itself, which would show as
                seams between windows that are warped apart.

        Raises:
            ValueError: the file cannot be opened, or is another than its description says.
        """
        self.file = file = file.onto(grid)
        self._grid, self._nearest, self._exact = grid, nearest, exact
        self._given = nodata
        self._nodata: float | None = None
        self._under = self._beneath()
        self._stack = ExitStack()
        self._open()

    def _open(self) -> None:
        """Open the source, and the warped view of it where one is needed.

        Raises:
            ValueError: as of the constructor.
        """
        try:
            self._dataset = self.file.open()
            self._stack.callback(self._dataset.close)
            self._check()
            if isinstance(self._dataset, DatasetReader):  # a catalog does not tell of masks
                alpha, masked = own_mask(self._dataset, self.file.names)
                self.file = replace(self.file, alpha=alpha, masked=masked)
            self._nodata = self._missing(self._given)
            self._place = self._nested()
            by_block = not isinstance(self._dataset, DatasetReader)
            self._vrt = None if self._place or by_block else self._warp()
        except IO_ERRORS as error:
            self.close()
            raise ValueError(f"{self.file.label}: cannot be read ({reason(error)})") from None
        except ValueError:
            self.close()
            raise

    def touches(self, window: Window) -> bool:
        """Whether a window of the wanted grid may hold a pixel of the source."""
        if self._under is None:
            return True
        under = self._under
        rows = window.row < under.row + under.height and under.row < window.row + window.height
        cols = window.col < under.col + under.width and under.col < window.col + window.width
        return rows and cols

    def _beneath(self) -> Window | None:
        """The window of the wanted grid outside of which no pixel of the source counts.

        Returns:
            `None` where that is not known: longitudes are counted in more than one way.
        """
        own, wanted = self.file.grid, self._grid
        if own.crs != wanted.crs and CRS(wanted.crs).is_geographic:
            return None
        try:
            under = footprint(wanted, own)
        except ValueError:
            return None
        ratio = max(under.height / own.shape[0], under.width / own.shape[1], 1.0)
        margin = 2 + math.ceil(2 * ratio)  # the reach of bilinear weights
        return Window(
            under.row - margin,
            under.col - margin,
            under.height + 2 * margin,
            under.width + 2 * margin,
        )

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def opened(self) -> Iterator[DatasetReader | WarpedVRT]:
        """What GDAL holds open: the file and the warped view of it, where there are such."""
        held = getattr(self._dataset, "dataset", self._dataset)  # a view's own file
        if isinstance(held, DatasetReader):
            yield held
        if self._vrt is not None:
            yield self._vrt

    def _missing(self, nodata: float | None) -> float | None:
        """The stored value that is missing: of the catalog, of the file, or else as given."""
        for declared in (self.file.nodata, getattr(self._dataset, "nodata", None), nodata):
            if declared is not None:
                return float(declared)
        return float("nan") if self.file.dtype.startswith("float") else None

    def _check(self) -> None:
        """See that the opened source is the one that was described."""
        have = (self._dataset.height, self._dataset.width)
        placed = getattr(self._dataset, "transform", self.file.grid.transform)
        size = min(self.file.grid.pixel_size)
        told = getattr(self._dataset, "crs", None)
        if told and not _same_place(self.file.grid, canonical(told.to_wkt())):
            raise ValueError(
                f"{self.file.label}: is in {told.to_string()[:60]}, not in the coordinate system "
                f"that it is described in: it was replaced, or its catalog is wrong"
            )
        off = max(
            abs(u - v) for u, v in zip(tuple(placed)[:6], self.file.grid.transform, strict=True)
        )
        if off > size / 2:
            raise ValueError(
                f"{self.file.label}: lies elsewhere than it is described (by {off:.6g}): it was "
                f"replaced, or its catalog is wrong"
            )
        if have != self.file.grid.shape or self._dataset.count < len(self.file.names):
            raise ValueError(
                f"{self.file.label}: has {self._dataset.count} bands of {have[0]} x {have[1]} "
                f"pixels, but is described as {len(self.file.names)} of "
                f"{self.file.grid.shape[0]} x {self.file.grid.shape[1]}: it was replaced, or its "
                f"catalog is wrong"
            )

    def _nested(self) -> tuple[int, int, int] | None:
        """How wanted pixels divide those of the file, if the edges of both coincide.

        Returns:
            How many wanted pixels lie along the side of one of the file, and the row and column
            among all of these at which the wanted grid starts.
        """
        own, wanted = self.file.grid, self._grid
        factor = round(max(own.pixel_size) / max(wanted.pixel_size))
        if own.crs != wanted.crs or factor < 1:
            return None
        own = own.rescaled(1 / factor)
        size = max(own.pixel_size)
        a, b, _, d, e, _ = (u - v for u, v in zip(own.transform, wanted.transform, strict=True))
        reach = max(*own.shape, *wanted.shape)
        if max(abs(a), abs(b), abs(d), abs(e)) * reach > _ALIGNED * size:
            return None
        row, col = own.rowcol(*wanted.xy(0, 0))
        if abs(row - round(row)) > _ALIGNED or abs(col - round(col)) > _ALIGNED:
            return None
        return factor, round(row), round(col)

    def _warp(self) -> WarpedVRT:
        """A view of the file on the wanted grid."""
        finer = max(self._grid.pixel_size) > 1.5 * max(self.file.grid.pixel_size)
        same = self._grid.crs == self.file.grid.crs
        smooth = Resampling.average if finer and same else Resampling.bilinear
        options: dict[str, object] = {}
        if self._nodata is not None:
            options = {"src_nodata": self._nodata, "nodata": self._nodata}
        else:
            options = {"add_alpha": self.file.alpha is None}
        if self._exact:
            options["tolerance"] = _EXACT
        scale = self.file.metres / metres(self._grid)  # GDAL's guess is wrong for narrow windows
        scale = scale if scale < _SMALLER else max(scale, 1.0)
        options |= {"XSCALE": scale, "YSCALE": scale}
        return self._stack.enter_context(
            WarpedVRT(
                self._dataset,
                crs=self._grid.crs,
                transform=Affine(*self._grid.transform),
                height=self._grid.shape[0],
                width=self._grid.shape[1],
                resampling=Resampling.nearest if self._nearest else smooth,
                warp_mem_limit=64,
                **options,
            )
        )

    def read(self, indexes: list[int], window: Window) -> tuple[FloatArray, BoolArray]:
        """Read bands in a window of the wanted grid.

        Args:
            indexes: bands of the file, from 0.
            window: may stick out of the file and of the grid.

        Returns:
            `(C, H, W)` float32 stored values, and `(H, W)` bool: something was measured. A pixel
            is missing where bands hold the nodata value (`is_missing`), where one is not a finite
            number, and outside the file.

        Raises:
            ValueError: the file breaks off or is damaged; a remote one is opened a second time
                before, since what signs its address may have ended.
        """
        try:
            return self._read(indexes, window)
        except IO_ERRORS as error:
            if not (isinstance(self.file, RasterFile) and self.file.address):
                raise ValueError(
                    f"{self.file.label}: is truncated or damaged, reading failed ({reason(error)})"
                ) from None
        self.close()
        self._open()
        try:
            return self._read(indexes, window)
        except IO_ERRORS as error:
            raise ValueError(
                f"{self.file.label}: reading failed, also when it was opened again "
                f"({reason(error)}); its server gives it no more, or it is damaged"
            ) from None

    def _read(self, indexes: list[int], window: Window) -> tuple[FloatArray, BoolArray]:
        """`read`, with the errors that GDAL has."""
        if self._place is None:
            if self._vrt is None:
                return self._read_block(indexes, window)
            return self._read_pixels(self._vrt, indexes, window)
        factor, row, col = self._place
        if factor == 1:
            moved = Window(window.row + row, window.col + col, window.height, window.width)
            return self._read_pixels(self._dataset, indexes, moved)
        rows = Axis.of(window.row + row, window.height, factor)
        cols = Axis.of(window.col + col, window.width, factor)
        under = Window(rows.first, cols.first, rows.count, cols.count)
        values, valid = self._read_pixels(self._dataset, indexes, under)
        return upsample(values, valid, rows, cols, self._nearest)

    def _read_pixels(
        self, source: Pixels, indexes: list[int], wanted: Window
    ) -> tuple[FloatArray, BoolArray]:
        """`read` of a window of the file's own pixels, or of those of its warped view."""
        values = np.zeros((len(indexes), wanted.height, wanted.width), np.float32)
        valid = np.zeros((wanted.height, wanted.width), bool)
        top, left = max(wanted.row, 0), max(wanted.col, 0)
        bottom = min(wanted.row + wanted.height, source.height)
        right = min(wanted.col + wanted.width, source.width)
        if top >= bottom or left >= right:
            return values, valid
        inside = windows.Window(left, top, right - left, bottom - top)
        place = (
            slice(top - wanted.row, bottom - wanted.row),
            slice(left - wanted.col, right - wanted.col),
        )
        stored = source.read([i + 1 for i in indexes], window=inside)
        masked = self._mask(source, inside)
        finite = np.isfinite(stored).all(0)
        measured = finite if masked is None else finite & masked
        if self._nodata is not None:
            measured &= ~is_missing(stored, self._nodata, self.file.dtype)
        with np.errstate(over="ignore"):
            numbers = stored.astype(np.float32)
            if (self.file.gain, self.file.bias) != (1.0, 0.0):
                numbers = numbers * np.float32(self.file.gain) + np.float32(self.file.bias)
        measured &= np.isfinite(numbers).all(0)
        values[(slice(None), *place)] = np.where(measured, numbers, 0)
        valid[place] = measured
        return values, valid

    def _read_block(self, indexes: list[int], window: Window) -> tuple[FloatArray, BoolArray]:
        """`read` of a source that GDAL cannot see: hand it the pixels under the window."""
        wanted = self._grid.window(window)
        under = _around(self.file.grid, wanted)
        if under is None:
            shape = (window.height, window.width)
            return np.zeros((len(indexes), *shape), np.float32), np.zeros(shape, bool)
        place = windows.Window(under.col, under.row, under.width, under.height)
        stored = self._dataset.read([i + 1 for i in indexes], window=place)
        grid = self.file.grid.window(under)
        with MemoryFile() as memory:
            _write(memory, stored, grid)
            names = tuple(self.file.names[i] for i in indexes)
            block = RasterFile(
                path=Path(memory.name),
                grid=grid,
                metres=self.file.metres,
                names=names,
                dtype=stored.dtype.name,
                nodata=self._nodata,
                date=self.file.date,
                gain=self.file.gain,
                bias=self.file.bias,
            )
            whole = Window(0, 0, window.height, window.width)
            inner = GridReader(block, wanted, None, self._nearest, exact=True)
            try:
                return inner.read(list(range(len(indexes))), whole)
            finally:
                inner.close()

    def _mask(self, source: Pixels, window: windows.Window) -> BoolArray | None:
        """The file's own mask: an alpha band, an internal mask, or what a warp left empty."""
        if self.file.alpha is not None:
            return np.asarray(source.read([self.file.alpha + 1], window=window)[0] > 0)
        if self._vrt is not None and self._nodata is None:
            return np.asarray(source.read([source.count], window=window)[0] > 0)
        if self.file.masked:
            return np.asarray(source.read_masks(1, window=window) > 0)
        return None


def _same_place(grid: Grid, crs: str) -> bool:
    """Whether the corners of a grid lie in the same places by another name of its system."""
    if crs == grid.crs:
        return True
    height, width = grid.shape
    corners = [grid.xy(row, col) for row in (0, height) for col in (0, width)]
    here = np.array(corners).T  # (2, 4)
    try:
        there = np.array(Transformer.from_crs(crs, grid.crs, always_xy=True).transform(*here))
    except ProjError:  # there is no way from one to the other
        return False
    return bool(np.abs(there - here).max() <= min(grid.pixel_size) / 2)


def _around(own: Grid, wanted: Grid) -> Window | None:
    """The window of `own` that a warp onto `wanted` looks at, if there is any."""
    under = footprint(own, wanted)
    ratio = max(under.height / wanted.shape[0], under.width / wanted.shape[1], 1.0)
    margin = 2 + math.ceil(2 * ratio)  # the reach of bilinear weights, and of means
    top, left = max(under.row - margin, 0), max(under.col - margin, 0)
    bottom = min(under.row + under.height + margin, own.shape[0])
    right = min(under.col + under.width + margin, own.shape[1])
    if top >= bottom or left >= right:
        return None
    return Window(top, left, bottom - top, right - left)


def _write(memory: MemoryFile, pixels: npt.NDArray[np.generic], grid: Grid) -> None:
    """Put pixels `(C, H, W)` into a GeoTIFF in memory."""
    count, height, width = pixels.shape
    with memory.open(
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=grid.crs,
        transform=Affine(*grid.transform),
    ) as file:
        file.write(pixels)
