"""Batches for views, and options that leave all values as they are."""

import pytest
import torch

from skysense.pretrain.views import ViewConfig
from skysense.sample import Batch, ModalityBatch, Sample, collate

PLAIN = {
    "hr": {
        "blur": 0, "gain": 0, "band_gain": 0, "brightness": 0, "contrast": 0, "gray": 0,
    },
    "s2": {
        "blur": 0, "gain": 0, "band_gain": 0, "brightness": 0, "band_brightness": 0, "haze": 0,
        "day_jitter": 0,
    },
    "s1": {"gain": 0, "band_gain": 0, "speckle": 0, "day_jitter": 0},
}  # fmt: skip


@pytest.fixture(scope="session")
def plain_config():
    """`plain_config(hr={...}, ...) -> ViewConfig` in which only geometry and dates are random."""

    def make(**changes):
        parts = {key: {**PLAIN[key], **changes.pop(key, {})} for key in PLAIN}
        return ViewConfig(**{"drop_modality": 0, **parts, **changes})

    return make


@pytest.fixture(scope="session")
def mixed_batch(series):
    """Five samples with any subset of modalities, ragged sizes and dates, holes and strangers."""
    samples = [
        Sample({"hr": series("hr", shape=(40, 40), seed=1)}),
        Sample({
            "s2": series("s2", 5, (16, 16), 2, masked=0.3),
            "s1": series("s1", 3, (16, 16), 3),
        }),
        Sample({
            "hr": series("hr", shape=(32, 48), seed=4, masked=0.2),
            "s2": series("landsat_c2_l2", 2, (8, 12), 5),
            "s1": series("s1", 1, (16, 24), 6, masked=0.5),
        }),
        Sample({"s1": series("s1", 2, (16, 16), 7)}),
        Sample({"s2": series("s2", 1, (12, 12), 8)}),
    ]  # fmt: skip
    return collate(samples)


@pytest.fixture(scope="session")
def rows_of():
    """`rows_of(batch, rows) -> Batch` of some rows, with the padding and modalities of all."""

    def pick(batch, rows):
        index = torch.tensor(rows)
        parts = {
            key: ModalityBatch(
                part.pixels[index],
                part.mask[index],
                part.days[index],
                part.sizes[index],
                tuple(part.sensors[i] for i in rows),
            )
            for key, part in batch.modalities.items()
        }
        return Batch(parts, batch.location[index])

    return pick


@pytest.fixture(scope="session")
def coordinate_batch():
    """`coordinate_batch((H, W), rows) -> Batch` of hr images that show their own `(row, col)`."""

    def make(shape, rows):
        height, width = shape
        pixels = torch.zeros(rows, 1, 3, height, width)
        pixels[:, :, 0] = ((torch.arange(height) + 0.5) / height)[:, None]
        pixels[:, :, 1] = (torch.arange(width) + 0.5) / width
        part = ModalityBatch(
            pixels,
            torch.ones(rows, 1, height, width, dtype=torch.bool),
            torch.zeros(rows, 1, dtype=torch.int64),
            torch.tensor([shape] * rows),
            ("hr",) * rows,
        )
        return Batch({"hr": part}, torch.full((rows, 2), float("nan")))

    return make
