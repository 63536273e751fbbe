"""k-means of cells, without labels: seeded, several starts, numbered by what the centres are.

Legend: N sampled cells, Q asked for, D width, K clusters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skysense.tasks.mapping.sources import FeatureSource

FloatArray = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SAMPLE = 20_000
"""Cells that centres are fitted on; of a smaller map all. [ours]"""
STARTS = 4
"""Fits from different starts, of which the tightest is taken. [ours]"""
_ROUNDS = 100


@dataclass(frozen=True)
class Clusters:
    """Centres of clusters."""

    centres: Tensor
    """`(K, D)` float32."""
    inertia: float
    """Mean squared distance of the sampled cells to their centre."""

    def nearest(self, vectors: FloatArray) -> Labels:
        """The cluster `(Q,)` of each cell `(Q, D)`."""
        return np.asarray(_distances(torch.from_numpy(vectors), self.centres).argmin(1), np.int64)


def sample_cells(
    features: FeatureSource, seed: int, progress: Callable[[int], None], most: int = SAMPLE
) -> FloatArray:
    """Valid cells of a whole map, each as likely as any other; one pass, in flat memory.

    Which cells are drawn, and their order, depends on the map and the seed alone, and not on the
    windows that it is read in.

    Args:
        features: the map.
        seed: of the draw.
        progress: called with 1 after each window.
        most: cells to draw at most.

    Returns:
        `(N, D)`.
    """
    width = features.grid.shape[1]
    places, kept = np.zeros(0, np.int64), np.zeros((0, features.channels), np.float32)
    for window, valid, values in features.valid_cells():
        rows, cols = np.nonzero(valid)
        places = np.concatenate([places, (rows + window.row) * width + cols + window.col])
        kept = np.concatenate([kept, values])
        if len(kept) > most:  # those of the smallest tickets stay
            chosen = np.argpartition(_tickets(places, seed), most)[:most]
            places, kept = places[chosen], kept[chosen]
        progress(1)
    return kept[np.argsort(places)]


def _tickets(places: Labels, seed: int) -> npt.NDArray[np.uint64]:
    """A number for each place, drawn from all of 64 bits, different places having different ones.

    Source: the mixer of SplitMix64, Steele, Lea and Flood 2014 [paper].
    """
    mixed = places.astype(np.uint64) + np.random.default_rng(seed).integers(2**64, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), np.uint64)


def fit_clusters(vectors: FloatArray, count: int, seed: int = 0) -> Clusters:
    """Centres of least squared distance, of several starts by k-means++ and Lloyd's iteration.

    Clusters are numbered along the cells' first principal axis (whose largest entry is positive),
    so that like ones are neighbours and the numbers do not depend on the start.
    Source: Arthur and Vassilvitskii 2007 [paper].

    Args:
        vectors: `(N, D)` on a common scale.
        count: K.
        seed: of the starts.

    Raises:
        ValueError: fewer different cells than clusters.
    """
    x = torch.from_numpy(np.ascontiguousarray(vectors))
    different = len(np.unique(vectors, axis=0)) if len(vectors) < 10 * count else count
    if different < count:
        raise ValueError(f"{count} clusters of {different} different cells cannot be made")
    generator = torch.Generator().manual_seed(seed)
    fits = [_lloyd(x, _spread_out(x, count, generator)) for _ in range(STARTS)]
    best = min(fits, key=lambda fit: fit.inertia)
    centred = (x - x.mean(0)).double()
    axis = torch.linalg.eigh(centred.T @ centred)[1][:, -1]
    axis = axis * torch.sign(axis[axis.abs().argmax()])
    order = torch.argsort(best.centres.double() @ axis, stable=True)
    return Clusters(best.centres[order], best.inertia)


def _spread_out(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Starting centres `(K, D)`: each next one is drawn by its squared distance to those before."""
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    nearest = _distances(x, x[chosen[-1:]])[:, 0]
    for _ in range(count - 1):
        weights = nearest.double().clamp(min=0)
        if not float(weights.sum()) > 0:
            weights = torch.ones_like(weights)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
        nearest = torch.minimum(nearest, _distances(x, x[chosen[-1:]])[:, 0])
    return x[chosen].clone()


def _lloyd(x: Tensor, centres: Tensor) -> Clusters:
    """Move centres to the means of their cells until no cell changes sides."""
    before = None
    for _ in range(_ROUNDS):
        distances = _distances(x, centres)
        least, nearest = distances.min(1)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        counts = torch.bincount(nearest, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return Clusters(centres, float(least.clamp(min=0).mean()))


def _distances(x: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `(Q, K)`."""
    return x.square().sum(1)[:, None] - 2 * x @ centres.T + centres.square().sum(1)
