"""Image level of MGCL: one vector of a whole view.

Legend: B samples, D width, h w cells.
"""

from torch import Tensor


def image_vectors(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the valid places. Source: the image level of SkySense, section 3.2 [paper].

    Args:
        values: `(B, D, h, w)`.
        valid: `(B, h, w)` bool.

    Returns:
        `(B, D)`, 0 where a sample has no valid place, and `(B,)` bool, which samples have one.
    """
    kept = values.masked_fill(~valid[:, None], 0)
    count = valid.sum((1, 2))  # (B,)
    return kept.sum((2, 3)) / count.clamp(min=1)[:, None], count > 0
