"""The masked loss of a view: hide blocks of its pixels, and ask the backbone what they were.

Each modality and acquisition is hidden and predicted by itself, from the last level before fusion:
what other modalities or dates saw of a hidden place does not help.

Legend: B samples, T acquisitions, C tokenizer channels, H W pixels, D width.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from skysense.models.features import Features
from skysense.models.normalize import normalize
from skysense.pretrain.losses.image import image_vectors
from skysense.pretrain.losses.masked import count_blocks, draw_hidden, masked_error
from skysense.pretrain.network import Network
from skysense.pretrain.views.radiometry import sensor_facts
from skysense.pretrain.views.randomness import Choose
from skysense.sample import Batch, ModalityBatch
from skysense.sensors import MODALITIES


def predict_hidden(
    network: Network, batch: Batch, choose: Choose, block: int, share: float
) -> tuple[Tensor, Features]:
    """The masked loss of a view.

    Args:
        network: the student, with a head for the pixels of each modality.
        batch: the view, B rows.
        choose: gives the uniform numbers by which blocks are drawn; the view's rows come first.
        block: side of a block in pixels.
        share: of the blocks that are hidden.

    Returns:
        The sum over modalities of `masked_error`, so that one of many bands or dates counts no more
        than another [ours]; and the features of what was left, up to the last level, not fused.
    """
    hidden = {key: _draw(key, part, choose, block, share) for key, part in batch.modalities.items()}
    parts = {key: hide(part, hidden[key]) for key, part in batch.modalities.items()}
    features = network.look_unfused(dataclasses.replace(batch, modalities=parts))
    errors = [_error(network, key, batch.modalities, features, hidden) for key in MODALITIES]
    return torch.stack(errors).sum(), features


def hide(part: ModalityBatch, hidden: Tensor) -> ModalityBatch:
    """Put the sensor card's mean in place of hidden pixels, which normalization makes zero.

    A hidden patch is then, for the tokenizer, its bias alone: one and the same learned token, as
    SimMIM's mask token is (section 3.2), and nothing has to be added to the encoder [ours]. The
    mask stays: an invalid token would take no part in attention, and could not be asked.

    Args:
        part: of a view.
        hidden: `(B, T, H, W)` bool.
    """
    mean = sensor_facts(part.sensors, part.pixels.device)[0, ..., None, None]  # (B, 1, C, 1, 1)
    return dataclasses.replace(part, pixels=torch.where(hidden.unsqueeze(2), mean, part.pixels))


@torch.no_grad()
def unfused_vectors(network: Network, features: Features) -> Tensor:
    """`(N, D)` vectors of the N samples that show anything, for what is observed.

    Each is the mean of its modalities' mean features, in one width, without gradient.
    """
    total, count = [], []
    for key, levels in features.pyramid.items():
        mean, seen = image_vectors(*levels[-1].over_dates())
        total.append(network.adapters[key](mean) * seen[:, None])
        count.append(seen)
    seen_by = torch.stack(count).sum(0)  # (B,)
    kept = seen_by > 0
    return torch.stack(total).sum(0)[kept] / seen_by[kept, None]


def _draw(key: str, part: ModalityBatch, choose: Choose, block: int, share: float) -> Tensor:
    """Hidden pixels `(B, T, H, W)` of a modality."""
    samples, dates, _, height, width = part.pixels.shape
    rows, cols = count_blocks(height, width, block)
    numbers = choose(dates * rows * cols, f"masked {key}")[:samples]
    return draw_hidden(numbers, (dates, height, width), block, share)


def _error(
    network: Network,
    key: str,
    parts: Mapping[str, ModalityBatch],
    features: Features,
    hidden: Mapping[str, Tensor],
) -> Tensor:
    """Error of a modality; ranks whose batch lacks it take part in the mean with nothing."""
    if key not in parts:
        nothing = next(iter(features.pyramid.values()))[-1].values[:0]
        return masked_error(nothing, nothing, nothing.bool())
    part = parts[key]
    present = sensor_facts(part.sensors, part.pixels.device)[2, ..., None, None] > 0
    counted = (part.mask & hidden[key]).unsqueeze(2) & present  # (B, T, C, H, W)
    predicted = network.pixel_heads[key](features.pyramid[key][-1].values)
    return masked_error(predicted, normalize(part), counted)
