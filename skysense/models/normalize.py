"""Physical values to what a network sees, by the sensor cards.

Legend: B samples, T acquisitions, C tokenizer channels, H W pixels.
"""

import functools

import torch
from torch import Tensor

from skysense.sample import ModalityBatch
from skysense.sensors import TOKENIZER_BANDS, get_sensor


@functools.cache
def _statistics(sensor: str) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, reciprocal standard deviation and absence `(C,)` of a card's tokenizer channels."""
    card = get_sensor(sensor)
    count = len(TOKENIZER_BANDS[card.modality])
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
    stacked = [torch.stack(s) for s in zip(*map(_statistics, part.sensors), strict=True)]
    mean, scale, absent = (t.to(part.pixels.device)[:, None, :, None, None] for t in stacked)
    normalized = (part.pixels - mean) * scale
    if absent.any():
        normalized = normalized.masked_fill(absent, 0.0)
    return normalized
