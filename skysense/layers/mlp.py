"""The two-layer perceptron of a Transformer block."""

from torch import Tensor, nn


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
        """`(..., D)` to `(..., D)`."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out
