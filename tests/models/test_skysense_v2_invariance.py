"""What must not change the features of the whole model, and what must.

Every claim is made of a model in which all parameters are random, and exactly where it can be.
"""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.sample import Sample
from skysense.sensors import SENSORS

KEEP, MERGE = ("keep",) * 3, ("merge",) * 3
VARIANTS = pytest.mark.parametrize("name", ["v2_tiny", "v2_tiny_moe"])
TIGHT = {"atol": 2e-5, "rtol": 1e-4}


def assert_same(first, second, **tolerance):
    """Two features of one sample each say the same; the grids' padding is cut off."""
    close = {**TIGHT, **tolerance}
    torch.testing.assert_close(first.pooled, second.pooled, **close)
    assert torch.equal(first.fused_valid, second.fused_valid)
    valid = first.fused_valid[:, None]
    torch.testing.assert_close(first.fused * valid, second.fused * valid, **close)
    for key in set(first.pyramid) & set(second.pyramid):
        for level, other in zip(first.pyramid[key], second.pyramid[key], strict=True):
            assert torch.equal(level.valid, other.valid)
            torch.testing.assert_close(level.values, other.values, **close)


def part_of(features, i, shape):
    """Pooled vector, fused map and mask of sample i of a batch, without padding."""
    h, w = shape
    valid = features.fused_valid[i, :h, :w]
    assert features.fused_valid[i].sum() == valid.sum(), "padding must not be valid"
    return features.pooled[i], features.fused[i, :, :h, :w] * valid, valid


SIZES = {
    "hr": [(3, 2), (32, 32), (70, 45), (131, 64)],
    "s2": [(1, 1), (16, 16), (35, 21), (47, 70)],
}
SIZES["s1"] = SIZES["s2"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [("v2_tiny", {}), ("v2_tiny_moe", {}), ("v2_tiny", {"prompts": 0})],
    ids=["dense", "moe", "no prompts"],
)
@pytest.mark.parametrize("key", ["hr", "s2", "s1"])
def test_a_constant_image_gives_a_constant_map_whatever_its_size(
    shared, series, run, name, changes, key
):
    model = shared(name, **changes)
    levels, fused = [], []
    for shape in SIZES[key]:
        features = run(model, {key: series(key, 2, shape, constant=True)})
        assert features.fused_valid.all()
        fused.append(features.fused)
        levels.append([level.values.flatten(0, 1) for level in features.pyramid[key]])
        torch.testing.assert_close(features.pooled, features.fused.mean((2, 3)), **TIGHT)
    for maps in [fused, *zip(*levels, strict=True)]:
        expected = maps[0][:1, :, :1, :1]
        assert expected.std() > 0.1, "the test would show nothing"
        for values in maps:
            assert values.std((2, 3), correction=0).max() < 1e-5
            torch.testing.assert_close(values, expected.expand_as(values), **TIGHT)


def test_a_constant_image_stays_constant_under_clouds(shared, series, run):
    """Masks take places away and change nothing else."""
    model = shared("v2_tiny_moe")
    clear = run(model, {"s2": series("s2", 1, (40, 29), constant=True)})
    cloudy = run(model, {"s2": series("s2", 1, (40, 29), constant=True, masked=0.9)})

    assert not cloudy.fused_valid.all()
    values = cloudy.fused[0, :, cloudy.fused_valid[0]]
    torch.testing.assert_close(
        values, clear.fused[0, :, 0, :1].expand_as(values), atol=2e-5, rtol=1e-4
    )
    torch.testing.assert_close(cloudy.pooled, clear.pooled, **TIGHT)


@pytest.mark.parametrize("schedule", [MERGE, ("merge", "keep", "merge"), KEEP])
def test_a_constant_image_gives_the_same_map_under_any_schedule(shared, series, run, schedule):
    """Keeping and merging agree where neighbours are equal."""
    model = shared("v2_tiny")
    sample = {"hr": series("hr", 1, (50, 31), constant=True)}

    first, second = run(model, sample), run(model, sample, schedule={"hr": schedule})

    torch.testing.assert_close(first.pooled, second.pooled, **TIGHT)


@VARIANTS
@pytest.mark.parametrize("order", [(2, 0, 3, 1), (3, 2, 1, 0)])
def test_dates_have_no_order(shared, series, run, name, order):
    model, s2, s1 = shared(name), series("s2", 4, masked=0.3), series("s1", 2, seed=1)
    order = list(order)
    shuffled = dataclasses.replace(
        s2, pixels=s2.pixels[order], mask=s2.mask[order], dates=s2.dates[order]
    )

    first, second = run(model, {"s2": s2, "s1": s1}), run(model, {"s2": shuffled, "s1": s1})

    torch.testing.assert_close(first.fused, second.fused, **TIGHT)
    torch.testing.assert_close(first.pooled, second.pooled, **TIGHT)
    for level, other in zip(first.pyramid["s2"], second.pyramid["s2"], strict=True):
        torch.testing.assert_close(level.values[:, order], other.values, **TIGHT)


def test_dates_matter(shared, series, run):
    model, s2 = shared("v2_tiny"), series("s2", 2)
    moved = dataclasses.replace(s2, dates=s2.dates + 100)
    swapped = dataclasses.replace(s2, dates=s2.dates[::-1].copy())

    first = run(model, {"s2": s2}).pooled
    for other in (moved, swapped):
        assert (run(model, {"s2": other}).pooled - first).abs().max() > 1e-3


@VARIANTS
@pytest.mark.parametrize("dropped", ["hr", "s2", "s1"])
def test_a_modality_nobody_measured_was_never_there(shared, series, run, name, dropped):
    """Collate it with a sample that has it, mask it whole, or leave it out: all the same."""
    model = shared(name)
    sensors = {"hr": series("hr", 1, (64, 64)), "s2": series("s2", 2), "s1": series("s1", 3)}
    kept = {key: value for key, value in sensors.items() if key != dropped}
    never = run(model, kept)

    beside = run(model, kept, sensors)
    for got, expected in zip(
        part_of(beside, 0, never.fused.shape[2:]),
        part_of(never, 0, never.fused.shape[2:]),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, **TIGHT)

    empty = sensors[dropped]
    empty = dataclasses.replace(
        empty, mask=torch.zeros_like(empty.mask), pixels=torch.full_like(empty.pixels, torch.nan)
    )
    masked = run(model, {**kept, dropped: empty})
    assert_same(masked, never)
    assert set(masked.routing) == set(never.routing)
    assert masked.load_balance == never.load_balance


def test_a_fully_masked_date_was_never_there(shared, series, run):
    model, s2, s1 = shared("v2_tiny_moe"), series("s2", 4, masked=0.2), series("s1", 1)
    mask = s2.mask.clone()
    mask[2] = False
    rest = [0, 1, 3]

    masked = run(model, {"s2": dataclasses.replace(s2, mask=mask), "s1": s1})
    absent = run(
        model,
        {
            "s2": dataclasses.replace(
                s2, pixels=s2.pixels[rest], mask=s2.mask[rest], dates=s2.dates[rest]
            ),
            "s1": s1,
        },
    )

    torch.testing.assert_close(masked.fused, absent.fused, **TIGHT)
    torch.testing.assert_close(masked.pooled, absent.pooled, **TIGHT)
    assert torch.equal(masked.fused_valid, absent.fused_valid)
    torch.testing.assert_close(masked.load_balance, absent.load_balance)
    level, other = masked.pyramid["s2"][3], absent.pyramid["s2"][3]
    torch.testing.assert_close(level.values[:, rest], other.values, **TIGHT)
    assert not level.valid[:, 2].any()
    assert (level.values[:, 2] == 0).all()


@VARIANTS
def test_padding_by_collate_changes_nothing(shared, series, run, name):
    model = shared(name)
    samples = [
        Sample(
            {
                "hr": series("hr", 1, (45, 70), 1),
                "s2": series("s2", 3, (13, 21), 2, masked=0.3),
                "s1": series("s1", 2, (13, 21), 3),
            }
        ),
        Sample({"s2": series("s2_l2a", 1, (8, 8), 4)}),
        Sample({"hr": series("planet", 1, (130, 37), 5, masked=0.2)}),
        Sample({"s1": series("s1_vv", 5, (40, 9), 6), "hr": series("hr", 2, (32, 32), 7)}),
        Sample({"s2": series("landsat_c2_l2", 2, (33, 32), 8), "s1": series("s1", 1, (32, 33))}),
    ]

    together = run(model, *samples)

    for i, sample in enumerate(samples):
        alone = run(model, sample)
        shape = alone.fused.shape[2:]
        for got, expected in zip(
            part_of(together, i, shape), part_of(alone, 0, shape), strict=True
        ):
            torch.testing.assert_close(got, expected, **TIGHT)
        for key, levels in alone.pyramid.items():
            for level, padded in zip(levels, together.pyramid[key], strict=True):
                _, t, _, h, w = level.values.shape
                torch.testing.assert_close(
                    padded.values[i, :t, :, :h, :w], level.values[0], **TIGHT
                )
                assert torch.equal(padded.valid[i, :t, :h, :w], level.valid[0])
                assert padded.valid[i].sum() == level.valid.sum()


SHAPES = st.tuples(*[st.integers(1, 40)] * 2)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["hr", "s2", "s1"]),
            st.tuples(st.integers(1, 2), SHAPES, st.sampled_from([0.0, 0.5, 0.9])),
            min_size=1,
        ),
        min_size=2,
        max_size=3,
    )
)
def test_padding_by_collate_changes_nothing_at_random(shared, series, run, described):
    model, samples = shared("v2_tiny"), []
    for i, parts in enumerate(described):
        made = {
            key: series(key, t, shape, 10 * i, masked) for key, (t, shape, masked) in parts.items()
        }
        if any(s.mask.any() for s in made.values()):
            samples.append(Sample(made))
    if not samples:
        return

    together = run(model, *samples)

    for i, sample in enumerate(samples):
        alone = run(model, sample)
        shape = alone.fused.shape[2:]
        for got, expected in zip(
            part_of(together, i, shape), part_of(alone, 0, shape), strict=True
        ):
            torch.testing.assert_close(got, expected, **TIGHT)


@VARIANTS
@pytest.mark.parametrize("value", [float("nan"), 1e6, -1e30])
def test_what_stands_at_masked_pixels_is_never_looked_at(shared, series, run, name, value):
    model = shared(name)
    sample = {
        "hr": series("hr", 1, (45, 70), masked=0.4),
        "s2": series("s2", 3, (21, 13), masked=0.6),
        "s1": series("s1", 2, (21, 13), masked=0.6),
    }
    region = {}
    for key, s in sample.items():
        mask = s.mask.clone()
        mask[..., : mask.shape[-2] // 2, : mask.shape[-1] // 2] = False  # whole tokens too
        region[key] = dataclasses.replace(s, mask=mask)
    changed = {
        key: dataclasses.replace(s, pixels=s.pixels.masked_fill(~s.mask[:, None], value))
        for key, s in region.items()
    }

    first, second = run(model, region), run(model, changed)

    assert_same(first, second, atol=0, rtol=0)
    assert torch.equal(first.fused, second.fused)
    assert first.fused.isfinite().all()


@pytest.mark.parametrize(("sensor", "key"), [("landsat_c2_l2", "s2"), ("s1_vv", "s1")])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -7.0])
def test_what_stands_in_absent_channels_is_never_looked_at(shared, series, run, sensor, key, value):
    model, s = shared("v2_tiny"), series(sensor, 2)
    have = list(SENSORS[sensor].channels)
    pixels = torch.full_like(s.pixels, value)
    pixels[:, have] = s.pixels[:, have]

    first, second = (run(model, {key: x}) for x in (s, dataclasses.replace(s, pixels=pixels)))

    assert_same(first, second, atol=0, rtol=0)


def test_absent_channels_count_as_the_mean(shared, series, run):
    """The other half of the claim: an absent band is as one that always has its mean."""
    s = series("s1_vv")
    pixels = s.pixels.clone()
    pixels[:, 1] = SENSORS["s1"].bands[1].mean

    first = run(shared("v2_tiny"), {"s1": s})
    second = run(shared("v2_tiny"), {"s1": dataclasses.replace(s, pixels=pixels, sensor="s1")})

    assert_same(first, second)


def test_the_tokenizer_is_the_modality_not_the_sensor(shared, series, run):
    """The same physical values under a card of the same statistics give the same features."""
    s = series("s2")

    first = run(shared("v2_tiny"), {"s2": s})
    second = run(shared("v2_tiny"), {"s2": dataclasses.replace(s, sensor="s2_l2a")})

    assert_same(first, second, atol=0, rtol=0)


def test_every_modality_and_place_matters(shared, series, run):
    """The counterpart of all the above: what is valid does have an influence."""
    model = shared("v2_tiny")
    sample = {"hr": series("hr", 1, (64, 64)), "s2": series("s2", 2), "s1": series("s1", 1)}
    first = run(model, sample)

    for key in sample:
        pixels = sample[key].pixels.clone()
        pixels[0, 0, :4, :4] += pixels[:, 0].std()
        other = run(model, {**sample, key: dataclasses.replace(sample[key], pixels=pixels)})
        assert (other.pooled - first.pooled).abs().max() > 1e-3
    for key in sample:
        rest = {k: v for k, v in sample.items() if k != key}
        assert (run(model, rest).pooled - first.pooled).abs().max() > 1e-3
