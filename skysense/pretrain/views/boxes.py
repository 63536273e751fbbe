"""Which ground a crop covers.

Legend: B samples, K candidates, M modalities, n cells along a side of a coverage map.
"""

import torch
from torch import Tensor

from skysense.pretrain.views.randomness import Draws

CANDIDATES = 4
"""Places that are looked at for one where something is valid."""
ENOUGH = 0.5
"""Valid share of a crop that is not worth looking further."""
_PULLS = 8


def draw_boxes(
    draws: Draws,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    footprint: Tensor,
    coverage: Tensor | None,
) -> Tensor:
    """Random boxes inside the footprint.

    The share of the ground is exact: a crop that would not fit takes another aspect.

    Args:
        draws: of the view.
        scale: smallest and largest share of the ground.
        aspect: smallest and largest height over width, on the ground.
        footprint: `(B,)` height over width of the samples' footprints.
        coverage: `(B, n, n)` valid share of the ground, cell by cell; `None` where all is valid.

    Returns:
        `(B, 4)` row, col, height, width in shares of the footprint.
    """
    u = draws.uniform("box size", 2)
    area = scale[0] + u[:, 0] * (scale[1] - scale[0])
    low, high = aspect
    ratio = low * (high / low) ** u[:, 1] / footprint  # height over width in shares
    ratio = torch.minimum(torch.maximum(ratio, area), 1 / area)
    size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], -1).clamp(max=1)  # (B, 2)
    corners = draws.uniform("box corner", CANDIDATES, 2) * (1 - size[:, None])  # (B, K, 2)
    return torch.cat([_most_valid(corners, size, coverage), size], -1)


def _most_valid(corners: Tensor, size: Tensor, coverage: Tensor | None) -> Tensor:
    """The first of the corners `(B, K, 2)` whose crop is valid enough, or the best: `(B, 2)`."""
    if coverage is None:
        return corners[:, 0]
    count = coverage.shape[1]
    edges = torch.arange(count, device=size.device) / count
    start, stop = corners[..., None], (corners + size[:, None])[..., None]  # (B, K, 2, 1)
    common = (torch.minimum(stop, edges + 1 / count) - torch.maximum(start, edges)).clamp(min=0)
    share = torch.einsum("bkr,brc,bkc->bk", common[:, :, 0], coverage, common[:, :, 1])
    share = share / size.prod(-1, keepdim=True)
    order = 1e-4 * torch.arange(corners.shape[1], device=size.device)
    best = (share.clamp(max=ENOUGH - 1e-4) - order).argmax(1)
    return corners.take_along_dim(best[:, None, None], 1).squeeze(1)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """What two boxes `(..., 4)` have in common, as a share of the smaller: `(...)`."""
    start = torch.maximum(a[..., :2], b[..., :2])
    stop = torch.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    common = (stop - start).clamp(min=0).prod(-1)
    return common / torch.minimum(a[..., 2:].prod(-1), b[..., 2:].prod(-1)).clamp(min=1e-9)


def pull(boxes: Tensor, towards: Tensor, least: float) -> Tensor:
    """Move boxes towards others, no further than needed for a least overlap.

    Args:
        boxes: `(B, 4)`.
        towards: `(B, 4)`.
        least: share of the smaller of two that must lie in both. Centre on centre is the furthest
            that a box is moved; with an aspect of 3/4 to 4/3, 0.75 can always be had.

    Returns:
        `(B, 4)` of the same sizes, inside the footprint.
    """
    size = boxes[:, 2:]
    centred = towards[:, :2] + (towards[:, 2:] - size) / 2
    centred = torch.minimum(centred.clamp(min=0), 1 - size)
    t = torch.arange(_PULLS + 1, device=boxes.device) / _PULLS
    corners = torch.lerp(boxes[:, None, :2], centred[:, None], t[None, :, None])  # (B, pulls, 2)
    moved = torch.cat([corners, size[:, None].expand_as(corners)], -1)
    enough = overlap(moved, towards[:, None]) >= least  # (B, pulls), once true it stays
    enough[:, -1] = True
    return moved.take_along_dim(enough.int().argmax(1)[:, None, None], 1).squeeze(1)
