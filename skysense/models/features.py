"""What a model gives back.

Legend: B samples, T acquisitions, h w token grid, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from skysense.layers.moe import RouterStatistics


@dataclass(frozen=True)
class Level:
    """One level of a modality's pyramid."""

    values: Tensor
    """`(B, T, D, h, w)`; zero where not valid."""
    valid: Tensor
    """`(B, T, h, w)` bool."""

    def over_dates(self) -> tuple[Tensor, Tensor]:
        """Mean over the valid dates: `(B, D, h, w)` and `(B, h, w)` bool."""
        weight = self.valid.unsqueeze(2).to(self.values.dtype)
        mean = (self.values * weight).sum(1) / weight.sum(1).clamp(min=1)
        return mean, self.valid.any(1)


@dataclass(frozen=True)
class Features:
    """Everything a model of either family says about a batch."""

    pyramid: Mapping[str, tuple[Level, ...]]
    """Modality to its four levels. Level i has width `C * 2^i` and the grid that the merging
    schedule leaves: with three merges, strides 4, 8, 16, 32 pixels; with none, 4 throughout."""
    fused: Tensor | None = None
    """`(B, D, h, w)` all modalities and dates in one map, on the finest last level's grid; `None`
    when the model was asked to stop earlier."""
    fused_valid: Tensor | None = None
    """`(B, h, w)` bool: some modality saw this place on some date."""
    pooled: Tensor | None = None
    """`(B, D)` mean of `fused` over its valid places."""
    routing: Mapping[str, RouterStatistics] = field(default_factory=dict)
    """Routing statistics of each mixture-of-experts block, by `modality.stage.block`."""

    @property
    def load_balance(self) -> Tensor | None:
        """Mean of the blocks' `load_balance`, scalar with gradient; `None` without experts."""
        terms = [statistics.load_balance for statistics in self.routing.values()]
        return sum(terms[1:], terms[0]) / len(terms) if terms else None
