"""SkySense V2: tokenizers, one backbone for every modality, fusion, geo-context.

Legend: B samples, T acquisitions, N tokens at a place, C bands, H W pixels, h w grid, D width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from skysense.layers.moe import MixtureOfExperts, RouterStatistics
from skysense.layers.tokenizer import PatchTokenizer
from skysense.models.assembly import check_bands, check_valid, meet, pool, select_seen, spread
from skysense.models.embedding import ImageLike, embed_images
from skysense.models.encoder import Schedule, Schedules, warn_if_untrained
from skysense.models.features import Features, Level
from skysense.models.fusion import FusionTransformer
from skysense.models.geo_context import GeoContext
from skysense.models.pooling import Pooling, part_widths
from skysense.models.readout import Readout
from skysense.models.saving import save_model
from skysense.models.skysense_v2.backbone import Backbone
from skysense.models.skysense_v2.config import SkySenseV2Config
from skysense.sample import Batch, ModalityBatch
from skysense.sensors import TOKENIZER_BANDS

TOKENIZER_BIAS = 0.1
"""Spread of the biases of fresh tokenizers: that of what their maps make of ordinary pixels."""


class SkySenseV2(nn.Module):
    """One Transformer for every modality, and what fuses its maps. Source: docs/sources.md 12."""

    family = "skysense_v2"

    def __init__(self, config: SkySenseV2Config, name: str = "v2_custom") -> None:
        """Build an untrained model; `skysense.load` gives named and saved ones."""
        super().__init__()
        self.config = config
        self.name = name
        self.trained = False
        self.tokenizers = nn.ModuleDict(
            {
                key: PatchTokenizer(len(bands), config.width, config.patch)
                for key, bands in TOKENIZER_BANDS.items()
            }
        )
        self.backbone = Backbone(config)
        self.prompts = nn.ParameterDict(
            {
                f"{key}_stage{stage}": nn.Parameter(
                    torch.zeros(config.prompts, config.widths[stage - 1])
                )
                for key in TOKENIZER_BANDS
                for stage in (3, 4)
            }
        )
        self.fusion = FusionTransformer(
            config.widths[3], config.fusion_width, config.fusion_depth, config.fusion_heads
        )
        self.geo_context: GeoContext | None = None
        if config.geo_regions:
            self.geo_context = GeoContext(
                config.geo_regions, config.geo_prototypes, config.fusion_width
            )
        self.fused_mean: Tensor | None
        self.fused_scale: Tensor | None
        width = config.fusion_width
        self.register_buffer("fused_mean", torch.zeros(width) if config.centered else None)
        self.register_buffer("fused_scale", torch.ones(width) if config.centered else None)
        self.readout: Readout | None = None
        if config.readout:
            widths = part_widths(config.readout.pooling, config.widths, config.fused_width)
            self.readout = Readout(config.readout, dict.fromkeys(TOKENIZER_BANDS, widths))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fresh weights.

        Truncated normal 0.02 for maps and tokens, zero biases, unit norms. Two things are [ours],
        for short training: the tokenizers' biases are drawn too, for the norm behind them would
        otherwise take the brightness of a patch away; and the post-norms of stages 1 and 2 start
        at one, not at zero as in Swin V2 [code], so that their blocks take part from the start.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, MixtureOfExperts):
                module.reset_parameters()
        for tokenizer in self.tokenizers.values():
            assert isinstance(tokenizer, PatchTokenizer)
            assert tokenizer.projection.bias is not None
            nn.init.trunc_normal_(tokenizer.projection.bias, std=TOKENIZER_BIAS)
        for prompt in self.prompts.values():
            nn.init.trunc_normal_(prompt, std=0.02)
        nn.init.trunc_normal_(self.fusion.extra_token, std=0.02)

    def forward(
        self,
        batch: Batch,
        schedule: Schedules = None,
        last_stage: int | None = None,
    ) -> Features:
        """Turn a batch into features.

        Args:
            batch: any subset of modalities, any sizes and dates, physical values.
            schedule: merging schedules that replace the configuration's, by modality.
            last_stage: stop after this stage (1...4) and do not fuse; `None` for everything.

        Returns:
            Features; with `last_stage` only their pyramid, up to that level.

        Raises:
            ValueError: the batch holds nothing valid, or the arguments are out of range.
        """
        warn_if_untrained(self)
        if last_stage is not None and not 1 <= last_stage <= 4:
            raise ValueError(f"stage must be 1, 2, 3 or 4, got {last_stage}")
        check_valid(batch)
        schedules = self._schedules(schedule)
        pyramid: dict[str, tuple[Level, ...]] = {}
        routing: dict[str, RouterStatistics] = {}
        for key, part in batch.modalities.items():
            levels, statistics = self._encode(key, part, schedules[key], last_stage or 4)
            pyramid[key] = levels
            routing.update({f"{key}.{name}": value for name, value in statistics.items()})
        if last_stage is not None:
            return Features(pyramid, routing=routing)
        fused, valid = self._fuse(batch, pyramid, schedules)
        pooled = pool(fused, valid)
        return Features(pyramid, fused.permute(0, 3, 1, 2), valid, pooled, routing)

    def _schedules(self, override: Schedules) -> dict[str, Schedule]:
        """The configuration's schedules, some replaced.

        Raises:
            ValueError: an unknown modality, or not three of "merge" and "keep".
        """
        schedules: dict[str, Schedule] = dict(self.config.schedule)
        for key, value in (override or {}).items():
            if key not in schedules:
                raise ValueError(f"schedule for unknown modality `{key}`")
            if len(value) != 3 or not set(value) <= {"merge", "keep"}:
                raise ValueError(f"a schedule is three of `merge` and `keep`, got {value}")
            schedules[key] = value
        return schedules

    def _encode(
        self, key: str, part: ModalityBatch, schedule: Schedule, last_stage: int
    ) -> tuple[tuple[Level, ...], dict[str, RouterStatistics]]:
        """Tokenizer and backbone over all acquisitions that hold anything at all."""
        check_bands(self.name, key, len(TOKENIZER_BANDS[key]), part)  # type: ignore[index]
        pixels, valid, seen = select_seen(part)
        tokens, valid = self.tokenizers[key](pixels, valid)
        prompts = [self.prompts[f"{key}_stage{stage}"] for stage in (3, 4)]
        maps, routing = self.backbone(tokens, valid, prompts, schedule, last_stage)
        shape = (part.pixels.shape[0], part.pixels.shape[1])
        levels = tuple(spread(x, mask, seen, shape) for x, mask in maps)
        return levels, routing if bool(seen.any()) else {}

    def _fuse(
        self,
        batch: Batch,
        pyramid: Mapping[str, tuple[Level, ...]],
        schedules: Mapping[str, Schedule],
    ) -> tuple[Tensor, Tensor]:
        """Align the last levels, fuse them, add the geo-context: `(B, h, w, D)`, `(B, h, w)`."""
        maps = {
            key: (levels[-1].values.permute(0, 1, 3, 4, 2), levels[-1].valid)
            for key, levels in pyramid.items()
        }
        cells = {
            key: part.sizes / self.stride(key, 4, schedules)
            for key, part in batch.modalities.items()
        }
        tokens, valid = meet(maps, cells)  # (B, N, h, w, 8C), (B, N, h, w)
        days = torch.cat([part.days for part in batch.modalities.values()], 1)
        fused = self.fusion(tokens, days, valid)
        seen = valid.any(1)
        if self.fused_mean is not None and self.fused_scale is not None:
            fused = (fused - self.fused_mean) * self.fused_scale * seen.unsqueeze(-1)
        if self.geo_context is not None:
            fused = self.geo_context(fused, batch.location)
        return fused, seen

    @property
    def fused_width(self) -> int:
        """Width of the fused features."""
        return self.config.fused_width

    def level_width(self, modality: str, level: int) -> int:
        """Width of a level (1...4) of a pyramid: C, 2C, 4C, 8C for every modality."""
        return self.config.widths[level - 1]

    def stride(self, modality: str, level: int, schedule: Schedules = None) -> int:
        """Pixels from one cell to the next on a level (1...4) of a modality's pyramid."""
        modes = self._schedules(schedule)[modality][: level - 1]
        merged: int = 2 ** modes.count("merge")
        return self.config.patch * merged

    def fused_stride(self, modality: str, schedule: Schedules = None) -> int:
        """Pixels from one cell to the next of a modality's map as it is fused: the last level's."""
        return self.stride(modality, 4, schedule)

    def period(self, modality: str, schedule: Schedules = None) -> int:
        """Pixels after which attention windows and merging repeat: tiles start on multiples.

        All strides are powers of two times the patch, so the largest is a multiple of the rest.
        """
        windows = self.config.window * self.stride(modality, 2, schedule)
        return int(np.lcm(windows, self.stride(modality, 4, schedule)))

    whole_tiles = False
    """Positions are relative: a tile may have any shape."""

    def default_tile(self, modality: str) -> int:
        """Side of a tile in pixels: enough context, and few enough tokens where none merge."""
        return 512 if modality == "hr" else 128

    def embed(
        self,
        images: ImageLike | Sequence[ImageLike],
        sensor: str,
        bands: Sequence[str] | None = None,
        batch_size: int = 16,
        pooling: Pooling | None = None,
        least_size: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """One vector an image; see `skysense.models.embedding.embed_images`.

        Args:
            images: `(N, C, H, W)`, or a list of `(C, H, W)` of any sizes, stored values as the
                sensor delivers them (NaN is missing).
            sensor: name of the sensor card.
            bands: names of the C bands; default: the card's bands in its order.
            batch_size: images computed at a time.
            pooling: one of `skysense.models.pooling.POOLINGS` in place of the model's own choice:
                its read-out if it has one, else the mean of the fused map.
            least_size: pixels that images are enlarged to first where their longer side is
                shorter, 0 for none; default: what the read-out was fitted with, else 0.

        Returns:
            `(N, D)` float32.
        """
        return embed_images(self, images, sensor, bands, batch_size, pooling, least_size)

    def save(self, folder: str | Path) -> Path:
        """Write `config.json` and `model.safetensors` into a folder, all or nothing."""
        return save_model(self, folder)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part, prototypes of the geo-context included, and their total."""
        parts = {
            "tokenizers": self.tokenizers,
            "backbone": self.backbone,
            "prompts": self.prompts,
            "fusion": self.fusion,
        }
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        bank = self.geo_context
        counts["geo_context"] = 0 if bank is None else bank.prototypes.numel()
        return {**counts, "total": sum(counts.values())}
