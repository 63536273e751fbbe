"""Patches of an image to tokens.

Legend: B images, C bands, H W pixels, h w token grid, D width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.merging import fill_invalid


class PatchTokenizer(nn.Module):
    """Patches of 4 x 4 pixels through one linear map and a norm.

    Source: docs/sources.md 12 [paper]; convolution with bias, then layer norm, docs/sources.md 2.1
    [code]. Invalid pixels of a patch count as the mean of its valid ones [ours].
    """

    def __init__(self, bands: int, dim: int, patch: int = 4, norm: bool = True) -> None:
        """Build for `bands` input bands and width `dim`, with or without the norm."""
        super().__init__()
        self.patch = patch
        self.projection = nn.Conv2d(bands, dim, patch, patch)
        self.norm: nn.Module = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, pixels: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Cut into patches and embed.

        Args:
            pixels: `(B, C, H, W)`, normalized; any H and W.
            valid: `(B, H, W)` bool or `None` for all valid.

        Returns:
            `(B, h, w, D)` with `h = ceil(H / 4)`, and the mask `(B, h, w)`: a token is valid if
            one of its pixels is.
        """
        p = self.patch
        b, _, height, width = pixels.shape
        pad = (0, -width % p, 0, -height % p)
        if any(pad):
            valid = pixels.new_ones(b, height, width).bool() if valid is None else valid
            valid, pixels = F.pad(valid, pad), F.pad(pixels, pad)
        patches = pixels.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, C, h, p, w, p)
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)  # (B, h, w, p p, C)
        if valid is not None:
            inside = valid.unflatten(2, (-1, p)).unflatten(1, (-1, p)).transpose(2, 3).flatten(3)
            patches = fill_invalid(patches, inside)
            valid = inside.any(-1)
        weight = self.projection.weight.permute(0, 2, 3, 1).flatten(1)  # (D, p p C)
        tokens: Tensor = self.norm(F.linear(patches.flatten(3), weight, self.projection.bias))
        return tokens, valid
