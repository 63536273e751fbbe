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
from skysense.layers.windows import SwinBlock
from skysense.models.alignment import align
from skysense.models.embedding import ImageLike, embed_images, warn_if_untrained
from skysense.models.features import Features, Level
from skysense.models.fusion import FusionTransformer
from skysense.models.geo_context import GeoContext
from skysense.models.normalize import normalize
from skysense.models.saving import save_model
from skysense.models.skysense_v2.backbone import Backbone
from skysense.models.skysense_v2.config import Schedule, SkySenseV2Config
from skysense.sample import Batch, ModalityBatch
from skysense.sensors import TOKENIZER_BANDS


class SkySenseV2(nn.Module):
    """One Transformer for every modality, and what fuses its maps. Source: SPEC section 1."""

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
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fresh weights.

        Truncated normal 0.02 for maps and tokens, zero biases; the post-norms of stages 1 and 2
        start at zero, so that their blocks start as the identity. Source: Swin V2 [code].
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, SwinBlock):
                nn.init.zeros_(module.norm1.weight)
                nn.init.zeros_(module.norm2.weight)
            elif isinstance(module, MixtureOfExperts):
                nn.init.trunc_normal_(module.w1, std=0.02)
                nn.init.trunc_normal_(module.w2, std=0.02)
        for prompt in self.prompts.values():
            nn.init.trunc_normal_(prompt, std=0.02)
        nn.init.trunc_normal_(self.fusion.extra_token, std=0.02)
        if self.geo_context is not None:
            nn.init.trunc_normal_(self.geo_context.prototypes, std=0.02)

    def forward(
        self,
        batch: Batch,
        schedule: Mapping[str, Schedule] | None = None,
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
        if not any(bool(part.mask.any()) for part in batch.modalities.values()):
            raise ValueError("the batch holds no valid pixel")
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
        weight = valid.unsqueeze(-1).to(fused.dtype)
        pooled = (fused * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
        return Features(pyramid, fused.permute(0, 3, 1, 2), valid, pooled, routing)

    def _schedules(self, override: Mapping[str, Schedule] | None) -> dict[str, Schedule]:
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
        b, t = part.pixels.shape[:2]
        pixels = normalize(part).flatten(0, 1)  # (B T, C, H, W)
        mask = part.mask.flatten(0, 1)  # (B T, H, W)
        seen = mask.flatten(1).any(1)  # (B T,)
        if not bool(seen.all()):
            pixels, mask = pixels[seen], mask[seen]
        absent = not len(pixels)
        if absent:  # nobody has this modality: run one empty image for the shapes
            pixels = torch.zeros_like(part.pixels[0, :1])
            mask = torch.ones_like(part.mask[0, :1])
        valid = None if bool(mask.all()) else mask
        tokens, valid = self.tokenizers[key](pixels, valid)
        prompts = [self.prompts[f"{key}_stage{stage}"] for stage in (3, 4)]
        maps, routing = self.backbone(tokens, valid, prompts, schedule, last_stage)
        levels = tuple(self._spread(x, m, seen, (b, t)) for x, m in maps)
        return levels, {} if absent else routing

    @staticmethod
    def _spread(x: Tensor, valid: Tensor | None, seen: Tensor, shape: tuple[int, int]) -> Level:
        """Put the maps `(seen, h, w, D)` back to their samples and dates; the rest is invalid."""
        valid = x.new_ones(x.shape[:3], dtype=torch.bool) if valid is None else valid
        x = x * valid.unsqueeze(-1)
        if not bool(seen.all()):
            full = x.new_zeros(len(seen), *x.shape[1:])
            mask = valid.new_zeros(len(seen), *valid.shape[1:])
            places = seen.nonzero().squeeze(1)
            x = full.index_copy(0, places, x[: len(places)])
            valid = mask.index_copy(0, places, valid[: len(places)])
        return Level(x.unflatten(0, shape).permute(0, 1, 4, 2, 3), valid.unflatten(0, shape))

    def _fuse(
        self,
        batch: Batch,
        pyramid: Mapping[str, tuple[Level, ...]],
        schedules: Mapping[str, Schedule],
    ) -> tuple[Tensor, Tensor]:
        """Align the last levels, fuse them, add the geo-context: `(B, h, w, D)`, `(B, h, w)`."""
        cells = {
            key: part.sizes / self.stride(key, 4, schedules)
            for key, part in batch.modalities.items()
        }
        common, shape = self._common_grid(cells, pyramid)
        maps, valids = [], []
        for key, levels in pyramid.items():
            values = levels[-1].values.permute(0, 1, 3, 4, 2)  # (B, T, h, w, D)
            values, valid = align(values, levels[-1].valid, cells[key], common, shape)
            maps.append(values)
            valids.append(valid)
        days = torch.cat([part.days for part in batch.modalities.values()], 1)
        valid = torch.cat(valids, 1)  # (B, N, h, w)
        fused = self.fusion(torch.cat(maps, 1), days, valid)
        if self.geo_context is not None:
            fused = self.geo_context(fused, batch.location)
        return fused, valid.any(1)

    @staticmethod
    def _common_grid(
        cells: Mapping[str, Tensor], pyramid: Mapping[str, tuple[Level, ...]]
    ) -> tuple[Tensor, tuple[int, int]]:
        """The finest of the last grids, sample by sample: `(B, 2)` cells, and its padded shape."""
        stacked = torch.stack(list(cells.values()))  # (modalities, B, 2)
        finest = stacked.prod(-1).argmax(0)  # (B,)
        common = stacked.gather(0, finest[None, :, None].expand(1, -1, 2)).squeeze(0)
        height, width = common.ceil().max(0).values.long().tolist()
        if len(pyramid) == 1:  # keep whatever padding the batch has
            height, width = next(iter(pyramid.values()))[-1].values.shape[-2:]
        return common, (height, width)

    def stride(
        self, modality: str, level: int, schedule: Mapping[str, Schedule] | None = None
    ) -> int:
        """Pixels from one cell to the next on a level (1...4) of a modality's pyramid."""
        modes = self._schedules(schedule)[modality][: level - 1]
        merged: int = 2 ** modes.count("merge")
        return self.config.patch * merged

    def period(self, modality: str, schedule: Mapping[str, Schedule] | None = None) -> int:
        """Pixels after which attention windows and merging repeat: tiles start on multiples.

        All strides are powers of two times the patch, so the largest is a multiple of the rest.
        """
        windows = self.config.window * self.stride(modality, 2, schedule)
        return int(np.lcm(windows, self.stride(modality, 4, schedule)))

    def embed(
        self,
        images: ImageLike | Sequence[ImageLike],
        sensor: str,
        bands: Sequence[str] | None = None,
        batch_size: int = 16,
    ) -> npt.NDArray[np.float32]:
        """One vector an image; see `skysense.models.embedding.embed_images`.

        Args:
            images: `(N, C, H, W)`, or a list of `(C, H, W)` of any sizes, stored values as the
                sensor delivers them (NaN is missing).
            sensor: name of the sensor card.
            bands: names of the C bands; default: the card's bands in its order.
            batch_size: images computed at a time.

        Returns:
            `(N, D)` float32.
        """
        return embed_images(self, images, sensor, bands, batch_size)

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
