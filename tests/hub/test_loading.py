"""Loading: by name, from a folder, from the hub; and every way in which it can go wrong."""

import json
import pickle

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import skysense
from skysense.hub import describe, list_models, load
from skysense.hub.loading import load_strictly
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.models.skysense_v2 import V2_CONFIGS


@pytest.fixture
def saved(fresh, tmp_path):
    return fresh("v2_tiny", geo_regions=4, geo_prototypes=2).save(tmp_path / "saved")


def edit_config(folder, **changes):
    path = folder / "config.json"
    text = json.loads(path.read_text())
    path.write_text(json.dumps({**text, **changes}))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_a_name_is_always_the_same_model():
    torch.manual_seed(7)
    first = load("v2_tiny")
    torch.manual_seed(8)
    second = skysense.load("v2_tiny")

    assert list(first.state_dict()) == list(second.state_dict())
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    assert (first.name, first.trained, first.training) == ("v2_tiny", False, False)
    assert first.config == V2_CONFIGS["v2_tiny"]


def test_loading_does_not_disturb_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    load("v2_tiny")

    assert torch.equal(torch.rand(3), expected)


def test_loading_does_not_seed_gpus(monkeypatch):
    def fail(seed):
        raise AssertionError("the random numbers of all GPUs are gone")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)

    load("v2_tiny")


def test_a_default_device_changes_nothing():
    with torch.device("meta"):
        model = load("v2_tiny")

    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert torch.equal(
        model.state_dict()["tokenizers.s2.projection.weight"],
        load("v2_tiny").state_dict()["tokenizers.s2.projection.weight"],
    )


def test_v1_by_name_and_from_a_folder(tmp_path):
    first = load("v1_tiny")
    again = load(first.save(tmp_path / "saved"))

    assert isinstance(first, SkySenseV1)
    assert isinstance(again, SkySenseV1)
    assert (first.name, first.trained, first.training) == ("v1_tiny", False, False)
    assert again.config == first.config == V1_CONFIGS["v1_tiny"]
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


@pytest.mark.gpu
def test_loading_onto_a_gpu(saved):
    for source in ("v2_tiny", saved):
        model = load(source, "cuda")
        assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"cuda"}


def test_names():
    assert list_models() == [*V2_CONFIGS, *V1_CONFIGS]
    assert list_models()[-4:] == ["v1_tiny", "v1_small", "v1_base", "v1_huge"]
    info = describe("v2_small")
    assert info.name == "v2_small"
    assert info.trained is False
    assert set(info.parameters) == {
        "tokenizers",
        "backbone",
        "prompts",
        "fusion",
        "geo_context",
        "total",
    }


@pytest.mark.parametrize("source", ["v3_huge", "/no/such/folder", "a/b/c", "../x y/z"])
def test_unknown_names_list_the_known_ones(source):
    with pytest.raises(
        ValueError, match=r"unknown model .*: not a folder, and not one of v2_tiny,"
    ):
        load(source)
    if source == "v3_huge":
        with pytest.raises(ValueError, match=r"unknown model `v3_huge` \(known: v2_tiny, v2_nano"):
            describe(source)


# A saved folder


def test_a_folder_around_a_model_says_so(saved):
    with pytest.raises(ValueError, match=f"no config.json; did you mean {saved}"):
        load(saved.parent)


@pytest.mark.parametrize("device", ["abacus", "cpu:x"])
def test_devices_that_are_none(device):
    with pytest.raises(ValueError, match=f"device {device} (is not known|cannot be used here)"):
        load("v2_tiny", device)


def test_a_device_may_be_left_to_the_machine():
    assert next(load("v2_tiny", "auto").parameters()).device.type in ("cpu", "cuda", "mps")
    assert next(load("v2_tiny", "meta").parameters()).device.type == "meta"


def test_a_folder_by_string_and_by_path(saved):
    for source in (saved, str(saved)):
        model = load(source)
        assert model.config.geo_regions == 4
        assert model.geo_context.prototypes.abs().sum() > 0


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()

    with pytest.raises(ValueError, match=f"saved is not a saved model: it has no {name}"):
        load(saved)


def test_every_weight_that_does_not_fit_is_named(saved):
    def change(state):
        del state["fusion.extra_token"], state["prompts.s1_stage3"]
        state["fusion.extra"] = torch.zeros(1)
        state["tokenizers.hr.norm.weight"] = torch.zeros(5)
        state["fusion.proj.bias"] = torch.zeros(1, 64)

    edit_weights(saved, change)

    with pytest.raises(ValueError, match="saved: 5 weights do not fit") as caught:
        load(saved)

    assert {line.strip() for line in str(caught.value).splitlines()[1:]} == {
        "missing fusion.extra_token",
        "missing prompts.s1_stage3",
        "unexpected fusion.extra",
        "tokenizers.hr.norm.weight has shape (5,), expected (32,)",
        "fusion.proj.bias has shape (1, 64), expected (64,)",
    }


def test_a_configuration_of_another_model_does_not_fit(saved):
    text = json.loads((saved / "config.json").read_text())
    edit_config(saved, config={**text["config"], "fusion_width": 128})

    with pytest.raises(ValueError, match=r"weights do not fit:\n  .*, expected \(.*128"):
        load(saved)


def test_a_failed_load_leaves_a_model_as_it_was(fresh):
    model = fresh("v2_tiny")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wrong = {k: torch.zeros_like(v) for k, v in before.items()}
    del wrong["fusion.extra_token"]

    with pytest.raises(
        ValueError, match=r"here: 1 weights do not fit:\n  missing fusion\.extra_tok"
    ):
        load_strictly(model, wrong, "here")

    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: pickle.dumps({"a": 1}),
    ],
    ids=["empty", "tiny", "half", "cut", "header", "pickle"],
)
def test_damaged_weights(saved, damage):
    path = saved / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load(saved)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"5", b'"text"', b"null", b'{"family": "skysense_v2"}', b"\xff\xfe\x00"],
)
def test_damaged_configuration(saved, text):
    (saved / "config.json").write_bytes(text)

    with pytest.raises(ValueError, match=r"config\.json is not a model configuration"):
        load(saved)


@pytest.mark.parametrize("config", [5, None, "text", [1, 2]])
def test_a_configuration_that_is_none(saved, config):
    edit_config(saved, config=config)

    with pytest.raises(ValueError, match=r"config\.json: expected keys with values"):
        load(saved)


def test_unknown_keys_say_what_was_meant(saved):
    text = json.loads((saved / "config.json").read_text())
    edit_config(saved, config={**text["config"], "fusion_with": 64})

    with pytest.raises(
        ValueError, match=r"config\.json: unknown key `fusion_with`, did you mean `fu"
    ):
        load(saved)


def test_unknown_family(saved):
    edit_config(saved, family="resnet")

    with pytest.raises(ValueError, match="unknown model family `resnet`"):
        load(saved)


# The hub


def test_a_hub_id_is_downloaded_and_loaded(saved, monkeypatch):
    asked = []

    def download(hub_id, allow_patterns):
        asked.append((hub_id, sorted(allow_patterns)))
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    assert load("owner/some-model_1.0").config.geo_regions == 4
    assert asked == [("owner/some-model_1.0", ["config.json", "model.safetensors"])]


def test_a_folder_comes_before_the_hub(saved, monkeypatch):
    monkeypatch.chdir(saved.parent.parent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)

    assert load(f"{saved.parent.name}/saved").config.geo_regions == 4


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("401 Client Error.\nlong explanation"), "401 Client Error."),
        (TimeoutError(), "TimeoutError"),
        (ValueError("offline"), "offline"),
    ],
)
def test_a_hub_that_fails_says_why_in_one_line(monkeypatch, error, reason):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)

    with pytest.raises(ValueError, match="is neither a folder nor on the hub") as caught:
        load("owner/name")

    assert str(caught.value) == f"`owner/name` is neither a folder nor on the hub: {reason}"
    assert caught.value.__cause__ is error


def test_a_hub_repository_without_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))

    with pytest.raises(ValueError, match=r"is not a saved model: it has no config\.json"):
        load("owner/name")
