"""Views of whole batches: the same however the work is split, and nothing that was not measured."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.config import parse
from skysense.pretrain.views import ViewConfig, make_views
from skysense.sample import UNKNOWN_DAY, Batch, Sample, collate

CONFIG = ViewConfig(hr={"global_size": 16, "local_size": 8}, s2={"global_size": 8}, s1={})
PRESENT = {"hr": [0, 2], "s2": [1, 2, 4], "s1": [1, 2, 3]}
"""Rows of the mixed batch that have a modality."""


def draw(batch, config=CONFIG, seed=0, step=0, positions=None):
    positions = torch.arange(len(batch)) if positions is None else torch.tensor(positions)
    views = make_views(batch, config, seed, step, positions)
    return [*views.global_views, *views.local_views]


def assert_same(view, whole, rows):
    assert torch.equal(view.turn, whole.turn[rows])
    torch.testing.assert_close(view.box, whole.box[rows])
    for key, part in view.batch.modalities.items():
        other = whole.batch.modalities[key]
        torch.testing.assert_close(part.pixels, other.pixels[rows], rtol=1e-4, atol=1e-4)
        for name in ("mask", "days", "sizes"):
            assert torch.equal(getattr(part, name), getattr(other, name)[rows]), (key, name)


@given(
    seed=st.integers(0, 2**63),
    step=st.integers(0, 2**40),
    order=st.permutations(range(5)),
    cut=st.integers(1, 4),
)
@settings(max_examples=15, deadline=None)
def test_rows_in_two_calls_give_the_same_views(mixed_batch, rows_of, seed, step, order, cut):
    whole = draw(mixed_batch, seed=seed, step=step)

    for rows in (order[:cut], order[cut:]):
        parts = draw(rows_of(mixed_batch, rows), seed=seed, step=step, positions=rows)
        for view, all_rows in zip(parts, whole, strict=True):
            assert_same(view, all_rows, rows)


def test_padding_of_the_batch_changes_nothing(series):
    small = Sample({"s2": series("s2", 2, (12, 12), 1)})
    large = Sample({"s2": series("s2", 5, (20, 20), 2), "hr": series("hr", shape=(24, 24))})

    alone, together = draw(collate([small])), draw(collate([small, large]))

    for view, other in zip(alone, together, strict=True):
        part, padded = view.batch.modalities["s2"], other.batch.modalities["s2"]
        dates = part.pixels.shape[1]
        torch.testing.assert_close(part.pixels, padded.pixels[:1, :dates], rtol=1e-4, atol=1e-5)
        assert torch.equal(part.mask, padded.mask[:1, :dates])
        assert torch.equal(part.days, padded.days[:1, :dates])
        assert not padded.mask[:1, dates:].any()


def test_views_views_and_steps_differ(mixed_batch):
    now, later = draw(mixed_batch, step=1), draw(mixed_batch, step=2)

    for view, other in [*zip(now, later, strict=True), *itertools.combinations(now, 2)]:
        assert not torch.equal(view.box, other.box)


def test_what_a_sample_lacks_stays_empty(mixed_batch):
    config = CONFIG.model_copy(update={"drop_modality": 0.0})

    for number, view in enumerate(draw(mixed_batch, config)):
        for key, rows in PRESENT.items():
            part, options = view.batch.modalities[key], config.modality(key)
            size = options.global_size if number < 2 else options.local_size
            have = torch.zeros(5, dtype=torch.bool)
            have[rows] = True
            assert part.pixels.shape[3:] == (size, size)
            assert torch.equal(part.sizes, (have[:, None] * size).expand(5, 2))
            assert not part.mask[~have].any()
            assert torch.isfinite(part.pixels).all()
            assert not part.pixels[~part.mask.unsqueeze(2).expand_as(part.pixels)].any()
            assert (part.days[~have] == UNKNOWN_DAY).all()


def test_modalities_are_dropped_but_a_row_is_never_empty(mixed_batch):
    config = CONFIG.model_copy(update={"drop_modality": 0.8})
    dropped = 0

    for step in range(10):
        for view in draw(mixed_batch, config, step=step):
            sizes = {key: part.sizes[:, 0] for key, part in view.batch.modalities.items()}
            assert (sum(sizes.values()) > 0).all()
            dropped += sum(int((sizes[key][rows] == 0).sum()) for key, rows in PRESENT.items())
            for key, part in view.batch.modalities.items():
                assert not part.mask[sizes[key] == 0].any()
    assert dropped > 100


def test_whole_ground_without_options_is_the_sample(series, plain_config):
    batch = collate([Sample({"hr": series("hr", shape=(16, 16), seed=i)}) for i in range(3)])
    config = plain_config(
        hr={"global_size": 16}, local_count=0, global_scale=(1, 1), aspect=(1, 1), turns=False
    )

    for view in draw(batch, config):
        torch.testing.assert_close(
            view.batch.modalities["hr"].pixels, batch.modalities["hr"].pixels
        )
        torch.testing.assert_close(view.box, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3))
        assert not view.turn.any()


def test_modalities_show_the_same_ground(coordinate_batch, plain_config):
    fine = coordinate_batch((32, 32), 16).modalities["hr"]
    coarse = coordinate_batch((16, 16), 16).modalities["hr"]
    s1 = type(coarse)(coarse.pixels[:, :, :2], coarse.mask, coarse.days, coarse.sizes, ("s1",) * 16)
    config = plain_config(hr={"global_size": 16, "local_size": 16}, s1={"global_size": 16})

    for view in draw(Batch({"hr": fine, "s1": s1}, torch.zeros(16, 2)), config):
        a, b = (view.batch.modalities[key].pixels[:, 0, :2] for key in ("hr", "s1"))
        inner = slice(2, -2)  # at the edge of the sample, values are those of the last pixel
        assert (a - b)[..., inner, inner].abs().max() < 0.25 / 16


def test_nothing_under_a_mask_is_seen(mixed_batch):
    poisoned = {}
    for key, part in mixed_batch.modalities.items():
        pixels = part.pixels.masked_fill(~part.mask.unsqueeze(2), float("nan"))
        if key == "s2":
            absent = (part.pixels[2].abs().amax((0, 2, 3)) == 0).nonzero().flatten()
            assert len(absent) == 4
            pixels[2, :, absent] = float("inf")
        poisoned[key] = type(part)(pixels, part.mask, part.days, part.sizes, part.sensors)

    for view, other in zip(
        draw(mixed_batch), draw(Batch(poisoned, mixed_batch.location)), strict=True
    ):
        assert_same(other, view, slice(None))


def test_a_sample_without_a_valid_pixel_passes(series):
    good = series("hr", shape=(16, 16))
    empty = type(good)(good.pixels, torch.zeros_like(good.mask), good.dates, "hr")

    for view in draw(collate([Sample({"hr": empty}), Sample({"hr": good})])):
        part = view.batch.modalities["hr"]
        assert not part.mask[0].any()
        assert part.mask[1].all()


def test_views_look_where_something_is_valid(series):
    whole = series("hr", shape=(32, 32))
    mask = torch.zeros_like(whole.mask)
    mask[:, :16, :20] = True
    corner = type(whole)(whole.pixels, mask, whole.dates, "hr")

    views = draw(collate([Sample({"hr": corner})] * 32))

    empty = [~view.batch.modalities["hr"].mask.flatten(1).any(1) for view in views]
    assert torch.stack(empty).float().mean() < 0.05


def test_half_precision_around_them_changes_nothing(mixed_batch):
    with torch.autocast("cpu", torch.bfloat16):
        inside = draw(mixed_batch)

    for view, other in zip(inside, draw(mixed_batch), strict=True):
        assert_same(view, other, slice(None))


def test_the_source_is_not_changed(mixed_batch):
    before = {key: part.pixels.clone() for key, part in mixed_batch.modalities.items()}

    draw(mixed_batch)

    for key, part in mixed_batch.modalities.items():
        assert torch.equal(part.pixels, before[key])


@pytest.mark.gpu
def test_views_are_the_same_on_a_gpu(mixed_batch):
    for view, other in zip(draw(mixed_batch), draw(mixed_batch.to("cuda")), strict=True):
        assert other.box.is_cuda
        there = type(view)(other.batch.to("cpu"), other.box.cpu(), other.turn.cpu())
        assert_same(there, view, slice(None))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"global_scale": (0.5, 0.1)}, "`global_scale` is (0.5, 0.1), expected"),
        ({"aspect": (0, 1)}, "`aspect` is"),
        ({"s2": {"dates": (3, 2)}}, "`dates` is (3, 2), expected"),
        ({"s1": {"speckel": 1}}, "did you mean `speckle`?"),
        ({"drop_modality": 1}, "`drop_modality`"),
    ],
)
def test_options_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match="recipe: ") as caught:
        parse(ViewConfig, values, "recipe")

    assert message in str(caught.value)
