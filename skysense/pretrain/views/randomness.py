"""Random numbers that are a function of what they are for, and of nothing else.

A generator's numbers depend on how many were drawn before, and so on the number of ranks and rows.
These are hashes of (seed, step, place in the global batch, view, purpose, index), computed where
the batch lives: one process or eight, on CPU or GPU, the numbers are the same. Hashing is Wellons'
`lowbias32` (public domain) [code]; its use here is [ours].

Legend: B samples, G global views.
"""

import math
import zlib
from typing import Protocol, TypeVar

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9

WordT = TypeVar("WordT", int, Tensor)


def _scramble(x: WordT) -> WordT:
    """`lowbias32` of numbers in 0...2^32 - 1; int64 tensors change in place."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x &= _WORD
    x ^= x >> 15
    x *= 0x846CA68B
    x &= _WORD
    x ^= x >> 16
    return x


class Choose(Protocol):
    """Uniform numbers for each row of the global views of a batch."""

    def __call__(self, count: int, purpose: str = "places") -> Tensor:
        """`(G B, count)`, view after view; the same for a view of a sample on whatever rank."""
        ...


class Draws:
    """The random numbers of one view of each sample."""

    def __init__(self, seed: int, step: int, view: int, positions: Tensor) -> None:
        """Name the view.

        Args:
            seed: of the run.
            step: of the run; at least 0.
            view: number of the view.
            positions: `(B,)` int64 place of each sample in the global batch.
        """
        name = 0
        for word in (seed, seed >> 32, step, step >> 32, view):
            name = _scramble(name ^ (word & _WORD))
        self._base = _scramble((positions & _WORD) ^ name)  # (B,)

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """`(B, *shape)` float32 between 0 and 1, both excluded.

        A number depends on its purpose and flat index: more rows along the first dimension of
        `shape` leave those before them as they are.
        """
        index = torch.arange(math.prod(shape), device=self._base.device)
        stream = _scramble(self._base ^ zlib.crc32(purpose.encode()))
        bits = _scramble((stream[:, None] + index * _GOLDEN).bitwise_and_(_WORD))
        return bits.bitwise_right_shift_(9).float().add_(0.5).mul_(2.0**-23).view(-1, *shape)

    def signed(self, purpose: str, *shape: int) -> Tensor:
        """`(B, *shape)` float32, uniform between -1 and 1."""
        return self.uniform(purpose, *shape).mul_(2).sub_(1)

    def sometimes(self, purpose: str, *shape: int) -> Tensor:
        """`(B, *shape)` float32: 0 in half of the cases, uniform between 0 and 1 in the others."""
        return self.signed(purpose, *shape).clamp_(min=0)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """`(B, *shape)` float32 of the standard normal distribution, within +-5.3."""
        return self.signed(purpose, *shape).erfinv_().mul_(math.sqrt(2))
