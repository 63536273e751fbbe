"""What is kept comes back bit for bit, in an archive that WebDataset's rules can read."""

import io
import json
import tarfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skysense.data.shards import StoredSample, StoredSeries
from skysense.data.shards.members import decode, encode, split
from skysense.data.shards.stored import storable
from skysense.models.embedding import to_series
from skysense.sensors import SENSORS


def there_and_back(sample):
    key, contents = split(encode("a/000", sample))
    assert key == "a/000"
    return decode(contents)


def assert_equal(first, second):
    assert first.series.keys() == second.series.keys()
    for key, own in first.series.items():
        other = second.series[key]
        assert own.pixels.dtype == other.pixels.dtype
        np.testing.assert_array_equal(own.pixels, other.pixels)
        np.testing.assert_array_equal(own.dates, other.dates)
        assert (own.sensor, own.bands) == (other.sensor, other.bands)
        assert (own.mask is None) == (other.mask is None)
        if own.mask is not None:
            np.testing.assert_array_equal(own.mask, other.mask)
    assert (first.location, first.source) == (second.location, second.source)
    assert first.class_names == second.class_names


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_every_type_comes_back(sample, dtype):
    before = sample(3, ("hr", "s2"), dtype=dtype)
    assert_equal(there_and_back(before), before)


def test_all_that_a_sample_can_have_comes_back(sample):
    classes = np.array([[0, 1], [-1, 1]], np.int16)
    before = sample(1, ("hr", "s2", "s1"), classes, ("water", "wood, old"))
    s1 = before.series["s1"]
    pixels = s1.pixels.copy()
    pixels[0, :, 2] = np.nan
    dates = s1.dates.copy()
    dates[1] = np.datetime64("NaT")
    s2 = replace(before.series["s2"], mask=np.arange(256).reshape(4, 8, 8) % 3 > 0)
    series = {**before.series, "s2": s2, "s1": replace(s1, pixels=pixels, dates=dates)}
    before = replace(before, series=series, location=None)
    after = there_and_back(before)
    assert_equal(after, before)
    np.testing.assert_array_equal(after.classes, classes)


def test_members_follow_the_rules_of_webdataset(build, sample):
    """One basename a sample, side by side, split at the first dot; JSON and NPY inside."""
    folder = build([sample(i, ("hr", "s2")) for i in range(5)], samples_per_shard=3)
    samples = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            keys = []
            for member in archive:
                key, kind = member.name.split(".", 1)
                if not keys or keys[-1] != key:
                    keys.append(key)
                samples.setdefault(key, {})[kind] = archive.extractfile(member).read()
            assert len(keys) == len(set(keys))
    assert len(samples) == 5
    for contents in samples.values():
        assert set(contents) == {"json", "hr.npy", "s2.npy"}
        facts = json.loads(contents["json"])
        pixels = np.load(io.BytesIO(contents["s2.npy"]))
        assert pixels.shape == (4, 10, 8, 8)
        assert facts["series"]["s2"]["sensor"] == "s2_l2a"
        assert facts["series"]["s2"]["dates"][0] == "2021-03-01"


@pytest.mark.parametrize("sensor", [name for name in SENSORS if name != "s1_linear"])
def test_physical_values_are_those_of_an_image_given_by_hand(stored, sensor):
    card = SENSORS[sensor]
    dtype = "uint8" if card.unit == "8-bit brightness" else "float32"
    own = stored(card.modality, shape=(1, 6, 5), dtype=dtype, sensor=sensor)
    pixels = own.pixels
    if dtype == "float32" and card.modality != "s1":
        pixels = (pixels / 500 - card.offset) / card.scale
        pixels = pixels.astype("uint16" if card.scale < 1 else "float32")
    pixels[0, :, 0, 0] = 0
    own = replace(own, pixels=pixels, bands=own.bands[::-1])
    after = own.to_series()
    expected = to_series(pixels[0], card, own.bands)
    assert torch.equal(after.pixels, expected.pixels)
    assert torch.equal(after.mask, expected.mask)


def test_linear_power_of_zero_is_missing(stored):
    own = stored("s1", dtype="float32", sensor="s1_linear")
    pixels = np.abs(own.pixels) / 100
    pixels[0, 1, 3, 4] = 0
    series = replace(own, pixels=pixels).to_series()
    assert (~series.mask).nonzero().tolist() == [[0, 3, 4]]
    np.testing.assert_allclose(series.pixels[1, 0], 10 * np.log10(pixels[1, 0]), rtol=1e-5)


def test_a_mask_replaces_the_nodata_value_but_not_nan(stored):
    own = stored("s1")
    pixels = own.pixels.copy()
    pixels[0, 0, 0, 0] = np.nan
    mask = np.ones((3, 8, 8), bool)
    mask[1] = False
    seen = replace(own, pixels=pixels, mask=mask).measured()
    assert not seen[0, 0, 0]
    assert not seen[1].any()
    assert seen[2].all()
    dark = stored("s2")
    zeros = np.zeros_like(dark.pixels)
    assert not replace(dark, pixels=zeros).measured().any()
    assert replace(dark, pixels=zeros, mask=np.ones((4, 8, 8), bool)).measured().all()


@given(st.data())
def test_a_damaged_piece_is_a_value_error_or_a_sample(data):
    series = StoredSeries(
        np.full((1, 3, 2, 2), 9, np.uint8), np.array(["2020-01-01"], "M8[D]"), "rgb8", tuple("RGB")
    )
    piece = bytearray(encode("0", StoredSample({"hr": series})))
    for _ in range(data.draw(st.integers(1, 4))):
        piece[data.draw(st.integers(0, len(piece) - 1))] = data.draw(st.integers(0, 255))
    del piece[data.draw(st.integers(1, len(piece))) :]
    with suppress(ValueError):
        _, contents = split(bytes(piece))
        decode(contents)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pixels": np.zeros((1, 3, 4, 4), np.float64)}, "are float64, expected one of uint8"),
        ({"pixels": np.zeros((3, 4, 4), np.uint8)}, r"have shape \(3, 4, 4\), expected \(T, 3, H"),
        ({"dates": np.array(["2020"] * 2, "M8[D]")}, "has 1 images, but dates"),
        ({"bands": ("R", "G", "X")}, "needs B; found R, G, X"),
        ({"sensor": "rgb9"}, "did you mean `rgb8`"),
        ({"mask": np.ones((1, 2, 2), bool)}, r"mask is \(1, 2, 2\)"),
    ],
)
def test_a_series_that_does_not_fit_together(stored, change, match):
    with pytest.raises(ValueError, match=match):
        replace(stored("hr", shape=(1, 4, 4)), **change)


def test_a_class_map_needs_names(sample):
    with pytest.raises(ValueError, match=r"codes 0 to 2, expected -1 .* to 1"):
        sample(0, classes=np.array([[0, 2]], np.int16), names=("a", "b"))


def test_a_newer_version_is_refused(sample):
    _, contents = split(encode("0", sample()))
    facts = json.loads(contents["json"]) | {"version": 99}
    with pytest.raises(ValueError, match="version 99; this release reads 1"):
        decode({**contents, "json": json.dumps(facts).encode()})


@pytest.mark.parametrize(
    ("dtype", "values", "kept"),
    [
        ("int64", [0, 255], "uint8"),
        ("int32", [0, 60_000], "uint16"),
        ("int64", [-5, 300], "int16"),
        ("int64", [-5, 60_000], "float32"),
        ("float64", [0.5, 2], "float32"),
        (">u2", [1, 2], "uint16"),
    ],
)
def test_numbers_are_kept_as_the_smallest_type_that_holds_them(dtype, values, kept):
    array = storable(np.array(values, dtype))
    assert array.dtype == np.dtype(kept)
    np.testing.assert_array_equal(array, values)
