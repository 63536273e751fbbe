"""Cut a box out of each image of a batch and bring it to one size, in two matrix products.

Along each axis a crop is a small matrix: bilinear interpolation, widened to the pixel of the crop
where it is the larger one (so that nothing aliases), widened further for a blur, run backwards for
a mirror image. Turning by quarters is then at most a transposition.

Legend: B samples, T dates, C bands, H W pixels of the source, h pixels along a side of the crop.
"""

import torch
from torch import Tensor

from skysense.pretrain.views.geometry import reversals


def axis_kernel(
    start: Tensor,
    span: Tensor,
    size: Tensor,
    count: int,
    length: int,
    blur: Tensor | None = None,
    backwards: Tensor | None = None,
) -> Tensor:
    """Weights of the source's pixels in the crop's, along one axis.

    The kernel is a triangle as wide as a pixel of source or crop, whichever is larger; a triangle
    of half-width s has variance s^2 / 6, and a blur adds its own to that.

    Args:
        start: `(B,)` where the crop starts, in shares of the source.
        span: `(B,)` its extent, in shares of the source.
        size: `(B,)` pixels of each source; those beyond are padding and weigh nothing.
        count: h.
        length: pixels of the source, padding included.
        blur: `(B,)` standard deviation in pixels of the crop; `None` for none.
        backwards: `(B,)` bool, whether the axis is reversed; `None` for none.

    Returns:
        `(B, h, length)`, rows that sum to 1, or to 0 where `size` is 0.
    """
    shares = (torch.arange(count, device=start.device) + 0.5) / count  # (h,)
    if backwards is not None:
        shares = torch.where(backwards[:, None], 1 - shares, shares)
    centre = (start[:, None] + shares * span[:, None]) * size[:, None] - 0.5  # (B, h)
    step = span * size / count  # pixels of the source in one of the crop
    support = step.clamp(min=1)
    if blur is not None:
        support = (support.square() + 6 * (blur * step).square()).sqrt()
    pixels = torch.arange(length, device=start.device, dtype=centre.dtype)
    distance = (centre[..., None] - pixels).abs_().div_(support[:, None, None])
    weights = distance.neg_().add_(1).clamp_(min=0)  # (B, h, length)
    weights.mul_((pixels < size[:, None])[:, None])
    return weights.div_(weights.sum(-1, keepdim=True).clamp_(min=1e-6))


def _apply(rows: Tensor, images: Tensor, cols: Tensor) -> Tensor:
    """`(B, h, H)`, `(B, N, H, W)`, `(B, h, W)` -> `(B, N, h, h)`."""
    half = torch.matmul(rows[:, None], images)  # (B, N, h, W)
    return torch.bmm(half.flatten(1, 2), cols.mT).view(*half.shape[:3], cols.shape[1])


def crop(
    pixels: Tensor,
    mask: Tensor | None,
    sizes: Tensor,
    box: Tensor,
    turn: Tensor,
    size: int,
    blur: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Crop, resize, blur and turn, over valid pixels alone.

    Args:
        pixels: `(B, T, C, H, W)`; finite where valid.
        mask: `(B, T, H, W)` bool; `None` where each image is valid all over its size.
        sizes: `(B, 2)` size of each source within its padding.
        box: `(B, 4)` row, col, height, width in shares of that size.
        turn: `(B,)` as `View.turn`.
        size: h.
        blur: `(B,)` standard deviation in pixels of the crop; `None` for none.

    Returns:
        `(B, T, C, h, h)` and `(B, T, h, h)` bool, true where at least half of the weight is valid,
        or `None` where there was none. What stands at invalid pixels means nothing.
    """
    b, t, c, height, width = pixels.shape
    rows_back, cols_back, transposed = reversals(turn)
    extent = sizes.to(box.dtype)
    rows = axis_kernel(box[:, 0], box[:, 2], extent[:, 0], size, height, blur, rows_back)
    cols = axis_kernel(box[:, 1], box[:, 3], extent[:, 1], size, width, blur, cols_back)
    swap = transposed[:, None, None, None]
    if mask is not None:
        pixels = pixels.masked_fill(~mask.unsqueeze(2), 0)
    found = _apply(rows, pixels.flatten(1, 2), cols)  # (B, T C, h, h)
    found = torch.where(swap, found.mT, found).view(b, t, c, size, size)
    if mask is None:
        return found, None
    share = _apply(rows, mask.to(pixels.dtype), cols)  # (B, T, h, h)
    share = torch.where(swap, share.mT, share)
    return found.div_(share.clamp(min=1e-3).unsqueeze(2)), share >= 0.5 - 1e-6
