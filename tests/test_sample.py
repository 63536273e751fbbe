"""Series, Sample, Batch: they check themselves, never change, and collate by masks alone."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from skysense.geo import Grid
from skysense.sample import (
    UNKNOWN_DAY,
    Batch,
    ModalityBatch,
    Sample,
    Series,
    collate,
    day_of_year,
    undated,
)

GRID = Grid("EPSG:32631", (10.0, 0, 0, 0, -10.0, 0), (16, 16))


@pytest.fixture
def parts():
    """What a valid series of `s1` is made of."""
    return {
        "pixels": torch.zeros(3, 2, 5, 7),
        "mask": torch.ones(3, 5, 7, dtype=torch.bool),
        "dates": np.array(["2024-01-01", "2024-12-31", "NaT"], "datetime64[D]"),
        "sensor": "s1",
    }


@pytest.fixture
def batch_parts():
    """What a valid batch of `s1` is made of."""
    return {
        "pixels": torch.zeros(2, 3, 2, 5, 7),
        "mask": torch.ones(2, 3, 5, 7, dtype=torch.bool),
        "days": torch.tensor([[1, 366, 0], [3, 0, 0]]),
        "sizes": torch.tensor([[5, 7], [5, 7]]),
        "sensors": ("s1", "s1_vv"),
    }


@pytest.mark.parametrize(
    ("date", "day"),
    [
        ("2023-01-01", 1),
        ("2023-12-31", 365),
        ("2024-02-29", 60),
        ("2024-12-31", 366),
        ("2000-12-31", 366),
        ("1900-12-31", 365),
        ("NaT", UNKNOWN_DAY),
    ],
)
@pytest.mark.parametrize("unit", ["D", "s", "ns"])
def test_day_of_year(date, day, unit):
    if date.startswith("1900") and unit == "ns":
        date, day = "1970-01-01", 1
    days = day_of_year(np.array([[date]], f"datetime64[{unit}]"))

    assert days.dtype == np.int64
    assert days.tolist() == [[day]]


def test_day_of_year_ignores_the_hour():
    assert day_of_year(np.array(["2024-02-29T23:59:59"], "datetime64[s]")).tolist() == [60]


def test_undated():
    assert day_of_year(undated(2)).tolist() == [UNKNOWN_DAY] * 2


def test_valid_series(parts):
    series = Series(**parts)

    assert series.modality == "s1"
    assert Series(**{**parts, "dates": parts["dates"].astype("datetime64[ns]")}).modality == "s1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensor": "s1_v"}, r"unknown sensor `s1_v`; did you mean `s1_vv`"),
        ({"sensor": "s2"}, r"`s2` pixels have shape \(3, 2, 5, 7\), expected \(T, 10, H, W\).*B8A"),
        ({"pixels": torch.zeros(2, 5, 7)}, r"have shape \(2, 5, 7\), expected \(T, 2, H, W\).*VV"),
        ({"pixels": torch.zeros(0, 2, 5, 7)}, r"pixels are empty: \(0, 2, 5, 7\)"),
        ({"pixels": torch.zeros(3, 2, 5, 0)}, r"pixels are empty: \(3, 2, 5, 0\)"),
        ({"pixels": torch.zeros(3, 2, 5, 7).double()}, r"torch.float64, expected float32"),
        ({"pixels": torch.zeros(3, 2, 5, 7).int()}, r"torch.int32, expected float32"),
        ({"mask": torch.ones(3, 5, 7)}, r"mask is torch.float32 \(3, 5, 7\), expected bool"),
        ({"mask": torch.ones(5, 7).bool()}, r"mask is torch.bool \(5, 7\).* \(3, 5, 7\)"),
        ({"mask": torch.ones(3, 7, 5).bool()}, r"\(3, 7, 5\), expected bool \(3, 5, 7\)"),
        ({"dates": undated(2)}, r"dates are datetime64\[D\] \(2,\), expected datetime64 \(3,\)"),
        ({"dates": np.array([1, 2, 3])}, r"dates are int64 \(3,\), expected datetime64"),
    ],
)
def test_wrong_series_say_what_is_wrong(parts, change, message):
    with pytest.raises(ValueError, match=message):
        Series(**{**parts, **change})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_valid_pixels_are_finite(parts, value):
    parts["pixels"][1, 0, 2, 3] = value
    with pytest.raises(ValueError, match="`s1` has NaN or infinite pixels that the mask calls"):
        Series(**parts)

    parts["mask"][1, 2, 3] = False
    Series(**parts)


def test_absent_channels_may_hold_anything(parts):
    parts["pixels"][:, 1] = float("nan")

    Series(**{**parts, "sensor": "s1_vv"})


@pytest.mark.parametrize("kind", ["Series", "Sample", "ModalityBatch", "Batch"])
def test_nothing_can_be_changed(parts, kind):
    series = Series(**parts)
    sample = Sample({"s1": series})
    batch = collate([sample])
    thing, name = {
        "Series": (series, "mask"),
        "Sample": (sample, "location"),
        "ModalityBatch": (batch.modalities["s1"], "days"),
        "Batch": (batch, "location"),
    }[kind]

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(thing, name, None)
    for mapping in (sample.series, batch.modalities):
        with pytest.raises(TypeError):
            mapping["s1"] = None


def test_a_sample_does_not_see_later_changes_of_its_dictionary(parts):
    given = {"s1": Series(**parts)}
    sample = Sample(given)
    given.clear()

    assert list(sample.series) == ["s1"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: Sample({}), "needs at least one of the modalities hr, s2, s1"),
        (lambda s: Sample({"radar": s}), "unknown modality `radar`; known: hr, s2, s1"),
        (lambda s: Sample({"s2": s}), "sensor `s1` is s1, not s2"),
        (lambda s: Sample({"s1": s}, (181, 0)), r"location \(181, 0\) is not \(lon, lat\)"),
        (lambda s: Sample({"s1": s}, (0, 91)), r"location \(0, 91\) is not"),
        (lambda s: Sample({"s1": s}, (52.0, 500_000.0)), "is not"),
        (lambda s: Sample({"s1": s}, (float("nan"), 0.0)), "is not"),
        (lambda s: collate([]), "cannot collate zero samples"),
    ],
)
def test_wrong_samples_say_what_is_wrong(parts, make, message):
    with pytest.raises(ValueError, match=message):
        make(Series(**parts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": torch.zeros(2, 3, 2, 5)}, r"expected \(B, T, C, H, W\)"),
        ({"mask": torch.ones(2, 3, 7, 5).bool()}, r"mask is \(2, 3, 7, 5\), expected \(2, 3, 5,"),
        ({"mask": torch.ones(2, 3, 5, 7)}, "mask must be bool and sensors 2 names"),
        ({"days": torch.zeros(2, 2).long()}, r"days is \(2, 2\), expected \(2, 3\)"),
        ({"days": torch.full((2, 3), 367)}, r"days must lie in 0 \(unknown\), 1...366"),
        ({"days": torch.full((2, 3), -1)}, r"days must lie in 0 \(unknown\), 1...366"),
        ({"sizes": torch.zeros(2).long()}, r"sizes is \(2,\), expected \(2, 2\)"),
        ({"sensors": ("s1",)}, "sensors 2 names"),
    ],
)
def test_wrong_modality_batches_say_what_is_wrong(batch_parts, change, message):
    with pytest.raises(ValueError, match=message):
        ModalityBatch(**{**batch_parts, **change})


def test_wrong_batches_say_what_is_wrong(batch_parts):
    part, location = ModalityBatch(**batch_parts), torch.zeros(2, 2)

    with pytest.raises(ValueError, match="needs at least one of the modalities"):
        Batch({}, location)
    with pytest.raises(ValueError, match=r"unknown modalities \['sar'\]"):
        Batch({"s1": part, "sar": part}, location)
    with pytest.raises(ValueError, match=r"batch sizes differ: {'s1': 2}, location .*3, 2"):
        Batch({"s1": part}, torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"location .*2, 3"):
        Batch({"s1": part}, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="s2 has 2 channels"):
        Batch({"s2": part}, location)


def test_modalities_come_in_one_order(series):
    s2, s1, hr = series("s2"), series("s1"), series("rgb8")

    batch = collate([Sample({"s1": s1, "hr": hr}), Sample({"s2": s2})])

    assert list(batch.modalities) == ["hr", "s2", "s1"]
    assert list(Batch(dict(reversed(batch.modalities.items())), batch.location).modalities) == [
        "hr",
        "s2",
        "s1",
    ]


def test_collate_one_sample_copies_it(series):
    s2 = series("s2_l2a", dates=3, shape=(9, 11), masked=0.3)

    batch = collate([Sample({"s2": s2}, location=(4.5, 52.0), grid=GRID)])
    part = batch.modalities["s2"]

    assert len(batch) == 1
    assert torch.equal(part.pixels[0], s2.pixels)
    assert torch.equal(part.mask[0], s2.mask)
    assert part.days[0].tolist() == day_of_year(s2.dates).tolist()
    assert part.sizes.tolist() == [[9, 11]]
    assert part.sensors == ("s2_l2a",)
    assert batch.location.tolist() == [[4.5, 52.0]]
    assert batch.grids == (GRID,)


def test_collate_pads_with_masks(series):
    tall, wide = series("s1", 3, (9, 4), masked=0.2), series("s1_vv", 1, (5, 8), seed=1)
    colour = series("rgb8", 1, (12, 12), seed=2)

    batch = collate([Sample({"s1": tall}), Sample({"s1": wide, "hr": colour})])
    radar, image = batch.modalities["s1"], batch.modalities["hr"]

    assert radar.pixels.shape == (2, 3, 2, 9, 8)
    for i, one in enumerate((tall, wide)):
        t, _, h, w = one.pixels.shape
        assert torch.equal(radar.pixels[i, :t, :, :h, :w], one.pixels)
        assert torch.equal(radar.mask[i, :t, :h, :w], one.mask)
        assert radar.mask[i].sum() == one.mask.sum()
    assert radar.sizes.tolist() == [[9, 4], [5, 8]]
    assert radar.days[1, 1:].tolist() == [UNKNOWN_DAY] * 2
    assert radar.sensors == ("s1", "s1_vv")
    assert not image.mask[0].any()
    assert image.sizes.tolist() == [[0, 0], [12, 12]]
    assert image.sensors == ("hr", "rgb8")
    assert batch.location.isnan().all()
    assert batch.grids == (None, None)


def same(first, second):
    """Whether two batches hold the same."""
    assert list(first.modalities) == list(second.modalities)
    for key, part in first.modalities.items():
        other = second.modalities[key]
        assert part.sensors == other.sensors
        for name in ("pixels", "mask", "days", "sizes"):
            assert torch.equal(getattr(part, name), getattr(other, name))
    assert torch.equal(first.location.nan_to_num(999), second.location.nan_to_num(999))
    return first.grids == second.grids


@pytest.fixture
def batch(series):
    first = Sample({"s2": series("s2", 2), "s1": series("s1", 1)}, location=(1, 2), grid=GRID)
    return collate([first, Sample({"s1": series("s1", 3, (8, 8))})])


@pytest.mark.parametrize("clone", [lambda b: pickle.loads(pickle.dumps(b)), copy.deepcopy])
def test_batches_pickle(batch, clone):
    again = clone(batch)

    assert again is not batch
    assert same(again, batch)
    with pytest.raises(TypeError):
        again.modalities["s2"] = None


@pytest.mark.parametrize("clone", [lambda s: pickle.loads(pickle.dumps(s)), copy.deepcopy])
def test_samples_pickle(series, clone):
    sample = Sample({"s2": series("s2", 2)}, location=(1, 2), grid=GRID)

    again = clone(sample)

    assert torch.equal(again.series["s2"].pixels, sample.series["s2"].pixels)
    assert (again.location, again.grid) == ((1, 2), GRID)


def test_batches_move(batch):
    moved = batch.to("cpu")
    assert same(moved, batch)
    assert moved.device.type == "cpu"


@pytest.mark.gpu
def test_batches_move_to_a_gpu(batch):
    moved = batch.to("cuda")

    assert moved.device.type == "cuda"
    for part in moved.modalities.values():
        devices = {getattr(part, n).device.type for n in ("pixels", "mask", "days", "sizes")}
        assert devices == {"cuda"}
    assert same(moved.to("cpu"), batch)
