"""SkySense V1 assembled: sizes, dates, masks and mixed batches as of V2, and its own rules."""

import warnings

import numpy as np
import pytest
import torch

from skysense.models.embedding import to_series
from skysense.models.encoder import UntrainedModelWarning
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1, SwinBackbone, SwinConfig
from skysense.sample import Sample, Series, collate
from skysense.sensors import SENSORS

pytestmark = pytest.mark.filterwarnings("ignore::skysense.models.encoder.UntrainedModelWarning")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    built = SkySenseV1(V1_CONFIGS["v1_tiny"], "v1_tiny")
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            norm = "norm" in name and name.endswith("weight")
            parameter.add_(
                0.2 * torch.randn_like(parameter) if norm else 0.1 * torch.randn_like(parameter)
            )
        built.fusion.calendar.normal_()
    return built.eval()


def series(sensor, t, h, w, seed=0):
    generator = torch.Generator().manual_seed(seed)
    bands, scale = {"hr": (3, 255), "s2": (10, 0.5), "s1": (2, -20)}[sensor]
    pixels = scale * torch.rand(t, bands, h, w, generator=generator)
    dates = np.datetime64("2024-01-05") + 40 * np.arange(t)
    return Series(pixels, torch.ones(t, h, w, dtype=torch.bool), dates, sensor)


def close(first, second):
    torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (41, 70), (5, 3), (1, 1), (300, 32)])
@pytest.mark.parametrize("sensor", ["hr", "s2"])
@torch.no_grad()
def test_any_size_works(model, sensor, shape):
    if sensor == "s2":
        shape = (shape[0] // 4 + 1, shape[1] // 4 + 1)
    features = model(collate([Sample({sensor: series(sensor, 1, *shape)})]))

    stride = model.fused_stride(sensor)
    assert features.fused.shape[2:] == tuple(-(-side // stride) for side in shape)
    assert len(features.pyramid[sensor]) == 4
    for i, level in enumerate(features.pyramid[sensor]):
        step = model.stride(sensor, i + 1)
        assert level.values.shape[2] == model.level_width(sensor, i + 1)
        assert level.values.shape[3:] == tuple(-(-side // step) for side in shape)
    assert features.fused_valid.all()
    assert features.fused.isfinite().all()


def test_modalities_meet_on_one_grid(model):
    place = Sample({"hr": series("hr", 1, 128, 192), "s2": series("s2", 3, 4, 6),
                    "s1": series("s1", 2, 4, 6)})  # fmt: skip
    with torch.no_grad():
        assert model(collate([place])).fused.shape == (1, 64, 4, 6)


@torch.no_grad()
def test_each_sample_of_a_mixed_batch_is_as_it_is_alone(model):
    samples = [
        Sample({"hr": series("hr", 1, 100, 75), "s2": series("s2", 3, 9, 7, 1)}),
        Sample({"s2": series("s2", 2, 13, 6, 2)}),
        Sample({"s1": series("s1", 1, 8, 8, 3), "hr": series("hr", 2, 64, 130, 4)}),
    ]
    together = model(collate(samples))

    for i, sample in enumerate(samples):
        alone = model(collate([sample]))
        h, w = alone.fused.shape[2:]
        close(together.pooled[i], alone.pooled[0])
        close(together.fused[i, :, :h, :w], alone.fused[0])
        assert int(together.fused_valid[i].sum()) == int(alone.fused_valid.sum())


@torch.no_grad()
def test_order_of_dates_is_nothing_and_dates_are_something(model):
    given = series("s2", 4, 8, 8)
    order = torch.tensor([2, 0, 3, 1])
    turned = Series(given.pixels[order], given.mask, given.dates[order.numpy()], "s2")
    later = Series(given.pixels, given.mask, given.dates + 90, "s2")
    first, second, third = (
        model(collate([Sample({"s2": s})])).fused for s in (given, turned, later)
    )

    close(first, second)
    assert (first - third).abs().max() > 1e-3


@torch.no_grad()
def test_the_last_day_of_a_leap_year_is_a_day(model):
    given = series("s2", 1, 4, 4)
    dated = Series(given.pixels, given.mask, np.array(["2024-12-31"], "datetime64[D]"), "s2")
    assert model(collate([Sample({"s2": dated})])).fused.isfinite().all()


@pytest.mark.parametrize("sensor", ["hr", "s2", "s1"])
@torch.no_grad()
def test_what_is_masked_is_never_looked_at(model, sensor):
    given = series(sensor, 2, 40, 24)
    mask = given.mask.clone()
    mask[0, 8:23, 3:17] = False
    mask[1, :, 12:] = False
    pixels = given.pixels.clone()
    clean = model(collate([Sample({sensor: Series(pixels, mask, given.dates, sensor)})]))
    for junk in (float("nan"), 1e6):
        changed = torch.where(mask[:, None], pixels, junk)
        again = model(collate([Sample({sensor: Series(changed, mask, given.dates, sensor)})]))
        close(clean.fused, again.fused)


@torch.no_grad()
def test_a_masked_date_or_modality_is_an_absent_one(model):
    s2, s1 = series("s2", 2, 8, 8), series("s1", 1, 8, 8)
    mask = s2.mask.clone()
    mask[1] = False
    hidden = Series(s2.pixels, mask, s2.dates, "s2")
    single = Series(s2.pixels[:1], s2.mask[:1], s2.dates[:1], "s2")
    gone = Series(s1.pixels, ~s1.mask, s1.dates, "s1")

    expected = model(collate([Sample({"s2": single})])).fused
    close(model(collate([Sample({"s2": hidden})])).fused, expected)
    close(model(collate([Sample({"s2": hidden, "s1": gone})])).fused, expected)


def test_folding_the_head_changes_nothing(model):
    batch = collate([Sample({"s2": series("s2", 2, 12, 9), "s1": series("s1", 1, 12, 9)})])
    unfolded = model(batch).fused.detach()
    with torch.no_grad():
        close(model(batch).fused, unfolded)
        model.up_s2.conv.weight.mul_(1.5)
    unfolded = model(batch).fused.detach()
    with torch.inference_mode():
        close(model(batch).fused, unfolded)


@pytest.mark.parametrize("training", [False, True])
def test_what_is_folded_follows_a_fused_optimizer(training):
    """It does not count its changes on a tensor."""
    torch.manual_seed(1)
    model = SkySenseV1(V1_CONFIGS["v1_tiny"]).eval()
    batch = collate([Sample({"s2": series("s2", 2, 6, 4)})])
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, fused=True)
    with torch.no_grad():
        model(batch)
    model.train(training)(batch).pooled.square().sum().backward()
    optimizer.step()
    model.eval()

    with torch.no_grad():
        fused = model(batch).fused
    close(fused, model(batch).fused.detach())


def test_training_mode_has_gradients_everywhere():
    torch.manual_seed(1)
    model = SkySenseV1(V1_CONFIGS["v1_tiny"]).train()
    sample = Sample({"hr": series("hr", 1, 96, 64), "s2": series("s2", 2, 6, 4),
                     "s1": series("s1", 1, 6, 4)})  # fmt: skip
    features = model(collate([sample] * 4))
    loss = features.pooled.square().sum()
    loss += sum(levels[i].values.mean() for levels in features.pyramid.values() for i in range(4))
    loss.backward()

    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_eval_returns_the_model_and_backbones_stand_alone(model):
    assert model.eval() is model
    maps = model.backbone("hr")(torch.randn(1, 3, 224, 224))
    assert [tuple(x.shape[1:3]) for x, _ in maps] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert SwinBackbone(SwinConfig(**{**model.config.hr.model_dump(), "bands": 4}))(
        torch.randn(1, 4, 64, 64)
    )


def test_arguments_are_checked(model):
    batch = collate([Sample({"s2": series("s2", 1, 8, 8)})])
    with pytest.raises(ValueError, match="no adaptive patch merging"):
        model(batch, schedule={"hr": ("merge", "merge", "keep")})
    with pytest.raises(ValueError, match="stage must be"):
        model(batch, last_stage=5)
    with torch.no_grad():
        features = model(batch, last_stage=2)
    assert features.fused is None
    assert len(features.pyramid["s2"]) == 2


def test_random_weights_say_so():
    model = SkySenseV1(V1_CONFIGS["v1_tiny"], "v1_tiny").eval()
    image = np.zeros((1, 3, 32, 32), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UntrainedModelWarning):
            model.embed(image, sensor="rgb8")
    assert model.embed(image, sensor="rgb8").shape == (1, 64)


def test_geo_context_widens():
    config = V1_CONFIGS["v1_tiny"].model_copy(update={"geo_regions": 16, "geo_prototypes": 3})
    model = SkySenseV1(config).eval()
    sample = Sample({"s2": series("s2", 1, 8, 8)}, location=(10.0, 50.0))
    with torch.no_grad():
        assert model(collate([sample])).fused.shape[1] == 128 == model.fused_width


def test_the_released_size_has_the_released_parameters():
    """Source: docs/sources.md 1, measured; ours has one calendar row more (day 366)."""
    with torch.device("meta"):
        model = SkySenseV1(V1_CONFIGS["v1_huge"])
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in
             model.named_children()}  # fmt: skip

    assert count["hr"] == 655_079_632
    assert count["s2"] == 302_738_432
    assert count["s1"] == 302_607_360
    assert count["fusion"] - model.fusion.calendar.numel() == 305_195_008
    assert count["up_s2"] == count["up_s1"] == 46_182_400
    assert count["fusion"] + 2 * 46_182_400 - 2816 == 398_587_648
    counts = model.parameter_counts()
    assert counts["total"] == sum(p.numel() for p in model.parameters())


@torch.no_grad()
def test_a_cell_of_the_fused_map_is_valid_where_its_pixel_is(model):
    given = series("s2", 1, 10, 7)
    mask = torch.zeros_like(given.mask)
    mask[0, 3, 5] = mask[0, 9, 0] = True
    sparse = Series(given.pixels, mask, given.dates, "s2")

    assert torch.equal(model(collate([Sample({"s2": sparse})])).fused_valid[0], mask[0])


def four_bands():
    config = V1_CONFIGS["v1_tiny"]
    four = config.model_copy(update={"hr": config.hr.model_copy(update={"bands": 4})})
    return SkySenseV1(four).eval()


@torch.no_grad()
def test_near_infrared_counts_where_the_backbone_takes_it():
    model = four_bands()
    images = np.full((2, 4, 40, 40), 90.0, np.float32)
    images[1, 3] = 200
    vectors = model.embed(images, "naip_rgbn")
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    without = series("s2", 1, 6, 4)  # a sample without `hr` beside one with it
    nir = to_series(images[0], SENSORS["naip_rgbn"])
    batch = collate([Sample({"hr": nir}), Sample({"s2": without})])
    close(model(batch).pooled[0], torch.from_numpy(vectors[0]))


def test_bands_that_do_not_fit_name_the_cards_that_do(model, fresh):
    rgb, nir = np.zeros((1, 3, 32, 32)), np.zeros((1, 4, 32, 32))
    with pytest.raises(ValueError, match=r"takes 4 bands, sensor `rgb8` gives 3: .* naip_rgbn"):
        four_bands().embed(rgb, "rgb8")
    for three in (model, fresh("v2_tiny")):
        with pytest.raises(ValueError, match=r"takes 3 bands, sensor `naip_rgbn` gives 4.* naip"):
            three.embed(nir, "naip_rgbn")


def test_sensors_of_other_channels_are_batched_apart():
    samples = [
        Sample({"hr": to_series(np.zeros((n, 8, 8)), SENSORS[card])})
        for n, card in ((3, "naip"), (4, "naip_rgbn"))
    ]
    with pytest.raises(ValueError, match="hr sensors naip, naip_rgbn have different channels"):
        collate(samples)


@torch.no_grad()
def test_earlier_levels_are_those_of_the_whole(model):
    batch = collate([Sample({"hr": series("hr", 1, 70, 64), "s2": series("s2", 2, 9, 9)})])
    whole = model(batch)

    for stage in (1, 3):
        part = model(batch, last_stage=stage)
        for key, levels in part.pyramid.items():
            assert len(levels) == stage
            for first, second in zip(levels, whole.pyramid[key], strict=False):
                close(first.values, second.values)
