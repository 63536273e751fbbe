"""Values change as the physics says, where something was measured, and nowhere else."""

import math

import pytest
import torch

from skysense.pretrain.views.config import HrConfig, S1Config, S2Config
from skysense.pretrain.views.radiometry import change_echo, change_light, sensor_facts
from skysense.pretrain.views.randomness import Draws
from skysense.sensors import SENSORS

ROWS = 64
DRAWS = Draws(0, 0, 0, torch.arange(ROWS))
HR_OFF = {"blur": 0, "gain": 0, "band_gain": 0, "brightness": 0, "contrast": 0, "gray": 0}
S2_OFF = {"gain": 0, "band_gain": 0, "brightness": 0, "band_brightness": 0, "haze": 0}


def facts(sensor):
    return sensor_facts((sensor,) * ROWS, torch.device("cpu"))


def images(sensor, dates=2, size=8):
    mean, std, present, _ = facts(sensor)
    noise = torch.randn(ROWS, dates, mean.shape[-1], size, size)
    return (mean[..., None, None] + std[..., None, None] * noise) * present[..., None, None]


def change(sensor, config, before, mask=None):
    if sensor == "s1":
        return change_echo(DRAWS, sensor, before.clone(), facts(sensor), config)
    return change_light(DRAWS, "s2", before.clone(), mask, facts(sensor), config)


@pytest.mark.parametrize(
    ("sensor", "config"),
    [
        ("hr", HrConfig(**HR_OFF)),
        ("s2", S2Config(**S2_OFF)),
        ("s1", S1Config(gain=0, band_gain=0, speckle=0)),
    ],
)
def test_strengths_of_zero_change_nothing(sensor, config):
    before = images(sensor)

    assert torch.equal(change(sensor, config, before), before)


def test_gain_is_one_number_for_all_bands_of_a_date():
    before = images("s2")
    ratio = change("s2", S2Config(**{**S2_OFF, "gain": 0.2}), before) / before

    factor = ratio[..., :1, :1, :1]
    torch.testing.assert_close(ratio, factor.expand_as(ratio), rtol=1e-4, atol=0)
    assert math.exp(-0.2) <= factor.min() < 0.85
    assert 1.17 < factor.max() <= math.exp(0.2) + 1e-4
    assert not torch.allclose(factor[:, 0], factor[:, 1])  # dates differ


def test_brightness_is_in_standard_deviations():
    before = images("s2")
    shift = change("s2", S2Config(**{**S2_OFF, "brightness": 0.5}), before) - before

    shift = shift / facts("s2")[1][..., None, None]
    torch.testing.assert_close(shift, shift[..., :1, :1, :1].expand_as(shift), rtol=0, atol=1e-4)
    assert 0.4 < shift.abs().max() <= 0.5 + 1e-4


def test_contrast_keeps_the_mean_of_what_is_valid():
    before = images("hr")
    mask = torch.rand(ROWS, 2, 8, 8) < 0.7
    before = before.masked_fill(~mask.unsqueeze(2), 0)
    after = change("hr", HrConfig(**{**HR_OFF, "contrast": 0.5}), before, mask)

    def moments(x):
        weight = mask.unsqueeze(2).float()
        mean = (x * weight).sum((3, 4)) / weight.sum((3, 4))
        return mean, ((x - mean[..., None, None]).square() * weight).sum((3, 4)).sqrt()

    (mean, spread), (same, other) = moments(before), moments(after)
    torch.testing.assert_close(same, mean, rtol=1e-4, atol=1e-3)
    assert (other / spread).log().abs().max() <= 0.5 + 1e-3
    assert (other / spread).log().std() > 0.2


def test_haze_brightens_short_waves_most_and_half_of_the_images():
    before = images("s2")
    added = change("s2", S2Config(**{**S2_OFF, "haze": 1.0}), before) - before

    hazy = added[:, :, 0, 0, 0] > 1e-3 * SENSORS["s2"].bands[0].std
    by_band = added[hazy].mean((0, 2, 3))
    assert 0.3 < hazy.float().mean() < 0.7
    assert (by_band.diff() < 0).all()  # bands are in the order of their wavelengths
    assert by_band[-1] > 0
    assert added[:, :, 0].max() <= SENSORS["s2"].bands[0].std * (1 + 1e-4)
    assert added[~hazy].abs().max() < 1e-3


def test_gray_draws_standardized_bands_together():
    before = images("hr", dates=1)
    after = change("hr", HrConfig(**{**HR_OFF, "gray": 1.0}), before)

    mean, std, _, _ = (fact[..., None, None] for fact in facts("hr"))
    normal, found = (before - mean) / std, (after - mean) / std
    gray = normal.mean(2, keepdim=True)
    amount = ((found - normal) * (gray - normal)).sum((2, 3, 4)) / (gray - normal).square().sum(
        (2, 3, 4)
    )
    expected = torch.lerp(normal, gray.expand_as(normal), amount[:, :, None, None, None])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert amount.min() > -1e-3
    assert amount.max() < 1 + 1e-3
    assert amount.std() > 0.2


def test_gray_comes_after_gain_and_offset():
    before = images("hr")
    light = {**HR_OFF, "gain": 0.3, "brightness": 0.5, "contrast": 0.3}
    first = change("hr", HrConfig(**light), before)

    both = change("hr", HrConfig(**{**light, "gray": 1.0}), before)
    then = change("hr", HrConfig(**{**HR_OFF, "gray": 1.0}), first)

    torch.testing.assert_close(both, then, rtol=1e-4, atol=1e-2)


def test_absent_channels_stay_zero():
    before = images("landsat_c2_l2")
    absent = facts("landsat_c2_l2")[2, 0, 0] == 0
    config = S2Config(**{**S2_OFF, "gain": 0.2, "brightness": 0.3, "haze": 1, "gray": 1.0})

    after = change("landsat_c2_l2", config, before)

    assert absent.any()
    assert not after[:, :, absent].any()
    assert (after != before)[:, :, ~absent].float().mean() > 0.99


def test_radar_gain_is_in_decibel():
    before = images("s1")
    shift = change("s1", S1Config(gain=2.0, band_gain=0, speckle=0), before) - before

    torch.testing.assert_close(shift, shift[..., :1, :1, :1].expand_as(shift), rtol=0, atol=1e-4)
    assert 1.8 < shift.abs().max() <= 2 + 1e-4


def test_speckle_has_the_moments_of_the_gamma_distribution():
    before = torch.full((ROWS, 1, 2, 32, 32), -12.0)
    after = change("s1", S1Config(gain=0, band_gain=0, speckle=0.5), before)

    power = 10 ** ((after - before) / 10)  # relative
    s = 0.5 * DRAWS.sometimes("s1 looks", 1)[:, 0]
    mean, std = power.mean((1, 2, 3, 4)), power.std((1, 2, 3, 4))
    assert torch.isfinite(after).all()
    assert (mean - 1).abs().max() < 0.05
    assert ((std - s).abs() <= 0.05 * s + 1e-6).all()
    skewness = ((power - 1) ** 3).mean((1, 2, 3, 4)) / s**3
    strong = s > 0.3
    assert (skewness / (2 * s) - 1)[strong].abs().mean() < 0.15  # 2 / sqrt(looks)
    assert 0.3 < (s == 0).float().mean() < 0.7


def test_sensors_of_a_batch_keep_their_own_facts():
    found = sensor_facts(("s2", "landsat_c2_l2", "s2"), torch.device("cpu"))

    assert found.shape == (4, 3, 1, 10)
    assert torch.equal(found[:, 0], found[:, 2])
    assert found[2, 1].sum() == 6
    assert found[3, 0, 0, 0] == pytest.approx(SENSORS["s2"].bands[0].std)
