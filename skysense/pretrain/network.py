"""What student and teacher both are: an encoder, projection heads, queries.

Legend: B rows (samples of one or several views), D width, h w cells, N rows of features, K codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from skysense.hub.catalog import Model
from skysense.layers.moe import RouterStatistics
from skysense.models.assembly import finest_cells
from skysense.models.encoder import Schedules
from skysense.models.features import Features
from skysense.models.pooling import part_widths, pool_parts
from skysense.models.skysense_v1 import SkySenseV1
from skysense.pretrain.losses.contrast import CodeHead
from skysense.pretrain.losses.instance import InstanceHead
from skysense.pretrain.losses.masked import PixelHead
from skysense.pretrain.losses.qsacl import SemanticQueries
from skysense.pretrain.recipe import HeadConfig, LossConfig
from skysense.sample import Batch, concatenate
from skysense.sensors import MODALITIES, TOKENIZER_BANDS

FUSED = "fused"
"""Name of the stream of fused features; the others have the names of their modalities."""


@dataclass(frozen=True)
class FeatureMap:
    """The features of one stream."""

    values: Tensor
    """`(B, D, h, w)`; zero where not valid."""
    valid: Tensor
    """`(B, h, w)` bool."""
    cells: Tensor
    """`(B, 2)` float, cells that each row's view spans: `(h, w)` or less, where rows differ."""

    def rows(self, start: int, stop: int) -> "FeatureMap":
        """Some rows."""
        return FeatureMap(self.values[start:stop], self.valid[start:stop], self.cells[start:stop])

    def chosen(self, index: Tensor) -> "FeatureMap":
        """The rows of an index `(N,)`."""
        return FeatureMap(self.values[index], self.valid[index], self.cells[index])

    @property
    def shape(self) -> tuple[int, int]:
        """`(h, w)`."""
        return self.values.shape[2], self.values.shape[3]

    def tokens(self) -> tuple[Tensor, Tensor]:
        """`(B, h w, D)` and `(B, h w)` bool."""
        return self.values.flatten(2).transpose(1, 2), self.valid.flatten(1)


@dataclass(frozen=True)
class Encoded:
    """What the network says of a batch."""

    maps: Mapping[str, FeatureMap]
    """Stream to features: `hr`, `s2`, `s1` where the batch has them, and `fused`."""
    routing: Mapping[str, RouterStatistics]
    """Routing of the experts, if there are any."""
    parts: Mapping[str, Sequence[Tensor]]
    """Modality to means and spreads `(B, D)` of each of its levels and of the fused map, where
    the instance level or the variance term looks at them."""

    def detached(self) -> "Encoded":
        """The same maps without gradient, in the place of a teacher's."""
        maps = {
            key: FeatureMap(own.values.detach(), own.valid, own.cells)
            for key, own in self.maps.items()
        }
        return Encoded(maps, self.routing, {})


class Network(nn.Module):
    """Encoder, heads and queries. Source: docs/sources.md 14 [paper]; sizes of heads [ours].

    All modalities share one head, so that their features are compared with the same codes, which
    is what the alignment between them needs; the fused features have another. Where modalities
    have different widths, as in V1, one linear map each brings them to one [ours].
    """

    def __init__(
        self,
        encoder: Model,
        heads: HeadConfig,
        losses: LossConfig,
        schedule: Schedules = None,
    ) -> None:
        """Put heads on an encoder; those that no loss asks for are not made.

        Raises:
            ValueError: blocks of hidden pixels that are not whole patches.
        """
        super().__init__()
        self.encoder = encoder
        self.schedule = schedule or None
        width = encoder.level_width("hr", 4)
        self.adapters = nn.ModuleDict(
            {
                key: nn.Linear(own, width) if own != width else nn.Identity()
                for key, own in ((key, encoder.level_width(key, 4)) for key in MODALITIES)
            }
        )
        widths = {"modality": width, FUSED: encoder.fused_width}
        image = list(losses.streams) if losses.image else []
        dense: set[str] = set(losses.streams) if losses.pixel or losses.object else set()
        dense |= {"modality"} if losses.alignment else set()
        dense |= {FUSED} if losses.qsacl else set()
        sizes = (heads.hidden, heads.bottleneck, heads.layers, heads.standard)
        self.image_heads = nn.ModuleDict(
            {kind: CodeHead(widths[kind], heads.codes, *sizes) for kind in image}
        )
        self.dense_heads = nn.ModuleDict(
            {kind: CodeHead(widths[kind], heads.dense_codes, *sizes) for kind in sorted(dense)}
        )
        self.queries: SemanticQueries | None = None
        if losses.qsacl:
            count = max(1, encoder.fused_width // 32)
            while encoder.fused_width % count:
                count -= 1
            self.queries = SemanticQueries(encoder.fused_width, losses.queries, count)
        self.part_widths: dict[str, list[int]] = {}
        for key in MODALITIES if losses.instance or losses.variance else ():
            levels = [encoder.level_width(key, level) for level in (1, 2, 3, 4)]
            self.part_widths[key] = part_widths("all", levels, encoder.fused_width)
        self.instance_heads = nn.ModuleDict()
        if losses.instance:
            for modality, own in self.part_widths.items():
                self.instance_heads[modality] = nn.ModuleList(InstanceHead(part) for part in own)
        self.pixel_heads = nn.ModuleDict()
        if losses.masked:
            self._make_pixel_heads(losses.masked_block)

    def _make_pixel_heads(self, block: int) -> None:
        """A head for the hidden pixels of each modality, from its own last level."""
        for key in MODALITIES:
            patch = self.encoder.stride(key, 1, self.schedule)
            if block % patch:  # otherwise a token would tell of the pixels that are hidden in it
                raise ValueError(
                    f"`losses.masked_block` is {block} pixels, but `{self.encoder.name}` has "
                    f"patches of {patch}: choose a multiple of {patch}"
                )
            stride = self.encoder.stride(key, 4, self.schedule)
            width = self.encoder.level_width(key, 4)
            self.pixel_heads[key] = PixelHead(width, stride, _bands(self.encoder, key))

    def forward(self, batch: Batch) -> Encoded:
        """The last level of each modality, averaged over its dates, and the fused map.

        Args:
            batch: any subset of modalities.

        Returns:
            Maps of all streams. (The paper averages the loss over dates; here the features are,
            for views see other dates anyway [ours].)
        """
        features = self.encoder(batch, schedule=self.schedule)
        maps, cells = {}, {}
        for key, part in batch.modalities.items():
            values, valid = features.pyramid[key][-1].over_dates()
            values = self.adapters[key](values.movedim(1, -1)).movedim(-1, 1)
            spans = part.sizes / self.encoder.stride(key, 4, self.schedule)
            maps[key] = FeatureMap(values, valid, spans)
            cells[key] = part.sizes / self.encoder.fused_stride(key, self.schedule)
        assert features.fused is not None
        assert features.fused_valid is not None
        maps[FUSED] = FeatureMap(features.fused, features.fused_valid, finest_cells(cells))
        parts = {}
        if self.part_widths:
            parts = {key: pool_parts(features, "all", key) for key in batch.modalities}
        return Encoded(maps, features.routing, parts)

    def look_unfused(self, batch: Batch) -> Features:
        """The pyramid of each modality, its dates apart, and no fusion."""
        features: Features = self.encoder(batch, schedule=self.schedule, last_stage=4)
        return features


def _bands(encoder: Model, key: str) -> int:
    """Channels that the encoder takes of a modality: in V1 those of its backbone."""
    if isinstance(encoder, SkySenseV1):
        return encoder.backbone(key).config.bands
    return len(TOKENIZER_BANDS[key])  # type: ignore[index]


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The repeated blocks, the units of sharding, checkpointing and compilation."""
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for group in lists for block in group]
    return [block for block in blocks if not isinstance(block, nn.ModuleList | nn.LayerNorm)]


def stack_views(batches: Sequence[Batch]) -> Batch:
    """Views of the same samples as one batch, view after view."""
    return batches[0] if len(batches) == 1 else concatenate(batches)
