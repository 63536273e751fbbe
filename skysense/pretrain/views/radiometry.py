"""Other light, other instruments: what may change in the values of the same ground.

All in the sensor card's physical unit, before the model normalizes; offsets are in the card's
standard deviations. What is drawn is drawn for each date. [ours]

Legend: B samples, T dates, C bands, h pixels along a side of the crop.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from skysense.pretrain.views.config import OpticalConfig, S1Config
from skysense.pretrain.views.randomness import Draws
from skysense.sensors import get_sensor

_HAZE_EXPONENT = 2.0
"""Light scattered by haze falls with this power of the wavelength: between Rayleigh's 4 of clear
air and less than 1 of thick aerosol. [ours]"""


@functools.cache
def _facts(sensor: str) -> Tensor:
    """Mean, standard deviation, presence and haze `(4, C)` of a card's tokenizer channels."""
    card = get_sensor(sensor)
    facts = torch.zeros(4, len(card.inputs))
    waves = [band.wavelength for band in card.bands if band.wavelength is not None]
    for channel, band in zip(card.channels, card.bands, strict=True):
        haze = (min(waves) / band.wavelength) ** _HAZE_EXPONENT if band.wavelength else 0.0
        facts[:, channel] = torch.tensor([band.mean, band.std, 1.0, haze])
    if waves:
        facts[3] *= card.bands[waves.index(min(waves))].std
    return facts


def sensor_facts(sensors: Sequence[str], device: torch.device) -> Tensor:
    """`(4, B, 1, C)`: mean, standard deviation, presence (1 or 0), haze of each sample's bands.

    Haze is in physical units, for one standard deviation in the bluest band.
    """
    known = {name: i for i, name in enumerate(dict.fromkeys(sensors))}
    table = torch.stack([_facts(name) for name in known], 1).to(device)  # (4, cards, C)
    return table[:, torch.tensor([known[name] for name in sensors], device=device), None]


def change_light(
    draws: Draws,
    key: str,
    pixels: Tensor,
    mask: Tensor | None,
    facts: Tensor,
    config: OpticalConfig,
) -> Tensor:
    """Gain, brightness, contrast, haze and graying of reflected light: one affine map an image.

    Args:
        draws: of the view.
        key: modality.
        pixels: `(B, T, C, h, h)`; changed in place.
        mask: `(B, T, h, h)` bool; `None` where all is valid.
        facts: of `sensor_facts`.
        config: strengths.

    Returns:
        `(B, T, C, h, h)`.
    """
    t, c = pixels.shape[1:3]
    gain = _gain(draws, key, t, c, config)
    offset = _brightness(draws, key, t, c, facts, config)
    if config.contrast:
        spread = (config.contrast * draws.signed(f"{key} contrast", t, 1)).exp()
        gain = spread.new_ones(()) if gain is None else gain
        own = (1 - spread) * gain * _own_mean(pixels, mask)
        gain, offset = gain * spread, own if offset is None else own + offset
    if config.gray:
        return _gray(draws, key, pixels, gain, offset, facts, config.gray)
    if gain is not None:
        pixels.mul_(gain[..., None, None])
    if offset is not None:
        pixels.add_(offset[..., None, None])
    return pixels


def _gain(draws: Draws, key: str, t: int, c: int, config: OpticalConfig) -> Tensor | None:
    """Factors that broadcast to `(B, T, C)`; `None` for 1."""
    terms = []
    if config.gain:
        terms.append(config.gain * draws.signed(f"{key} gain", t, 1))
    if config.band_gain:
        terms.append(config.band_gain * draws.signed(f"{key} band gain", t, c))
    return sum(terms[1:], terms[0]).exp() if terms else None


def _brightness(
    draws: Draws, key: str, t: int, c: int, facts: Tensor, config: OpticalConfig
) -> Tensor | None:
    """Offsets `(B, T, C)` in physical units; `None` for 0."""
    _, std, _, haze = facts
    terms = []
    if config.brightness:
        terms.append(config.brightness * draws.signed(f"{key} brightness", t, 1) * std)
    if config.band_brightness:
        terms.append(config.band_brightness * draws.signed(f"{key} offsets", t, c) * std)
    if config.haze:
        terms.append(config.haze * draws.sometimes(f"{key} haze", t, 1) * haze)
    return sum(terms[1:], terms[0]) if terms else None


def _own_mean(pixels: Tensor, mask: Tensor | None) -> Tensor:
    """`(B, T, C)` mean of each image's valid pixels."""
    if mask is None:
        return pixels.mean((3, 4))
    weight = mask.flatten(2).to(pixels.dtype)  # (B, T, h h)
    total = torch.einsum("btcn,btn->btc", pixels.flatten(3), weight)
    return total / weight.sum(2, keepdim=True).clamp(min=1)


def _gray(
    draws: Draws,
    key: str,
    pixels: Tensor,
    gain: Tensor | None,
    offset: Tensor | None,
    facts: Tensor,
    probability: float,
) -> Tensor:
    """Gain and offset, then some images drawn towards the mean of their standardized bands."""
    mean, std, present, _ = facts  # (B, 1, C) each
    b, t, c = pixels.shape[:3]
    u = draws.uniform(f"{key} gray", t, 2)
    amount = torch.where(u[..., 0] < probability, u[..., 1], 0)[..., None]  # (B, T, 1)
    look = present / (present.sum(-1, keepdim=True) * std.clamp(min=1e-9))  # of each band
    mixing = amount[..., None] * std[..., None] * look[..., None, :]  # (B, T, C, C)
    mixing = mixing + (1 - amount[..., None]) * torch.eye(c, device=pixels.device)
    shift = amount * (mean - std * (look * mean).sum(-1, keepdim=True))  # (B, T, C)
    if offset is not None:
        shift = shift + torch.einsum("btij,btj->bti", mixing, offset.expand(b, t, c))
    if gain is not None:
        mixing = mixing * gain[..., None, :]
    images = pixels.flatten(3).flatten(0, 1)  # (B T, C, h h)
    mixed = torch.baddbmm(shift.flatten(0, 1)[..., None], mixing.flatten(0, 1), images)
    return mixed.view_as(pixels)


def change_echo(draws: Draws, key: str, pixels: Tensor, facts: Tensor, config: S1Config) -> Tensor:
    """Gain and speckle of radar backscatter in decibel.

    Speckle multiplies the power by numbers of the gamma distribution with mean 1 and L looks; the
    Wilson-Hilferty cube of a normal number stands in for them, which is close for L above 2:
    (1 - s^2 / 9 + s z / 3)^3 with s = 1 / sqrt(L).

    Args:
        draws: of the view.
        key: modality.
        pixels: `(B, T, C, h, h)`; changed in place.
        facts: of `sensor_facts`.
        config: strengths.

    Returns:
        `(B, T, C, h, h)`.
    """
    present = facts[2][..., None, None]  # (B, 1, C, 1, 1)
    t, c, size = pixels.shape[1:4]
    if config.gain:
        offset = config.gain * draws.signed(f"{key} gain", t, 1)
        pixels.add_(offset[..., None, None] * present)
    if config.band_gain:
        offset = config.band_gain * draws.signed(f"{key} band gain", t, c)
        pixels.add_(offset[..., None, None] * present)
    if config.speckle:
        s = config.speckle * draws.sometimes(f"{key} looks", t)[..., None, None, None]
        noise = draws.normal(f"{key} speckle", t, c, size, size).mul_(s / 3)
        noise.add_(1 - s.square() / 9).clamp_(min=0.1).log10_()
        pixels.add_(noise.mul_(30 * present))
    return pixels
