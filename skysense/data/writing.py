"""All or nothing: what is written has a hidden name beside its place until it is complete."""

import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import rasterio

from skysense.data.processes import is_alive
from skysense.data.rasters import IO_ERRORS, reason

_STALE = re.compile(r"^\.(?P<name>.+)\.(?P<pid>\d+)\.part$")
_FULL = 1 << 20


def temporary_beside(path: Path) -> Path:
    """A name in the same folder for what is moved to `path` when complete.

    What killed runs left there under such names is removed.
    """
    clean_stale(path.parent, path.name)
    return path.parent / f".{path.name}.{os.getpid()}.part"


def clean_stale(folder: Path, name: str) -> None:
    """Remove what killed runs left behind for the same output."""
    for path in folder.glob(f".{glob.escape(name)}.*.part"):
        match = _STALE.match(path.name)
        if match and match["name"] == name and not is_alive(int(match["pid"])):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there and can be."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def working_folder(path: Path, purpose: str = "") -> Iterator[Path]:
    """A hidden folder to make `path` in; it is gone afterwards, whatever happened.

    Args:
        path: what will be written.
        purpose: goes into the folder's name, where one output has several.

    Raises:
        ValueError: it cannot be made.
    """
    folder = temporary_beside(path.with_name(path.name + purpose))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise failed(path, error) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Word the failures of GDAL and the disk; GDAL writes no files of its own beside others.

    Raises:
        ValueError: `path` could not be written.
    """
    try:
        with rasterio.Env(GDAL_PAM_ENABLED="NO"):
            yield
    except IO_ERRORS as error:
        raise failed(path, error) from None


def existing_folder(path: Path) -> Path:
    """The nearest folder above an output that is there.

    Raises:
        ValueError: a file is in its place, or it belongs to a Zarr or Lance store.
    """
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(f"{path} cannot be written: {folder} is a file, not a folder")
    for above in (folder, *folder.parents):
        if (above / "zarr.json").is_file() or (above / "_versions").is_dir():
            raise ValueError(f"{path} cannot be written: {above} is a store, not a plain folder")
    return folder


def failed(path: Path, error: Exception) -> ValueError:
    """What to say when an output cannot be written."""
    try:
        existing_folder(path)
    except ValueError as blocked:
        return blocked
    why = reason(error)
    with suppress(OSError):
        if shutil.disk_usage(path.parent).free < _FULL:
            why = f"the disk is full: {why}"
    return ValueError(
        f"{path} could not be written ({why}); free some space in {path.parent} or choose "
        f"another folder"
    )
