"""Search folders."""

import os
from contextlib import suppress
from pathlib import Path


def below(folder: Path) -> list[Path]:
    """All files and folders below one, sorted, also behind links.

    A folder is searched once, under its own name if it has one there; links to what lies around
    the searched folder are not followed.
    """
    found: list[Path] = []
    root, seen = os.path.realpath(folder), set[str]()
    own, links = [folder], list[Path]()
    while own or links:
        here = own.pop() if own else links.pop()
        real = os.path.realpath(here)
        if real in seen or (real != root and os.path.commonpath([real, root]) == real):
            continue
        seen.add(real)
        with suppress(PermissionError), os.scandir(here) as entries:
            for entry in entries:
                found.append(here / entry.name)
                if entry.is_dir():
                    (links if entry.is_symlink() else own).append(found[-1])
    return sorted(found)
