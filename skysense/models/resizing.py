"""Images brought to one size, what is missing left out of what is interpolated.

A model sees enlarged crops in training, and tells whole images best at about the size that things
had there (Touvron et al., "Fixing the train-test resolution discrepancy", 2019).

Legend: B samples, T acquisitions, C channels, H W pixels.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skysense.sample import ModalityBatch


def resize(part: ModalityBatch, side: int) -> ModalityBatch:
    """Bring the longer side of every image to `side` pixels: bilinear, averaging when it shrinks.

    A pixel of the result is missing where over half of what it covers is.

    Args:
        part: one modality of a batch; images of other sizes than the largest are padded.
        side: pixels.

    Returns:
        The same acquisitions, `(B, T, C, H', W')`; absent samples stay absent.

    Raises:
        ValueError: `side` is not at least 1.
    """
    if side < 1:
        raise ValueError(f"images are brought to a side of at least 1 pixel, not {side}")
    old = [(int(h), int(w)) for h, w in part.sizes]
    new = [_scaled(size, side) for size in old]
    if old == new:
        return part
    height, width = (max(size[axis] for size in new) for axis in (0, 1))
    count, dates, channels = part.pixels.shape[:3]
    pixels = part.pixels.new_zeros(count, dates, channels, height, width)
    mask = part.mask.new_zeros(count, dates, height, width)
    for size, target in {pair: None for pair in zip(old, new, strict=True) if all(pair[0])}:
        rows = [i for i, other in enumerate(old) if other == size]
        (h, w), (to_h, to_w) = size, target
        values, valid = _interpolated(
            part.pixels[rows, ..., :h, :w], part.mask[rows, :, :h, :w], target
        )
        pixels[rows, ..., :to_h, :to_w], mask[rows, :, :to_h, :to_w] = values, valid
    return replace(part, pixels=pixels, mask=mask, sizes=torch.tensor(new).to(part.sizes))


def _scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size whose longer side is `side`; nothing stays nothing."""
    longer = max(size)
    height, width = (max(1, round(length * side / longer)) if longer else 0 for length in size)
    return height, width


def _interpolated(pixels: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixels `(B, T, C, *size)` and mask `(B, T, *size)`: a mean of the valid, weighted."""
    known = mask.unsqueeze(2).to(pixels.dtype)
    complete = bool(mask.all())
    stacked = pixels if complete else torch.cat([torch.where(known > 0, pixels, 0), known], 2)
    scaled = F.interpolate(
        stacked.flatten(0, 1), size, mode="bilinear", align_corners=False, antialias=True
    ).unflatten(0, pixels.shape[:2])
    if complete:
        return scaled, mask.new_ones(*pixels.shape[:2], *size)
    values, weight = scaled[:, :, :-1], scaled[:, :, -1:]
    valid = weight >= 0.5
    return torch.where(valid, values / weight.clamp(min=0.5), 0), valid.squeeze(2)
