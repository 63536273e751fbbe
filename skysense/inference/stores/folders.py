"""All or nothing: a store is made in a hidden folder beside its place, and moved there complete."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skysense.data.rasters import reason
from skysense.inference.writer import temporary_beside

_FULL = 1 << 20
_AT_FDCWD = -100
_EXCHANGE = 2


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """A folder to make `path` in; it is gone afterwards, whatever happened.

    Its name is not the one under which the rows of the map may lie beside the same output.

    Raises:
        ValueError: for an `OSError` of the body, or if the folder cannot be made.
    """
    folder = temporary_beside(path.with_name(f"{path.name}.store"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        yield folder
    except OSError as error:
        raise failed(path, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def failed(path: Path, error: Exception) -> ValueError:
    """What to say when an output cannot be written."""
    why = reason(error)
    with suppress(OSError):
        if shutil.disk_usage(path.parent).free < _FULL:
            why = f"the disk is full: {why}"
    return ValueError(
        f"{path} could not be written ({why}); free some space in {path.parent} or choose "
        f"another folder"
    )


def put(made: Path, path: Path) -> None:
    """Give what was made its name; what had it before is then where that was made.

    A folder changes places with the one before in one step where the system can (Linux), else in
    two, the first of which is undone if the second fails.

    Raises:
        OSError: it cannot be moved; what was there is still there.
    """
    if not path.is_dir():
        os.replace(made, path)
        return
    if _exchange(made, path):
        return
    before = made.with_name(f"{made.name}.before")
    os.rename(path, before)
    try:
        os.rename(made, path)
    except BaseException:
        os.rename(before, path)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; false where that cannot be done."""
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    names = os.fsencode(first.absolute()), os.fsencode(second.absolute())
    return bool(swap(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0)
