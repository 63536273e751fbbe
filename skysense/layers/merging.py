"""Adaptive patch merging: halve the grid or keep it, with one and the same weight.

Legend: B images, h w token grid, C width.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.packing import PackedLinear, pack_linear

MergeMode = Literal["merge", "keep"]


def fill_invalid(blocks: Tensor, valid: Tensor) -> Tensor:
    """Replace what is invalid in a block by the mean of what is valid there.

    Args:
        blocks: `(..., K, C)`, K places of a block.
        valid: `(..., K)` bool.

    Returns:
        `(..., K, C)`; blocks without a valid place become zero.
    """
    kept = valid.unsqueeze(-1).to(blocks.dtype)
    total = torch.where(valid.unsqueeze(-1), blocks, 0).sum(-2, keepdim=True)
    mean = total / kept.sum(-2, keepdim=True).clamp(min=1)
    return torch.where(valid.unsqueeze(-1), blocks, mean)


class AdaptivePatchMerging(nn.Module):
    """Doubles the width between stages; the resolution is halved or kept at run time.

    `merge`: the 2 x 2 neighbours, concatenated (channel-major: channel, row, column), go through
    one linear map 4C -> 2C [paper], then a norm [code, docs/sources.md 2.2]. `keep`: each token
    stands for its four neighbours, which is the same weight with its four blocks added up into one
    C -> 2C map; so keeping a grid of equal neighbours equals merging it [paper, sum]. (The paper's
    readers say "averaged"; the norm that follows takes the factor 4 out.)
    """

    def __init__(self, dim: int) -> None:
        """Build for input width `dim`."""
        super().__init__()
        self.reduction: nn.Module = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)
        self.kept: PackedLinear | None = None

    def pack_weights(self) -> None:
        """Take the inference form, see `skysense.layers.packing`: both modes' maps are packed."""
        if isinstance(self.reduction, PackedLinear):
            return
        self.kept = PackedLinear(self._kept_weight())
        self.reduction = pack_linear(self.reduction)

    def _kept_weight(self) -> Tensor:
        """The linear map of `keep`, `(2C, C)`."""
        assert isinstance(self.reduction, nn.Linear)
        weight: Tensor = self.reduction.weight.unflatten(1, (-1, 4)).sum(-1)
        return weight

    def forward(
        self, x: Tensor, valid: Tensor | None = None, mode: MergeMode = "merge"
    ) -> tuple[Tensor, Tensor | None]:
        """Merge or keep.

        Args:
            x: `(B, h, w, C)`, any h and w.
            valid: `(B, h, w)` bool or `None` for all valid.
            mode: `"merge"` or `"keep"`.

        Returns:
            `(B, h', w', 2C)` with `h' = ceil(h / 2)` or h, and the mask `(B, h', w')`: a merged
            token is valid if one of its four is, and those that are not count as their mean.
        """
        if mode == "keep":
            kept = F.linear(x, self._kept_weight()) if self.kept is None else self.kept(x)
            out: Tensor = self.norm(kept)
            return out, valid
        b, h, w, _ = x.shape
        if h % 2 or w % 2:
            valid = x.new_ones(b, h, w, dtype=torch.bool) if valid is None else valid
            valid = F.pad(valid, (0, w % 2, 0, h % 2))
            x = F.pad(x, (0, 0, 0, w % 2, 0, h % 2))
        blocks = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3)
        blocks = blocks.flatten(3, 4)  # (B, h', w', 4, C)
        if valid is not None:
            inside = valid.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)
            blocks = fill_invalid(blocks, inside)
            valid = inside.any(-1)
        merged: Tensor = self.norm(self.reduction(blocks.transpose(3, 4).flatten(3)))
        return merged, valid
