"""Pixel level of MGCL: pairs of features of the same place in two views.

Legend: B samples, D width, h w cells of the student's map, H W of the teacher's, P = `count` pairs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

COVER = 0.5
"""Least share of valid cells in a bilinear sample, as the encoder asks for between grids. [ours]"""


def pixel_pairs(
    student_map: Tensor,
    student_valid: Tensor,
    teacher_map: Tensor,
    teacher_valid: Tensor,
    coordinates: Tensor,
    inside: Tensor,
    count: int,
    choice: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw places of the student's view, and what the teacher's view has there.

    Source: the pixel level of SkySense, section 3.2 [paper]: the same place in both views; that a
    few places are drawn and that the teacher's map is interpolated is [ours].

    Args:
        student_map: `(B, D, h, w)`.
        student_valid: `(B, h, w)` bool.
        teacher_map: `(B, D, H, W)`.
        teacher_valid: `(B, H, W)` bool.
        coordinates: `(B, h, w, 2)` `(x, y)` of each cell in the teacher's map, -1 to 1 from edge
            to edge as `grid_sample(align_corners=False)` has them.
        inside: `(B, h, w)` bool, cells that the teacher's view sees.
        count: P, places drawn of each sample at most.
        choice: `(B, n)` uniform numbers, `n >= max(h, w) ** 2`; see `draw_cells`.

    Returns:
        Rows of the student `(B P, D)`, of the teacher `(B P, D)` without gradient, and their
        weights `(B P,)`: 1, or 0 where a sample has fewer places.
    """
    cover = _sample(teacher_valid[:, None].float(), coordinates)[:, 0]  # (B, h, w)
    index, weight = draw_cells(student_valid & inside & (cover >= COVER), count, choice)
    places = coordinates.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 2))
    with torch.no_grad():
        values = teacher_map.float().masked_fill(~teacher_valid[:, None], 0)
        teacher = _sample(values, places[:, None])[:, :, 0]  # (B, D, P)
        teacher = teacher / cover.flatten(1).gather(1, index).clamp(min=COVER)[:, None]
    rows = (take_cells(student_map, index), teacher.transpose(1, 2).flatten(0, 1))
    return *rows, weight.flatten()


def draw_cells(eligible: Tensor, count: int, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Draw some cells of each map, those with the largest numbers.

    A cell's number depends on its row and column alone, and so not on how far the maps of a batch
    are padded, which differs between ranks: the cells are numbered in growing squares.

    Args:
        eligible: `(B, h, w)` bool.
        count: P.
        choice: `(B, n)` uniform numbers, `n >= max(h, w) ** 2`.

    Returns:
        Flat indices `(B, P)` and weights `(B, P)`: 1, or 0 where there are fewer eligible cells.
    """
    order = _square_numbers(eligible.shape[1], eligible.shape[2], eligible.device)  # (h w,)
    assert choice.shape[1] >= max(eligible.shape[1:]) ** 2, "too few numbers to draw cells by"
    score = choice[:, order].masked_fill(~eligible.flatten(1), -1)
    drawn = min(count, score.shape[1])
    value, index = score.topk(drawn, 1)
    index = F.pad(index, (0, count - drawn))
    return index, F.pad((value >= 0).float(), (0, count - drawn))


def take_cells(values: Tensor, index: Tensor) -> Tensor:
    """The features `(B P, D)` of maps `(B, D, h, w)` at flat indices `(B, P)`."""
    wide = index[:, None].expand(-1, values.shape[1], -1)
    return values.flatten(2).gather(2, wide).transpose(1, 2).flatten(0, 1)


def _sample(values: Tensor, coordinates: Tensor) -> Tensor:
    """Bilinear interpolation `(B, C, h, w)`; beyond the border as at the border."""
    return F.grid_sample(
        values, coordinates.to(values.dtype), padding_mode="border", align_corners=False
    )


def _square_numbers(height: int, width: int, device: torch.device) -> Tensor:
    """Number of each cell, `(height * width,)`: that of `(row, col)` is the same in any map.

    Worked example: 0 1 4 / 3 2 5 / 8 7 6, the squares of side 1, 2 and 3 one after the other.
    """
    row = torch.arange(height, device=device)[:, None]
    col = torch.arange(width, device=device)[None]
    side = torch.maximum(row, col)
    return (side * (side + 1) + row - col).flatten()
