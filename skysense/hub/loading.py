"""Get a model by name, from a folder, or from the hub; strictly."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from skysense.config import parse
from skysense.hub.catalog import build, list_models
from skysense.models.saving import CONFIG_NAME, WEIGHTS_NAME
from skysense.models.skysense_v2 import SkySenseV2, SkySenseV2Config

SEED = 0
"""Seed of an untrained model's weights, so that the same name is the same model everywhere."""


def load(source: str | Path, device: torch.device | str = "cpu") -> SkySenseV2:
    """Load a model in evaluation mode.

    Args:
        source: a name of `skysense.list_models()`, a folder written by `model.save`, or a hub id
            such as `"owner/name"`.
        device: where to put it.

    Returns:
        The model. One that no weights exist for has random ones, always the same, and says so
        when it is used.

    Raises:
        ValueError: unknown name, or a folder whose files are damaged or do not fit.
    """
    name = str(source)
    if name in list_models():
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(SEED)  # `torch.manual_seed` seeds GPUs as well
            return build(name).eval().to(device)
    folder = Path(source)
    if folder.is_dir():
        return _load_folder(folder).to(device)
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return _load_folder(_download(source)).to(device)
    raise ValueError(
        f"unknown model `{name}`: not a folder, and not one of {', '.join(list_models())}"
    )


def _download(hub_id: str) -> Path:
    """Fetch the two files of a model from the hub, or from its cache."""
    from huggingface_hub import snapshot_download  # half a second that few need

    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG_NAME, WEIGHTS_NAME]))
    except Exception as error:  # the hub client raises many kinds; all mean "not to be had"
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"`{hub_id}` is neither a folder nor on the hub: {reason}") from error


def _load_folder(folder: Path) -> SkySenseV2:
    """Rebuild a saved model."""
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is not a saved model: it has no {name}")
    try:
        text: dict[str, Any] = json.loads((folder / CONFIG_NAME).read_text())
        family, config = text["family"], text["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_NAME} is not a model configuration: {error}") from None
    if family != SkySenseV2.family:
        raise ValueError(f"{folder}: unknown model family `{family}`")
    with torch.device("meta"):
        model = SkySenseV2(
            parse(SkySenseV2Config, config, str(folder / CONFIG_NAME)), str(text.get("name"))
        )
    try:
        state = load_file(folder / WEIGHTS_NAME)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} is damaged: {error}") from None
    load_strictly(model, state, str(folder))
    model.trained = bool(text.get("trained", False))
    return model.eval()


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a model, or name everything that does not fit.

    Args:
        model: may be on the meta device; its parameters become the given tensors.
        state: keys to tensors.
        where: what they came from, for the message.

    Raises:
        ValueError: missing, unexpected or misshapen keys, all of them listed.
    """
    expected = model.state_dict()
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in expected]
    problems += [
        f"{key} has shape {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(f"{where}: {len(problems)} weights do not fit:\n  {listed}")
    model.load_state_dict(dict(state), strict=True, assign=True)
    for module in model.modules():  # what is not saved is computed anew
        reset = getattr(module, "reset_buffers", None)
        if reset is not None:
            reset()
