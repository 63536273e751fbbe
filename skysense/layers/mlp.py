"""The two-layer perceptron of a Transformer block."""

import torch
from torch import Tensor, nn

BLOCK = 1 << 21
"""Numbers of the input that a layer works on at a time, without gradients: what it makes of all at
once would be the largest thing in memory."""


class Mlp(nn.Module):
    """Linear, GELU (the erf form), linear. Source: docs/sources.md 2 [code]."""

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        """Build for width `dim` with a hidden width of `dim * ratio`."""
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """`(..., D)` to `(..., D)`; without gradients in blocks of tokens, to save memory."""
        if torch.is_grad_enabled() or x.numel() <= BLOCK:
            out: Tensor = self.fc2(self.act(self.fc1(x)))
            return out
        blocks = x.reshape(-1, x.shape[-1]).split(max(1, BLOCK // x.shape[-1]))
        return torch.cat([self.fc2(self.act(self.fc1(block))) for block in blocks]).view_as(x)
