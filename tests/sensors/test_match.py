"""Bands are found by name, under the names that files really use, and never guessed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.sensors import SENSORS, find_bands, missing_bands
from skysense.sensors.match import tokens

S2 = SENSORS["s2"].bands
S2_COLOURS = ["blue", "green", "red", "rededge1", "rededge2", "rededge3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("B04 - Red", {"B4", "RED"}),
        ("VV_dB", {"VV", "DB"}),
        ("sentinel-2 b8a", {"SENTINEL", "2", "B8A"}),
        ("B10", {"B10"}),
        ("b002", {"B2"}),
        ("rededge01", {"REDEDGE1"}),
        ("  ", set()),
    ],
)
def test_tokens(text, words):
    assert tokens(text) == words


@pytest.mark.parametrize(
    ("sensor", "names", "found"),
    [
        ("rgb8", ["Red", "Green", "Blue"], {"R": 0, "G": 1, "B": 2}),
        ("rgb8", ["blue", "green", "red", "nir"], {"R": 2, "G": 1, "B": 0}),
        ("naip", ["R", "G", "B", "N"], {"R": 0, "G": 1, "B": 2}),
        ("rgb8", ["B02", "B03", "B04"], {"R": 2, "G": 1, "B": 0}),
        ("s1", ["VH_dB", "VV_dB"], {"VV": 1, "VH": 0}),
        ("s1", ["Sigma0_VV_db", "Sigma0_VH_db", "angle"], {"VV": 0, "VH": 1}),
        ("s1_vv", ["VH", "VV"], {"VV": 1}),
        (
            "planet",
            ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"],
            {"R": 5, "G": 3, "B": 1},
        ),
        ("planet", ["blue", "green", "red", "nir"], {"R": 2, "G": 1, "B": 0}),
        (
            "landsat_c2_l2",
            ["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7", "QA_PIXEL"],
            {"B2": 1, "B3": 2, "B4": 3, "B8A": 4, "B11": 5, "B12": 6},
        ),
        (
            "landsat_c2_l2",
            ["coastal", "blue", "green", "red", "nir08", "swir16", "swir22"],
            {"B2": 1, "B3": 2, "B4": 3, "B8A": 4, "B11": 5, "B12": 6},
        ),
    ],
)
def test_names_of_real_files(sensor, names, found):
    assert find_bands(SENSORS[sensor], names) == found


@pytest.mark.parametrize(
    "names",
    [
        [band.name for band in S2],
        ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"],
        [f"Sentinel-2 {band.name}" for band in S2],
        [band.aliases[0] for band in S2],
        [*S2_COLOURS, "nir", "nir08", "swir16", "swir22"],
        [*S2_COLOURS, "B8 - NIR", "B8A - narrow NIR", "B11 - SWIR1", "B12 - SWIR2"],
    ],
)
def test_sentinel_2_under_its_many_names(names):
    expected = {band.name: i for i, band in enumerate(S2)}

    assert find_bands(SENSORS["s2_l2a"], names) == expected
    backwards = find_bands(SENSORS["s2_l2a"], names[::-1])
    assert backwards == {name: len(names) - 1 - i for name, i in expected.items()}


def test_b8_is_not_b8a():
    assert find_bands(SENSORS["s2"], ["Sentinel-2 B8A"]) == {"B8A": 0}
    assert find_bands(SENSORS["s2"], ["Sentinel-2 B8"]) == {"B8": 0}
    assert find_bands(SENSORS["s2"], ["B80", "B1", "B1 2"]) == {}


@pytest.mark.parametrize(
    "names",
    [
        ["B4", "B04"],
        ["B4", "red"],  # each says exactly what is looked for
        ["B4 at noon", "B4 at night"],
        ["red one", "red two"],
    ],
)
def test_two_claims_are_an_error(names):
    expected = rf"2 bands claim to be B4 of sensor `s2`: `{names[0]}`, `{names[1]}`"

    with pytest.raises(ValueError, match=expected):
        find_bands(SENSORS["s2"], names)


def test_an_exact_name_beats_a_longer_one():
    assert find_bands(SENSORS["rgb8"], ["red edge", "red"]) == {"R": 1}


def test_bands_without_a_name_are_never_guessed():
    assert find_bands(SENSORS["rgb8"], [None, None, None]) == {}
    assert find_bands(SENSORS["rgb8"], [None, "", "red"]) == {"R": 2}
    assert find_bands(SENSORS["rgb8"], []) == {}


def test_missing_bands_in_card_order():
    found = find_bands(SENSORS["s2"], ["B3", "B12", "B2", "B8A"])

    assert missing_bands(SENSORS["s2"], list(found)) == ["B4", "B5", "B6", "B7", "B8", "B11"]
    assert missing_bands(SENSORS["s1"], ["VH", "VV"]) == []


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(range(13))), st.sampled_from([str.upper, str.lower, str.title]))
def test_order_and_case_do_not_matter(order, case):
    names = [band.name for band in S2] + ["B1", "B9", "QA60"]
    shuffled = [case(names[i]) for i in order]

    found = find_bands(SENSORS["s2"], shuffled)

    assert {name: names[order[i]] for name, i in found.items()} == {b.name: b.name for b in S2}
