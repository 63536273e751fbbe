"""Read one file onto any grid: straight where its pixels fit, warped where they do not.

Legend: C bands of the file, H W pixels of the wanted window.
"""

from contextlib import ExitStack
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import windows
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from skysense.data.rasters import IO_ERRORS, RasterFile, reason
from skysense.geo import Grid, Window

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_ALIGNED = 0.01
"""How far, in pixels, a file's grid may lie off the wanted one and still be read straight."""


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


class GridReader:
    """An open file, read by windows of a grid that need not be its own.

    Not thread-safe: open and use it in one thread.
    """

    def __init__(
        self, file: RasterFile, grid: Grid, nodata: float | None, nearest: bool = False
    ) -> None:
        """Open.

        Args:
            file: what to read.
            grid: the wanted grid.
            nodata: stored value that is missing, where the file declares none.
            nearest: take the nearest pixel when warping (for classes), not an interpolation.

        Raises:
            ValueError: the file cannot be opened.
        """
        self.file = file
        self._grid = grid
        declared = file.nodata if file.nodata is not None else nodata
        if declared is None and file.dtype.startswith("float"):
            declared = float("nan")
        self._nodata = declared
        self._stack = ExitStack()
        try:
            source = _without_alpha(file) if file.false_alpha else file.path
            self._dataset = self._stack.enter_context(rasterio.open(source))
            self._offset = self._straight()
            self._vrt = None if self._offset else self._warp(nearest)
        except IO_ERRORS as error:
            self.close()
            raise ValueError(f"{file.path}: cannot be read ({reason(error)})") from None

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _straight(self) -> tuple[int, int] | None:
        """Where the wanted grid starts in the file, if their pixels coincide."""
        own, wanted = self.file.grid, self._grid
        if own.crs != wanted.crs:
            return None
        size = max(own.pixel_size)
        a, b, _, d, e, _ = (u - v for u, v in zip(own.transform, wanted.transform, strict=True))
        reach = max(*own.shape, *wanted.shape)
        if max(abs(a), abs(b), abs(d), abs(e)) * reach > _ALIGNED * size:
            return None
        row, col = own.rowcol(*wanted.xy(0, 0))
        if abs(row - round(row)) > _ALIGNED or abs(col - round(col)) > _ALIGNED:
            return None
        return round(row), round(col)

    def _warp(self, nearest: bool) -> WarpedVRT:
        """A view of the file on the wanted grid."""
        finer = max(self._grid.pixel_size) > 1.5 * max(self.file.grid.pixel_size)
        same = self._grid.crs == self.file.grid.crs
        smooth = Resampling.average if finer and same else Resampling.bilinear
        options: dict[str, object] = {}
        if self._nodata is not None:
            options = {"src_nodata": self._nodata, "nodata": self._nodata}
        else:
            options = {"add_alpha": self.file.alpha is None}
        return self._stack.enter_context(
            WarpedVRT(
                self._dataset,
                crs=self._grid.crs,
                transform=Affine(*self._grid.transform),
                height=self._grid.shape[0],
                width=self._grid.shape[1],
                resampling=Resampling.nearest if nearest else smooth,
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
            is missing where all bands hold the nodata value (as GDAL has it), where one is not a
            finite number, and outside the file.

        Raises:
            ValueError: the file breaks off or is damaged.
        """
        values = np.zeros((len(indexes), window.height, window.width), np.float32)
        valid = np.zeros((window.height, window.width), bool)
        source = self._dataset if self._vrt is None else self._vrt
        row, col = self._offset or (0, 0)
        wanted = Window(window.row + row, window.col + col, window.height, window.width)
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
        try:
            stored = source.read([i + 1 for i in indexes], window=inside)
            masked = self._mask(source, inside)
        except IO_ERRORS as error:
            raise ValueError(
                f"{self.file.path}: is truncated or damaged, reading failed ({reason(error)})"
            ) from None
        finite = np.isfinite(stored).all(0)
        measured = finite if masked is None else finite & masked
        if self._nodata is not None and not np.isnan(self._nodata):
            measured &= (stored != self._nodata).any(0)
        with np.errstate(over="ignore"):
            numbers = stored.astype(np.float32)
        measured &= np.isfinite(numbers).all(0)
        values[(slice(None), *place)] = np.where(measured, numbers, 0)
        valid[place] = measured
        return values, valid

    def _mask(self, source: rasterio.DatasetReader, window: windows.Window) -> BoolArray | None:
        """The file's own mask: an alpha band, an internal mask, or what a warp left empty."""
        if self.file.alpha is not None:
            return np.asarray(source.read(self.file.alpha + 1, window=window) > 0)
        if self._vrt is not None and self._nodata is None:
            return np.asarray(source.read(source.count, window=window) > 0)
        if self.file.masked:
            return np.asarray(source.read_masks(1, window=window) > 0)
        return None
