"""The read-out: what it makes of vectors, that it is kept, and that it can be left out."""

import numpy as np
import pytest
import torch

from skysense.hub import load
from skysense.models.readout import Readout, ReadoutConfig

WIDTHS = {"hr": (6, 4)}


def fitted(parts, kept=3):
    readout = Readout(ReadoutConfig(kept=kept, modalities=("hr",)), WIDTHS)
    readout.fit("hr", parts)
    return readout


def apply(readout, parts):
    return (torch.cat(parts, 1) - readout.hr_mean) @ readout.hr_map.T


@pytest.fixture
def parts():
    """500 vectors of two parts, numbers of very different size, depending on each other."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(500, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    scales = torch.tensor([1e-3, 1, 10, 1e3, 1, 5])
    return [mixed * scales + 7, torch.randn(500, 4, generator=generator)]


def test_vectors_are_white_in_each_part(parts):
    vectors = apply(fitted(parts), parts)

    assert vectors.shape == (500, 6)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    for own in vectors.split(3, 1):
        torch.testing.assert_close(own.T @ own / 500, torch.eye(3), atol=2e-2, rtol=0)


def test_scale_and_offset_of_a_number_change_nothing_but_signs(parts):
    changed = [parts[0] * torch.tensor([2.0, 0.5, 9, 1, 3, 4]) - 5, parts[1]]

    first, second = (apply(fitted(own), own) for own in (parts, changed))

    torch.testing.assert_close(first.abs(), second.abs(), atol=2e-2, rtol=1e-2)


def test_numbers_that_never_vary_are_left_out():
    parts = [torch.randn(50, 6), torch.ones(50, 4)]
    vectors = apply(fitted(parts), parts)

    assert vectors.isfinite().all()
    assert vectors[:, 3:].abs().max() < 1e-3


@pytest.mark.parametrize("shapes", [((1, 6), (1, 4)), ((9, 6), (9, 5))])
def test_too_few_or_other_vectors_are_refused(shapes):
    with pytest.raises(ValueError, match="read-out of `hr` is fitted on at least two vectors of 10"):
        fitted([torch.randn(shape) for shape in shapes])


def test_a_model_uses_and_keeps_it(fresh, tmp_path):
    model = fresh("v2_tiny", readout=ReadoutConfig(kept=4, modalities=("hr",)))
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
    spread = torch.from_numpy(model.embed(images, "rgb8", pooling="spread"))
    widths = [64, 128, 256, 512, 128]
    model.readout.fit("hr", spread.split(widths, 1))

    vectors = model.embed(images, "rgb8")
    again = load(model.save(tmp_path / "saved"))

    assert vectors.shape == (12, 20)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(again.embed(images, "rgb8"), vectors, atol=1e-4)
    radar = np.random.default_rng(0).normal(-12, 3, (2, 2, 32, 32)).astype(np.float32)
    fused = model.embed(radar, "s1", pooling="fused")
    np.testing.assert_array_equal(model.embed(radar, "s1"), fused)  # it has none for that one
