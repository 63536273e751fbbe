"""Variance: each channel of a vector tells images apart.

Losses that standardize their input see no difference between a channel that varies and one that is
nearly constant. Nothing then keeps features from becoming one large constant and a little more, and
what comes behind, made of norms and nonlinear maps, from seeing the constant alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from skysense.engine.distributed import gather_rows

TINY = 1e-4
"""Added to a variance, as in VICReg: its root is not steep at 0."""


def variance_loss(vectors: Tensor, weight: Tensor, least: float) -> Tensor:
    """How far the spread of the channels over the rows of all ranks falls short, on average.

    Source: VICReg (arXiv 2105.04906), equation 1, with their 1 for `least` [paper].

    Args:
        vectors: `(N, D)`.
        weight: `(N,)`; rows of weight 0 do not count.
        least: standard deviation that is enough.

    Returns:
        Scalar, the same on each rank; 0 where fewer than two rows count.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        kept = weight.float() > 0
        rows = torch.where(kept[:, None], vectors.float(), 0)  # (N, D)
        own = torch.cat([rows.sum(0), kept.sum()[None]])
        total, count = gather_rows(own[None]).sum(0).split([rows.shape[1], 1])
        apart = torch.where(kept[:, None], rows - total / count.clamp(min=1), 0)
        square = gather_rows(apart.square().sum(0)[None]).sum(0)
        spread = (square / (count - 1).clamp(min=1) + TINY).sqrt()
        loss: Tensor = F.relu(least - spread).mean() * (count > 1).squeeze()
        return loss
