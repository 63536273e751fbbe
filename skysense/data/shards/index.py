"""Where each sample of a folder of shards lies: from its index, or from a look at each shard.

The index makes reading random access and needs no scan. It is believed of a shard whose size it
states; any other shard is scanned, and what can be read of it is used.
"""

import json
import tarfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from skysense.data.shards.members import CLASSES, FACTS, VERSION, read_facts, split_name
from skysense.sensors import MODALITIES

INDEX_NAME = "index.json"
PATTERN = "*.tar"


@dataclass(frozen=True)
class Entry:
    """A sample in a shard."""

    key: str
    """Name of its members up to the first dot."""
    offset: int
    """First byte of its first member's header."""
    size: int
    """Bytes up to the end of its last member, padding included."""
    crc: int | None
    """CRC-32 of these bytes; `None` where the shard was scanned."""
    modalities: tuple[str, ...]
    """In the order `hr`, `s2`, `s1`."""


@dataclass(frozen=True)
class Shard:
    """One archive."""

    path: Path
    """Where it is."""
    bytes: int
    """Its size."""
    entries: tuple[Entry, ...]
    """Its samples, in order."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in its class maps."""
    damage: str | None = None
    """What is wrong with it, if something is."""
    lost: int = 0
    """Samples that are known to be gone."""


def write_index(folder: Path, shards: Iterable[Shard], class_names: tuple[str, ...]) -> None:
    """Write the index of a folder."""
    listed = list(shards)
    entries = [entry for shard in listed for entry in shard.entries]
    counts = {key: sum(key in entry.modalities for entry in entries) for key in MODALITIES}
    index = {
        "version": VERSION,
        "samples": len(entries),
        "modalities": {key: count for key, count in counts.items() if count},
        "class_names": class_names,
        "shards": [
            {
                "name": shard.path.name,
                "bytes": shard.bytes,
                "samples": [[e.key, e.offset, e.size, e.crc, e.modalities] for e in shard.entries],
            }
            for shard in listed
        ],
    }
    (folder / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")


def open_shards(folder: Path) -> list[Shard]:
    """The shards of a folder, by name.

    Raises:
        ValueError: no such folder, or no shards in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder of shards")
    indexed, class_names = _read_index(folder / INDEX_NAME)
    paths = {path.name: path for path in sorted(folder.glob(PATTERN))}
    if not paths:
        raise ValueError(
            f"{folder} holds no shards ({PATTERN}); make some with `skysense shards build SOURCE "
            f"-o {folder}`"
        )
    shards = [_open(path, indexed.get(name), class_names) for name, path in paths.items()]
    gone = indexed.keys() - paths.keys()
    for name in sorted(gone):
        lost = len(indexed[name]["samples"])
        shards.append(Shard(folder / name, 0, (), (), "is missing", lost))
    return shards


def _read_index(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Shard name to what the index says of it, and the class names; nothing if there is none.

    Raises:
        ValueError: it is of a newer version.
    """
    if not path.is_file():
        return {}, ()
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        version = int(index["version"])
        shards = {shard["name"]: shard for shard in index["shards"]}
        class_names = tuple(map(str, index["class_names"]))
        for shard in shards.values():
            shard["bytes"] = int(shard["bytes"])
            shard["samples"] = tuple(_entry(*sample) for sample in shard["samples"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{path} is damaged ({error}); the shards are scanned", stacklevel=2)
        return {}, ()
    if version > VERSION:
        raise ValueError(f"{path} is of version {version}; this release reads {VERSION}")
    return shards, class_names


def _entry(key: str, offset: int, size: int, crc: int | None, modalities: list[str]) -> Entry:
    """An entry as the index has it."""
    checksum = None if crc is None else int(crc)
    return Entry(str(key), int(offset), int(size), checksum, tuple(modalities))


def _open(path: Path, indexed: dict[str, Any] | None, class_names: tuple[str, ...]) -> Shard:
    """A shard from the index, or by a scan where it differs."""
    size = path.stat().st_size
    if indexed is not None and indexed["bytes"] == size:
        return Shard(path, size, indexed["samples"], class_names)
    shard = scan(path)
    if indexed is None:
        return shard
    lost = max(shard.lost, len(indexed["samples"]) - len(shard.entries))
    damage = shard.damage or f"has {size} bytes where the index says {indexed['bytes']}"
    return Shard(path, size, shard.entries, shard.class_names or class_names, damage, lost)


def scan(path: Path) -> Shard:
    """Find the samples of a shard that are whole, past what is garbage or cut off."""
    size = path.stat().st_size
    members: list[tarfile.TarInfo] = []
    error: Exception | None = None
    try:
        with tarfile.open(path, "r:", ignore_zeros=True) as archive:
            for member in archive:  # garbage is passed over to the next header
                members.append(member)
    except (tarfile.TarError, OSError, ValueError) as caught:
        error = caught
    entries, class_names, lost = _gather(path, size, [m for m in members if m.isfile()])
    gaps = [_end(before) < after.offset for before, after in pairwise(members)]
    damage = None
    if members and _end(members[-1]) > size:
        damage = "breaks off"
    elif error is not None:
        damage = f"is no whole tar archive ({error})"
    elif not entries:
        damage = "holds no samples"
    elif any(gaps):
        damage = "holds garbage"
    return Shard(path, size, tuple(entries), class_names, damage, lost)


def _end(member: tarfile.TarInfo) -> int:
    """Where the next header stands."""
    return member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _gather(
    path: Path, size: int, members: list[tarfile.TarInfo]
) -> tuple[list[Entry], tuple[str, ...], int]:
    """Members side by side under one key are a sample, if facts and pixels are there and whole.

    Returns:
        The samples, the class names they state, and the number of incomplete samples.
    """
    groups: list[tuple[str, list[tarfile.TarInfo]]] = []
    for member in members:
        key, _ = split_name(member.name)
        if not groups or groups[-1][0] != key:
            groups.append((key, []))
        groups[-1][1].append(member)
    entries, names = [], None
    for key, group in groups:
        kinds = {split_name(member.name)[1]: member for member in group}
        modalities = tuple(m for m in MODALITIES if f"{m}.npy" in kinds)
        end = group[-1].offset_data + group[-1].size
        if FACTS not in kinds or not modalities or end > size:
            continue
        if names is None and CLASSES in kinds:
            names = _class_names(path, kinds[FACTS])
        start = group[0].offset
        entries.append(Entry(key, start, min(size, _end(group[-1])) - start, None, modalities))
    return entries, names or (), len(groups) - len(entries)


def _class_names(path: Path, member: tarfile.TarInfo) -> tuple[str, ...] | None:
    """Class names that a sample's facts state."""
    with path.open("rb") as file:
        file.seek(member.offset_data)
        try:
            return tuple(map(str, read_facts({FACTS: file.read(member.size)})["class_names"]))
        except (ValueError, KeyError, TypeError):
            return None
