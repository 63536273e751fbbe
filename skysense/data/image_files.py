"""One image from a file, whatever its kind: pictures, GeoTIFF, NumPy arrays, members of a zip.

Legend: C bands, H W pixels.
"""

import functools
import io
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from skysense.data.rasters import IO_ERRORS, reason

RASTERS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2")
ARRAYS = (".npy", ".npz")
IMAGE_SUFFIXES = (*RASTERS, *ARRAYS)
"""File endings of images, in lower case."""

Image = npt.NDArray[np.generic]

_ALPHA = ("", "a", "alpha", "mask", "opacity")


@dataclass(frozen=True)
class ImageFile:
    """Where an image is."""

    path: Path
    """A file, or the zip that holds it."""
    member: str | None = None
    """Name within the zip."""

    def __str__(self) -> str:
        """For messages."""
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def name(self) -> str:
        """Name by whose ending the kind is known."""
        return self.member or self.path.name

    def content(self) -> Path | bytes:
        """The path, or the bytes of a member."""
        if self.member is None:
            return self.path
        return _archive(self.path, os.getpid()).read(self.member)


@functools.lru_cache(maxsize=4)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """An open zip; each process has its own, since the place in the file is shared after a fork."""
    del process
    return zipfile.ZipFile(path)


def read_image(file: ImageFile) -> tuple[Image, tuple[str, ...] | None]:
    """Stored values of an image, and what its bands are called.

    Args:
        file: where it is.

    Returns:
        `(C, H, W)` as stored, without a band of opacity. Where the file says that pixels are
        missing (nodata, mask, opacity 0) they are NaN and the whole is float32. And C band names,
        `None` where the file does not name each.

    Raises:
        ValueError: it cannot be read; the message names it.
    """
    try:
        if file.name.lower().endswith(ARRAYS):
            return _from_array(file), None
        return _from_raster(file)
    except (*IO_ERRORS, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: cannot be read as an image ({reason(error)})") from None


def _from_array(file: ImageFile) -> Image:
    """The array called `image`, or the only one."""
    content = file.content()
    loaded = np.load(
        io.BytesIO(content) if isinstance(content, bytes) else content, allow_pickle=False
    )
    if not isinstance(loaded, np.ndarray):
        with loaded:
            if "image" not in loaded.files and len(loaded.files) != 1:
                raise ValueError(f"none of its arrays is `image`: {', '.join(loaded.files)}")
            loaded = loaded["image" if "image" in loaded.files else loaded.files[0]]
    array: Image = loaded[None] if loaded.ndim == 2 else loaded
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"its array has shape {loaded.shape}, expected (C, H, W)")
    return array


@contextmanager
def _opened(content: Path | bytes) -> Iterator[rasterio.DatasetReader]:
    """A raster from a path or from memory; its place on the ground does not matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        if isinstance(content, bytes):
            with MemoryFile(content) as memory, memory.open() as dataset:
                yield dataset
        else:
            with rasterio.open(content) as dataset:
                yield dataset


def _from_raster(file: ImageFile) -> tuple[Image, tuple[str, ...] | None]:
    """All bands but that of opacity, NaN where the file says that nothing was measured."""
    with _opened(file.content()) as dataset:
        if dataset.count == 0:
            raise ValueError("it is a container without bands of its own")
        colors, described = dataset.colorinterp, dataset.descriptions
        if ColorInterp.palette in colors:
            raise ValueError("it is a picture with a palette; save it as RGB")
        last = (described[-1] or "").lower()
        opacity = colors[-1] == ColorInterp.alpha and dataset.count > 1 and last in _ALPHA
        count = dataset.count - opacity
        image: Image = dataset.read(list(range(1, count + 1)))
        seen = dataset.dataset_mask() != 0  # (H, W)
        named = [text or color.name for text, color in zip(described, colors, strict=True)][:count]
    if not seen.all():
        image = np.where(seen, image.astype(np.float32), np.float32(np.nan))
    unknown = {"gray", "grey", "undefined"} & set(named)
    return image, None if unknown else tuple(named)
