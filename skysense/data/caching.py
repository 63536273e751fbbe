"""Memory for decoded blocks of rasters: enough that neighbouring windows do not decode one again.

GDAL keeps the blocks of all open files together, and what it allows itself by default grows with
the machine. What windows need does not: the blocks under one of them, of all files.
"""

from collections.abc import Iterable

import numpy as np
import rasterio
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

LEAST_BYTES = 32 << 20
"""For the blocks of a few files."""
_MOST_BYTES = 512 << 20
_SIDE = 512
"""Pixels along a side of a window, for the estimate."""
_TURNED = 725
"""The same beneath a window that lies turned: its diagonal."""


def bytes_under_window(source: DatasetReader | WarpedVRT) -> int:
    """Bytes of the decoded blocks that a window of 512 x 512 pixels touches, of all bands.

    An image without a map, as radar has it, lies turned beneath the window.
    """
    side = _SIDE if source.crs is not None else _TURNED
    total = 0
    for (rows, cols), dtype in zip(source.block_shapes, source.dtypes, strict=True):
        down = min(side // rows + 2, -(-source.height // rows))
        across = min(side // cols + 2, -(-source.width // cols))
        total += down * across * rows * cols * np.dtype(dtype).itemsize
    return total


def block_cache(sources: Iterable[DatasetReader | WarpedVRT] = ()) -> rasterio.Env:
    """A context in which GDAL keeps the blocks under a window of all sources, and no more.

    Args:
        sources: open rasters and warped views of them.

    Returns:
        Not yet entered. Between 32 and 512 MiB.
    """
    wanted = sum(bytes_under_window(source) for source in sources)
    # rasterio hands the number on as bytes, where GDAL's own option would take it for megabytes.
    return rasterio.Env(GDAL_CACHEMAX=min(max(wanted, LEAST_BYTES), _MOST_BYTES))
