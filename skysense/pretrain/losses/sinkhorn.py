"""Balanced soft assignment of rows to columns by Sinkhorn-Knopp scaling.

Legend: N rows, K columns (codes or groups), `...` batch dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

TINY = 1e-30
"""Least mass of a column: one that no row comes near stays empty instead of dividing by zero."""

SPREAD = 60.0
"""Exponents, beside their mean, beyond which rows start alike; float32 holds e^88."""


@torch.no_grad()
def balance(
    logits: Tensor,
    temperature: float,
    weight: Tensor | None = None,
    iterations: int = 3,
    add_up: Callable[[Tensor], Tensor] = torch.Tensor.detach,
) -> Tensor:
    """Scale columns, then rows, of `exp(logits / temperature)` to equal sums, several times.

    Source: SwAV (arXiv 2006.09882), Appendix A [paper], whose weighted form is [ours]. The matrix
    is written once; between, two vectors are kept by which its columns and rows are scaled, so
    that an iteration reads the matrix twice and writes none. Each row is shifted by its own
    maximum, so that none underflows, and what this changes is put back as the first row scale.

    Args:
        logits: `(..., N, K)`.
        temperature: above 0; the smaller, the sharper.
        weight: `(..., N)` mass of each row, at least 0; by default 1 each. Rows of weight 0 take
            no part.
        iterations: alternations; 3 in SwAV.
        add_up: sums a vector over what else holds rows of the same matrix.

    Returns:
        `(..., N, K)` float32; rows sum to 1, or are 0 where the weight is 0; columns, weighed, to
        about equal masses.
    """
    if weight is None:
        weight = logits.new_ones(logits.shape[:-1])
    weight = weight.float()
    kept = weight > 0
    scaled = logits.float() / temperature
    top = scaled.amax(-1)  # (..., N)
    matrix = scaled.sub_(top[..., None]).exp_()  # (..., N, K)
    sums = [torch.where(kept, top, 0).sum(-1), kept.sum(-1).float(), weight.sum(-1)]
    tops, count, total = add_up(torch.stack(sums)).unbind()  # (...,) each
    mean = tops / count.clamp(min=1)
    share = torch.where(total > 0, total, 1) / logits.shape[-1]  # mass that each column is due
    start = (top - mean[..., None]).clamp(-SPREAD, SPREAD).exp()
    rows = torch.where(kept, start * weight, 0)  # (..., N)
    for _ in range(iterations):
        mass = add_up((rows[..., None, :] @ matrix).squeeze(-2))  # (..., K)
        columns = share[..., None] / mass.clamp(min=TINY)
        rows = weight / (matrix @ columns[..., None]).squeeze(-1)
    shares = torch.where(kept, rows / weight, 0)
    return matrix.mul_(columns[..., None, :]).mul_(shares[..., None])
