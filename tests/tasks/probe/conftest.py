"""Labelled sets of a few images each, and stand-ins for models."""

import numpy as np
import pytest

from skysense.data.labelled import open_labelled

COLORS = {"field": (60, 160, 50), "sand": (200, 180, 120), "water": (20, 40, 110)}


class ColorModel:
    """Its vector is the mean color, and what it was asked is kept."""

    name, trained = "colors", True

    def __init__(self):
        self.batches = []

    def embed(self, images, sensor, bands=None, batch_size=16, *, least_size=None):
        self.batches.append([image.shape for image in images])
        assert len({image.shape for image in images}) == 1
        return np.stack([np.nanmean(image, (1, 2)) for image in images]).astype(np.float32)


def make_set(folder, count=6, seed=0, colors=COLORS, sizes=((16, 16),)):
    """A folder for each class, noisy images of its color."""
    rng = np.random.default_rng(seed)
    for name, color in colors.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            height, width = sizes[i % len(sizes)]
            noise = rng.normal(0, 12, (3, height, width))
            image = np.clip(np.array(color)[:, None, None] + noise, 0, 255).astype(np.uint8)
            np.save(folder / name / f"{i}.npy", image)
    return open_labelled(folder)


@pytest.fixture
def colored(tmp_path):
    """`colored(name, count=..., seed=..., colors=..., sizes=...) -> LabelledSet`."""
    return lambda name, **options: make_set(tmp_path / name, **options)


@pytest.fixture
def color_model():
    return ColorModel()
