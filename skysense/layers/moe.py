"""Mixture of experts with top-1 routing.

Legend: N tokens, D width, E experts, M hidden width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class RouterStatistics:
    """How a router spread its tokens."""

    fraction: Tensor
    """`(E,)` share of the tokens that each expert got; sums to 1."""
    probability: Tensor
    """`(E,)` mean gate probability of each expert, with gradient; sums to 1."""

    @property
    def load_balance(self) -> Tensor:
        """Scalar `E * sum(fraction * probability)`: 1 when even, E when one expert gets all.

        Source: Switch Transformer, equation 4; an auxiliary loss on it is [ours].
        """
        return self.fraction.numel() * (self.fraction * self.probability).sum()


class MixtureOfExperts(nn.Module):
    """E two-layer perceptrons; each token goes to the one its gate likes best.

    Linear gate without bias, softmax, top-1, output scaled by the gate [paper]. Tokens are sorted
    by expert, so that each expert works on one contiguous block; there is no capacity limit, and
    no token is dropped [ours].
    """

    def __init__(self, dim: int, experts: int = 8, ratio: float = 4.0) -> None:
        """Build `experts` perceptrons of width `dim` and hidden width `dim * ratio`."""
        super().__init__()
        hidden = int(dim * ratio)
        self.gate = nn.Linear(dim, experts, bias=False)
        self.w1 = nn.Parameter(torch.empty(experts, hidden, dim))
        self.b1 = nn.Parameter(torch.zeros(experts, hidden))
        self.w2 = nn.Parameter(torch.empty(experts, dim, hidden))
        self.b2 = nn.Parameter(torch.zeros(experts, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the experts: truncated normal 0.02."""
        nn.init.trunc_normal_(self.w1, std=0.02)
        nn.init.trunc_normal_(self.w2, std=0.02)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> tuple[Tensor, RouterStatistics]:
        """Route and compute.

        Args:
            x: `(..., D)`.
            valid: `(...)` bool; tokens that are not valid are left out of the statistics.

        Returns:
            `(..., D)` and the routing statistics.
        """
        tokens = x.reshape(-1, x.shape[-1])  # (N, D)
        probability = self.gate(tokens).softmax(-1)  # (N, E)
        weight, expert = probability.max(-1)  # (N,), (N,)
        order = expert.argsort(stable=True)
        counts = torch.bincount(expert, minlength=self.w1.shape[0])
        grouped = self._experts(tokens[order], counts.tolist())  # (N, D), sorted by expert
        out = torch.empty_like(grouped).index_copy(0, order, grouped * weight[order, None])
        statistics = self._statistics(probability, expert, valid)
        return out.view_as(x), statistics

    def _experts(self, tokens: Tensor, counts: list[int]) -> Tensor:
        """Apply expert e to the e-th block of `counts[e]` rows of `tokens (N, D)`."""
        parts = []
        # Unbound at once: backward of an index would fill a zero tensor of all experts for each.
        weights = (weight.unbind(0) for weight in (self.w1, self.b1, self.w2, self.b2))
        for block, w1, b1, w2, b2 in zip(tokens.split(counts), *weights, strict=True):
            if block.shape[0]:
                parts.append(F.linear(F.gelu(F.linear(block, w1, b1)), w2, b2))
        return torch.cat(parts) if parts else tokens

    def _statistics(
        self, probability: Tensor, expert: Tensor, valid: Tensor | None
    ) -> RouterStatistics:
        """Shares over the valid tokens."""
        if valid is not None:
            kept = valid.reshape(-1)
            probability, expert = probability[kept], expert[kept]
        count = torch.bincount(expert, minlength=probability.shape[-1])
        total = max(expert.shape[0], 1)
        return RouterStatistics(
            fraction=count.to(probability.dtype) / total, probability=probability.sum(0) / total
        )
