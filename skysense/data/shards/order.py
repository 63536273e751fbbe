"""The order in which samples are seen: a pure function of seed and epoch, on every rank the same.

Shards are shuffled, and samples within groups of shards, so that reading stays in a few files at a
time; shards made by `skysense shards build` are shuffled among each other already.

Legend: N samples.
"""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

GROUP = 16
"""Shards whose samples are mixed with each other. [ours]"""

_ORDER = 0
_DATES = 1


def epoch_order(counts: IntArray, seed: int, epoch: int) -> IntArray:
    """The order of one epoch.

    Args:
        counts: samples of each shard; samples are numbered shard by shard.
        seed: of the run.
        epoch: from 0.

    Returns:
        `(N,)` sample numbers, each once.
    """
    rng = np.random.default_rng([seed, _ORDER, epoch])
    starts = np.cumsum(counts) - counts
    shards = rng.permutation(len(counts))
    groups = [shards[i : i + GROUP] for i in range(0, len(shards), GROUP)]
    ranges = [
        np.concatenate([np.arange(starts[s], starts[s] + counts[s]) for s in group])
        for group in groups
    ]
    return np.concatenate([rng.permutation(numbers) for numbers in ranges]).astype(np.int64)


def draw_dates(available: IntArray, most: int, key: tuple[int, ...]) -> IntArray:
    """At most so many dates, in their order; which of them depends on `key` alone.

    Args:
        available: indices of the dates that hold a measurement.
        most: how many to keep.
        key: seed, epoch, sample and modality, as whole numbers.
    """
    if len(available) <= most:
        return available
    seed, *rest = key
    rng = np.random.default_rng([seed, _DATES, *rest])
    return np.sort(rng.choice(available, most, replace=False))
