"""The `s2` and `s1` backbones of SkySense: plain image transformers as released.

Legend: B images, C bands, H W pixels, h w token grid, N = h w, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.tokenizer import PatchTokenizer
from skysense.layers.transformer import TransformerLayer
from skysense.models.skysense_v1.config import VitConfig


class VisionTransformer(nn.Module):
    """ViT with a class token and a learned position table. Source: docs/sources.md 3 [code]."""

    def __init__(self, config: VitConfig, resize_by_count: bool = False) -> None:
        """Build from a configuration.

        Args:
            config: sizes.
            resize_by_count: resize the position table only where the number of tokens differs
                from the table's, as the released code does, and not where the shape does.
        """
        super().__init__()
        self.config = config
        self.resize_by_count = resize_by_count
        self.tokenizer = PatchTokenizer(config.bands, config.width, config.patch, norm=False)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width))
        height, width = config.position_grid
        entries = height * width + (1 if config.class_position else 0)
        self.position = nn.Parameter(torch.zeros(1, entries, config.width))
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.heads, config.ratio, config.eps, rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(config.width, config.eps) if config.final_norm else nn.Identity()

    def forward(
        self, pixels: Tensor, valid: Tensor | None = None, count: int | None = None
    ) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Run.

        Args:
            pixels: `(B, C, H, W)`, normalized; any H and W (padded with zeros to whole patches).
            valid: `(B, H, W)` bool or `None` for all.
            count: stop after so many outputs; `None` for all.

        Returns:
            For each layer in `outputs`: the map `(B, h, w, D)`, the class vector `(B, D)`, and
            the map's mask `(B, h, w)` or `None`.
        """
        p = self.config.patch
        pad = (0, -pixels.shape[-1] % p, 0, -pixels.shape[-2] % p)
        valid = None if valid is None else F.pad(valid, pad, value=False)
        x, valid = self.tokenizer(F.pad(pixels, pad), valid)
        shape = (x.shape[1], x.shape[2])
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], 1)
        x = x + self._positions(shape)
        front = 1 if self.config.class_token else 0
        x = x if front else x[:, 1:]
        keys = None if valid is None else F.pad(valid.flatten(1), (front, 0), value=True)
        outputs = []
        for i, layer in enumerate(self.layers):
            x = layer(x, keys)
            if i == len(self.layers) - 1:
                x = self.norm(x)
            if i in self.config.outputs:
                outputs.append((x[:, front:].unflatten(1, shape), x[:, 0], valid))
                if len(outputs) == count:
                    break
        return outputs

    def _positions(self, shape: tuple[int, int]) -> Tensor:
        """The position table on a grid, `(1, 1 + N, D)`; zero for a class token without entry."""
        table: Tensor = self.position
        if not self.config.class_position:
            table = F.pad(table, (0, 0, 1, 0))
        grid = self.config.position_grid
        same = shape[0] * shape[1] == grid[0] * grid[1] if self.resize_by_count else shape == grid
        if same:
            return table
        patches = table[:, 1:].unflatten(1, grid).permute(0, 3, 1, 2)  # (1, D, gh, gw)
        patches = F.interpolate(patches, shape, mode=self.config.resize, align_corners=False)
        return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], 1)


class UpHead(nn.Module):
    """1 x 1 convolution and pixel shuffle: a `s2` or `s1` map to the grid and width of `hr`.

    Source: docs/sources.md 5 [code].
    """

    def __init__(self, in_dim: int, out_dim: int, scale: int = 4) -> None:
        """Build from width `in_dim` to `out_dim`, with `scale` times as many cells a side."""
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(in_dim, out_dim * scale**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_dim, h, w)` to `(B, out_dim, scale h, scale w)`."""
        return F.pixel_shuffle(self.conv(x), self.scale)
