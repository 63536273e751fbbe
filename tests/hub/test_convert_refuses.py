"""What conversion refuses: each in words that name every key, and nothing is written."""

import argparse
import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from skysense.hub import load, load_part
from skysense.hub.convert import convert
from skysense.hub.released import FUSION_BACK, rename_key
from skysense.models.fusion import FusionTransformer


@pytest.fixture
def refuse(tmp_path):
    """`refuse(content, match, name=...) -> str`: the message; nothing is left on the disk."""

    def check(content, match, name="given.pth", **options):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            torch.save(content, tmp_path / name)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=match) as caught:
            convert(tmp_path / name, tmp_path / "out", **options)
        assert sorted(tmp_path.rglob("*")) == before
        assert "weights_only" not in str(caught.value)  # torch's advice to run the code after all
        return str(caught.value)

    return check


def lines(message):
    return {line.strip() for line in message.splitlines()[1:]}


# Keys


def test_every_key_that_does_not_fit_is_named(model, merged, refuse):
    state = merged(model)
    missing = [
        "backbone_gep.patch_embed.projection.weight",
        "backbone_gep.stages.0.blocks.0.attn.w_msa.logit_scale",
        "backbone_gep.stages.2.blocks.5.norm3.bias",
        "backbone_gep.stages.3.downsample.reduction.weight",
        "backbone_gep.norm3.weight",
        "backbone_s2.cls_token",
        "backbone_s2.pos_embed",
        "backbone_s1.patch_embed.projection.bias",
        "backbone_s1.layers.3.attn.attn.in_proj_weight",
        "fusion.porj_linear.weight",
        "fusion.layers.0.ffn.layers.0.0.bias",
        "head_s2.decoder.0.weight",
    ]
    for key in missing:
        del state[key]
    state["backbone_gep.foo"] = torch.zeros(1)
    state["backbone_s2.mask_token"] = torch.zeros(1)
    state["backbone_s1.layers.0.ln3.weight"] = torch.zeros(1)
    state["head_s1.extra.weight"] = torch.zeros(1)
    state["elsewhere.weight"] = torch.zeros(1)
    state["backbone_s2.layers.1.ln1.weight"] = torch.zeros(65)
    state["backbone_gep.patch_embed.norm.bias"] = torch.zeros(1, 8)
    state["head_s1.decoder.0.bias"] = torch.zeros(16)
    state["fusion.cls_token"] = torch.zeros(1, 1, 64, dtype=torch.int64)

    message = refuse({"model": state}, r"^given\.pth: 21 weights do not fit:\n")

    assert lines(message) == {
        *(f"missing {key}" for key in missing),
        "unexpected backbone_gep.foo",
        "unexpected backbone_s2.mask_token",
        "unexpected backbone_s1.layers.0.ln3.weight",
        "unexpected head_s1.extra.weight",
        "unexpected elsewhere.weight",
        "backbone_s2.layers.1.ln1.weight has shape (65,), expected (64,)",
        "backbone_gep.patch_embed.norm.bias has shape (1, 8), expected (8,)",
        "head_s1.decoder.0.bias has shape (16,), expected (1024,)",
        "fusion.cls_token is torch.int64, expected float32",
    }


@pytest.mark.parametrize("part", ["hr", "s2", "s1", "fusion", "up_s2"])
def test_any_one_missing_key_is_named(model, official_part, part, tmp_path):
    state = official_part(model, part)
    keys = list(state) if len(state) < 60 else list(state)[::7]
    name = {"s2": "s2.pth", "s1": "s1.pth", "up_s2": "head_s2.pth"}.get(part, "given.pth")
    for key in keys:
        rest = {k: v for k, v in state.items() if k != key}
        torch.save(rest, tmp_path / name)
        with pytest.raises(ValueError, match="1 weights do not fit") as caught:
            convert(tmp_path / name, tmp_path / "out")
        assert lines(str(caught.value)) == {f"missing {key}"}


@pytest.mark.parametrize("part", ["hr", "s2", "fusion", "up_s2"])
def test_any_misshapen_key_is_named(model, official_part, part, tmp_path):
    state = official_part(model, part)
    for key in list(state)[:: 1 if len(state) < 60 else 7]:
        wrong = {**state, key: torch.zeros(3, 5, 7, 11, 13)}
        torch.save(wrong, tmp_path / "given_s2.pth")
        with pytest.raises(ValueError, match=re.escape(key)):
            convert(tmp_path / "given_s2.pth", tmp_path / "out")


def test_third_norms_cannot_all_be_missing(model, official_part, refuse):
    state = {k: v for k, v in official_part(model, "hr").items() if ".norm3." not in k}

    message = refuse(state, "2 weights do not fit")

    assert lines(message) == {
        "missing stages.2.blocks.5.norm3.weight",
        "missing stages.2.blocks.5.norm3.bias",
    }


def test_two_names_of_one_weight(model, official_part, refuse):
    state = official_part(model, "s2")
    state["layers.0.attn.attn.Wqkv.weight"] = state["layers.0.attn.attn.in_proj_weight"].clone()

    refuse(
        state, r"unexpected layers\.0\.attn\.attn\.Wqkv\.weight beside layers\.0\.attn\.attn\.in"
    )


def test_names_of_ours_are_not_official(model, refuse):
    refuse(model.s2.state_dict(), "holds no part of SkySense: of 5")
    refuse(model.state_dict(), "holds no part of SkySense")


def test_annotation_tokens_are_said_to_be_of_another_model(model, official_part, refuse):
    state = {**official_part(model, "s2"), "vocabulary_token": torch.zeros(65, 64)}

    refuse(state, r"SkySense\+\+, which is not supported:\n  unexpected vocabulary_token$")


@pytest.mark.parametrize("key", ["stages.99999999999.blocks.0.q", "stages.300.blocks.1.norm1.bias"])
def test_a_number_that_is_no_blocks(model, official_part, refuse, key):
    refuse({**official_part(model, "hr"), key: torch.zeros(1)}, f"unexpected {re.escape(key)}$")


@pytest.mark.parametrize("shape", [(1, 15, 64), (1, 3, 64), (16, 64), (1, 0, 64)])
def test_a_position_table_of_no_square(model, official_part, refuse, shape):
    state = {**official_part(model, "s2"), "pos_embed": torch.zeros(shape)}

    refuse(state, r"`pos_embed` of shape .* is of no square grid")


def test_widths_without_heads_of_64(refuse):
    state = {"porj_linear.weight": torch.zeros(48, 64), "layers.0.ln1.weight": torch.zeros(48)}

    refuse(state, "48 channels are not made of heads of 64")


def test_a_table_of_no_window(model, official_part, refuse):
    state = official_part(model, "hr", tables=True)
    state["stages.0.blocks.0.attn.w_msa.relative_coords_table"] += 1

    refuse(state, "`relative_coords_table` is that of no attention window")


# Parts


def test_parts_that_are_not_whole(model, merged, refuse):
    state = {k: v for k, v in merged(model).items() if not k.startswith(("fusion", "head_s1"))}

    refuse(
        state,
        "a whole model needs the S1 up-sampling head, the fusion transformer as well; "
        "recognized HR backbone, S2 backbone, S1 backbone, S2 up-sampling head",
    )


def test_two_of_one_part(model, official_part, tmp_path):
    for name in ("a", "b"):
        state = {f"{name}.{key}": value for key, value in official_part(model, "hr").items()}
        torch.save(state, tmp_path / f"{name}.pth")

    with pytest.raises(
        ValueError, match=r"two of the HR backbone: `a\.\*` in a\.pth and `b\.\*` in b"
    ):
        convert([tmp_path / "a.pth", tmp_path / "b.pth"], tmp_path / "out")


def test_parts_of_two_models(model, merged, refuse):
    narrow = FusionTransformer(32, 64, 2, 1).state_dict()
    fusion = {f"fusion.{rename_key(k, FUSION_BACK)}": v for k, v in narrow.items()}
    del fusion["fusion.calendar"]
    state = {k: v for k, v in merged(model).items() if not k.startswith(("fusion.", "ctpe"))}

    refuse(
        {**state, **fusion}, "not of one model: the fusion transformer takes 32 channels, not 64"
    )


def test_bands_against_the_prefix(model, official_part, refuse):
    state = {f"backbone_s1.{k}": v for k, v in official_part(model, "s2").items()}

    refuse(state, r"`backbone_s1\.\*` has 10 bands, which are those of s2")


@pytest.mark.parametrize("name", ["given.pth", "head_s1_and_s2.pth", "gases2.pth"])
def test_a_head_of_either(model, official_part, refuse, name):
    refuse(
        official_part(model, "up_s2"),
        f"{re.escape(name)}: this up-sampling head could be that of Sentinel-2 or of Sentinel-1; "
        r"put `s2` or `s1` into the file's name, such as head_s2\.pth",
        name=name,
    )


def test_a_backbone_of_other_bands_goes_by_its_name(model, official_part, refuse, tmp_path):
    state = official_part(model, "s2")
    state["patch_embed.projection.weight"] = torch.zeros(64, 4, 4, 4)
    refuse(state, "this backbone of 4 bands could be")

    torch.save(state, tmp_path / "Backbone-S2.pth")
    report = convert(tmp_path / "Backbone-S2.pth", tmp_path / "out")

    assert report.family == "skysense_v1_s2"
    assert load_part(tmp_path / "out").config.bands == 4


def test_an_unknown_file_says_what_is_in_it(refuse):
    state = {f"encoder.block{i}.weight": torch.zeros(1) for i in range(5)}
    state |= {"layers.0.ln1.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}

    message = refuse(state, "given.pth holds no part of SkySense: of 7 keys, ")

    assert "0 could be of the HR backbone, 1 could be of the S2 backbone" in message
    assert "they begin with encoder (5), layers (1), fc (1)" in message
    assert "for example encoder.block0.weight, " in message
    assert "expected prefixes such as backbone_gep." in message


# Files


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(refuse, tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(
        {"model": {"a": torch.zeros(1)}, "x": Evil()},
        tmp_path / "evil.pth",
        _use_new_zipfile_serialization=zipped,
    )
    said = r"needs code to be run to be read \(`(posix\.mkdir|pickle)`\), which is never done"
    refuse((tmp_path / "evil.pth").read_bytes(), said)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        refuse(pickle.dumps({"x": Evil()}, protocol=protocol), said)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        ({"model": {}, "args": argparse.Namespace(lr=1)}, r"argparse\.Namespace"),
        ({"model": {}, "best": np.float64(1)}, r"numpy\S*"),
    ],
    ids=["module", "arguments", "numpy"],
)
def test_what_needs_code_is_named(refuse, content, code):
    refuse(content, rf"needs code to be run to be read \(`{code}`\)")


DAMAGED = {
    "empty": lambda data: b"",
    "tiny": lambda data: data[:3],
    "magic": lambda data: data[:4],
    "half": lambda data: data[: len(data) // 2],
    "cut": lambda data: data[:-1],
    "garbage": lambda data: np.random.default_rng(0).bytes(5000),
    "text": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
    "page": lambda data: b"<!DOCTYPE html><html></html>",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_files(model, official_part, refuse, tmp_path, damage, kind):
    path = tmp_path / "good"
    if kind == "safetensors":
        save_file(official_part(model, "up_s2"), path)
    else:
        zipped = kind == "zip"
        torch.save(official_part(model, "up_s2"), path, _use_new_zipfile_serialization=zipped)
    name = "head_s2.safetensors" if kind == "safetensors" else "head_s2.pth"

    message = refuse(damage(path.read_bytes()), r"head_s2\.\w+ is damaged", name=name)

    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (torch.zeros(2), "holds no weights by name but a Tensor"),
        ([torch.zeros(2)], "holds no weights by name but a list"),
        ({}, "holds no tensors"),
        ({"model": {}, "epoch": 1}, "holds no tensors"),
        ({"a": 1, "b": "text"}, "holds no tensors"),
        ({"a.b": torch.zeros(1, device="meta")}, "`a.b` has a shape but no values"),
        (
            {"module.a": torch.zeros(1), "a": torch.ones(1)},
            "holds `a` twice, with and without `module.`",
        ),
    ],
)
def test_files_without_weights(refuse, content, match):
    refuse(content, match)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        convert(tmp_path / "nowhere.pth", tmp_path / "out")
    with pytest.raises(IsADirectoryError):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="no checkpoint is given"):
        convert([], tmp_path / "out")


@pytest.mark.parametrize("eps", [0.0, -1e-5, 1.0, float("nan")])
def test_impossible_eps(model, official_part, refuse, eps):
    refuse(official_part(model, "s2"), "eps must be between 0 and 1", eps=eps)


def test_other_files_are_not_replaced(model, official_part, tmp_path):
    torch.save(official_part(model, "s2"), tmp_path / "given.pth")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")

    with pytest.raises(ValueError, match=r"holds other files \(notes\.txt\)"):
        convert(tmp_path / "given.pth", tmp_path / "out")
    with pytest.raises(ValueError, match="is a file; choose another folder"):
        convert(tmp_path / "given.pth", tmp_path / "given.pth")

    assert os.listdir(tmp_path / "out") == ["notes.txt"]


def test_the_input_is_not_replaced(model, official_part, tmp_path):
    (tmp_path / "out").mkdir()
    source = tmp_path / "out" / "model.safetensors"
    save_file(official_part(model, "s2"), source)
    before = source.read_bytes()

    with pytest.raises(ValueError, match="lies in the folder to be written"):
        convert(source, tmp_path / "out")

    assert source.read_bytes() == before


# Loading


@pytest.fixture
def part(model, official_part, tmp_path):
    torch.save(official_part(model, "s2"), tmp_path / "s2.pth")
    convert(tmp_path / "s2.pth", tmp_path / "part")
    return tmp_path / "part"


def test_a_part_is_no_whole_model(part, model, tmp_path):
    with pytest.raises(ValueError, match=r"is one part of a model \(`skysense_v1_s2`\): use"):
        load(part)
    with pytest.raises(
        ValueError, match=r"is a whole model \(`skysense_v1`\): use `skysense\.load`"
    ):
        load_part(model.save(tmp_path / "whole"))
    with pytest.raises(ValueError, match="is no folder"):
        load_part(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_part(tmp_path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"family": "resnet"}, "unknown model family `resnet`"),
        ({"family": "skysense_v1_hr"}, r"config\.json: .*unknown key `depth`"),
        ({"config": {"width": 64, "heads": 3}}, "no S2 backbone has these sizes: 3 heads do not"),
        ({"config": {"width": 64, "heads": 1, "depth": 4}}, "weights do not fit"),
        ({"config": {"wdth": 64}}, "unknown key `wdth`, did you mean `width`"),
    ],
)
def test_a_part_of_another_configuration(part, changes, match):
    facts = json.loads((part / "config.json").read_text())
    (part / "config.json").write_text(json.dumps({**facts, **changes}))

    with pytest.raises(ValueError, match=match):
        load_part(part)


def test_a_damaged_part(part):
    path = part / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_part(part)
