"""Whole models of both families in their inference form."""

import pytest
import torch
from torch import nn

import skysense
from skysense.hub import pack
from skysense.hub.catalog import build
from skysense.layers.packing import can_pack
from skysense.sample import Sample

pytestmark = [
    pytest.mark.filterwarnings("ignore::skysense.models.encoder.UntrainedModelWarning"),
    pytest.mark.skipif(
        not can_pack(nn.Linear(1, 1)), reason="this PyTorch has no oneDNN operators to pack with"
    ),
]
NAMES = ("v1_tiny", "v2_tiny", "v2_nano")


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    """A model and its inference form; of fresh weights, whatever the package carries.

    The trained fused map is a small spread that was scaled up, and so are its rounding errors.
    """

    def fresh():
        torch.manual_seed(0)
        return build(request.param).eval()

    return fresh(), pack(fresh())


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_features_are_the_same(pair, series, run):
    model, packed = pair
    sample = Sample(
        {
            "hr": series("hr", 1, (70, 96), masked=0.2),
            "s2": series("s2", 2, (9, 12)),
            "s1": series("s1", 3, (9, 12)),
        }
    )
    expected, actual = run(model, sample), run(packed, sample)

    same(actual.fused, expected.fused)
    same(actual.pooled, expected.pooled)
    for key, levels in expected.pyramid.items():
        for first, second in zip(actual.pyramid[key], levels, strict=True):
            same(first.values, second.values)


def test_vectors_need_no_mode(pair):
    images = torch.randint(0, 255, (2, 3, 40, 40)).float()

    same(*(torch.from_numpy(model.embed(images, "rgb8")) for model in reversed(pair)))


def test_what_is_said_about_it_stays(pair):
    model, packed = pair
    assert packed.fused_width == model.fused_width
    assert next(packed.parameters()).device.type == "cpu"


def test_it_cannot_be_saved_or_trained(pair, tmp_path):
    with pytest.raises(ValueError, match="a packed model cannot be saved"):
        pair[1].save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ValueError, match="a packed model cannot be trained"):
        pair[1].train()
    pair[1].eval()


def test_it_gives_no_gradients_even_when_asked(pair, series):
    features = pair[1](skysense.collate([Sample({"s2": series("s2", 1, (8, 8))})]))

    assert not features.pooled.requires_grad
