"""The multi-modal temporal fusion transformer.

Legend: B samples, h w places of the fused grid, P = B h w places, N tokens at a place, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.layers.transformer import TransformerLayer

DAYS = 366
"""Rows of the calendar table: every day of a leap year."""


class FusionTransformer(nn.Module):
    """All dates of all modalities at one place become one vector.

    Each token gets the embedding of its day of the year, is projected, and an extra learned token
    in front gathers them; its output is the fused feature. Absent modalities, padded dates and
    masked places are masked keys. Source: SkySense section 3, docs/sources.md 13 [paper]; layer and
    order of operations docs/sources.md 4 [code]. The day of year is added for all modalities, as
    the paper's figure shows, where the released code has it for `s2` alone.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        heads: int,
        ratio: float = 4.0,
        eps: float = 1e-5,
        drop_path: float = 0.0,
    ) -> None:
        """Build from backbone width `in_dim` to fused width `dim`."""
        super().__init__()
        self.calendar = nn.Parameter(torch.zeros(DAYS, in_dim))
        self.proj = nn.Linear(in_dim, dim)
        self.extra_token = nn.Parameter(torch.zeros(1, 1, dim))
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, ratio, eps, rate) for rate in rates
        )

    def forward(self, tokens: Tensor, days: Tensor, valid: Tensor) -> Tensor:
        """Fuse.

        Args:
            tokens: `(B, N, h, w, in_dim)`: the maps of all modalities and dates, on one grid.
            days: `(B, N)` day of year, 0 where unknown.
            valid: `(B, N, h, w)` bool.

        Returns:
            `(B, h, w, D)`; zero where no token is valid.
        """
        dated = self.dated(days)[:, :, None, None]  # (B, N, 1, 1, D)
        return self.gather(self.proj(tokens) + dated, valid)

    def dated(self, days: Tensor) -> Tensor:
        """The calendar, projected: once a date and not once a place, since both are linear.

        Args:
            days: `(B, N)` day of year, 0 where unknown.

        Returns:
            `(B, N, D)`; zero where unknown.
        """
        known = (days > 0).unsqueeze(-1)
        rows = self.calendar[(days - 1).clamp(min=0)] * known  # (B, N, in_dim)
        return F.linear(rows, self.proj.weight)

    def gather(self, x: Tensor, valid: Tensor) -> Tensor:
        """Fuse tokens that are projected and dated already.

        Args:
            x: `(B, N, h, w, D)`.
            valid: `(B, N, h, w)` bool.

        Returns:
            `(B, h, w, D)`; zero where no token is valid.
        """
        b, _, h, w, _ = x.shape
        x = x.permute(0, 2, 3, 1, 4).flatten(0, 2)  # (P, N, D)
        keys = valid.permute(0, 2, 3, 1).flatten(0, 2)  # (P, N)
        seen = keys.any(-1)
        everywhere = bool(seen.all())
        if not everywhere:
            x, keys = x[seen], keys[seen]
        fused = self.encode(x, keys)  # (P seen, D)
        if not everywhere:
            fused = fused.new_zeros(b * h * w, fused.shape[-1]).masked_scatter(seen[:, None], fused)
        return fused.view(b, h, w, -1)

    def encode(self, x: Tensor, keys: Tensor) -> Tensor:
        """Run the layers over projected tokens; the last computes the extra token alone.

        Args:
            x: `(P, N, D)`.
            keys: `(P, N)` bool, tokens that may be attended to.

        Returns:
            `(P, D)`, the extra token's output.
        """
        x = torch.cat([self.extra_token.expand(x.shape[0], -1, -1), x], 1)
        mask = None if bool(keys.all()) else F.pad(keys, (1, 0), value=True)
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, first_only=i == last)
        return x[:, 0]
