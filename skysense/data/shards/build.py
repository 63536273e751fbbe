"""Build a folder of shards from drafts: shuffled, indexed, and there only when it is complete.

Samples go to one file first, each as the piece of a tar archive that it will be; then the pieces
are copied to the shards in a shuffled order. So the order is random over all sources, whatever
their size, and memory holds one sample at a time.
"""

import glob
import os
import re
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from skysense.data.processes import is_alive
from skysense.data.shards.drafts import Draft
from skysense.data.shards.index import INDEX_NAME, PATTERN, Entry, Shard, write_index
from skysense.data.shards.members import encode
from skysense.data.shards.stored import StoredSample
from skysense.sensors import MODALITIES

_SPOOL = "pieces"
_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Built:
    """What a build made."""

    samples: int
    """Samples in the shards."""
    shards: int
    """Files."""
    bytes: int
    """Of all shards."""
    modalities: dict[str, int]
    """Modality to samples that have it."""
    class_names: tuple[str, ...]
    """Classes of the class maps, if there are any."""
    empty: tuple[str, ...]
    """Samples left out because all of their pixels are masked."""
    bad: tuple[tuple[str, str], ...]
    """Drafts that could not be read, or not to their end, and why."""


def build_shards(
    drafts: Sequence[Draft],
    folder: str | Path,
    *,
    samples_per_shard: int = 1000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda drafts: None,
) -> Built:
    """Read drafts and write their samples to a folder of shards.

    Args:
        drafts: what to read, in order.
        folder: to make, or to replace if it holds shards.
        samples_per_shard: at most.
        seed: of the order.
        progress: called with 1 after each draft.

    Raises:
        ValueError: nothing can be used, or the folder holds something else.
        OSError: the disk is full, or cannot be written to; nothing is left.
    """
    folder = Path(folder)
    if samples_per_shard < 1:
        raise ValueError(f"a shard of {samples_per_shard} samples cannot be; give 1 or more")
    check_replaceable(folder)
    with _beside(folder) as temporary:
        spool = _Spool(temporary / _SPOOL)
        try:
            _read_all(drafts, spool, progress)
            if not spool.pieces:
                raise ValueError(_nothing(drafts, spool))
            shards = _write(temporary, spool, samples_per_shard, seed)
        finally:
            spool.close()
        (temporary / _SPOOL).unlink()
        write_index(temporary, shards, spool.class_names)
        _replace(temporary, folder)
    counts = Counter(key for shard in shards for e in shard.entries for key in e.modalities)
    return Built(
        len(spool.pieces),
        len(shards),
        sum(shard.bytes for shard in shards),
        {key: counts[key] for key in MODALITIES if counts[key]},
        spool.class_names,
        tuple(spool.empty),
        tuple(spool.bad),
    )


class _Spool:
    """Samples one after the other in one file, as pieces of archives."""

    def __init__(self, path: Path) -> None:
        self.file: BinaryIO = path.open("w+b")
        self.pieces: list[Entry] = []
        self.class_names: tuple[str, ...] = ()
        self.empty: list[str] = []
        self.bad: list[tuple[str, str]] = []

    def add(self, sample: StoredSample) -> None:
        """Append a sample, or note that it is empty."""
        if not any(series.measured().any() for series in sample.series.values()):
            self.empty.append(sample.source)
            return
        key = f"{len(self.pieces):09d}"
        piece = encode(key, sample)
        self.class_names = tuple(dict.fromkeys((*self.class_names, *sample.class_names)))
        have = tuple(key for key in MODALITIES if key in sample.series)
        offset = self.pieces[-1].offset + self.pieces[-1].size if self.pieces else 0
        self.pieces.append(Entry(key, offset, len(piece), zlib.crc32(piece), have))
        self.file.write(piece)

    def read(self, entry: Entry) -> bytes:
        """A piece."""
        self.file.seek(entry.offset)
        return self.file.read(entry.size)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def _read_all(drafts: Sequence[Draft], spool: _Spool, progress: Callable[[int], None]) -> None:
    """All samples of all drafts into the spool; what cannot be read is noted."""
    for draft in drafts:
        try:
            for sample in draft.read():
                spool.add(sample)
        except ValueError as error:
            spool.bad.append((draft.name, str(error)))
        progress(1)


def _nothing(drafts: Sequence[Draft], spool: _Spool) -> str:
    """The message where nothing could be used."""
    if spool.bad:
        name, why = spool.bad[0]
        return f"none of {len(drafts)} files or places can be used; the first: {name}: {why}"
    if spool.empty:
        return f"all pixels of all {len(spool.empty)} samples are masked; nothing is left to keep"
    return "no samples: the sources hold no images and no places"


def _write(folder: Path, spool: _Spool, samples_per_shard: int, seed: int) -> list[Shard]:
    """Copy the pieces to shards of even size in a shuffled order."""
    count = len(spool.pieces)
    order = np.random.default_rng(seed).permutation(count)
    parts = np.array_split(order, -(-count // samples_per_shard))
    shards = []
    for number, part in enumerate(parts):
        path, entries, offset = folder / f"shard-{number:06d}.tar", [], 0
        with path.open("wb") as file:
            for i in part:
                entry = spool.pieces[i]
                file.write(spool.read(entry))
                entries.append(Entry(entry.key, offset, entry.size, entry.crc, entry.modalities))
                offset += entry.size
            file.write(_END)
        shards.append(Shard(path, offset + len(_END), tuple(entries)))
    return shards


def check_replaceable(folder: Path) -> None:
    """Refuse to replace what is no folder of shards.

    Raises:
        ValueError: it is a file, or holds other things.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the name of a folder")
    strange = [p.name for p in folder.iterdir() if p.name != INDEX_NAME and not p.match(PATTERN)]
    if strange:
        raise ValueError(
            f"{folder} is not a folder of shards (it holds {min(strange)}); choose another output"
        )


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A hidden folder in the same place, gone afterwards; what killed builds left goes too."""
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    for path in parent.glob(f".{glob.escape(folder.name)}.*.part"):
        number = re.fullmatch(r"\.(.+)\.(\d+)\.part", path.name)
        if number and number[1] == folder.name and not is_alive(int(number[2])):
            shutil.rmtree(path, ignore_errors=True)
    temporary = parent / f".{folder.name}.{os.getpid()}.part"
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, folder: Path) -> None:
    """Give the finished folder its name; the old one goes."""
    old = temporary.with_suffix(".old.part")
    if folder.exists():
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
