"""Small images enlarged, what is missing left out of what is interpolated.

A model sees enlarged crops in training, and tells whole images best at about the size that things
had there (Touvron et al., "Fixing the train-test resolution discrepancy", 2019).

Legend: B samples, T acquisitions, C channels, H W pixels.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skysense.sample import ModalityBatch


def enlarge(part: ModalityBatch, least: int) -> ModalityBatch:
    """Bring the longer side of images in which it is shorter to `least` pixels, bilinear.

    A pixel of the result is missing where the one that its centre lies in is, so that no measured
    pixel is lost.

    Args:
        part: one modality of a batch; images of other sizes than the largest are padded.
        least: pixels; 0 leaves all images as they are.

    Returns:
        The same acquisitions, `(B, T, C, H', W')`; absent samples stay absent.

    Raises:
        ValueError: `least` is negative.
    """
    if least < 0:
        raise ValueError(f"images are enlarged to a number of pixels, or 0 for none, not {least}")
    old = [(int(h), int(w)) for h, w in part.sizes]
    new = [_enlarged(size, least) for size in old]
    if old == new:
        return part
    height, width = (max(size[axis] for size in new) for axis in (0, 1))
    count, dates, channels = part.pixels.shape[:3]
    pixels = part.pixels.new_zeros(count, dates, channels, height, width)
    mask = part.mask.new_zeros(count, dates, height, width)
    for size, target in dict.fromkeys(zip(old, new, strict=True)):
        rows = [i for i, other in enumerate(old) if other == size]
        (h, w), (to_h, to_w) = size, target
        values, valid = part.pixels[rows, ..., :h, :w], part.mask[rows, :, :h, :w]
        if size != target:
            values, valid = _interpolated(values, valid, target)
        pixels[rows, ..., :to_h, :to_w], mask[rows, :, :to_h, :to_w] = values, valid
    return replace(part, pixels=pixels, mask=mask, sizes=torch.tensor(new).to(part.sizes))


def _enlarged(size: tuple[int, int], least: int) -> tuple[int, int]:
    """The size whose longer side is `least`, if it was shorter; nothing stays nothing."""
    longer = max(size)
    if not 0 < longer < least:
        return size
    height, width = (max(1, round(length * least / longer)) for length in size)
    return height, width


def _interpolated(pixels: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixels `(B, T, C, *size)` and mask `(B, T, *size)`: a mean of the valid, weighted."""
    known = mask.unsqueeze(2).to(pixels.dtype)
    complete = bool(mask.all())
    stacked = pixels if complete else torch.cat([torch.where(known > 0, pixels, 0), known], 2)
    scaled = F.interpolate(
        stacked.flatten(0, 1), size, mode="bilinear", align_corners=False
    ).unflatten(0, pixels.shape[:2])
    if complete:
        return scaled, mask.new_ones(*pixels.shape[:2], *size)
    values, weight = scaled[:, :, :-1], scaled[:, :, -1:]
    valid = F.interpolate(known.flatten(0, 1), size, mode="nearest-exact") > 0
    valid = valid.unflatten(0, pixels.shape[:2])  # (B, T, 1, *size)
    least = 0.25  # of a weight there: the pixel's own is half or more along either axis
    return torch.where(valid, values / weight.clamp(min=least), 0), valid.squeeze(2)
