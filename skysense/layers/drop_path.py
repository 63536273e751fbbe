"""Stochastic depth."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, drops a whole branch for a sample with probability `rate`; else the identity.

    Source: docs/sources.md 2.6 [code]; what is kept is scaled by `1 / (1 - rate)`.
    """

    def __init__(self, rate: float = 0.0) -> None:
        """Build for a rate of 0...1."""
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`(B, ...)` to `(B, ...)`."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1 - self.rate
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * kept / keep
