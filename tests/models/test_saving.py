"""Saving a model: everything comes back, and a failure harms nothing that was there."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open

import skysense.models.saving as saving
from skysense.hub import load
from skysense.models.saving import CONFIG_NAME, WEIGHTS_NAME


@pytest.fixture
def model(fresh):
    return fresh("v2_tiny", seed=1)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("v2_tiny", {}),
        ("v2_tiny_moe", {"geo_regions": 9, "geo_prototypes": 2, "prompts": 0}),
    ],
    ids=["dense", "all parts"],
)
@pytest.mark.parametrize("trained", [True, False])
def test_round_trip_is_bit_equal(fresh, series, run, tmp_path, name, changes, trained):
    model = fresh(name, **changes)
    model.trained = trained

    again = load(model.save(tmp_path / "new" / "folder"))

    assert again.config == model.config
    assert (again.name, again.trained, again.training) == (name, trained, False)
    state, expected = again.state_dict(), model.state_dict()
    assert list(state) == list(expected)
    for key, value in expected.items():
        assert torch.equal(state[key], value), key
        assert state[key].dtype == value.dtype
    assert all(p.requires_grad for p in again.parameters())
    assert not any(t.is_meta for t in (*again.parameters(), *again.buffers()))
    model.trained = again.trained = True
    sample = {"s2": series("s2", 2, (21, 30), masked=0.2)}
    first, second = run(model, sample), run(again, sample)
    assert torch.equal(first.fused, second.fused)
    assert torch.equal(first.pooled, second.pooled)


def test_the_files_are_plain(model, tmp_path):
    folder = model.save(str(tmp_path / "plain"))

    assert folder == tmp_path / "plain"
    assert sorted(os.listdir(folder)) == [CONFIG_NAME, WEIGHTS_NAME]
    assert os.listdir(tmp_path) == ["plain"]
    text = json.loads((folder / CONFIG_NAME).read_text())
    assert text["family"] == "skysense_v2"
    assert text["name"] == "v2_tiny"
    assert text["trained"] is True
    assert text["config"]["depths"] == [2, 2, 2, 1]
    assert text["config"]["schedule"]["s2"] == ["keep", "keep", "keep"]
    with safe_open(folder / WEIGHTS_NAME, "np") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert file.get_tensor("tokenizers.hr.projection.weight").dtype == np.float32
    assert folder.stat().st_mode & 0o777 == 0o755


def test_weights_of_half_precision_compute_in_float32(model, tmp_path):
    again = load(model.half().save(tmp_path / "half"))

    assert {p.dtype for p in again.parameters()} == {torch.float32}
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    expected = model.float().embed(images, "rgb8")  # its tables of positions were rounded, too
    np.testing.assert_allclose(again.embed(images, "rgb8"), expected, atol=1e-3)


def test_saving_again_replaces(model, fresh, tmp_path):
    other = fresh("v2_tiny_moe")
    model.save(tmp_path / "model")

    other.save(tmp_path / "model")

    assert load(tmp_path / "model").name == "v2_tiny_moe"
    assert os.listdir(tmp_path) == ["model"]


def test_an_empty_folder_will_do(model, tmp_path):
    (tmp_path / "empty").mkdir()

    assert load(model.save(tmp_path / "empty")).name == "v2_tiny"


@pytest.mark.parametrize("already_a_model", [False, True])
def test_other_files_are_never_replaced(model, tmp_path, already_a_model):
    folder = tmp_path / "folder"
    if already_a_model:
        model.save(folder)
    folder.mkdir(exist_ok=True)
    (folder / "thesis.txt").write_text("three years of work")
    before = contents(folder)

    with pytest.raises(ValueError, match=r"holds other files \(thesis.txt\); choose another"):
        model.save(folder)

    assert contents(folder) == before
    assert os.listdir(tmp_path) == ["folder"]


def test_a_file_is_never_replaced(model, tmp_path):
    (tmp_path / "file").write_text("precious")

    with pytest.raises(ValueError, match="file is a file; choose another folder"):
        model.save(tmp_path / "file")

    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_the_old_model(model, fresh, tmp_path, monkeypatch, error):
    model.save(tmp_path / "model")
    before = contents(tmp_path / "model")

    def fail(tensors, path):
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(saving, "save_file", fail)
    with pytest.raises(type(error)):
        fresh("v2_tiny_moe").save(tmp_path / "model")
    with pytest.raises(type(error)):
        fresh("v2_tiny_moe").save(tmp_path / "other")

    assert contents(tmp_path / "model") == before
    assert os.listdir(tmp_path) == ["model"]


def test_a_failure_while_moving_brings_the_old_model_back(model, fresh, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    before = contents(tmp_path / "model")
    replace, calls = os.replace, []

    def fail_once(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise PermissionError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(PermissionError):
        fresh("v2_tiny_moe").save(tmp_path / "model")

    assert len(calls) == 3
    assert contents(tmp_path / "model") == before
    assert os.listdir(tmp_path) == ["model"]
