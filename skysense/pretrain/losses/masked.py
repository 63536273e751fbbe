"""Masked image modelling: the pixels that were hidden, from what is left around them.

Source: SimMIM (arXiv 2111.09886, section 3) [paper]. It is not MAE (arXiv 2111.06377), which leaves
hidden places out: a hierarchical backbone needs the whole grid for its windows and its merging.

Legend: B samples, T acquisitions, C tokenizer channels, H W pixels, h w cells, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skysense.engine.distributed import global_mean


class PixelHead(nn.Module):
    """Features of a cell to the pixels that it stands for: one linear map, then a pixel shuffle.

    Source: the one-layer prediction head of SimMIM, section 3.3 [paper].
    """

    def __init__(self, dim: int, stride: int, bands: int) -> None:
        """Build.

        Args:
            dim: D.
            stride: pixels from one cell to the next.
            bands: C.
        """
        super().__init__()
        self.stride = stride
        self.proj = nn.Linear(dim, bands * stride**2)
        nn.init.trunc_normal_(self.proj.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features `(B, T, D, h, w)` to pixels `(B, T, C, h stride, w stride)`."""
        cells = self.proj(x.movedim(2, -1)).movedim(-1, 2)  # (B, T, C stride stride, h, w)
        pixels: Tensor = F.pixel_shuffle(cells, self.stride)
        return pixels


def count_blocks(height: int, width: int, block: int) -> tuple[int, int]:
    """Rows and columns of the blocks that cover an image; the last ones may be cut."""
    return -(-height // block), -(-width // block)


def draw_hidden(choice: Tensor, shape: tuple[int, int, int], block: int, share: float) -> Tensor:
    """Draw the blocks of each acquisition that are hidden, those with the smallest numbers.

    Source: the random masking of SimMIM, section 3.2 [paper]. The backbone sees each acquisition by
    itself, and so each has blocks of its own. A number belongs to its acquisition and block alone:
    those of the first dates are hidden alike however many dates a batch is padded to [ours].

    Args:
        choice: `(B, n)` uniform numbers, `n >= T * blocks`.
        shape: `(T, H, W)`.
        block: side of a block in pixels.
        share: of the blocks, 0 to 1; rounded, but at least one is hidden and one is not.

    Returns:
        `(B, T, H, W)` bool.
    """
    dates, height, width = shape
    rows, cols = count_blocks(height, width, block)
    blocks = rows * cols
    assert choice.shape[1] >= dates * blocks, "too few numbers to draw blocks by"
    hidden = min(max(round(share * blocks), 1), blocks - 1)
    numbers = choice[:, : dates * blocks].unflatten(1, (dates, blocks))
    rank = numbers.argsort(dim=-1, stable=True).argsort(-1)  # (B, T, blocks)
    drawn = (rank < hidden).unflatten(-1, (rows, cols))
    wide: Tensor = drawn.repeat_interleave(block, 2).repeat_interleave(block, 3)
    return wide[..., :height, :width]


def masked_error(predicted: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    """Mean absolute error of what counts. Source: SimMIM, section 3.4 [paper].

    Args:
        predicted: `(B, T, C, H', W')`, as large as the target or larger; the rest is padding.
        target: `(B, T, C, H, W)` normalized pixels; ranks may have different B and T.
        counted: `(B, T, C, H, W)` bool: hidden, valid, and of a band that the sensor has.

    Returns:
        Scalar, this rank's share of the mean over the numbers that count of all ranks, see
        `global_mean`; 0 where there are none.
    """
    height, width = target.shape[-2:]
    with torch.autocast(target.device.type, enabled=False):
        wanted = torch.where(counted, target.detach().float(), 0)  # what is invalid may be NaN
        error = (predicted[..., :height, :width].float() - wanted).abs()
        return global_mean(error, counted)
