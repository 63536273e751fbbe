"""The `hr` backbone of SkySense: Swin Transformer V2 as released.

It shares window attention, MLP, tokens and merging with V2; the block differs in what the released
weights need: padding is attended to, the shift is dropped on small maps, other regions of a
shifted window are only penalized, and every sixth block ends in one more norm.

Legend: B images, C bands, H W pixels, h w token grid, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.drop_path import DropPath
from skysense.layers.merging import AdaptivePatchMerging
from skysense.layers.mlp import Mlp
from skysense.layers.tokenizer import PatchTokenizer
from skysense.layers.windows import WindowAttention, partition, region_mask, unpartition
from skysense.models.skysense_v1.config import SwinConfig

REGION_PENALTY = -100.0
"""Added to logits between regions of a shifted window. Source: docs/sources.md 2.4 [code]."""


class ReleasedBlock(nn.Module):
    """Swin V2 block with the released code's arithmetic. Source: docs/sources.md 2.3-2.6."""

    def __init__(self, config: SwinConfig, stage: int, index: int, drop_path: float) -> None:
        """Build block `index` of a stage."""
        super().__init__()
        dim = config.width * 2**stage
        self.window = config.windows[stage]
        self.shift = self.window // 2 if index % 2 else 0
        self.keep_shift = config.keep_shift
        self.attn = WindowAttention(
            dim, config.heads[stage], self.window, config.pretrained_windows[stage]
        )
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.norm2 = nn.LayerNorm(dim)
        every = config.extra_norm_every
        extra = every > 0 and (index + 1) % every == 0
        self.norm3 = nn.LayerNorm(dim) if extra else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """`(B, h, w, D)`, and `(B, h, w)` bool of tokens that may be attended to."""
        x = x + self.norm1(self.drop_path(self._windows(x, valid)))
        x = x + self.norm2(self.drop_path(self.mlp(x)))
        out: Tensor = self.norm3(x)
        return out

    def _windows(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Pad with zeros, roll, attend in windows, and undo both."""
        _, h, w, _ = x.shape
        window = self.window
        pad = (0, -w % window, 0, -h % window)
        x = F.pad(x, (0, 0, *pad))
        shape = (h + pad[3], w + pad[1])
        shift = 0 if min(h, w) == window and not self.keep_shift else self.shift
        mask = None
        if valid is not None:
            valid = F.pad(valid, pad, value=True)
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
            valid = None if valid is None else valid.roll((-shift, -shift), (1, 2))
            same = region_mask(shape, window, shift, x.device)
            mask = torch.where(same, 0.0, REGION_PENALTY)
        if valid is not None:
            mask = self._without_invalid(valid, mask)
        out = unpartition(self.attn(partition(x, window), mask), window, shape)
        if shift:
            out = out.roll((shift, shift), (1, 2))
        return out[:, :h, :w]

    def _without_invalid(self, valid: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, W, n, n)` with minus infinity for invalid keys, but for a token and itself."""
        keys = partition(valid[..., None], self.window).squeeze(-1)[:, :, None, :]
        seen = keys | torch.eye(keys.shape[-1], dtype=torch.bool, device=valid.device)
        return torch.where(seen, 0.0 if mask is None else mask, -torch.inf)


class NormedMerging(nn.Module):
    """Patch merging with the norm before the linear map; in no released weights [code]."""

    def __init__(self, dim: int) -> None:
        """Build for input width `dim`."""
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`(B, h, w, C)` with even h and w to `(B, h / 2, w / 2, 2C)`."""
        blocks = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 5, 2, 4)
        if valid is not None:
            valid = F.max_pool2d(valid[:, None].float(), 2)[:, 0] > 0
        out: Tensor = self.reduction(self.norm(blocks.flatten(3)))
        return out, valid


class SwinBackbone(nn.Module):
    """Swin Transformer V2, `hr` of SkySense. Source: docs/sources.md 2 [code]."""

    def __init__(self, config: SwinConfig) -> None:
        """Build from a configuration."""
        super().__init__()
        self.config = config
        self.tokenizer = PatchTokenizer(config.bands, config.width, config.patch)
        self.position: nn.Parameter | None = None
        if config.position_grid is not None:
            height, width = config.position_grid
            self.position = nn.Parameter(torch.zeros(1, height * width, config.width))
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        first = [sum(config.depths[:i]) for i in range(len(config.depths))]
        self.stages = nn.ModuleList(
            nn.ModuleList(ReleasedBlock(config, i, j, rates[first[i] + j]) for j in range(depth))
            for i, depth in enumerate(config.depths)
        )
        merging = NormedMerging if config.norm_before_merging else AdaptivePatchMerging
        widths = [config.width * 2**i for i in range(len(config.depths))]
        self.merges = nn.ModuleList(merging(width) for width in widths[:-1])
        self.norms = nn.ModuleDict({str(i): nn.LayerNorm(widths[i]) for i in config.outputs})

    def forward(
        self, pixels: Tensor, valid: Tensor | None = None, count: int | None = None
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Run.

        Args:
            pixels: `(B, C, H, W)`, normalized; any H and W.
            valid: `(B, H, W)` bool or `None` for all; other pixels count as the mean of their
                patch, and patches without a valid pixel are not attended to.
            count: stop after so many outputs; `None` for all.

        Returns:
            A map `(B, h, w, D)` and its mask for each stage in `outputs`.
        """
        p = self.config.patch
        pad = (0, -pixels.shape[-1] % p, 0, -pixels.shape[-2] % p)
        valid = None if valid is None else F.pad(valid, pad, value=False)
        x, valid = self.tokenizer(F.pad(pixels, pad), valid)
        if self.position is not None:
            x = x + self._positions((x.shape[1], x.shape[2]))
        outputs = []
        for i, blocks in enumerate(self.stages):
            if i:
                x, valid = self._merge(i, x, valid)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, valid)
            if i in self.config.outputs:
                outputs.append((self.norms[str(i)](x), valid))
                if len(outputs) == count:
                    break
        return outputs

    def _merge(self, stage: int, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Zero-pad to even sides and merge, as the released code does."""
        odd = (0, x.shape[2] % 2, 0, x.shape[1] % 2)
        if any(odd):
            x = F.pad(x, (0, 0, *odd))
            valid = None if valid is None else F.pad(valid, odd, value=False)
        merged: tuple[Tensor, Tensor | None] = self.merges[stage - 1](x, valid)
        return merged

    def _positions(self, shape: tuple[int, int]) -> Tensor:
        """The absolute position table on a grid, `(1, h, w, D)`."""
        assert self.position is not None
        assert self.config.position_grid is not None
        table: Tensor = self.position.unflatten(1, self.config.position_grid)  # (1, gh, gw, D)
        if table.shape[1:3] == shape:
            return table
        table = table.permute(0, 3, 1, 2)
        return F.interpolate(table, shape, mode="bicubic").permute(0, 2, 3, 1)
