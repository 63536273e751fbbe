"""The full-size key lists of the released modules, converted without weights; exact counts."""

import json
import os
from pathlib import Path

import pytest
import torch

from skysense.hub.checkpoint import Checkpoint
from skysense.hub.convert import convert_tensors
from skysense.hub.parts import KINDS
from skysense.hub.released import is_official, rename_key
from skysense.models.skysense_v1 import V1_CONFIGS, SwinConfig, VitConfig

ROOT = Path(__file__).parents[2]
KEYS = Path(os.environ.get("SKYSENSE_PARITY", ROOT.parent / "shared" / "parity")) / "keys"

pytestmark = pytest.mark.skipif(not KEYS.is_dir(), reason=f"no key lists in {KEYS}")

HR = "skysense_hr_swinv2_huge"
PREFIXES = {
    HR + "_default": "backbone_gep.",
    "skysense_s2_vit_large": "backbone_s2.",
    "skysense_s1_vit_large": "backbone_s1.",
    "skysense_fusion": "fusion.",
}


def manifest(name, prefix=""):
    """Meta tensors of a module's official keys."""
    facts = json.loads((KEYS / f"{name}.json").read_text())
    return {
        prefix + key: torch.empty(
            value["shape"], dtype=getattr(torch, value["dtype"]), device="meta"
        )
        for key, value in facts["keys"].items()
    }


def converted(state, name="given.pth"):
    """What becomes of tensors as of one file."""
    return convert_tensors([Checkpoint(name, state)])


@pytest.mark.parametrize(
    ("name", "part", "read", "written"),
    [
        (HR, "hr", 655_079_632, 655_079_632),
        (HR + "_default", "hr", 655_074_704, 655_079_632),
        ("skysense_s2_vit_large", "s2", 302_738_432, 302_738_432),
        ("skysense_s1_vit_large", "s1", 302_607_360, 302_607_360),
        ("skysense_fusion", "fusion", 305_195_008, 305_195_008 + 366 * 2816),
        ("pp_fusion", "fusion", 305_195_008, 305_195_008 + 366 * 2816),
        ("skysense_up_head", "up_s2", 46_182_400, 46_182_400),
        ("pp_head_s2", "up_s2", 46_182_400, 46_182_400),
    ],
)
def test_a_part(name, part, read, written):
    state = manifest(name)

    result = converted(state, f"{part}.pth")

    (found,) = result.report.parts
    derived = [key for key in state if "relative_" in key]
    assert found.part == part
    assert found.parameters == read
    assert found.tensors == len(state) - len(derived)
    assert result.report.parameters == written
    assert [key for key, _ in result.report.left_out] == derived
    released = {
        "hr": SwinConfig(),
        "s2": VitConfig(),
        "s1": VitConfig(bands=2),
        "fusion": KINDS["fusion"].config(),
        "up_s2": KINDS["up_s2"].config(),
    }
    assert result.config == released[part]


def whole():
    """The merged checkpoint as the released file is described."""
    state = {"ctpe": torch.empty(1, 365, 2816, device="meta")}
    for name, prefix in PREFIXES.items():
        state |= manifest(name, prefix)
    for prefix in ("head_s2.", "head_s1."):
        state |= manifest("skysense_up_head", prefix)
    state["backbone_gep.mask_token"] = torch.empty(1, 1, 352, device="meta")
    return {key: value for key, value in state.items() if "relative_" not in key}


def test_the_merged_checkpoint():
    result = converted(whole())

    assert result.config == V1_CONFIGS["v1_huge"]
    parts = {part.part: part.parameters for part in result.report.parts}
    assert parts == {
        "hr": 655_074_704,
        "s2": 302_738_432,
        "s1": 302_607_360,
        "fusion": 305_195_008,
        "up_s2": 46_182_400,
        "up_s1": 46_182_400,
    }
    heads = parts["fusion"] + parts["up_s2"] + parts["up_s1"] + 365 * 2816
    assert heads == 398_587_648  # what the paper rounds to 398M
    assert result.report.parameters == sum(parts.values()) + 366 * 2816 + 4928
    assert [key for key, _ in result.report.left_out] == ["backbone_gep.mask_token"]
    assert len(result.report.filled) == 4


def test_four_bands():
    state = manifest(HR + "_default", "backbone.")
    state["backbone.patch_embed.projection.weight"] = torch.empty(352, 4, 4, 4, device="meta")

    result = converted(state)

    assert result.config == SwinConfig(bands=4)
    assert result.report.parts[0].parameters == 655_074_704 + 352 * 16


def test_a_position_table_of_16_without_class_entry():
    state = manifest("pp_backbone_s2")
    for key in ("mask_token", "vocabulary_token", "vocabulary_weight"):
        del state[key]

    result = converted(state)

    assert result.config == VitConfig(position_grid=(4, 4), class_position=False)


@pytest.mark.parametrize("name", ["pp_backbone_hr", "pp_backbone_s2", "pp_backbone_s1"])
def test_annotation_tokens_are_refused(name):
    with pytest.raises(ValueError, match=r"SkySense\+\+") as caught:
        converted(manifest(name))

    assert "unexpected vocabulary_token" in str(caught.value)
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize("name", ["pp_modality_vae", "pp_rec_head_hr"])
def test_other_modules_are_no_part(name):
    with pytest.raises(ValueError, match="holds no part of SkySense"):
        converted(manifest(name))


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_names_go_back_and_forth(prefix):
    name = next(name for name, given in PREFIXES.items() if given == prefix)
    kind = next(kind for kind in KINDS.values() if kind.prefix == prefix)
    for key in manifest(name):
        if "relative_" not in key:
            assert is_official(key, kind.rules, kind.back), key
            assert rename_key(rename_key(key, kind.rules), kind.back) == key
