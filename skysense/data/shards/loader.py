"""Batches of shards: endless, shuffled, the same on any number of ranks and workers, resumable.

Batch number `s` holds the samples at places `s B` to `(s + 1) B` of all epochs' orders put behind
each other: every sample is seen exactly once an epoch, and a batch may reach over an epoch's end.
Rank `r` of `W` has the `r`-th of `W` equal parts of each batch.

Legend: B samples of a batch over all ranks, b those of this rank, h w cells of a class map.
"""

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skysense.data.shards.ahead import read_ahead, read_with_workers
from skysense.data.shards.library import Damage, Library, Record
from skysense.data.shards.order import IntArray, epoch_order
from skysense.sample import Batch, collate
from skysense.sensors import MODALITIES


@dataclass(frozen=True)
class Loaded:
    """This rank's part of a batch."""

    number: int
    """Of the batch, from 0."""
    epoch: int
    """Of the batch's first sample over all ranks."""
    batch: Batch
    """b samples."""
    positions: Tensor
    """`(b,)` int64 place of each row in the global batch."""
    classes: Tensor | None
    """`(b, h, w)` int64 codes, -1 where unknown or padded; `None` where no shard has class maps."""
    class_sizes: Tensor | None
    """`(b, 2)` int64 `(h, w)` before padding, 0 where a sample has no class map."""
    keys: tuple[str, ...]
    """Of the b samples."""


@dataclass(frozen=True)
class Skipped:
    """What could not be used so far."""

    shards: int = 0
    """Damaged shards; of them, what can be read is used."""
    samples: int = 0
    """Samples lost in them, and damaged or empty ones whose place others took."""


class ShardLoader:
    """Reads batches from folders of shards."""

    def __init__(
        self,
        folder: str | Path | Sequence[str | Path],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        max_dates: Mapping[str, int] | None = None,
        modalities: Sequence[str] | None = None,
    ) -> None:
        """Find all samples.

        Args:
            folder: of shards; the samples of several are mixed.
            batch_size: B.
            seed: of order and dates.
            rank: of this process.
            world: number of processes.
            workers: processes that read; 0 for a thread.
            max_dates: modality to the number of dates of a sample, which are drawn anew each epoch.
            modalities: those to read; default: all there are. Samples that have none of them are
                left out.

        Raises:
            ValueError: nothing that can be used, or options that do not fit together.
        """
        if not 0 <= rank < world or workers < 0:
            raise ValueError(f"rank {rank} of {world} with {workers} workers cannot be")
        if batch_size < 1 or batch_size % world:
            raise ValueError(
                f"the batch size {batch_size} does not divide by the {world} processes; choose a "
                f"multiple of {world}"
            )
        strange = {k: v for k, v in (max_dates or {}).items() if k not in MODALITIES or v < 1}
        if strange:
            raise ValueError(f"`max_dates` {strange}: expected hr, s2, s1 with 1 date or more")
        folders = [folder] if isinstance(folder, str | Path) else folder
        library = Library([Path(path) for path in folders], modalities)
        self._workers = workers
        self._seen: set[str] = set()
        self._reader = _Reader(library, batch_size, seed, rank, world, dict(max_dates or {}))
        self.skipped = Skipped()
        """What could not be used so far."""
        self.class_names = library.class_names
        """Name of each code of the class maps."""
        self.modalities = library.modalities
        """Those that are read, in the order `hr`, `s2`, `s1`."""
        self._note(library.damages)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self._reader.library)

    def batches(self, start: int = 0) -> Generator[Loaded, None, None]:
        """Batches without end, from number `start`; nothing before it is read.

        Closing the iterator stops the thread or the processes that read ahead.

        Raises:
            ValueError: no sample can be read any more.
        """
        if self._workers:
            source = read_with_workers(self._reader, start, self._workers)
        else:
            source = read_ahead(self._reader, start)
        with closing(source):
            for loaded, damages in source:
                self._note(damages)
                yield loaded

    def _note(self, damages: Sequence[Damage]) -> None:
        """Count and name each damage once."""
        for damage in damages:
            if damage.where in self._seen:
                continue
            self._seen.add(damage.where)
            self.skipped = Skipped(
                self.skipped.shards + damage.shards, self.skipped.samples + damage.samples
            )
            rest = "what can be read of it is used" if damage.shards else "another takes its place"
            warnings.warn(f"{damage.where} {damage.reason}; {rest}", stacklevel=3)


class _Reader:
    """Batch number to batch; sent to the processes that read."""

    def __init__(
        self,
        library: Library,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        max_dates: Mapping[str, int],
    ) -> None:
        self.library = library
        self._batch_size = batch_size
        self._seed = seed
        self._rows = range(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._max_dates = max_dates
        self._orders: dict[int, IntArray] = {}

    def __call__(self, number: int) -> tuple[Loaded, tuple[Damage, ...]]:
        """A batch, and what was found damaged on the way.

        Raises:
            ValueError: no sample can be read.
        """
        first, count = number * self._batch_size, len(self.library)
        places = [divmod(first + row, count) for row in self._rows]
        self._keep_orders({epoch for epoch, _ in places})
        damages: list[Damage] = []
        records = [
            self._read(int(self._orders[epoch][place]), epoch, damages) for epoch, place in places
        ]
        classes, sizes = self._pad_classes(records)
        loaded = Loaded(
            number,
            first // count,
            collate([record.sample for record in records]),
            torch.from_numpy(np.array(self._rows, np.int64)),
            classes,
            sizes,
            tuple(record.key for record in records),
        )
        return loaded, tuple(damages)

    def _keep_orders(self, epochs: set[int]) -> None:
        """Have the orders of these epochs, and no other."""
        self._orders = {
            epoch: self._orders[epoch]
            if epoch in self._orders
            else epoch_order(self.library.counts, self._seed, epoch)
            for epoch in epochs
        }

    def _read(self, sample: int, epoch: int, damages: list[Damage]) -> Record:
        """A sample, or the next that can be used."""
        count = len(self.library)
        for number in ((sample + i) % count for i in range(count)):
            try:
                return self.library.read(number, self._max_dates, self._seed, epoch)
            except ValueError as error:
                damages.append(Damage(self.library.where(number), str(error), 0, 1))
        raise ValueError(
            f"none of {count} samples can be read any more; the last: {damages[-1].where} "
            f"{damages[-1].reason}"
        )

    def _pad_classes(self, records: Sequence[Record]) -> tuple[Tensor | None, Tensor | None]:
        """Class maps side by side."""
        if not self.library.class_names:
            return None, None
        shapes = [(0, 0) if r.classes is None else tuple(r.classes.shape) for r in records]
        height, width = (max(1, *sides) for sides in zip(*shapes, strict=True))
        classes = np.full((len(records), height, width), -1, np.int64)
        for row, record, (h, w) in zip(classes, records, shapes, strict=True):
            if record.classes is not None:
                row[:h, :w] = record.classes.numpy()
        return torch.from_numpy(classes), torch.from_numpy(np.array(shapes, np.int64))
