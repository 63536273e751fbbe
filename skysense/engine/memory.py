"""Memory that is no longer needed."""

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Return what was freed to the system, where the C library can (glibc).

    It else keeps what threads that have ended took, and the peak of what comes next lies on top.
    """
    with suppress(OSError, AttributeError, TypeError):  # another system, or C library
        ctypes.CDLL(None).malloc_trim(0)
