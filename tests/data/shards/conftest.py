"""Shards of small samples, and ways to spoil them."""

import numpy as np
import pytest

from skysense.data.shards import Draft, StoredSample, StoredSeries, build_shards
from skysense.sensors import SENSORS

SHAPES = {"hr": (1, 16, 16), "s2": (4, 8, 8), "s1": (3, 8, 8)}
CARDS = {"hr": ("rgb8", "uint8"), "s2": ("s2_l2a", "uint16"), "s1": ("s1", "float32")}


def make_stored(modality="hr", seed=0, shape=None, dtype=None, sensor=None):
    """Plausible numbers of one modality."""
    rng = np.random.default_rng(seed)
    dates, height, width = shape or SHAPES[modality]
    sensor = sensor or CARDS[modality][0]
    dtype = dtype or CARDS[modality][1]
    bands = tuple(band.name for band in SENSORS[sensor].bands)
    size = (dates, len(bands), height, width)
    low, high = (-30, -5) if modality == "s1" else (20, 250)
    pixels = rng.uniform(low, high, size) if dtype == "float32" else rng.integers(low, high, size)
    days = np.datetime64("2021-03-01", "D") + 30 * np.arange(dates)
    return StoredSeries(pixels.astype(dtype), days, sensor, bands)


def make_sample(seed=0, modalities=("hr",), classes=None, names=(), **options):
    """A sample whose numbers depend on the seed."""
    return StoredSample(
        {key: make_stored(key, seed, **options) for key in modalities},
        (7.5, 51.25 + seed / 1000),
        f"place {seed}",
        classes,
        names,
    )


@pytest.fixture(scope="session")
def sample():
    """`sample(seed, modalities, classes, names, **options) -> StoredSample`."""
    return make_sample


@pytest.fixture(scope="session")
def stored():
    """`stored(modality, seed, shape, dtype, sensor) -> StoredSeries`."""
    return make_stored


@pytest.fixture
def build(tmp_path):
    """`build(samples, name="shards", **options) -> Path`."""

    def run(samples, name="shards", **options):
        drafts = [Draft(f"draft/{i}", lambda s=s: [s]) for i, s in enumerate(samples)]
        build_shards(drafts, tmp_path / name, **options)
        return tmp_path / name

    return run
