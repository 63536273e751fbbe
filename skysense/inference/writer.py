"""Write a map row band by row band, then turn it into a Cloud Optimized GeoTIFF.

The rows go to a plain file of float32 beside the output, by ordinary writes whose failures are
errors at once; GDAL reads that file through a virtual raster and makes the GeoTIFF; the result is
moved to its name when it is complete. An interrupted run leaves nothing under the output's name.

Half precision is stored as float32 whose last 13 bits are zero, which compress away: GDAL's own
16-bit storage (NBITS=16, up to GDAL 3.10 at least) does not round, and fills the blocks at the
edges with whatever lies in memory, so that files differ from run to run and carry foreign bytes.

Legend: D bands, h w cells.
"""

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil

from skysense.data.caching import LEAST_BYTES
from skysense.data.rasters import IO_ERRORS
from skysense.data.writing import failed, temporary_beside
from skysense.geo import Grid
from skysense.inference.rows import StoredRows
from skysense.inference.work import lost

FloatArray = npt.NDArray[np.float32]
MapType = Literal["float16", "float32", "int8"]

INT8_NODATA = -128
_BLOCK_BYTES = 8 << 20
_SETTINGS = {
    "GDAL_CACHEMAX": LEAST_BYTES,
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_ONE_BIG_READ": "YES",  # or whole lines of all bands are read again for each block
}
_stderr = threading.Lock()


@contextmanager
def _quiet_libtiff() -> Iterator[None]:
    """Keep off stderr what libtiff prints there of each failed write, past every handler.

    GDAL reports the failure as well.
    """
    with _stderr, open(os.devnull, "wb") as nothing, ExitStack() as stack:
        with suppress(OSError):  # there may be no stderr
            kept = os.dup(2)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            os.dup2(nothing.fileno(), 2)
        yield


class MapWriter:
    """Takes the rows of a map from top to bottom; `finish` makes the file, `abort` none."""

    def __init__(
        self, path: Path, grid: Grid, channels: int, work: Path | None = None, kept: int = 0
    ) -> None:
        """Prepare a working folder beside the output, or go on in one.

        Args:
            path: the GeoTIFF to make.
            grid: of the map.
            channels: D.
            work: a folder that is there, and that stays when all is given up; default: one of
                this writer's own.
            kept: rows in that folder that count; what comes behind them is cut off.

        Raises:
            ValueError: nothing can be written there.
        """
        self.path = path
        self._grid = grid
        self._channels = channels
        self._largest = np.zeros(channels, np.float32)
        self.valid_cells = 0
        self._own = work is None
        self._folder = temporary_beside(path) if work is None else work
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._own:
                self._folder.mkdir()
            self._rows = open(self._folder / "rows.f32", "ab")  # noqa: SIM115
            size = 4 * channels * grid.shape[1] * kept
            if self._rows.tell() < size:
                raise lost(self._folder)
            self._rows.truncate(size)
            self._check_space()
            for row in self.rows():  # (D, w)
                self._note(row)
        except BaseException as error:
            self.abort()
            if not isinstance(error, OSError):
                raise
            raise ValueError(f"cannot write to {path.parent}: {error.strerror}") from None

    def _check_space(self) -> None:
        """Refuse early where the rows alone cannot fit."""
        needed = 4 * self._channels * self._grid.shape[0] * self._grid.shape[1]
        needed -= (self._folder / "rows.f32").stat().st_size
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise OSError(
                28,
                f"the map needs about {needed / 1e6:.3g} MB while it is made, of which "
                f"{free / 1e6:.3g} MB are free",
            )

    def write(self, values: FloatArray) -> None:
        """Append rows: `(D, rows, w)`, NaN where there is nothing."""
        self._note(values)
        try:
            self._rows.write(np.ascontiguousarray(values.transpose(1, 0, 2)).data)
        except OSError as error:
            raise failed(self.path, error) from None

    def flush(self) -> None:
        """Bring all rows to the disk: they then outlive this process, and a power cut.

        Raises:
            ValueError: the disk is full.
        """
        try:
            self._rows.flush()
            os.fsync(self._rows.fileno())
        except OSError as error:
            raise failed(self.path, error) from None

    def _note(self, values: FloatArray) -> None:
        """Count valid cells and find the largest numbers."""
        finite = np.isfinite(values[0])
        self.valid_cells += int(finite.sum())
        if finite.any():
            self._largest = np.maximum(self._largest, np.abs(values[:, finite]).max(1))

    def rows(self) -> StoredRows:
        """What was written so far, without loading it.

        Raises:
            ValueError: the disk is full.
        """
        if not self._rows.closed:
            self.flush()
        return StoredRows(self._folder / "rows.f32", self._channels, self._grid.shape[1])

    def finish(self, dtype: MapType, descriptions: Sequence[str], tags: Mapping[str, str]) -> None:
        """Make the GeoTIFF and move it to its name.

        Args:
            dtype: `float16` and `float32` have NaN as nodata; `int8` has -128 and a scale a band.
            descriptions: a name a band.
            tags: metadata of the file.

        Raises:
            ValueError: the disk is full, or something else kept it from being written.
        """
        scales = (np.maximum(self._largest, 1e-12) / 127).astype(np.float32)
        virtual = self._folder / "rows.vrt"
        made = self._folder / "map.tif"
        options = {
            "COMPRESS": "DEFLATE",
            "LEVEL": "1",
            "PREDICTOR": "YES",
            "BLOCKSIZE": str(self._block()),
            "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": "ALL_CPUS",
            "OVERVIEW_RESAMPLING": "AVERAGE",
        }
        try:
            self._rows.close()
            source = self._converted(dtype, scales)
            virtual.write_text(self._virtual(source, dtype, scales, descriptions, tags))
            with rasterio.Env(**_SETTINGS), _quiet_libtiff():
                rasterio.shutil.copy(virtual, made, driver="COG", strict=False, **options)
                self._verify(made)
            os.replace(made, self.path)
        except IO_ERRORS as error:
            raise failed(self.path, error) from None
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the rows, and remove a working folder of this writer's own."""
        with suppress(OSError, AttributeError):  # not flushed is not wanted; it may not be open
            self._rows.close()
        if self._own:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _block(self) -> int:
        """Side of a block: as large as keeps a block of all bands under 8 MB, 128 to 512."""
        side = 512
        while side > 128 and side * side * self._channels * 4 > _BLOCK_BYTES:
            side //= 2
        return side

    def _converted(self, dtype: MapType, scales: FloatArray) -> Path:
        """Bring the rows to the map's precision; gives the file that holds them then.

        For `float16` they are rounded in place; for `int8` they are `round(value / scale)`, -128
        for nothing.
        """
        source = self._folder / "rows.f32"
        if dtype == "float32":
            return source
        target = source if dtype == "float16" else self._folder / "rows.i8"
        with open(target, "r+b" if dtype == "float16" else "wb") as file:
            for row in self.rows():  # (D, w)
                values = row.astype(np.float16).astype(np.float32)
                if dtype == "int8":
                    scaled = np.round(row / scales[:, None])
                    values = np.where(np.isfinite(scaled), scaled, INT8_NODATA).astype(np.int8)
                file.write(np.ascontiguousarray(values).data)
        return target

    def _virtual(
        self,
        source: Path,
        dtype: MapType,
        scales: FloatArray,
        descriptions: Sequence[str],
        tags: Mapping[str, str],
    ) -> str:
        """The rows file as a virtual raster."""
        size, kind = (1, "Int8") if dtype == "int8" else (4, "Float32")
        height, width = self._grid.shape
        a, b, c, d, e, f = self._grid.transform
        metadata = "".join(
            f'<MDI key="{escape(key)}">{escape(value)}</MDI>' for key, value in tags.items()
        )
        parts = [
            f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">',
            f"<SRS>{escape(self._grid.crs)}</SRS>",
            f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>",
            f"<Metadata>{metadata}</Metadata>",
        ]
        for i, name in enumerate(descriptions):
            scale = f"<Scale>{float(scales[i])!r}</Scale>" if dtype == "int8" else ""
            nodata = INT8_NODATA if dtype == "int8" else "nan"
            parts.append(
                f'<VRTRasterBand dataType="{kind}" band="{i + 1}" subClass="VRTRawRasterBand">'
                f"<Description>{escape(name)}</Description>"
                f"<NoDataValue>{nodata}</NoDataValue>{scale}"
                f'<SourceFilename relativeToVRT="1">{source.name}</SourceFilename>'
                f"<ImageOffset>{i * width * size}</ImageOffset>"
                f"<PixelOffset>{size}</PixelOffset>"
                f"<LineOffset>{self._channels * width * size}</LineOffset>"
                f"<ByteOrder>LSB</ByteOrder></VRTRasterBand>"
            )
        return "".join([*parts, "</VRTDataset>"])

    def _verify(self, made: Path) -> None:
        """Read the last block of the full image and of each overview: a full disk shows there."""
        with rasterio.open(made) as dataset:
            levels = [None, *range(len(dataset.overviews(1)))]
        for level in levels:
            extra = {} if level is None else {"overview_level": level}
            with rasterio.open(made, **extra) as dataset:
                *_, (_, window) = dataset.block_windows(1)
                dataset.read(window=window)
