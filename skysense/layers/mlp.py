"""The two-layer perceptron of a Transformer block."""

import torch
from torch import Tensor, nn

from skysense.layers.packing import PackedLinear, pack_linear

BLOCK = 1 << 21
"""Numbers of the input that a layer works on at a time, without gradients: what it makes of all at
once would be the largest thing in memory."""


class Mlp(nn.Module):
    """Linear, GELU (the erf form), linear. Source: docs/sources.md 2 [code]."""

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        """Build for width `dim` with a hidden width of `dim * ratio`."""
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1: nn.Module = nn.Linear(dim, hidden)
        self.fc2: nn.Module = nn.Linear(hidden, dim)
        self.act: nn.Module = nn.GELU()

    def pack_weights(self) -> None:
        """Take the inference form, see `skysense.layers.packing`: the first map does the GELU."""
        if isinstance(self.fc1, PackedLinear):
            return
        self.fc1, self.act = pack_linear(self.fc1, activation="gelu"), nn.Identity()
        self.fc2 = pack_linear(self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., D)` to `(..., D)`; without gradients in blocks of tokens, to save memory."""
        if torch.is_grad_enabled() or x.numel() <= BLOCK:
            out: Tensor = self.fc2(self.act(self.fc1(x)))
            return out
        blocks = x.reshape(-1, x.shape[-1]).split(max(1, BLOCK // x.shape[-1]))
        return torch.cat([self.fc2(self.act(self.fc1(block))) for block in blocks]).view_as(x)
