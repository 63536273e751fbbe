"""Every sensor card: bands, units, statistics, and the checks that catch a wrong scaling."""

import dataclasses

import numpy as np
import pytest

from skysense.sensors import (
    DEFAULT_SENSORS,
    MODALITIES,
    SENSORS,
    TOKENIZER_BANDS,
    Band,
    SensorCard,
    get_sensor,
)

CARDS = pytest.mark.parametrize("card", SENSORS.values(), ids=SENSORS)


def test_bands_of_the_tokenizers_are_those_of_the_paper():
    assert MODALITIES == ("hr", "s2", "s1")
    assert TOKENIZER_BANDS == {
        "hr": ("R", "G", "B"),
        "s2": ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"),
        "s1": ("VV", "VH"),
    }


@CARDS
def test_card_is_complete(card):
    assert SENSORS[card.name] is card
    assert card.bands
    assert all((card.title, card.unit, card.source))
    assert card.plausible[0] < card.plausible[1]
    order = card.inputs
    names = [band.name for band in card.bands]
    assert names == sorted(names, key=order.index)
    assert [order[channel] for channel in card.channels] == names
    assert set(names) | set(card.absent) == set(order)
    assert not set(names) & set(card.absent)


@CARDS
def test_numbers_of_a_card_are_sane(card):
    for band in card.bands:
        assert np.isfinite([band.mean, band.std, band.gsd]).all()
        assert band.std > 0
        assert band.gsd >= card.gsd > 0
        assert band.wavelength is None or 400 < band.wavelength < 2500
        assert (band.wavelength is None) == (card.modality == "s1")
    assert np.isfinite([card.scale, card.offset]).all()
    assert card.scale > 0


@CARDS
def test_mean_of_a_card_is_plausible(card):
    card.check_scale(np.array([band.mean for band in card.bands], np.float32), "the mean")


@CARDS
def test_wavelengths_rise_with_the_channel_except_for_rgb(card):
    own = [band for band in card.bands if band.name in TOKENIZER_BANDS[card.modality]]
    waves = [band.wavelength for band in own if band.wavelength is not None]

    assert waves == sorted(waves, reverse=card.modality == "hr")


def test_near_infrared_of_hr_is_for_those_that_ask():
    assert SENSORS["naip_rgbn"].inputs == ("R", "G", "B", "NIR")
    assert SENSORS["naip_rgbn"].channels == (0, 1, 2, 3)
    others = [card for card in SENSORS.values() if card.name != "naip_rgbn"]
    assert all(card.inputs == TOKENIZER_BANDS[card.modality] for card in others)


def test_defaults_feed_their_modality():
    assert {key: SENSORS[name].modality for key, name in DEFAULT_SENSORS.items()} == {
        key: key for key in MODALITIES
    }


def test_modalities_have_a_card_of_their_name():
    assert all(SENSORS[key].modality == key and not SENSORS[key].absent for key in MODALITIES)


def test_cards_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SENSORS["s2"].scale = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        SENSORS["s2"].bands[0].mean = 1.0


def test_bands_out_of_order_are_a_mistake_of_ours():
    with pytest.raises(AssertionError, match="not in order"):
        SensorCard("x", "x", "s1", (Band("VH", 0, 1, 10), Band("VV", 0, 1, 10)), "dB", "x")


@pytest.mark.parametrize(
    ("name", "stored", "physical"),
    [
        ("rgb8", 128, 128),
        ("s2_l2a", 1500, 0.15),
        ("s2_l2a_n0400", 2500, 0.15),
        ("s2_l2a_n0400", 1000, 0.0),
        ("s2_l1c_n0400", 2500, 0.15),
        ("planet", 1500, 0.15),
        ("landsat_c2_l2", 7273, 7273 * 2.75e-5 - 0.2),
        ("s1", -12.5, -12.5),
        ("s1_linear", 1.0, 0.0),
        ("s1_linear", 0.01, -20.0),
    ],
)
def test_to_physical(name, stored, physical):
    values = SENSORS[name].to_physical(np.full((2, 3), stored, np.float32))

    assert values.dtype == np.float32
    np.testing.assert_allclose(values, physical, atol=1e-6)


def test_power_that_is_not_positive_is_missing():
    values = SENSORS["s1_linear"].to_physical(np.array([0.0, -1.0, np.nan, 10.0], np.float32))

    assert np.isnan(values).tolist() == [True, True, True, False]


def test_integers_become_float():
    assert SENSORS["s2_l2a"].to_physical(np.array([5000], np.uint16)) == np.float32(0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("s2", 1500.0),  # digital numbers read as reflectance
        ("s2_l2a", 15000.0),  # what `to_physical` would make of them read twice
        ("rgb8", 4000.0),  # 16 bit read as 8 bit
        ("s1", 0.02),  # linear power
        ("s1", -60.0),
        ("planet", 15000.0),
        ("hr", -1.0),
    ],
)
def test_wrong_scaling_is_refused(name, value):
    card = SENSORS[name]
    expected = rf"here\.tif: the median value is .* sensor `{name}` .*`--sensor`"

    with pytest.raises(ValueError, match=expected):
        card.check_scale(np.full(9, value, np.float32), "here.tif")


@pytest.mark.parametrize("name", ["s2_l2a", "s2_l2a_n0400", "s2_l1c", "planet", "landsat_c2_l2"])
@pytest.mark.parametrize("reflectance", [0.02, 0.2, 1.0])
def test_reflectance_is_not_taken_for_digital_numbers(name, reflectance):
    card = SENSORS[name]
    values = card.to_physical(np.full(9, reflectance, np.float32))

    with pytest.raises(ValueError, match="the scaling does not fit"):
        card.check_scale(values, "here")


def test_dark_water_is_plausible():
    for name, number in (("s2_l2a", 10), ("s2_l2a_n0400", 950), ("landsat_c2_l2", 7000)):
        values = SENSORS[name].to_physical(np.full(9, number, np.float32))
        SENSORS[name].check_scale(values, "here")


def test_a_few_outliers_are_not_a_wrong_scaling():
    values = np.full(100, 0.2, np.float32)
    values[:40] = 1e6

    SENSORS["s2"].check_scale(values, "here")


def test_nothing_valid_has_no_scaling():
    SENSORS["s2"].check_scale(np.zeros(0, np.float32), "here")


def test_unknown_sensor_names_the_closest_and_all():
    with pytest.raises(ValueError, match=r"`s2_l2`; did you mean `s2_l2a`\? .*, s1_vv"):
        get_sensor("s2_l2")
    with pytest.raises(ValueError, match=r"unknown sensor `qqq` \(known: hr, s2, s1,"):
        get_sensor("qqq")
    assert get_sensor("s1") is SENSORS["s1"]
