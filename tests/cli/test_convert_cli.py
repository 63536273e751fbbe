"""`skysense convert`: what it prints, and errors in one line."""

import pytest
import torch

import skysense as package
from skysense.hub import load_part
from skysense.hub.parts import KINDS
from skysense.hub.released import rename_key
from skysense.models.skysense_v1 import SkySenseV1, SkySenseV1Config, SwinConfig, VitConfig

FILES = {
    "hr": "backbone_hr",
    "s2": "backbone_s2",
    "s1": "backbone_s1",
    "up_s2": "head_s2",
    "up_s1": "head_s1",
    "fusion": "fusion",
}


@pytest.fixture(scope="module")
def model():
    """A tiny model with heads of 64 channels."""
    vit = VitConfig(width=64, depth=4, heads=1, outputs=(0, 1, 2, 3), position_grid=(4, 4))
    config = SkySenseV1Config(
        hr=SwinConfig(width=8, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4)),
        s2=vit,
        s1=vit.model_copy(update={"bands": 2}),
        fusion_width=64,
        fusion_depth=2,
        fusion_heads=1,
    )
    return SkySenseV1(config).eval()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """Part to file, and the merged checkpoint as `merged`."""
    folder = tmp_path_factory.mktemp("released")
    paths, merged = {}, {"backbone_gep.mask_token": torch.zeros(1, 1, 8)}
    for part, kind in KINDS.items():
        state = {
            rename_key(key, kind.back): value
            for key, value in getattr(model, part).state_dict().items()
            if key != "calendar"
        }
        paths[part] = folder / f"skysense_model_{FILES[part]}.pth"
        torch.save(state, paths[part])
        merged |= {kind.prefix + key: value for key, value in state.items()}
    merged |= {"ctpe": torch.zeros(1, 365, 64)}
    merged |= {f"head_gep.mlp.{i}.weight": torch.zeros(1) for i in range(5)}
    paths["merged"] = folder / "merged.pth"
    torch.save({"model": merged, "optimizer": {}}, paths["merged"])
    return paths


def test_the_merged_checkpoint(skysense, files, model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    result = skysense("convert", files["merged"], tmp_path / "out")

    assert result.exit_code == 0, result.stderr
    for text in ("HR backbone", "backbone_gep.", "S1 up-sampling head", "head_s1.", "merged.pth"):
        assert text in result.stdout
    assert "left out, head of the pre-training: head_gep.mlp.0.weight, " in result.stdout
    assert "head_gep.mlp.2.weight and 2 more\n" in result.stdout
    assert "left out, mask token of the pre-training: backbone_gep.mask_token\n" in result.stdout
    assert "left out, not a weight (in merged.pth): optimizer\n" in result.stdout
    assert "filled in: ctpe, day 366 (as day 365)\n" in result.stdout
    total = sum(p.numel() for p in model.parameters())
    assert result.stdout.endswith(f"out: skysense_v1, {total:,} parameters\n")
    again = package.load(tmp_path / "out")
    assert again.trained
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_six_files(skysense, files, model, tmp_path):
    sources = [path for part, path in files.items() if part != "merged"]

    result = skysense("convert", *sources, tmp_path / "out", "--eps", "1e-6")

    assert result.exit_code == 0, result.stderr
    assert package.load(tmp_path / "out").config.s2.eps == 1e-6


def test_one_part(skysense, files, tmp_path):
    result = skysense("convert", files["s1"], tmp_path / "out")

    assert result.exit_code == 0, result.stderr
    assert "skysense_v1_s1" in result.stdout
    assert load_part(tmp_path / "out").config.bands == 2


def test_a_converted_model_embeds_a_scene(skysense, files, image, tmp_path):
    skysense("convert", files["merged"], tmp_path / "out")

    result = skysense(
        "embed", image, "--model", tmp_path / "out", "-o", tmp_path / "map.tif", "--quiet"
    )

    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "map.tif").is_file()


def refused(result, *texts):
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for text in texts:
        assert text in line, line


def test_errors_are_one_line(skysense, files, tmp_path):
    state = torch.load(files["s2"], weights_only=True)
    del state["cls_token"]
    torch.save({**state, "foo": torch.zeros(1)}, tmp_path / "wrong.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    out = tmp_path / "out"

    refused(skysense("convert", tmp_path / "wrong.pth", out), "missing cls_token", "unexpected foo")
    refused(skysense("convert", tmp_path / "module.pth", out), "needs code to be run")
    refused(skysense("convert", tmp_path / "garbage.pth", out), "damaged or not a checkpoint")
    refused(skysense("convert", tmp_path / "nowhere.pth", out), "nowhere.pth")
    refused(skysense("convert", tmp_path, out), "Is a directory")
    refused(skysense("convert", files["s2"]), "is given: name the input, then the output folder")
    refused(skysense("convert", files["s2"], files["s1"]), "is a file; choose another folder")
    refused(skysense("convert", files["s2"], files["s1"], out), "a whole model needs the HR")
    refused(skysense("convert", files["s2"], out, "--eps", "2"), "eps must be between 0 and 1")
    refused(skysense("convert"), "--help")
    assert not out.exists()


def test_a_part_is_not_embedded_with(skysense, files, image, tmp_path):
    skysense("convert", files["hr"], tmp_path / "hr")

    result = skysense("embed", image, "--model", tmp_path / "hr", "-o", tmp_path / "map.tif")

    refused(result, "is one part of a model (`skysense_v1_hr`)")
