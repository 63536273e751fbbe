"""What a source of samples is: a list of drafts, each read when its turn comes."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skysense.data.shards.stored import StoredSample


@dataclass(frozen=True)
class Draft:
    """A file or a place that gives samples."""

    name: str
    """What it is called in messages and in lists of what to leave out, with `/` between parts."""
    read: Callable[[], Iterable[StoredSample]]
    """Its samples; a `ValueError` says what is wrong with it."""


def read_excluded(path: Path) -> frozenset[str]:
    """The paths of a CSV file: its column `path`, or its first.

    Raises:
        ValueError: it holds no table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file ({error})") from None
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError(f"{path} is empty; expected a column `path`")
    header = [name.strip() for name in rows[0]]
    column = header.index("path") if "path" in header else 0
    body = rows[1:] if "path" in header else rows
    return frozenset(row[column].strip() for row in body if len(row) > column)


def leave_out(drafts: Sequence[Draft], excluded: frozenset[str]) -> tuple[list[Draft], int]:
    """Drafts that are not listed, and the number of those that are.

    A listed path stands for every draft whose name is it or ends with it, after a `/`.

    Raises:
        ValueError: paths are listed, and none of them is there.
    """
    kept = [draft for draft in drafts if not _is_listed(draft.name, excluded)]
    found = len(drafts) - len(kept)
    if excluded and not found:
        raise ValueError(
            f"none of the {len(excluded)} paths to leave out is there: {min(excluded)} is listed, "
            f"{drafts[0].name if drafts else 'nothing'} was found"
        )
    return kept, found


def _is_listed(name: str, excluded: frozenset[str]) -> bool:
    """Whether a name, or its end after some `/`, is among the excluded."""
    parts = name.split("/")
    return any("/".join(parts[i:]) in excluded for i in range(len(parts)))
