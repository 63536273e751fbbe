"""SkySense (V1) whole: three backbones, up-sampling heads, calendar, fusion, geo-context.

Legend: B samples, T acquisitions, N tokens at a place, H W pixels, h w grid, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.derived import Derived
from skysense.layers.windows import WindowAttention
from skysense.models.assembly import check_bands, check_valid, meet, pool, select_seen, spread
from skysense.models.embedding import ImageLike, embed_images
from skysense.models.encoder import Schedules, warn_if_untrained
from skysense.models.features import Features, Level
from skysense.models.fusion import FusionTransformer
from skysense.models.geo_context import GeoContext
from skysense.models.pooling import Pooling
from skysense.models.saving import save_model
from skysense.models.skysense_v1.config import SkySenseV1Config
from skysense.models.skysense_v1.swin import SwinBackbone
from skysense.models.skysense_v1.vit import UpHead, VisionTransformer
from skysense.sample import Batch, ModalityBatch


def _padded(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """`(..., h, w)` with zeros at the bottom and right, to `grid`."""
    return F.pad(x, (0, grid[1] - x.shape[-1], 0, grid[0] - x.shape[-2]))


def _joined(first: Level, second: Level) -> Level:
    """Two levels of the same batch, each valid for other samples (and zero elsewhere)."""
    return Level(first.values + second.values, first.valid | second.valid)


class SkySenseV1(nn.Module):
    """A backbone a modality, fused place by place. Source: docs/sources.md 1 to 5 [code].

    Where the released code fails or guesses, this does what was meant: any input size, 31 December
    of leap years, position tables resized by shape, missing modalities and dates masked instead of
    computed on zeros, `.eval()` that returns the model.
    """

    family = "skysense_v1"

    def __init__(self, config: SkySenseV1Config, name: str = "v1_custom") -> None:
        """Build an untrained model; `skysense.load` gives named and converted ones."""
        super().__init__()
        self.config = config
        self.name = name
        self.trained = False
        width = config.hr.width * 2 ** (len(config.hr.depths) - 1)
        self.hr = SwinBackbone(config.hr)
        self.s2 = VisionTransformer(config.s2)
        self.s1 = VisionTransformer(config.s1)
        self.up_s2 = UpHead(config.s2.width, width)
        self.up_s1 = UpHead(config.s1.width, width)
        self.fusion = FusionTransformer(
            width, config.fusion_width, config.fusion_depth, config.fusion_heads, drop_path=0.3
        )
        self.geo_context: GeoContext | None = None
        if config.geo_regions:
            self.geo_context = GeoContext(
                config.geo_regions, config.geo_prototypes, config.fusion_width
            )
        self._folded: dict[str, Derived[tuple[Tensor, Tensor]]]
        self._folded = {"s2": Derived(), "s1": Derived()}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fresh weights: truncated normal 0.02 for maps, tokens and positions; zero biases.

        An up-sampling head starts with equal cells in each block (ICNR), without a pattern [ours].
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, VisionTransformer):
                nn.init.trunc_normal_(module.class_token, std=0.02)
                nn.init.trunc_normal_(module.position, std=0.02)
            elif isinstance(module, WindowAttention):
                nn.init.zeros_(module.q_bias)
                nn.init.zeros_(module.v_bias)
        for head in (self.up_s2, self.up_s1):
            places = head.scale**2
            head.conv.weight.copy_(head.conv.weight[::places].repeat_interleave(places, 0))
        nn.init.trunc_normal_(self.fusion.extra_token, std=0.02)

    def forward(
        self, batch: Batch, schedule: Schedules = None, last_stage: int | None = None
    ) -> Features:
        """Turn a batch into features.

        Args:
            batch: any subset of modalities, any sizes and dates, physical values.
            schedule: must be `None`: patch merging cannot be changed in this family.
            last_stage: give the pyramid up to this level (1...4) and do not fuse.

        Returns:
            Features. The pyramid of `hr` has strides 4, 8, 16, 32; that of `s2` and `s1` the
            four outputs of its transformer, all at stride 4. The fused map has the finest of
            `hr` / 32 and the pixels of `s2` and `s1`, which their up-sampling heads give.

        Raises:
            ValueError: the batch holds nothing valid, or the arguments are out of range.
        """
        warn_if_untrained(self)
        self._refuse(schedule)
        if last_stage is not None and not 1 <= last_stage <= 4:
            raise ValueError(f"stage must be 1, 2, 3 or 4, got {last_stage}")
        check_valid(batch)
        pyramid = {
            key: self._encode(key, part, last_stage or 4) for key, part in batch.modalities.items()
        }
        if last_stage is not None:
            return Features(pyramid)
        fused, valid = self._fuse(batch, pyramid)
        return Features(pyramid, fused.permute(0, 3, 1, 2), valid, pool(fused, valid))

    @staticmethod
    def _refuse(schedule: Schedules) -> None:
        """Say that merging is fixed.

        Raises:
            ValueError: a schedule is given.
        """
        if schedule:
            raise ValueError("SkySense V1 has no adaptive patch merging: leave `schedule` out")

    def backbone(self, modality: str) -> SwinBackbone | VisionTransformer:
        """The backbone of a modality: `hr`, `s2` or `s1`; usable alone."""
        module: SwinBackbone | VisionTransformer = getattr(self, modality)
        return module

    def _encode(self, key: str, part: ModalityBatch, count: int) -> tuple[Level, ...]:
        """The backbone's outputs; samples of other sizes are computed at their own.

        Positions are absolute and padding is attended to, so that padding would matter here.
        """
        whole = (part.pixels.shape[3], part.pixels.shape[4])
        sizes = {(h, w) for h, w in part.sizes.tolist() if h and w} or {whole}
        if sizes == {whole}:
            return self._encode_whole(key, part, count)
        levels: list[Level] = []
        for h, w in sorted(sizes, reverse=True):
            chosen = (part.sizes == part.sizes.new_tensor([h, w])).all(1)  # (B,)
            mask = (part.mask & chosen[:, None, None, None])[..., :h, :w]
            own = replace(part, pixels=part.pixels[..., :h, :w], mask=mask)
            found = self._encode_whole(key, own, count)
            grids = [tuple(-(-n // self.stride(key, i + 1)) for n in whole) for i in range(count)]
            padded = [
                Level(_padded(x.values, grid), _padded(x.valid, grid))
                for x, grid in zip(found, grids, strict=True)
            ]
            levels = (
                padded
                if not levels
                else [_joined(a, b) for a, b in zip(levels, padded, strict=True)]
            )
        return tuple(levels)

    def _encode_whole(self, key: str, part: ModalityBatch, count: int) -> tuple[Level, ...]:
        """The backbone's first `count` outputs over all acquisitions that hold anything at all.

        Raises:
            ValueError: the backbone has another number of bands than the batch.
        """
        check_bands(self.name, key, self.backbone(key).config.bands, part)
        pixels, valid, seen = select_seen(part)
        shape = (part.pixels.shape[0], part.pixels.shape[1])
        outputs = self.backbone(key)(pixels, valid, count)
        return tuple(spread(output[0], output[-1], seen, shape) for output in outputs)

    def _fuse(
        self, batch: Batch, pyramid: Mapping[str, tuple[Level, ...]]
    ) -> tuple[Tensor, Tensor]:
        """Project, date, align, fuse, add the geo-context: `(B, h, w, D)`, `(B, h, w)`."""
        maps, cells = {}, {}
        for key, part in batch.modalities.items():
            level = pyramid[key][-1]
            tokens, valid = self._tokens(key, level, part.mask)  # (B, T, h, w, D), (B, T, h, w)
            if key in self.config.calendar:
                tokens = tokens + self.fusion.dated(part.days)[:, :, None, None]
            maps[key] = (tokens, valid)
            cells[key] = part.sizes / self.fused_stride(key)
        tokens, valid = meet(maps, cells)
        fused = self.fusion.gather(tokens, valid)
        if self.geo_context is not None:
            fused = self.geo_context(fused, batch.location)
        return fused, valid.any(1)

    def _tokens(self, key: str, level: Level, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The last level as projected fusion tokens; `s2` and `s1` go through their heads.

        Those give a cell a pixel, so that a cell is valid where its own pixels `mask` are.
        """
        if key == "hr":
            return self.fusion.proj(level.values.permute(0, 1, 3, 4, 2)), level.valid
        x = level.values.flatten(0, 1)  # (B T, D, h, w)
        head = self.up_s2 if key == "s2" else self.up_s1
        if torch.is_grad_enabled():
            self._folded[key].clear()
            tokens = self.fusion.proj(head(x).permute(0, 2, 3, 1))
        else:
            weight, bias = self._fold(key, head)
            up = F.pixel_shuffle(F.conv2d(x, weight, bias), head.scale)
            tokens = up.permute(0, 2, 3, 1)  # (B T, 4h, 4w, D)
        tokens = tokens.unflatten(0, level.valid.shape[:2])
        stride = self.fused_stride(key)
        sides = [tokens.shape[2 + i] * stride - mask.shape[2 + i] for i in (0, 1)]
        measured = F.pad(mask, (0, sides[1], 0, sides[0])).to(tokens.dtype)
        return tokens, F.max_pool2d(measured, stride) > 0

    def _fold(self, key: str, head: UpHead) -> tuple[Tensor, Tensor]:
        """Up-sampling head and fusion projection as one convolution: both are linear.

        Kept until a weight changes. Source: [ours], after docs/sources.md 11.
        """
        parts = [*head.parameters(), *self.fusion.proj.parameters()]
        return self._folded[key].get(parts, lambda: self._folding(head))

    def train(self, mode: bool = True) -> "SkySenseV1":
        """Change the mode, and forget what is folded: not every optimizer leaves a trace."""
        for folded in self._folded.values():
            folded.clear()
        return super().train(mode)

    def _folding(self, head: UpHead) -> tuple[Tensor, Tensor]:
        """The folded weight `(D scale^2, in_dim, 1, 1)` and bias `(D scale^2,)`."""
        places = head.scale**2
        proj = self.fusion.proj
        assert head.conv.bias is not None
        weight = head.conv.weight.flatten(1).unflatten(0, (-1, places))  # (8C, places, in_dim)
        weight = torch.einsum("dc,cpi->dpi", proj.weight, weight).flatten(0, 1)
        bias = proj.weight @ head.conv.bias.unflatten(0, (-1, places)) + proj.bias[:, None]
        return weight[:, :, None, None], bias.flatten()

    @property
    def fused_width(self) -> int:
        """Width of the fused features."""
        return self.config.fused_width

    def level_width(self, modality: str, level: int) -> int:
        """Width of a level (1...4) of a modality's pyramid."""
        config = self.config
        if modality == "hr":
            doubled: int = 2 ** (level - 1)
            return config.hr.width * doubled
        return config.s2.width if modality == "s2" else config.s1.width

    def stride(self, modality: str, level: int, schedule: Schedules = None) -> int:
        """Pixels from one cell to the next on a level (1...4) of a modality's pyramid."""
        self._refuse(schedule)
        if modality == "hr":
            merged: int = 2 ** (level - 1)
            return self.config.hr.patch * merged
        return self.config.s2.patch if modality == "s2" else self.config.s1.patch

    def fused_stride(self, modality: str, schedule: Schedules = None) -> int:
        """Pixels from one cell to the next of a modality's map as it is fused."""
        stride = self.stride(modality, 4, schedule)
        return stride if modality == "hr" else stride // self.up_s2.scale

    def period(self, modality: str, schedule: Schedules = None) -> int:
        """Pixels after which attention windows and merging repeat."""
        stride = self.stride(modality, 4, schedule)
        return stride * max(self.config.hr.windows) if modality == "hr" else stride

    whole_tiles = True
    """Positions are absolute: a smaller tile would get other ones."""

    def default_tile(self, modality: str) -> int:
        """Side of a tile in pixels: for `s2` and `s1` what their position table covers."""
        if modality == "hr":
            return 512
        vit = self.config.s2 if modality == "s2" else self.config.s1
        return vit.patch * vit.position_grid[0]

    def embed(
        self,
        images: ImageLike | Sequence[ImageLike],
        sensor: str,
        bands: Sequence[str] | None = None,
        batch_size: int = 16,
        pooling: Pooling | None = None,
        least_size: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """One vector an image; see `skysense.models.embedding.embed_images`."""
        return embed_images(self, images, sensor, bands, batch_size, pooling, least_size)

    def save(self, folder: str | Path) -> Path:
        """Write `config.json` and `model.safetensors` into a folder, all or nothing."""
        return save_model(self, folder)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part, as of V2: tokens and blocks of the three backbones, and the rest."""
        backbones = (self.hr, self.s2, self.s1)
        tokenizers = sum(p.numel() for b in backbones for p in b.tokenizer.parameters())
        whole = sum(p.numel() for b in backbones for p in b.parameters())
        fusing = (self.fusion, self.up_s2, self.up_s1)
        bank = self.geo_context
        counts = {
            "tokenizers": tokenizers,
            "backbone": whole - tokenizers,
            "prompts": 0,
            "fusion": sum(p.numel() for part in fusing for p in part.parameters()),
            "geo_context": 0 if bank is None else bank.prototypes.numel(),
        }
        return {**counts, "total": sum(counts.values())}
