"""Files of a map: written under temporary names, turned into Cloud Optimized GeoTIFFs, renamed.

A colour table is for a file of one band (a GeoTIFF of several cannot have one), so classes and
confidence are two files.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio import Affine
from rasterio.windows import Window as RasterWindow

from skysense.data.writing import failed, working_folder
from skysense.geo import Grid, Window
from skysense.tasks.mapping.palette import Color

ByteArray = npt.NDArray[np.uint8]

NODATA = 255
"""Of classes and of confidence; class codes of 0...254 stay as they are."""
_BLOCK = 256


class Outputs:
    """Files that get their names together, once all are complete; on an error none does."""

    def __init__(self) -> None:
        """Start without files."""
        self._stack = ExitStack()
        self._files: list[tuple[Path, Path]] = []

    def __enter__(self) -> "Outputs":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Rename all if nothing went wrong; remove what is temporary."""
        with self._stack:
            if kind is None:
                for temporary, path in self._files:
                    _rename(temporary, path)

    def temporary(self, path: Path) -> Path:
        """A name to write to what will become `path`; the folder around it goes at the end."""
        folder = self._stack.enter_context(working_folder(path))
        self._files.append((folder / path.name, path))
        return folder / path.name


def _rename(temporary: Path, path: Path) -> None:
    """Move a finished file to its name."""
    try:
        os.replace(temporary, path)
    except OSError as error:
        raise failed(path, error) from None


class ByteMap:
    """A map of one band of bytes, written window by window."""

    def __init__(self, path: Path, grid: Grid) -> None:
        """Begin a map.

        Args:
            path: where the Cloud Optimized GeoTIFF is to be; its folder also holds the working
                file.
            grid: of the map.
        """
        self._path = path
        self._working = path.with_name(f"working_{path.name}")
        self._dataset = rasterio.open(
            self._working,
            "w",
            driver="GTiff",
            count=1,
            dtype="uint8",
            height=grid.shape[0],
            width=grid.shape[1],
            crs=grid.crs,
            transform=Affine(*grid.transform),
            nodata=NODATA,
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            BIGTIFF="IF_SAFER",
        )

    def write(self, window: Window, values: ByteArray) -> None:
        """Write a window `(h, w)`."""
        place = RasterWindow(window.col, window.row, window.width, window.height)
        self._dataset.write(values, 1, window=place)

    def finish(
        self,
        name: str,
        tags: Mapping[str, str],
        resampling: str,
        colors: Mapping[int, Color] | None = None,
    ) -> None:
        """Make the Cloud Optimized GeoTIFF.

        Args:
            name: of the band.
            tags: metadata of the file.
            resampling: of its overviews, as GDAL calls it.
            colors: of its values.
        """
        self._dataset.set_band_description(1, name)
        self._dataset.update_tags(**tags)
        if colors is not None:
            table = {value: (*color, 255) for value, color in colors.items()}
            self._dataset.write_colormap(1, {NODATA: (0, 0, 0, 0), **table})
        self._dataset.close()
        options = {
            "COMPRESS": "DEFLATE",
            "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": "ALL_CPUS",
            "OVERVIEW_RESAMPLING": resampling,
        }
        rasterio.shutil.copy(self._working, self._path, driver="COG", strict=False, **options)
        with rasterio.open(self._path) as made:  # a full disk shows at the end of the file
            *_, (_, window) = made.block_windows(1)
            made.read(window=window)

    def close(self) -> None:
        """Let go of the working file."""
        self._dataset.close()


def attribute_table(
    names: Sequence[str], values: Sequence[int], colors: Sequence[Color], counts: Sequence[int]
) -> str:
    """The classes as GDAL reads them from `MAP.tif.aux.xml`, a raster attribute table.

    Args:
        names: K names.
        values: their numbers in the map.
        colors: their colours.
        counts: their cells.
    """
    integer, text = 0, 2
    columns = [
        ("Value", integer, 5),
        ("Count", integer, 1),
        ("Class", text, 2),
        ("Red", integer, 6),
        ("Green", integer, 7),
        ("Blue", integer, 8),
    ]
    heads = "".join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{use}</Usage>'
        "</FieldDefn>"
        for i, (name, kind, use) in enumerate(columns)
    )
    cells = zip(values, counts, names, colors, strict=True)
    rows = "".join(
        f'<Row index="{i}">'
        + "".join(f"<F>{_text(value)}</F>" for value in (number, count, name, *color))
        + "</Row>"
        for i, (number, count, name, color) in enumerate(cells)
    )
    return (
        '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable tableType="thematic">'
        f"{heads}{rows}</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>\n"
    )


def _text(value: object) -> str:
    """As XML has it, which knows no control characters."""
    return escape("".join(c for c in str(value) if c.isprintable()))
