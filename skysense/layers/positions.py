"""Relative positions: 2-D rotary for global attention, log-spaced offsets for windows.

Legend: h w token grid, N = h w tokens, d channels of a head.
"""

import math

import torch
from torch import Tensor


def rotary_2d(
    shape: tuple[int, int], dim: int, device: torch.device, theta: float = 100.0
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of a 2-D rotary encoding.

    The first half of a head's channels turns with the row, the second with the column, so that
    the product of a query and a key depends on their offset alone: any size works, and moving a
    pattern moves the map. Source: [ours], where the paper names no position encoding; rotary
    encoding after RoFormer, axial form and theta 100 after RoPE-ViT.

    Args:
        shape: `(h, w)`.
        dim: d, a multiple of 4.
        device: where the tables live.
        theta: longest wavelength is about `2 pi theta` tokens.

    Returns:
        Two tensors `(h w, d)`, float32, row-major over the grid.
    """
    if dim % 4:
        raise ValueError(f"rotary positions need head channels in fours, got {dim}")
    quarter = dim // 4
    frequency = theta ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    rows = torch.arange(shape[0], device=device, dtype=torch.float32)
    cols = torch.arange(shape[1], device=device, dtype=torch.float32)
    row_angle = (rows[:, None] * frequency)[:, None].expand(-1, shape[1], -1)  # (h, w, d/4)
    col_angle = (cols[:, None] * frequency)[None].expand(shape[0], -1, -1)  # (h, w, d/4)
    angle = torch.cat([row_angle, col_angle], -1).flatten(0, 1)  # (N, d/2)
    return angle.cos().repeat_interleave(2, -1), angle.sin().repeat_interleave(2, -1)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn pairs of neighbouring channels of `x (..., N, d)` by the angles of `rotary_2d`."""
    cos, sin = (t.to(x.dtype) for t in table)
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    return x * cos + turned * sin


def window_offsets(window: int, pretrained: int = 0) -> Tensor:
    """Log-spaced relative coordinates of a window.

    Args:
        window: side of the window, in tokens.
        pretrained: side used in pre-training; 0 for the same.

    Returns:
        `((2 window - 1)^2, 2)` float32, `(row, col)` offsets from `-(window - 1)`, scaled to 8 at
        the longest, then `sign log2(1 + |offset|) / log2 8`. Source: Swin V2, equation 4;
        docs/sources.md 2.4 [code].
    """
    steps = torch.arange(1 - window, window, dtype=torch.float32, device="cpu")
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)
    grid = grid / max((pretrained or window) - 1, 1) * 8
    return grid.sign() * torch.log2(grid.abs() + 1) / math.log2(8)


def window_index(window: int) -> Tensor:
    """`(window^2, window^2)` index into `window_offsets`: pair (i, j) has offset `i - j`."""
    steps = torch.arange(window, device="cpu")
    place = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)
    offset = place[:, None] - place[None] + window - 1  # (N, N, 2)
    return offset[..., 0] * (2 * window - 1) + offset[..., 1]
