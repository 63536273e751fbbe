"""Instance level: the views of an image find each other among the views of all other images.

Legend: V views, B samples of this rank, N = V B rows of this rank, M rows of all ranks, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.engine.distributed import gather_rows, global_mean, rank
from skysense.pretrain.losses.contrast import standardize


class InstanceHead(nn.Module):
    """Two-layer perceptron whose input and hidden layer are standardized over the rows.

    Source: SimCLR (arXiv 2002.05709), section 2.1, with the batch norms of its code [paper]; that
    the input is standardized too is [ours]: what all images share would fill it otherwise.
    """

    def __init__(self, dim: int, hidden: int = 256, out: int = 64) -> None:
        """Build for width `dim`."""
        super().__init__()
        self.first = nn.Linear(dim, hidden)
        self.second = nn.Linear(hidden, out)

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """Unit vectors `(N, out)` of `(N, D)`, of which those of weight 0 are none."""
        with torch.autocast(x.device.type, enabled=False):
            hidden = self.first(standardize(x.float(), weight))
            hidden = F.relu(standardize(hidden, weight))
            vectors: Tensor = F.normalize(self.second(hidden), dim=-1)
            return vectors


def instance_loss(vectors: Tensor, present: Tensor, samples: int, temperature: float) -> Tensor:
    """NT-Xent: minus the log softmax of each view's similarity to the other views of its image.

    Source: SimCLR (arXiv 2002.05709), equation 1 [paper]; with more than two views the mean over
    a view's partners, as in SupCon (arXiv 2004.11362), equation 2 [paper].

    Args:
        vectors: `(N, D)` unit vectors, view after view, the same N on each rank.
        present: `(N,)` 0 or 1; rows of 0 are nobody's partner or rival.
        samples: B.
        temperature: of the softmax.

    Returns:
        Scalar, this rank's share of the mean over the rows of all ranks, see `global_mean`; rows
        without a partner do not count.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        own = vectors.float()
        place = torch.arange(len(own), device=own.device)
        kept = present > 0
        every, there = gather_rows(own), gather_rows(present.float()) > 0  # (M, D), (M,)
        logits = own @ every.T / temperature
        itself = rank() * len(own) + place
        hidden = ~there[None].expand_as(logits)
        hidden = hidden.scatter(1, itself[:, None], True)
        # A row that has no rival at all keeps one finite number, and weight 0.
        log_share = logits.masked_fill(hidden, -1e9).log_softmax(-1)
        same = (place[:, None] % samples == place % samples) & kept
        same = same & (place[:, None] != place)  # (N, N)
        first = rank() * len(own)
        to_partners = log_share[:, first : first + len(own)].masked_fill(~same, 0).sum(1)
        count = same.sum(1)
        weight = (kept & (count > 0)).float()
        return global_mean(-to_partners / count.clamp(min=1), weight)
