"""Shared helpers: random series, and tiny models in which no parameter is trivially zero or one.

A fresh model would hide mistakes: zero biases, equal prompts and small maps make many things equal
that are not. Models handed out here are shared; a test that changes one asks for a `fresh` one.
"""

import functools

import numpy as np
import pytest
import torch

from skysense.models.skysense_v2 import V2_CONFIGS, SkySenseV2
from skysense.sample import Sample, Series, collate
from skysense.sensors import SENSORS


def pytest_configure():
    """One thread: for models as small as these, more cost several times what they bring."""
    torch.set_num_threads(1)


def make_series(
    sensor="s2", dates=1, shape=(16, 16), seed=0, masked=0.0, constant=False, first="2024-01-20"
):
    """Plausible noise, or one colour for all, with a share of the pixels masked."""
    generator = torch.Generator().manual_seed(seed)
    card = SENSORS[sensor]
    noise = torch.randn(
        dates, len(card.bands), *((1, 1) if constant else shape), generator=generator
    )
    if constant:
        noise = noise[:1].expand(dates, -1, *shape)
    mean, std = (
        torch.tensor([getattr(band, name) for band in card.bands])[:, None, None]
        for name in ("mean", "std")
    )
    pixels = torch.zeros(dates, len(card.inputs), *shape)
    pixels[:, list(card.channels)] = mean + std * noise
    mask = torch.rand(dates, *shape, generator=generator) >= masked
    days = np.datetime64(first, "D") + 37 * np.arange(dates)
    return Series(pixels, mask, days, sensor)


def perturb(model, seed=0):
    """Random noise on every parameter and prototype, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict(keep_vars=True).items():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.copy_(1 + 0.2 * noise)
            elif any(part in name for part in ("prompts.", "extra_token", "calendar", "proto")):
                value.copy_(noise)
            else:
                value.add_(0.1 * noise)
    return model


def make_model(name="v2_tiny", seed=0, **changes):
    """A perturbed model of a named configuration with some fields changed, for evaluation."""
    config = V2_CONFIGS[name].model_copy(update=changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = perturb(SkySenseV2(config, name), seed).eval()
    model.trained = True  # it keeps the warning of an untrained one quiet
    return model


@pytest.fixture(scope="session")
def series():
    """`series(sensor, dates, shape, seed, masked, constant) -> Series`."""
    return make_series


@pytest.fixture(scope="session")
def fresh():
    """`fresh(name, **config fields) -> SkySenseV2` of its own."""
    return make_model


@pytest.fixture(scope="session")
def shared():
    """`shared(name, **config fields) -> SkySenseV2`, the same for the same arguments."""
    return functools.cache(make_model)


@pytest.fixture(scope="session")
def run():
    """`run(model, *samples, **options) -> Features`, without gradients."""

    @torch.no_grad()
    def forward(model, *samples, **options):
        return model(
            collate([s if isinstance(s, Sample) else Sample(s) for s in samples]), **options
        )

    return forward
