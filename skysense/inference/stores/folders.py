"""Give a store its name in one step, also where a folder has that name already."""

import ctypes
import os
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2


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
