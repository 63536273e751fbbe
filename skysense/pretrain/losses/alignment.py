"""Cross-modal alignment: one modality's feature against another's of the same place.

Legend: B samples, D width, h w cells, P = `count` pairs.
"""

import torch
from torch import Tensor

from skysense.pretrain.losses.pixel import draw_cells, take_cells


def aligned_pairs(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    valid: Tensor,
    count: int,
    choice: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw places that two modalities see, and pair their features both ways.

    Student's modality a against teacher's modality b, and student's b against teacher's a, at the
    same places. Source: the cross-modal alignment of SkySense, section 3.2 [paper], with the
    contrast against a teacher that all levels have in place of negatives [ours].

    Args:
        student: maps `(B, D, h, w)` of a and b, of one view on one grid.
        teacher: the same of the teacher.
        valid: `(B, h, w)` bool, places that both modalities see.
        count: P, places drawn of each sample at most.
        choice: `(B, n)` uniform numbers, `n >= max(h, w) ** 2`.

    Returns:
        Rows of the student `(2 B P, D)`, first those of a, of the teacher `(2 B P, D)` without
        gradient, first those of b, and their weights `(2 B P,)`: 1 or 0.
    """
    index, weight = draw_cells(valid, count, choice)
    own = torch.cat([take_cells(values, index) for values in student])
    with torch.no_grad():
        other = torch.cat([take_cells(values, index) for values in reversed(teacher)])
    return own, other, weight.flatten().repeat(2)
