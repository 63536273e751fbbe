"""Values that depend on the step alone, so that a resumed run continues them exactly.

Steps count from 0; step `total - 1` is the last one and has the final value. Where first and last
value are the same, the value is constant.
"""

import math


def cosine(step: int, total: int, first: float, last: float) -> float:
    """Half a cosine from `first` to `last`, flat at both ends.

    For weight decay, teacher momentum and the learning rate after its warm-up, as in DINO [paper].

    Args:
        step: from 0; before that it is `first`, after `total - 1` it is `last`.
        total: how many steps there are; with one or none it is `last`.
        first: the value at step 0.
        last: the value at step `total - 1`.
    """
    if total <= 1 or step >= total - 1:
        return last
    if step <= 0:
        return first
    return last + (first - last) * (1 + math.cos(math.pi * step / (total - 1))) / 2


def linear(step: int, total: int, first: float, last: float) -> float:
    """A straight line from `first` at step 0 to `last` at step `total - 1`, and `last` after it.

    For the teacher temperature, with `total` the steps of its warm-up and one, as in DINO [paper].
    """
    if total <= 1 or step >= total - 1:
        return last
    return first + (last - first) * max(step, 0) / (total - 1)


def warmup_cosine(
    step: int, total: int, warmup: int, peak: float, last: float = 0.0, first: float = 0.0
) -> float:
    """A straight line from `first` up to `peak`, then half a cosine down to `last`.

    Args:
        step: from 0.
        total: how many steps there are, the warm-up's among them.
        warmup: steps of the warm-up, cut to `total - 1`; step `warmup` has the peak, even where
            it is the last.
        peak: the highest value.
        last: the value at step `total - 1`.
        first: the value at step 0 where there is a warm-up.
    """
    warmup = max(0, min(warmup, total - 1))
    if step <= warmup:
        return linear(step, warmup + 1, first, peak)
    return cosine(step - warmup, total - warmup, peak, last)
