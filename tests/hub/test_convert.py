"""Conversion: every variant of the released files gives the same model, all else is refused."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from skysense.hub import load, load_part
from skysense.hub.convert import convert
from skysense.models.fusion import FusionTransformer
from skysense.models.skysense_v1 import SwinBackbone, SwinConfig, UpHead, VisionTransformer
from skysense.sample import Sample

PARTS = ("hr", "s2", "s1", "up_s2", "up_s1", "fusion")
FILES = {"up_s2": "head_s2", "up_s1": "head_s1", "hr": "backbone_hr"}


def file_of(part):
    return f"skysense_model_{FILES.get(part, part)}.pth"


@pytest.fixture
def write(tmp_path):
    """`write(object, name) -> Path` as `torch.save` writes it."""

    def save(content, name="given.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.fixture
def sample(series):
    """All three modalities; one Sentinel-2 date is the last day of a leap year."""
    s2 = series("s2", 2, (16, 16), masked=0.1, first="2024-11-24")  # and 31 December
    assert s2.dates[1] == np.datetime64("2024-12-31")
    parts = {"hr": series("rgb8", 1, (64, 64), seed=1), "s2": s2, "s1": series("s1", 1, (16, 16))}
    return Sample(parts)


def assert_same(model, other):
    state, expected = other.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


# The merged checkpoint


WRAPPERS = {
    "flat": lambda state: state,
    "model": lambda state: {"model": state},
    "state_dict": lambda state: {"state_dict": state},
    "both": lambda state: {"state_dict": {"model": state}},
    "module": lambda state: {"model": {f"module.{key}": v for key, v in state.items()}},
    "twice": lambda state: {f"module.module.{key}": v for key, v in state.items()},
    "trainer": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 1.0}]},
        "epoch": 3,
    },
    "parameters": lambda state: {k: torch.nn.Parameter(v) for k, v in state.items()},
    "atorch": lambda state: {k.replace(".in_proj_", ".Wqkv."): v for k, v in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_merged_checkpoint_becomes_the_model(
    model, merged, write, tmp_path, run, sample, wrap, zipped
):
    source = write(wrap(merged(model)), _use_new_zipfile_serialization=zipped)

    convert(source, tmp_path / "out")

    again = load(tmp_path / "out")
    assert again.config == model.config
    assert (again.trained, again.training, again.family) == (True, False, "skysense_v1")
    assert_same(model, again)
    assert_features_equal(run(model, sample), run(again, sample))


def assert_features_equal(first, second):
    assert torch.equal(first.fused, second.fused)
    assert torch.equal(first.pooled, second.pooled)
    for key, levels in first.pyramid.items():
        for level, other in zip(levels, second.pyramid[key], strict=True):
            assert torch.equal(level.values, other.values)


def test_what_is_said(model, merged, write, tmp_path):
    state = {"model": merged(model), "optimizer": {}, "iteration": 7}

    report = convert(write(state), tmp_path / "out")

    assert {p.part: (p.prefix, p.source) for p in report.parts} == {
        "hr": ("backbone_gep.", "given.pth"),
        "s2": ("backbone_s2.", "given.pth"),
        "s1": ("backbone_s1.", "given.pth"),
        "up_s2": ("head_s2.", "given.pth"),
        "up_s1": ("head_s1.", "given.pth"),
        "fusion": ("fusion.", "given.pth"),
    }
    assert {key for key, _ in report.left_out} == {
        "optimizer", "iteration", "backbone_gep.mask_token", "head_gep.mlp.0.weight",
        "head_fusion.last.weight", "glbank.prototypes",
    }  # fmt: skip
    assert [key for key, _ in report.filled] == [
        "backbone_gep.norm0", "backbone_gep.norm1", "backbone_gep.norm2", "ctpe, day 366",
    ]  # fmt: skip
    assert report.parameters == sum(p.numel() for p in model.parameters())
    taken = sum(part.parameters for part in report.parts)
    norms = 2 * (8 + 16 + 32)
    assert taken + norms + model.fusion.calendar.numel() == report.parameters


def test_safetensors(model, merged, tmp_path):
    save_file(merged(model), tmp_path / "given.safetensors")

    convert(tmp_path / "given.safetensors", tmp_path / "out")

    assert_same(model, load(tmp_path / "out"))


@pytest.mark.parametrize("names", ["prefixed", "bare"])
def test_six_files_become_the_model(model, official_part, write, tmp_path, names):
    roots = {"hr": "backbone.", "up_s2": "head_s2.", "up_s1": "head_s1.", "fusion": "fusion."}
    sources = []
    for part in PARTS:
        root = roots.get(part, f"backbone_{part}.") if names == "prefixed" else ""
        state = {root + key: value for key, value in official_part(model, part).items()}
        if part in ("hr", "s2"):  # the official splitter leaves it in these
            state["ctpe"] = model.fusion.calendar[None, :365].detach().clone()
        sources.append(write(state, file_of(part)))

    report = convert(sources[::-1], tmp_path / "out")

    assert {p.part: p.source for p in report.parts} == {part: file_of(part) for part in PARTS}
    assert_same(model, load(tmp_path / "out"))


def test_without_a_calendar_dates_change_nothing(model, merged, write, tmp_path):
    state = merged(model)
    del state["ctpe"]

    report = convert(write(state), tmp_path / "out")

    assert dict(report.filled)["ctpe"].startswith("zeros")
    assert not load(tmp_path / "out").fusion.calendar.any()


def test_a_calendar_of_366_days_is_taken_as_it_is(model, merged, write, tmp_path):
    table = torch.randn(1, 366, 64)

    report = convert(write({**merged(model), "ctpe": table}), tmp_path / "out")

    assert not [key for key, _ in report.filled if "ctpe" in key]
    assert torch.equal(load(tmp_path / "out").fusion.calendar, table[0])


@pytest.mark.parametrize("shape", [(1, 364, 64), (365, 64), (1, 365, 32), (2, 365, 64), (0,)])
def test_another_calendar_is_refused(model, merged, write, tmp_path, shape):
    with pytest.raises(ValueError, match=r"`ctpe` has shape .*expected \(1, 365, 64\)"):
        convert(write({**merged(model), "ctpe": torch.zeros(shape)}), tmp_path / "out")


def test_two_calendars_must_be_one(model, official_part, write, tmp_path):
    sources = []
    for i, part in enumerate(PARTS):
        state = {**official_part(model, part), "ctpe": torch.full((1, 365, 64), float(i))}
        sources.append(write(state, file_of(part)))

    with pytest.raises(ValueError, match=r"`ctpe` of skysense_model_s2\.pth is another"):
        convert(sources, tmp_path / "out")


def test_derived_buffers_are_left_out(model, merged, official_part, write, tmp_path):
    tables = official_part(model, "hr", tables=True)
    state = {**merged(model), **{f"backbone_gep.{key}": v for key, v in tables.items()}}

    report = convert(write(state), tmp_path / "out")

    assert sum("relative_" in key for key, _ in report.left_out) == 2 * 10
    assert_same(model, load(tmp_path / "out"))


def test_half_precision_becomes_float32(model, merged, write, tmp_path):
    state = {key: value.bfloat16() for key, value in merged(model).items()}

    convert(write(state), tmp_path / "out")

    again = load(tmp_path / "out")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    expected = model.s2.class_token.bfloat16().float()
    assert torch.equal(again.s2.class_token, expected)


def test_tensors_that_share_memory(model, official_part, write, tmp_path):
    state = official_part(model, "up_s2")
    flat = torch.cat([value.flatten() for value in state.values()])
    sizes = [value.numel() for value in state.values()]
    views = {
        key: piece.view(value.shape)
        for (key, value), piece in zip(state.items(), flat.split(sizes), strict=True)
    }

    convert(write(views, "head_s2.pth"), tmp_path / "out")

    assert_same(model.up_s2, load_part(tmp_path / "out"))


# One part


PREFIXES = {
    "hr": ["", "backbone.", "backbone_hr.", "backbone_gep.", "module.backbone."],
    "s2": ["", "backbone.", "backbone_s2."],
    "s1": ["", "backbone.", "backbone_s1.", "module."],
    "fusion": ["", "fusion.", "encoder."],
    "up_s2": ["", "head_s2.", "up.head_s2."],
    "up_s1": ["", "head_s1."],
}
KINDS = {
    "hr": ("skysense_v1_hr", SwinBackbone),
    "s2": ("skysense_v1_s2", VisionTransformer),
    "s1": ("skysense_v1_s1", VisionTransformer),
    "fusion": ("skysense_v1_fusion", FusionTransformer),
    "up_s2": ("skysense_v1_up_head", UpHead),
    "up_s1": ("skysense_v1_up_head", UpHead),
}


@pytest.mark.parametrize(
    ("part", "prefix"), [(part, prefix) for part in PREFIXES for prefix in PREFIXES[part]]
)
def test_one_part(model, official_part, write, tmp_path, part, prefix):
    state = {prefix + key: value for key, value in official_part(model, part).items()}

    report = convert(write(state, file_of(part)), tmp_path / "out")

    found = load_part(tmp_path / "out")
    assert report.family == KINDS[part][0]
    assert type(found) is KINDS[part][1]
    assert not found.training
    assert report.parts[0].prefix == prefix.removeprefix("module.")
    if part == "fusion":
        assert not found.calendar.any()
        found.calendar.data.copy_(model.fusion.calendar)
    assert_same(getattr(model, part), found)


def test_one_part_computes_the_same(model, official_part, write, tmp_path):
    pixels = torch.randn(2, 10, 20, 24)
    convert(write(official_part(model, "s2")), tmp_path / "out")

    found = load_part(tmp_path / "out")

    with torch.inference_mode():
        for (x, vector, _), (y, other, _) in zip(model.s2(pixels), found(pixels), strict=True):
            assert torch.equal(x, y)
            assert torch.equal(vector, other)


def test_a_calendar_beside_a_backbone_is_said_to_be_left_out(model, official_part, write, tmp_path):
    state = {**official_part(model, "s2"), "ctpe": torch.zeros(1, 365, 64)}

    report = convert(write(state), tmp_path / "out")

    assert [key for key, _ in report.left_out] == ["ctpe"]


def test_a_calendar_beside_the_fusion_is_kept(model, official_part, write, tmp_path):
    table = model.fusion.calendar[None, :365].detach().clone()

    convert(write({**official_part(model, "fusion"), "ctpe": table}), tmp_path / "out")

    assert_same(model.fusion, load_part(tmp_path / "out"))


@pytest.mark.parametrize("bands", [3, 4])
def test_bands_of_hr(tiny, official_part, merged, write, tmp_path, bands):
    hr = SwinConfig(width=8, depths=(1, 2, 6, 1), heads=(1, 2, 2, 4), bands=bands)
    model = tiny(hr=hr)

    convert(write(official_part(model, "hr")), tmp_path / "part")
    convert(write(merged(model)), tmp_path / "whole")

    assert load_part(tmp_path / "part").config == hr
    assert load(tmp_path / "whole").config.hr.bands == bands
    assert_same(model.hr, load_part(tmp_path / "part"))


@pytest.mark.parametrize("norms", [(), (0, 1, 2)])
def test_output_norms_are_taken_or_filled_in(model, official_part, write, tmp_path, norms):
    state = official_part(model, "hr")
    for i in norms:
        state[f"norm{i}.weight"] = torch.full((8 * 2**i,), 3.0)
        state[f"norm{i}.bias"] = torch.full((8 * 2**i,), 5.0)

    report = convert(write(state), tmp_path / "out")

    found = load_part(tmp_path / "out")
    assert found.config.outputs == (0, 1, 2, 3)
    assert [key for key, _ in report.filled] == ([] if norms else ["norm0", "norm1", "norm2"])
    for i in range(3):
        assert set(found.norms[str(i)].weight.tolist()) == {3.0 if norms else 1.0}
        assert set(found.norms[str(i)].bias.tolist()) == {5.0 if norms else 0.0}


@pytest.mark.parametrize(("window", "before"), [(4, 0), (8, 0), (4, 8), (8, 4), (16, 8)], ids=str)
def test_windows_are_told_by_their_buffers(tiny, official_part, write, tmp_path, window, before):
    changes = {"windows": (8, 8, 8, window), "pretrained_windows": (0, 0, 0, before)}
    model = tiny(hr=tiny().config.hr.model_copy(update=changes))

    convert(write(official_part(model, "hr", tables=True)), tmp_path / "out")

    assert load_part(tmp_path / "out").config == model.config.hr
    assert_same(model.hr, load_part(tmp_path / "out"))


@pytest.mark.parametrize("entries", [16, 17, 36, 1, 2])
def test_the_position_grid_is_told_by_the_table(official_part, model, write, tmp_path, entries):
    state = {**official_part(model, "s2"), "pos_embed": torch.randn(1, entries, 64)}

    convert(write(state), tmp_path / "out")

    config = load_part(tmp_path / "out").config
    side = {16: 4, 17: 4, 36: 6, 1: 1, 2: 1}[entries]
    assert config.position_grid == (side, side)
    assert config.class_position is (entries in (17, 2))


def test_eps_is_that_of_the_plain_backbones(model, merged, write, tmp_path):
    convert(write(merged(model)), tmp_path / "out", eps=1e-6)

    again = load(tmp_path / "out")
    assert again.config.s2.eps == again.config.s1.eps == 1e-6
    assert again.s2.layers[0].norm1.eps == 1e-6
    assert again.fusion.layers[0].norm1.eps == again.hr.stages[0][0].norm1.eps == 1e-5


def test_a_model_that_was_converted_before_is_replaced(
    model, merged, official_part, write, tmp_path
):
    convert(write(official_part(model, "s1")), tmp_path / "out")
    convert(write(merged(model)), tmp_path / "out")

    assert_same(model, load(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == ["given.pth", "out"]


def test_the_files_are_as_readable_as_each_other(model, official_part, write, tmp_path):
    convert(write(official_part(model, "s1")), tmp_path / "out")

    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}

    assert len(modes) == 1
