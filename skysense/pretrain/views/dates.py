"""Which dates a view sees, and when it believes they were; which modalities it lacks.

Legend: B samples, T dates of the source, S dates of the view, M modalities.
"""

import torch
from torch import Tensor

from skysense.pretrain.views.randomness import Draws
from skysense.sample import UNKNOWN_DAY


def choose_dates(
    draws: Draws, key: str, valid: Tensor, fewest: int, most: int
) -> tuple[Tensor, Tensor]:
    """Draw dates among the valid ones; their order stays.

    Args:
        draws: of the view.
        key: modality.
        valid: `(B, T)` bool, where anything was measured.
        fewest: dates to draw at least, as far as there are any.
        most: dates to draw at most.

    Returns:
        `(B, S)` int64 dates of the source and `(B, S)` bool, which of them are meant, these first;
        S is `most`, or T where that is less.
    """
    count = valid.shape[1]
    if count == 1:
        return torch.zeros_like(valid, dtype=torch.int64), valid
    slots = torch.arange(min(most, count), device=valid.device)
    wanted = fewest + (draws.uniform(f"{key} date count", 1) * (most - fewest + 1)).long()
    wanted = torch.minimum(wanted, valid.sum(1, keepdim=True))  # (B, 1)
    key_of = draws.uniform(f"{key} dates", count).masked_fill(~valid, 2.0)
    drawn = key_of.argsort(stable=True, dim=1)[:, : len(slots)]  # (B, S)
    drawn = drawn.masked_fill(slots >= wanted, count).sort(1).values
    return drawn.clamp(max=count - 1), slots < wanted


def jitter_days(draws: Draws, key: str, days: Tensor, most: int) -> Tensor:
    """Move days of the year by `most` at most, from one year's end to its start and back.

    Args:
        draws: of the view.
        key: modality.
        days: `(B, S)` int64, 1...366 or `UNKNOWN_DAY`, which stays.
        most: days either way.
    """
    if not most:
        return days
    moved = (draws.uniform(f"{key} days", days.shape[1]) * (2 * most + 1)).long() - most
    return torch.where(days == UNKNOWN_DAY, days, (days - 1 + moved) % 366 + 1)


def keep_modalities(draws: Draws, present: Tensor, probability: float) -> Tensor:
    """Drop modalities at random, but never the last of a sample.

    Args:
        draws: of the view.
        present: `(B, M)` bool, M in the order of `MODALITIES`.
        probability: of each to be dropped.

    Returns:
        `(B, M)` bool.
    """
    if not probability:
        return present
    luck = draws.uniform("modalities", present.shape[1]).masked_fill(~present, -1.0)
    kept = luck >= probability
    best = torch.zeros_like(present).scatter_(1, luck.argmax(1, keepdim=True), True)
    return torch.where(kept.any(1, keepdim=True), kept, best & present)
