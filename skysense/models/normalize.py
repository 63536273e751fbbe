"""Physical values to what a network sees, by the sensor cards.

Legend: B samples, T acquisitions, C tokenizer channels, H W pixels.
"""

import functools

import torch
from torch import Tensor

from skysense.sample import ModalityBatch
from skysense.sensors import get_sensor


@functools.cache
def _statistics(sensor: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, reciprocal standard deviation and absence `(C,)` of a card in `count` channels."""
    card = get_sensor(sensor)
    mean, scale = torch.zeros(count), torch.zeros(count)
    absent = torch.ones(count, dtype=torch.bool)
    for channel, band in zip(card.channels, card.bands, strict=True):
        mean[channel], scale[channel], absent[channel] = band.mean, 1.0 / band.std, False
    return mean, scale, absent


def normalize(part: ModalityBatch) -> Tensor:
    """`(x - mean) / std` by each sample's sensor card; a channel that a sensor lacks becomes 0.

    Zero is the normalized mean: an absent channel adds nothing to the tokenizer's sum [ours].

    Returns:
        `(B, T, C, H, W)`; masked pixels hold whatever they held.
    """
    statistics = [_statistics(sensor, part.pixels.shape[2]) for sensor in part.sensors]
    stacked = [torch.stack(values) for values in zip(*statistics, strict=True)]
    mean, scale, absent = (t.to(part.pixels.device)[:, None, :, None, None] for t in stacked)
    normalized = (part.pixels - mean) * scale
    if absent.any():
        normalized = normalized.masked_fill(absent, 0.0)
    return normalized
