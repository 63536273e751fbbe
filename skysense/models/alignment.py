"""Bring the maps of modalities with different pixel sizes onto one grid.

Legend: B samples, T acquisitions, D width, h w a modality's token grid, H W the common grid.
"""

import torch
from torch import Tensor


def _weights(cells: Tensor, common: Tensor, count: int, length: int) -> Tensor:
    """Bilinear interpolation along one axis, each sample with its own scale.

    Args:
        cells: `(B,)` tokens that the sample's footprint spans, not rounded.
        common: `(B,)` cells of the common grid that the same footprint spans.
        count: cells of the common grid, padding included.
        length: tokens along the axis, padding included.

    Returns:
        `(B, count, length)` rows that sum to 1, or to 0 beyond the footprint. Worked example:
        2 tokens, 4 cells: cell 1 has its centre at token position (1 + 0.5) * 2 / 4 - 0.5 = 0.25:
        weights 0.75, 0.25.
    """
    device = cells.device
    scale = (cells / common.clamp(min=1e-6))[:, None]  # (B, 1)
    centre = (torch.arange(count, device=device) + 0.5) * scale - 0.5  # (B, count)
    last = (cells.ceil() - 1).clamp(min=0)[:, None]
    centre = torch.minimum(centre.clamp(min=0), last)
    tokens = torch.arange(length, device=device)
    inside = _inside(common, count)
    return (1 - (centre[..., None] - tokens).abs()).clamp(min=0) * inside[..., None]


def _inside(common: Tensor, count: int) -> Tensor:
    """`(B, count)` bool: cells of the common grid within each sample's footprint."""
    return torch.arange(count, device=common.device) < common.ceil()[:, None]


def align(
    values: Tensor, valid: Tensor, cells: Tensor, common: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Interpolate a map onto the common grid, over its valid tokens alone.

    Args:
        values: `(B, T, h, w, D)`.
        valid: `(B, T, h, w)` bool.
        cells: `(B, 2)` float tokens that the sample's footprint spans, `(rows, columns)`.
        common: `(B, 2)` float cells of the common grid that it spans.
        shape: `(H, W)` of the common grid.

    Returns:
        `(B, T, H, W, D)` and `(B, T, H, W)` bool: valid where at least half of the weight is.
    """
    covers = values.shape[2] >= shape[0] and values.shape[3] >= shape[1]
    if covers and torch.equal(cells, common):  # one grid: at most what is beyond it goes
        values, valid = values[:, :, : shape[0], : shape[1]], valid[:, :, : shape[0], : shape[1]]
        rows, cols = (_inside(common[:, i], shape[i]) for i in (0, 1))
        return values, valid & rows[:, None, :, None] & cols[:, None, None, :]
    rows = _weights(cells[:, 0], common[:, 0], shape[0], values.shape[2]).to(values.dtype)
    cols = _weights(cells[:, 1], common[:, 1], shape[1], values.shape[3]).to(values.dtype)
    weight = valid.unsqueeze(-1).to(values.dtype)
    total = torch.einsum("bHh,bthwd,bWw->btHWd", rows, values * weight, cols)
    share = torch.einsum("bHh,bthwd,bWw->btHWd", rows, weight, cols)
    return total / share.clamp(min=1e-6), share.squeeze(-1) >= 0.5 - 1e-6
