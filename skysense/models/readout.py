"""The read-out of a trained model: one image's pooled parts, standardized, decorrelated, shortened.

Neighbours are sought and lines are fitted in the vectors themselves. There a direction that varies
most counts most, however little it tells, and in a self-supervised model a few directions vary much
more than the others. The read-out takes that away. It is fitted without labels, on the images that
the model was trained on. [ours]

Legend: N images, B samples, P parts, D width of a part, K numbers kept of a part.
"""

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
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
    modalities: tuple[Modality, ...] = MODALITIES
    """Which modalities have one; the vectors of others are means of the fused map."""


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

        Each number is standardized; then each part is turned to its main directions, which get
        variance 1, and of which the first K are kept. All parts so have the same weight.

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
        blocks = [_whitening(part.double(), self.config.kept) for part in parts]
        mean.copy_(joined.mean(0))
        self.get_buffer(f"{modality}_map").copy_(torch.block_diag(*blocks))


def _whitening(part: Tensor, kept: int) -> Tensor:
    """`(min(K, D), D)` from a part `(N, D)`: to unit variance, main directions, unit variance."""
    centered = part - part.mean(0)
    spread = centered.square().mean(0).sqrt()
    scale = torch.where(spread > 1e-6 * spread.max().clamp(min=1e-12), 1 / spread, 0)
    covariance = (centered * scale).T @ (centered * scale) / len(part)
    variance, directions = torch.linalg.eigh(covariance)  # ascending
    count = min(kept, part.shape[1])
    variance, directions = variance.flip(0)[:count], directions.flip(1)[:, :count]
    floor = SHRINKAGE * covariance.diagonal().mean().clamp(min=1e-12)
    whitened: Tensor = (directions * scale[:, None] / (variance.clamp(min=0) + floor).sqrt()).T
    return whitened
