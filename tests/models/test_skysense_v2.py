"""The whole model: sizes, and what must and must not change its features."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from skysense.hub import describe
from skysense.models.encoder import UntrainedModelWarning
from skysense.models.skysense_v2 import V2_CONFIGS, SkySenseV2, SkySenseV2Config
from skysense.sample import Batch, Sample, collate

KEEP, MERGE = ("keep",) * 3, ("merge",) * 3
VARIANTS = pytest.mark.parametrize("name", ["v2_tiny", "v2_tiny_moe"])
TIGHT = {"atol": 2e-5, "rtol": 1e-4}


# Sizes


def millions(name, part):
    return describe(name).parameters[part] / 1e6


def test_huge_has_the_sizes_of_the_paper():
    assert round(millions("v2_huge", "tokenizers"), 2) == 0.09
    assert millions("v2_huge", "backbone") == pytest.approx(661.40, rel=0.011)
    assert millions("v2_huge_moe", "backbone") == pytest.approx(1994.10, rel=0.011)
    added = millions("v2_huge_moe", "backbone") - millions("v2_huge", "backbone")
    assert added == pytest.approx(1332.70, abs=0.01)


def test_small_variants_are_small():
    assert millions("v2_tiny", "total") < 2
    assert millions("v2_nano", "total") == pytest.approx(5, abs=0.25)
    assert millions("v2_nano", "fusion") > 1


@pytest.mark.parametrize("name", ["v2_tiny", "v2_tiny_moe"])
def test_counts_are_those_of_a_real_model(name):
    counts = describe(name).parameters
    model = SkySenseV2(V2_CONFIGS[name])

    assert counts == model.parameter_counts()
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    assert counts["total"] == sum(v for k, v in counts.items() if k != "total")


def test_prototypes_are_counted():
    config = V2_CONFIGS["v2_tiny"].model_copy(update={"geo_regions": 16, "geo_prototypes": 3})

    assert SkySenseV2(config).parameter_counts()["geo_context"] == 16 * 3 * 64


@pytest.mark.parametrize("name", V2_CONFIGS)
def test_experts_are_in_the_last_blocks_alone(name):
    config = V2_CONFIGS[name]
    with torch.device("meta"):
        keys = SkySenseV2(config).state_dict()
    stages = {tuple(map(int, key.split(".")[2:4])) for key in keys if key.endswith("gate.weight")}

    every = [(s, b) for s, depth in enumerate(config.depths) for b in range(depth)]
    assert sorted(stages) == (every[-config.moe_blocks :] if name.endswith("_moe") else [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 40}, "width 40 is not a multiple of 32 a head"),
        ({"width": 12, "head_width": 6}, "`head_width` must be a multiple of 4, got 6"),
        ({"moe_blocks": 9}, "`moe_blocks` is too large"),
        ({"fusion_heads": 7}, "7 heads do not divide 192"),
        ({"schedule": {"hr": MERGE}}, "`schedule` needs an entry for each of hr, s2, s1"),
        ({"schedule": {"hr": MERGE, "s2": MERGE, "s1": ("merge",)}}, "schedule"),
        ({"schedule": {"hr": MERGE, "s2": MERGE, "s1": ("merge", "skip", "keep")}}, "schedule"),
        ({"depths": (1, 1, 1)}, "depths"),
    ],
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SkySenseV2Config(**change)


def test_regions_must_be_a_square():
    with pytest.raises(ValueError, match="`geo_regions` must be a square number, got 5"):
        SkySenseV2(SkySenseV2Config(geo_regions=5))


# Shapes


@pytest.mark.parametrize("schedule", list(itertools.product(("merge", "keep"), repeat=3)))
def test_schedules_at_run_time(shared, series, run, schedule):
    model = shared("v2_tiny")
    sample = {"hr": series("rgb8", 2, (70, 33))}

    features = run(model, sample, schedule={"hr": schedule})

    for i, level in enumerate(features.pyramid["hr"]):
        stride = 4 * 2 ** schedule[:i].count("merge")
        assert model.stride("hr", i + 1, {"hr": schedule}) == stride
        h, w = -(-70 // stride), -(-33 // stride)
        assert level.values.shape == (1, 2, 32 * 2**i, h, w)
        assert level.valid.shape == (1, 2, h, w)
    assert features.fused.shape == (1, 64, h, w)
    assert features.fused_valid.shape == (1, h, w)
    assert features.pooled.shape == (1, 64)
    assert model.period("hr", {"hr": schedule}) == max(
        8 * (8 if schedule[0] == "merge" else 4), stride
    )


def test_default_strides():
    model = SkySenseV2(V2_CONFIGS["v2_tiny"])

    assert [model.stride("hr", level) for level in (1, 2, 3, 4)] == [4, 8, 16, 32]
    assert [model.stride("s2", level) for level in (1, 2, 3, 4)] == [4] * 4
    assert model.stride("s2", 4, {"s2": MERGE}) == 32
    assert model.stride("hr", 4, {"s2": KEEP}) == 32
    assert (model.period("hr"), model.period("s2"), model.period("s1")) == (64, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": {"sar": KEEP}}, "schedule for unknown modality `sar`"),
        ({"schedule": {"s2": ("keep", "keep")}}, "a schedule is three of `merge` and `keep`"),
        ({"schedule": {"s2": ("keep", "keep", "half")}}, "a schedule is three of"),
        ({"last_stage": 0}, "stage must be 1, 2, 3 or 4, got 0"),
        ({"last_stage": 5}, "stage must be 1, 2, 3 or 4, got 5"),
    ],
)
def test_wrong_arguments_are_refused(shared, series, run, options, message):
    with pytest.raises(ValueError, match=message):
        run(shared("v2_tiny"), {"s2": series("s2")}, **options)


def test_nothing_valid_is_refused(shared, series, run):
    with pytest.raises(ValueError, match="no valid pixel"):
        run(shared("v2_tiny"), {"s2": series("s2", masked=2)})


@VARIANTS
@pytest.mark.parametrize("last_stage", [1, 2, 3, 4])
def test_stopping_early(shared, series, run, name, last_stage):
    model = shared(name)
    sample = {"s2": series("s2", 2), "hr": series("hr", 1, (64, 64))}

    whole, part = run(model, sample), run(model, sample, last_stage=last_stage)

    assert part.fused is part.fused_valid is part.pooled is None
    for key in sample:
        assert len(part.pyramid[key]) == last_stage
        for level, expected in zip(part.pyramid[key], whole.pyramid[key], strict=False):
            torch.testing.assert_close(level.values, expected.values)
    assert set(part.routing) == {
        key for key in whole.routing if int(key.split("stage")[1][0]) <= last_stage
    }


def test_mean_over_dates(shared, series, run):
    level = run(shared("v2_tiny"), {"s2": series("s2", 3, masked=0.97)}).pyramid["s2"][0]
    assert not level.valid.all()

    mean, valid = level.over_dates()

    for y in range(valid.shape[1]):
        for x in range(valid.shape[2]):
            seen = [level.values[0, t, :, y, x] for t in range(3) if level.valid[0, t, y, x]]
            expected = sum(seen) / len(seen) if seen else torch.zeros(mean.shape[1])
            torch.testing.assert_close(mean[0, :, y, x], expected)
            assert valid[0, y, x] == bool(seen)


# Training


@VARIANTS
def test_gradients_are_finite_with_masks(fresh, series, name):
    model = fresh(name, geo_regions=4, geo_prototypes=3).train()
    dead = series("s1", 1, (16, 16), masked=2)
    dead = dataclasses.replace(dead, pixels=torch.full_like(dead.pixels, torch.nan))
    cloudy = series("s2", 3, (21, 13), masked=0.9)
    cloudy = dataclasses.replace(
        cloudy, pixels=cloudy.pixels.masked_fill(~cloudy.mask[:, None], torch.nan)
    )
    batch = collate(
        [
            Sample({"s2": cloudy, "s1": dead}, location=(3.0, 50.0)),
            Sample({"hr": series("hr", 1, (40, 40), masked=0.5)}),
        ]
    )

    features = model(batch)
    loss = features.pooled.square().mean() + features.fused.mean()
    for levels in features.pyramid.values():
        loss = loss + sum(level.values.square().mean() for level in levels)
    if features.load_balance is not None:
        loss = loss + features.load_balance
    loss.backward()

    assert loss.isfinite()
    for key, parameter in model.named_parameters():
        if parameter.grad is None:
            assert "mlp.w" in key or "mlp.b" in key, key  # an expert that nobody chose
        else:
            assert parameter.grad.isfinite().all(), key
    assert model.tokenizers["s2"].projection.weight.grad.abs().sum() > 0
    assert model.prompts["hr_stage3"].grad.abs().sum() > 0


def test_a_modality_nobody_has_leaves_no_trace_in_routing(shared, series, run):
    model = shared("v2_tiny_moe")
    alone = run(model, {"s2": series("s2")})
    beside = run(model, {"s2": series("s2"), "s1": series("s1", masked=2)})

    assert list(alone.routing) == ["s2.stage3.block2", "s2.stage4.block1"]
    assert list(beside.routing) == list(alone.routing)
    assert beside.load_balance == alone.load_balance
    assert 1 <= alone.load_balance <= 8
    assert run(shared("v2_tiny"), {"s2": series("s2")}).load_balance is None


def test_routing_counts_valid_tokens_and_prompts(shared, series, run):
    """Padding a batch does not move the statistics of a stage's tokens."""
    model = shared("v2_tiny_moe")
    small = Sample({"s2": series("s2", 1, (16, 16))})
    pad = Sample({"s1": series("s1", 1, (16, 16)), "s2": series("s2", 2, (40, 40), masked=2)})

    alone, padded = run(model, small).routing, run(model, small, pad).routing

    for key, statistics in alone.items():
        torch.testing.assert_close(statistics.fraction, padded[key].fraction)
        torch.testing.assert_close(statistics.probability, padded[key].probability)


@VARIANTS
def test_mixed_precision(fresh, series, name):
    model = fresh(name)
    batch = collate(
        [
            Sample({"s2": series("s2", 2, masked=0.3), "hr": series("hr", 1, (64, 64))}),
            Sample({"s1": series("s1", 1, (9, 9))}),
        ]
    )

    with torch.autocast("cpu", torch.bfloat16):
        features = model(batch)
    features.pooled.float().square().sum().backward()

    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    exact = model(batch).pooled
    assert (features.pooled.float() - exact).norm() < 0.1 * exact.norm()


def test_training_after_inference_mode(fresh, series):
    """Cached tables made in inference mode must not break the next training step."""
    model = fresh("v2_tiny")
    batch = collate([Sample({"s2": series("s2", 1, (52, 44))})])  # a size of its own
    with torch.inference_mode():
        first = model(batch).pooled.clone()

    loss = model.train()(batch).pooled
    loss.sum().backward()

    torch.testing.assert_close(loss.detach(), first, **TIGHT)


def test_built_and_run_in_inference_mode(series):
    with torch.inference_mode():
        model = SkySenseV2(V2_CONFIGS["v2_tiny"])
        model.trained = True
        features = model.eval()(collate([Sample({"s2": series("s2")})]))

    assert features.pooled.isfinite().all()


def test_one_step_of_training_lowers_a_loss(fresh, series):
    model = fresh("v2_tiny").train()
    batch = collate([Sample({"s2": series("s2", 1, (16, 16), seed)}) for seed in range(4)])
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = model(batch).pooled.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses == sorted(losses, reverse=True)


# Geo-context


def test_geo_context_doubles_the_width(fresh, series, run):
    plain, wide = fresh("v2_tiny"), fresh("v2_tiny", geo_regions=16, geo_prototypes=5)
    state = {k: v for k, v in wide.state_dict().items() if not k.startswith("geo_context")}
    plain.load_state_dict(state)
    s2 = {"s2": series("s2", 2, masked=0.98)}
    known = Sample(s2, location=(5.0, 52.0))
    elsewhere = Sample(s2, location=(-60.0, -30.0))

    bare, unknown, here, there = (
        run(model, sample)
        for model, sample in ((plain, s2), (wide, s2), (wide, known), (wide, elsewhere))
    )

    assert wide.config.fused_width == 128
    assert bare.fused.shape[1] == bare.pooled.shape[1] == plain.config.fused_width == 64
    for features in (unknown, here, there):
        assert features.fused.shape[1] == features.pooled.shape[1] == 128
        torch.testing.assert_close(features.fused[:, :64], bare.fused, **TIGHT)
        torch.testing.assert_close(features.pooled[:, :64], bare.pooled, **TIGHT)
    assert (unknown.fused[:, 64:] == 0).all()
    assert (unknown.pooled[:, 64:] == 0).all()
    assert here.pooled[:, 64:].abs().max() > 0.1
    assert (here.pooled[:, 64:] - there.pooled[:, 64:]).abs().max() > 0.1
    torch.testing.assert_close(plain(collate([known])).pooled.detach(), bare.pooled, **TIGHT)


# Warnings and state


def test_an_untrained_model_warns_when_used(series):
    model = SkySenseV2(V2_CONFIGS["v2_tiny"], "v2_tiny")
    batch = collate([Sample({"s2": series("s2")})])

    model.train()(batch)  # silent: warnings are errors here
    with pytest.warns(
        UntrainedModelWarning, match="`v2_tiny` is untrained: its weights are random"
    ):
        model.eval()(batch)
    model.trained = True
    model(batch)


def test_nothing_about_the_model_changes_by_using_it(fresh, series, run):
    model = fresh("v2_tiny_moe", geo_regions=4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = collate([Sample({"s2": series("s2", 2, masked=0.5)}, location=(1.0, 1.0))])
    held = batch.modalities["s2"].pixels.clone()

    first = model(batch).pooled
    second = model(batch).pooled

    assert torch.equal(first, second)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(batch.modalities["s2"].pixels, held)


def test_unknown_dates_are_a_case_of_their_own(shared, series, run):
    s2 = series("s2", 2)
    dates = np.full(2, np.datetime64("NaT"), "datetime64[D]")

    undated = run(shared("v2_tiny"), {"s2": dataclasses.replace(s2, dates=dates)})

    assert undated.pooled.isfinite().all()
    assert (undated.pooled - run(shared("v2_tiny"), {"s2": s2}).pooled).abs().max() > 1e-3


def test_fresh_weights_depend_on_the_seed_alone():
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(SkySenseV2(V2_CONFIGS["v2_tiny_moe"]).state_dict())

    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not torch.equal(
        states[0]["backbone.stages.2.1.mlp.w1"], states[2]["backbone.stages.2.1.mlp.w1"]
    )
    assert all(v.isfinite().all() for v in states[0].values())


def test_batches_made_by_hand(shared, series):
    """What `collate` makes is not the only way: a batch whose modalities come in any order."""
    batch = collate([Sample({"s2": series("s2"), "s1": series("s1")})])
    by_hand = Batch(dict(reversed(batch.modalities.items())), batch.location)

    model = shared("v2_tiny")
    with torch.no_grad():
        assert torch.equal(model(batch).pooled, model(by_hand).pooled)
