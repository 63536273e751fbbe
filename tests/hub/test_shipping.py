"""Weights in the package: how they get there, and how a name finds them."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from skysense.hub import catalog, describe, load
from skysense.hub.shipping import LARGEST, ship
from skysense.models.readout import ReadoutConfig


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """An empty folder in the place of the package's."""
    monkeypatch.setattr(catalog, "WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "card.md"
    path.write_text("# A model")
    return path


@pytest.fixture
def saved(fresh, tmp_path):
    model = fresh("v2_tiny", readout=ReadoutConfig(kept=2, modalities=("hr",)))
    model.readout.hr_map += 1e6  # beyond float16
    model.trained = True
    return model.save(tmp_path / "saved")


def test_a_shipped_name_is_the_trained_model(saved, card, weights):
    assert describe("v2_tiny").trained is False
    assert load("v2_tiny").trained is False

    folder = ship(saved, "v2_tiny", card, weights)
    model, original = load("v2_tiny"), load(saved)

    assert describe("v2_tiny").trained is True
    assert (model.trained, model.name, model.config) == (True, "v2_tiny", original.config)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.readout.hr_map, original.readout.hr_map)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    vectors = [m.embed(images, "rgb8", pooling="stages") for m in (model, original)]
    np.testing.assert_allclose(*vectors, atol=0.02)
    assert (folder / "README.md").read_text() == "# A model"
    kept = load_file(folder / "model.safetensors")
    assert kept["backbone.norms.0.weight"].dtype == torch.float16
    ship(saved, "v2_tiny", card, weights)  # again, in its place


def test_what_is_no_trained_model_of_that_name_is_refused(saved, card, weights, fresh, tmp_path):
    untrained = fresh("v2_tiny")
    untrained.trained = False
    plain = untrained.save(tmp_path / "plain")

    for source, name in ((saved, "v2_nano"), (plain, "v2_tiny"), (saved, "v9")):
        with pytest.raises(ValueError, match="no trained"):
            ship(source, name, card, weights)
    with pytest.raises(OSError, match=r"none\.md"):
        ship(saved, "v2_tiny", tmp_path / "none.md", weights)
    assert not weights.exists()


def test_numbers_beyond_float16_are_refused(fresh, card, weights, tmp_path):
    model = fresh("v2_tiny")
    model.trained = True
    with torch.no_grad():
        model.backbone.norms[0].bias[0] = 1e5

    with pytest.raises(ValueError, match=r"backbone\.norms\.0\.bias has numbers beyond float16"):
        ship(model.save(tmp_path / "large"), "v2_tiny", card, weights)


@pytest.mark.parametrize("name", sorted(p.name for p in catalog.WEIGHTS.glob("*")))
def test_what_the_package_carries(name):
    folder = catalog.WEIGHTS / name
    model = load(name)

    assert (model.name, model.trained, describe(name).trained) == (name, True, True)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LARGEST
    text = (folder / "README.md").read_text()
    for word in ("licence", "seed", "kNN", "linear"):
        assert word in text, word
