"""What is watched so that a collapse is seen early.

Legend: N vectors, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDING = 1e-6
"""Differences of unit vectors that are rounding alone, which has a rank of its own. [ours]"""


@torch.no_grad()
def feature_std(vectors: Tensor) -> float:
    """Spread of unit vectors `(N, D)`, centered: 1 where they point everywhere, 0 where all agree.

    It is the root of their total variance, which `sqrt(D)` times the mean standard deviation of
    DINO-like logs equals up to the unevenness of channels [ours].
    """
    if len(vectors) < 2:
        return float("nan")
    unit = F.normalize(vectors.float(), dim=-1)
    return float(unit.var(0, correction=0).sum().sqrt())


@torch.no_grad()
def effective_rank(vectors: Tensor) -> float:
    """Exponential of the entropy of the singular values of `(N, D)`, centered.

    1 where all lie on a line or agree, at most `min(N - 1, D)`. Source: Roy and Vetterli 2007; as
    RankMe (arXiv 2210.02885) [paper].
    """
    if len(vectors) < 2:
        return float("nan")
    unit = F.normalize(vectors.float(), dim=-1)
    values = torch.linalg.svdvals(unit - unit.mean(0))
    values = torch.where(values > ROUNDING * len(unit) ** 0.5, values, 0)
    share = values / values.sum().clamp(min=1e-12)
    return float((-(share * share.clamp(min=1e-12).log()).sum()).exp())
