"""All samples of some folders of shards, by number, and what of them cannot be used.

Legend: N samples, h w cells of the class map.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skysense.data.shards.index import Shard, open_shards
from skysense.data.shards.members import decode, split
from skysense.data.shards.order import draw_dates
from skysense.data.shards.stored import UNKNOWN_CLASS, StoredSample, StoredSeries
from skysense.sample import Sample, Series
from skysense.sensors import MODALITIES


@dataclass(frozen=True)
class Record:
    """One sample as the model sees it."""

    key: str
    """Its name in its shard."""
    sample: Sample
    """Physical values; without modalities and dates of which nothing was measured."""
    classes: Tensor | None
    """`(h, w)` int64 over the sample's whole footprint, -1 unknown."""


@dataclass(frozen=True)
class Damage:
    """Something that cannot be used."""

    where: str
    """The shard, or the place in it."""
    reason: str
    """What is wrong."""
    shards: int
    """1 for a shard, 0 for a sample in one."""
    samples: int
    """Samples that are lost by it, as far as known."""


class Library:
    """The samples of some folders, numbered shard by shard; holds no open file."""

    def __init__(self, folders: Sequence[Path], modalities: Sequence[str] | None = None) -> None:
        """Find all samples.

        Args:
            folders: of shards.
            modalities: those to read; default: all there are.

        Raises:
            ValueError: nothing that can be used, or a wanted modality that no sample has.
        """
        wanted = tuple(key for key in MODALITIES if modalities is None or key in modalities)
        shards = [shard for folder in folders for shard in open_shards(folder)]
        self.damages = tuple(
            Damage(str(s.path), s.damage, 1, s.lost) for s in shards if s.damage is not None
        )
        self._check(folders, shards, modalities, wanted)
        entries = [[e for e in s.entries if set(e.modalities) & set(wanted)] for s in shards]
        names = [name for shard in shards for name in shard.class_names]
        self.class_names: tuple[str, ...] = tuple(dict.fromkeys(names))
        have = {m for own in entries for entry in own for m in entry.modalities}
        self.modalities: tuple[str, ...] = tuple(key for key in wanted if key in have)
        self.counts = np.array([len(own) for own in entries], np.int64)
        self._paths = [shard.path for shard in shards]
        self._shard = np.repeat(np.arange(len(shards)), self.counts)
        flat = [(e.offset, e.size, -1 if e.crc is None else e.crc) for own in entries for e in own]
        self._places = np.array(flat, np.int64).reshape(-1, 3)

    def _check(
        self,
        folders: Sequence[Path],
        shards: Sequence[Shard],
        modalities: Sequence[str] | None,
        wanted: Sequence[str],
    ) -> None:
        """Refuse folders of which nothing, or not all that is wanted, can be had."""
        unknown = set(modalities or ()) - set(MODALITIES)
        if unknown or not wanted:
            raise ValueError(
                f"unknown modalities {sorted(unknown)}; expected some of {', '.join(MODALITIES)}"
            )
        have = {m for shard in shards for entry in shard.entries for m in entry.modalities}
        listed = ", ".join(map(str, folders))
        if not have:
            first = self.damages[0] if self.damages else None
            why = f" (the first: {first.where} {first.reason})" if first else ""
            raise ValueError(
                f"{listed}: none of {len(shards)} shards holds a sample that can be read{why}; "
                f"build them anew with `skysense shards build`"
            )
        missing = [key for key in wanted if key not in have] if modalities is not None else []
        if missing:
            raise ValueError(
                f"{listed}: no sample has {', '.join(missing)}; the shards hold "
                f"{', '.join(key for key in MODALITIES if key in have)}"
            )

    def __len__(self) -> int:
        """N."""
        return len(self._places)

    def read_stored(self, number: int) -> tuple[str, StoredSample]:
        """A sample's key, and its wanted modalities as they are kept.

        Raises:
            ValueError: it is damaged; the message says how, and not where.
        """
        offset, size, crc = map(int, self._places[number])
        try:
            with self._paths[self._shard[number]].open("rb", buffering=0) as file:
                file.seek(offset)
                piece = file.read(size)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror or error})") from None
        if len(piece) < size:
            raise ValueError("breaks off")
        if crc >= 0 and zlib.crc32(piece) != crc:
            raise ValueError("does not match its checksum")
        key, contents = split(piece)
        return key, decode(contents, self.modalities)

    def read(
        self,
        number: int,
        max_dates: Mapping[str, int] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> Record:
        """A sample for the model.

        Args:
            number: which.
            max_dates: modality to the number of dates kept at most; drawn at random.
            seed: of the draw.
            epoch: of the draw.

        Raises:
            ValueError: it is damaged, or all of it is masked; the message does not say where.
        """
        key, stored = self.read_stored(number)
        series = {}
        for modality, own in stored.series.items():
            draw = (seed, epoch, number, MODALITIES.index(own.card.modality))
            found = _some_dates(own, (max_dates or {}).get(modality), draw)
            if found is not None:
                series[modality] = found
        if not series:
            raise ValueError("holds no valid pixel")
        return Record(key, Sample(series, stored.location), self._classes(stored))

    def where(self, number: int) -> str:
        """A sample's place in words."""
        return f"{self._paths[self._shard[number]]}, byte {self._places[number, 0]}"

    def _classes(self, stored: StoredSample) -> Tensor | None:
        """The class map in codes of `class_names` of the whole library."""
        if stored.classes is None:
            return None
        known = {name: code for code, name in enumerate(self.class_names)}
        codes = [known.get(name, UNKNOWN_CLASS) for name in stored.class_names]
        table = np.array([*codes, UNKNOWN_CLASS], np.int64)  # code -1 takes the last
        return torch.from_numpy(table[stored.classes])


def _some_dates(stored: StoredSeries, most: int | None, key: tuple[int, ...]) -> Series | None:
    """The series at its dates of which something was measured, or some of these; maybe nothing."""
    dates = np.flatnonzero(stored.measured().any((1, 2)))
    if not len(dates):
        return None
    if most is not None:
        dates = draw_dates(dates, most, key)
    whole = len(dates) == len(stored.dates)
    return (stored if whole else stored.at(dates)).to_series()
