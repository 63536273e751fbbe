"""The read-out: what it makes of vectors, that it is kept, and that it can be left out."""

import numpy as np
import pytest
import torch

from skysense.hub import load
from skysense.models.readout import Readout, ReadoutConfig

WIDTHS = {"hr": (6, 4)}


def fitted(parts, kept=3, whitening=1.0):
    config = ReadoutConfig(kept=kept, whitening=whitening, modalities=("hr",))
    readout = Readout(config, WIDTHS)
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


def spectrum(vectors):
    """Variances along the main directions, the largest first."""
    return torch.linalg.eigvalsh(vectors.T @ vectors / len(vectors)).flip(0)


def test_whitened_wholly_all_directions_vary_equally(parts):
    vectors = apply(fitted(parts), parts)

    assert vectors.shape == (500, 6)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    inside = spectrum(apply(fitted([parts[0], torch.ones(500, 4)]), [parts[0], torch.ones(500, 4)]))
    torch.testing.assert_close(inside[:3], torch.full((3,), 1 / 3), atol=2e-2, rtol=0)


def test_whitening_takes_away_a_share_of_the_spread(parts):
    alone = [parts[0], torch.ones(500, 4)]
    none, half = (spectrum(apply(fitted(alone, whitening=w), alone))[:3] for w in (0, 0.5))

    ratio = none / none[0]
    torch.testing.assert_close(half / half[0], ratio.sqrt(), atol=2e-2, rtol=0)
    torch.testing.assert_close(half.sum(), torch.tensor(1.0), atol=1e-2, rtol=0)


def test_both_parts_weigh_the_same(parts):
    first = [parts[0], torch.ones(500, 4)]
    second = [torch.ones(500, 6), parts[1]]

    for own in (first, second):
        length = apply(fitted(own, whitening=0.5), own).square().sum(1).mean()
        torch.testing.assert_close(length, torch.tensor(1.0), atol=1e-2, rtol=0)


def test_every_number_has_about_the_same_variance():
    torch.manual_seed(0)
    wide = [torch.randn(2000, 6) @ torch.randn(6, 6), torch.randn(2000, 4)]
    readout = fitted(wide, whitening=0.5)

    vectors = apply(readout, wide)

    before = apply(readout, wide) @ torch.linalg.qr(readout.hr_map)[0]
    assert vectors.std(0).max() / vectors.std(0).min() < 1.6
    assert before.isfinite().all()


def test_scale_and_offset_of_a_number_change_only_the_sign_of_directions(parts):
    changed = [parts[0] * torch.tensor([2.0, 0.5, 9, 1, 3, 4]) - 5, parts[1]]

    first, second = (spectrum(apply(fitted(own, whitening=0.5), own)) for own in (parts, changed))

    torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-2)


def test_numbers_that_never_vary_are_left_out():
    parts = [torch.randn(50, 6), torch.ones(50, 4)]
    vectors = apply(fitted(parts), parts)

    assert vectors.isfinite().all()
    assert spectrum(vectors)[3:].max() < 1e-6


@pytest.mark.parametrize("shapes", [((1, 6), (1, 4)), ((9, 6), (9, 5))])
def test_too_few_or_other_vectors_are_refused(shapes):
    with pytest.raises(
        ValueError, match="read-out of `hr` is fitted on at least two vectors of 10"
    ):
        fitted([torch.randn(shape) for shape in shapes])


def test_a_model_uses_and_keeps_it(fresh, tmp_path):
    model = fresh("v2_tiny", readout=ReadoutConfig(kept=4, modalities=("hr",)))
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
    spread = torch.from_numpy(model.embed(images, "rgb8", pooling="spread"))
    widths = [64, 128, 256, 512]
    model.readout.fit("hr", spread.split(widths, 1))

    vectors = model.embed(images, "rgb8")
    again = load(model.save(tmp_path / "saved"))

    assert vectors.shape == (12, 16)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(again.embed(images, "rgb8"), vectors, atol=1e-4)
    radar = np.random.default_rng(0).normal(-12, 3, (2, 2, 32, 32)).astype(np.float32)
    fused = model.embed(radar, "s1", pooling="fused")
    np.testing.assert_array_equal(model.embed(radar, "s1"), fused)  # it has none for that one
