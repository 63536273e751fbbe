"""KoLeo: vectors keep away from their nearest neighbor, so that features spread.

Legend: N rows of this rank, M rows of all ranks, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from skysense.engine.distributed import gather_rows, global_mean, rank

NEAR = 1e-4
"""Added to squared distances: without it the gradient of twins has no bound. [ours]"""


def koleo(vectors: Tensor, weight: Tensor | None = None) -> Tensor:
    """Minus the mean logarithm of the distance to the nearest neighbor, on the unit sphere.

    Source: Sablayrolles et al. (arXiv 1806.03198), as DINOv2 (arXiv 2304.07193, section 4) uses it
    [paper]; SkySense V2 does not name it [ours]. Neighbors come from all ranks.

    Args:
        vectors: `(N, D)`, the same N on each rank.
        weight: `(N,)`; rows of weight 0 do not count and are nobody's neighbor.

    Returns:
        Scalar, this rank's share of the mean over the rows of all ranks, see `global_mean`.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        own = F.normalize(vectors.float(), dim=-1)
        weight = own.new_ones(len(own)) if weight is None else weight.float()
        every = gather_rows(own)  # (M, D)
        neighbor, found = _nearest(own, every, gather_rows(weight) > 0)
        squared = (own - every[neighbor]).square().sum(-1)
        return global_mean(-(squared + NEAR).log() / 2, weight * found)


@torch.no_grad()
def _nearest(own: Tensor, every: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Index `(N,)` of each row's nearest other row that is present, and whether there is one."""
    cosine = (own @ every.T).masked_fill(~present, -torch.inf)  # (N, M)
    place = torch.arange(len(own), device=own.device)
    cosine[place, rank() * len(own) + place] = -torch.inf
    best, index = cosine.max(1)
    return index, best > -torch.inf
