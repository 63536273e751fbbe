"""The pre-norm Transformer layer of the fusion transformer and of the V1 image transformers.

Legend: B sequences, N tokens, D width.
"""

from torch import Tensor, nn

from skysense.layers.attention import Attention
from skysense.layers.drop_path import DropPath
from skysense.layers.mlp import Mlp


class TransformerLayer(nn.Module):
    """`x + attention(norm(x))`, `x + mlp(norm(x))`.

    Source: docs/sources.md 3 and 4 [code]; drop path is on the MLP branch alone, as there.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        ratio: float = 4.0,
        eps: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        """Build for width `dim`."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = Mlp(dim, ratio)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, valid: Tensor | None = None, first_only: bool = False) -> Tensor:
        """One layer.

        Args:
            x: `(B, N, D)`.
            valid: `(B, N)` bool, tokens that may be attended to; `None` for all.
            first_only: compute the first token alone.

        Returns:
            `(B, N, D)`, or `(B, 1, D)` with `first_only`.
        """
        rows = x[:, :1] if first_only else x
        rows = rows + self.attn(self.norm1(x), valid, first_only=first_only)
        out: Tensor = rows + self.drop_path(self.mlp(self.norm2(rows)))
        return out
