"""The shared backbone of SkySense V2: two Swin V2 stages, two plain stages, all modalities.

Legend: B images, h w token grid, N = h w, P prompts, C width of the first stage, D of a stage.
"""

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from skysense.layers.attention import Attention
from skysense.layers.merging import AdaptivePatchMerging
from skysense.layers.mlp import Mlp
from skysense.layers.moe import MixtureOfExperts, RouterStatistics
from skysense.layers.positions import rotary_2d
from skysense.layers.windows import SwinBlock
from skysense.models.encoder import Schedule
from skysense.models.skysense_v2.config import SkySenseV2Config


@functools.lru_cache(maxsize=32)
def rotary_table(shape: tuple[int, int], dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`rotary_2d`, kept; made such that training may use what inference made."""
    with torch.inference_mode(False):
        return rotary_2d(shape, dim, device)


class PlainBlock(nn.Module):
    """Pre-norm Transformer block with global attention; its MLP may be a mixture of experts.

    Source: docs/sources.md 12, stages 3-4 [paper].
    """

    def __init__(self, dim: int, heads: int, experts: int) -> None:
        """Build for width `dim`; `experts` is 0 for a dense block."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp: Mlp | MixtureOfExperts
        self.mlp = MixtureOfExperts(dim, experts) if experts else Mlp(dim)

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None,
        prompts: int,
    ) -> tuple[Tensor, RouterStatistics | None]:
        """`x (B, P + N, D)`, prompts in front; `valid (B, N)` or `None` for all."""
        x = x + self.attn(self.norm1(x), valid, rotary, prompts)
        hidden = self.norm2(x)
        if not isinstance(self.mlp, MixtureOfExperts):
            return x + self.mlp(hidden), None
        counted = None
        if valid is not None:
            counted = torch.cat([valid.new_ones(x.shape[0], prompts), valid], 1)
        routed, statistics = self.mlp(hidden, counted)
        return x + routed, statistics


class Backbone(nn.Module):
    """Every block serves every modality; only tokenizers and prompts are per modality [paper]."""

    def __init__(self, config: SkySenseV2Config) -> None:
        """Build from a configuration."""
        super().__init__()
        widths, depths = config.widths, config.depths
        heads = [width // config.head_width for width in widths]
        first_moe = sum(depths) - config.moe_blocks if config.experts else sum(depths)
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            blocks = nn.ModuleList()
            for i in range(depth):
                if stage < 2:
                    shifted = i % 2 == 1
                    block: nn.Module
                    block = SwinBlock(widths[stage], heads[stage], config.window, shifted)
                else:
                    experts = config.experts if sum(depths[:stage]) + i >= first_moe else 0
                    block = PlainBlock(widths[stage], heads[stage], experts)
                blocks.append(block)
            self.stages.append(blocks)
        self.merges = nn.ModuleList([AdaptivePatchMerging(width) for width in widths[:3]])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for width in widths])
        self.head_width = config.head_width

    def forward(
        self,
        tokens: Tensor,
        valid: Tensor | None,
        prompts: Sequence[Tensor],
        schedule: Schedule,
        last_stage: int = 4,
    ) -> tuple[list[tuple[Tensor, Tensor | None]], dict[str, RouterStatistics]]:
        """Run the stages.

        Args:
            tokens: `(B, h, w, C)`.
            valid: `(B, h, w)` bool with a valid token in each image, or `None` for all.
            prompts: `(P, 4C)` for stage 3 and `(P, 8C)` for stage 4.
            schedule: what the merging before stages 2, 3 and 4 does.
            last_stage: stop after this one, 1...4.

        Returns:
            For each stage its map `(B, h', w', D)`, normed, and its mask or `None`; and the
            routing statistics by `stage.block`.
        """
        levels: list[tuple[Tensor, Tensor | None]] = []
        routing: dict[str, RouterStatistics] = {}
        x = tokens
        for i in range(last_stage):
            if i:
                x, valid = self.merges[i - 1](x, valid, schedule[i - 1])
            if i < 2:
                for block in self._blocks(i):
                    x = block(x, valid)
            else:
                x, statistics = self._plain(i, x, valid, prompts[i - 2])
                routing.update(statistics)
            levels.append((self.norms[i](x), valid))
        return levels, routing

    def _blocks(self, stage: int) -> Iterator[nn.Module]:
        """The blocks of a stage."""
        blocks = self.stages[stage]
        assert isinstance(blocks, nn.ModuleList)
        return iter(blocks)

    def _plain(
        self, stage: int, x: Tensor, valid: Tensor | None, prompts: Tensor
    ) -> tuple[Tensor, dict[str, RouterStatistics]]:
        """A stage of plain blocks, with prompts in front that are dropped at its end."""
        b, h, w, _ = x.shape
        count = prompts.shape[0]
        rotary = rotary_table((h, w), self.head_width, x.device)
        mask = None if valid is None else valid.flatten(1)  # (B, N)
        x = torch.cat([prompts.to(x.dtype).expand(b, -1, -1), x.flatten(1, 2)], 1)
        routing = {}
        for i, block in enumerate(self._blocks(stage)):
            x, statistics = block(x, mask, rotary, count)
            if statistics is not None:
                routing[f"stage{stage + 1}.block{i + 1}"] = statistics
        return x[:, count:].unflatten(1, (h, w)), routing
