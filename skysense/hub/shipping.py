"""Put a trained model into this package: half the bytes, and a card that says what it is.

python -m skysense.hub.shipping RUN/model NAME --card CARD.md
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from skysense.hub.catalog import WEIGHTS, list_models
from skysense.hub.loading import load
from skysense.models.saving import CONFIG_NAME, WEIGHTS_NAME, save_files

CARD_NAME = "README.md"
LARGEST = 25 * 2**20
"""Bytes of weights that the package carries at most."""


def ship(model: str | Path, name: str, card: str | Path, weights: Path = WEIGHTS) -> Path:
    """Write a saved model under a name of the catalog, in float16.

    What was fitted after training stays in float32.

    Args:
        model: folder of a trained model.
        name: which model it is.
        card: a Markdown file: data and licences, settings, scores, limits.
        weights: folder of the package.

    Returns:
        The folder written.

    Raises:
        ValueError: not a trained model, another name than it has, no card, numbers too large for
            float16, or more than `LARGEST`.
    """
    source, text = Path(model), Path(card).read_text(encoding="utf-8")
    loaded = load(source)
    if name not in list_models() or loaded.name != name or not loaded.trained:
        raise ValueError(f"{source} holds `{loaded.name}`, and no trained `{name}`")
    facts = json.loads((source / CONFIG_NAME).read_text())
    state = {key: _halved(key, value) for key, value in load_file(source / WEIGHTS_NAME).items()}
    size = sum(value.numel() * value.element_size() for value in state.values())
    if size > LARGEST:
        raise ValueError(f"{source} has {size / 2**20:.0f} MiB of weights, at most 25 are shipped")
    target = weights / name
    shutil.rmtree(target, ignore_errors=True)
    save_files(target, facts, state)
    (target / CARD_NAME).write_text(text, encoding="utf-8")
    return target


def _halved(key: str, value: Tensor) -> Tensor:
    """In float16, except what was fitted after training, whose range is wide.

    Raises:
        ValueError: a number is beyond float16.
    """
    if not value.is_floating_point() or key.startswith(("readout.", "fused_")):
        return value
    half = value.to(torch.float16)
    if not bool(half.isfinite().all()):
        raise ValueError(f"{key} has numbers beyond float16")
    return half


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("name")
    parser.add_argument("--card", type=Path, required=True)
    options = parser.parse_args()
    ship(options.model, options.name, options.card)


if __name__ == "__main__":
    main()
