"""The read-out of a trained model: one image's pooled parts, standardized, decorrelated, shortened.

Neighbors are sought and lines are fitted in the vectors themselves. There a direction that varies
most counts most, however little it tells, and in a self-supervised model a few directions vary much
more than the others. The read-out takes part of that away: it scales each main direction by a power
of its variance. It is fitted without labels, on the images that the model was trained on. [ours]

Legend: N images, B samples, P parts, D width of a part, K numbers kept of a part.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from skysense.config import Config
from skysense.models.features import Features
from skysense.models.pooling import Pooling, pool_parts
from skysense.sensors import MODALITIES, Modality

SHRINKAGE = 1e-3
"""Share of the mean variance that is added to each direction's: what hardly varies is noise, and is
not to be scaled up without end."""


class ReadoutConfig(Config):
    """What a read-out is made of."""

    pooling: Pooling = "spread"
    """What is pooled."""
    kept: int = Field(default=32, ge=1)
    """K: main directions that are kept of each part, at most."""
    whitening: float = Field(default=0.5, ge=0, le=1)
    """How much of a direction's spread is taken away: 0 nothing, 1 all of it."""
    modalities: tuple[Modality, ...] = MODALITIES
    """Which modalities have one; the vectors of others are means of the fused map."""
    least_sizes: dict[Modality, PositiveInt] = Field(default_factory=dict)
    """Pixels that a modality's images are enlarged to before they are computed, where their longer
    side is shorter; images of modalities that are not named stay as they are."""


class Readout(nn.Module):
    """An affine map for each modality, from the pooled parts to one vector."""

    def __init__(self, config: ReadoutConfig, parts: Mapping[str, Sequence[int]]) -> None:
        """Build an empty one, which `fit` or a checkpoint fills.

        Args:
            config: what is pooled and kept.
            parts: modality to the widths of its pooled parts.
        """
        super().__init__()
        self.config = config
        for key in config.modalities:
            widths = parts[key]
            kept = sum(min(width, config.kept) for width in widths)
            self.register_buffer(f"{key}_mean", torch.zeros(sum(widths)))
            self.register_buffer(f"{key}_map", torch.zeros(kept, sum(widths)))

    def forward(self, features: Features, modality: str) -> Tensor:
        """`(B, width)` of a batch's features."""
        pooled = torch.cat(pool_parts(features, self.config.pooling, modality), 1)
        mean, projection = self.get_buffer(f"{modality}_mean"), self.get_buffer(f"{modality}_map")
        vectors: Tensor = (pooled - mean) @ projection.T
        return vectors

    @torch.no_grad()
    def fit(self, modality: str, parts: Sequence[Tensor]) -> None:
        """Set the map of a modality.

        Each number is standardized; then each part is turned to its main directions, of which the
        first K are kept and scaled, and brought to a mean square length of 1. In the end all are
        turned once more, by a fixed rotation that gives each number about the same variance:
        whether a user standardizes the vectors again then makes no difference.

        Args:
            modality: which.
            parts: `(N, D)` each, of many images.

        Raises:
            ValueError: fewer than two images, or other widths than the read-out was built for.
        """
        joined = torch.cat(list(parts), 1).double()
        mean = self.get_buffer(f"{modality}_mean")
        if len(joined) < 2 or joined.shape[1] != len(mean):
            raise ValueError(
                f"the read-out of `{modality}` is fitted on at least two vectors of {len(mean)} "
                f"numbers, got {tuple(joined.shape)}"
            )
        config = self.config
        blocks = [_scaled(part.double(), config.kept, config.whitening) for part in parts]
        projection = torch.block_diag(*blocks)
        mean.copy_(joined.mean(0))
        self.get_buffer(f"{modality}_map").copy_(_rotation(len(projection)) @ projection)


def _scaled(part: Tensor, kept: int, whitening: float) -> Tensor:
    """`(min(K, D), D)` from a part `(N, D)`: to unit variance, main directions, scaled."""
    centered = part - part.mean(0)
    spread = centered.square().mean(0).sqrt()
    scale = torch.where(spread > 1e-6 * spread.max().clamp(min=1e-12), 1 / spread, 0)
    covariance = (centered * scale).T @ (centered * scale) / len(part)
    variance, directions = torch.linalg.eigh(covariance)  # ascending
    count = min(kept, part.shape[1])
    variance = variance.flip(0)[:count].clamp(min=0)
    directions = directions.flip(1)[:, :count]
    floor = SHRINKAGE * covariance.diagonal().mean().clamp(min=1e-12)
    weight = (variance + floor) ** (-whitening / 2)
    length = (variance * weight.square()).sum().sqrt().clamp(min=1e-12)
    projection: Tensor = (directions * scale[:, None] * weight / length).T
    return projection


def _rotation(size: int) -> Tensor:
    """The orthonormal discrete cosine transform `(size, size)`."""
    place = torch.arange(size, dtype=torch.float64)
    rotation = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    rotation[0] = 1 / math.sqrt(size)
    return rotation
