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

from skysense.config import Config, parse
from skysense.engine.devices import pick_device
from skysense.hub.catalog import Model, build, list_models, shipped
from skysense.hub.parts import PART_FAMILIES, Part, build_empty
from skysense.models.saving import CONFIG_NAME, WEIGHTS_NAME
from skysense.models.skysense_v1 import SkySenseV1, SkySenseV1Config
from skysense.models.skysense_v2 import SkySenseV2, SkySenseV2Config

SEED = 0
"""Seed of an untrained model's weights, so that the same name is the same model everywhere."""

WHOLE_FAMILIES: Mapping[str, type[Config]] = {
    SkySenseV2.family: SkySenseV2Config,
    SkySenseV1.family: SkySenseV1Config,
}
"""Families of whole models, and their configurations."""


def load(source: str | Path, device: torch.device | str = "cpu") -> Model:
    """Load a model in evaluation mode.

    Args:
        source: a name of `skysense.list_models()`, a folder written by `model.save` or by
            `skysense convert`, or a hub id such as `"owner/name"`.
        device: where to put it; `auto` takes a GPU where there is one.

    Returns:
        The model, in float32 whatever its weights were stored in. One that no weights exist for
        has random ones, always the same, and says so when it is used.

    Raises:
        ValueError: unknown name or device, or a folder whose files are damaged or do not fit.
    """
    if str(device) != "meta":
        device = pick_device(str(device))
    name = str(source)
    packaged = shipped(name) if name in list_models() else None
    if packaged is not None:
        return _load_folder(packaged).to(device)
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


def load_part(folder: str | Path, device: torch.device | str = "cpu") -> Part:
    """Load one backbone, the fusion transformer, or an up-sampling head of SkySense V1.

    Args:
        folder: written by `skysense convert` from the file of one part.
        device: where to put it.

    Returns:
        A `SwinBackbone`, `VisionTransformer`, `FusionTransformer` or `UpHead`, in evaluation mode.

    Raises:
        ValueError: no such folder, a whole model, or files that are damaged or do not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    facts = _facts(folder)
    family = str(facts["family"])
    if family in WHOLE_FAMILIES:
        raise ValueError(f"{folder} is a whole model (`{family}`): use `skysense.load`")
    if family not in PART_FAMILIES:
        raise ValueError(f"{folder}: unknown model family `{family}`")
    kind = PART_FAMILIES[family]
    config = parse(kind.config, facts["config"], str(folder / CONFIG_NAME))
    part = build_empty(kind, config, str(folder))
    load_strictly(part, _weights(folder), str(folder))
    return part.eval().to(device)


def _load_folder(folder: Path) -> Model:
    """Rebuild a saved model."""
    facts = _facts(folder)
    family = str(facts["family"])
    if family in PART_FAMILIES:
        raise ValueError(
            f"{folder} is one part of a model (`{family}`): use `skysense.hub.load_part`, or "
            "convert all parts together"
        )
    if family not in WHOLE_FAMILIES:
        raise ValueError(f"{folder}: unknown model family `{family}`")
    config = parse(WHOLE_FAMILIES[family], facts["config"], str(folder / CONFIG_NAME))
    name = str(facts.get("name"))
    with torch.device("meta"):
        model: Model
        if isinstance(config, SkySenseV1Config):
            model = SkySenseV1(config, name)
        else:
            assert isinstance(config, SkySenseV2Config)
            model = SkySenseV2(config, name)
    load_strictly(model, _weights(folder), str(folder))
    model.trained = bool(facts.get("trained", False))
    return model.float().eval()  # weights may be stored in half precision


def _facts(folder: Path) -> dict[str, Any]:
    """What `config.json` of a saved model says; it has a family and a configuration.

    Raises:
        ValueError: a file is not there, or is damaged.
    """
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            below = next(iter(sorted(folder.glob(f"*/{name}"))), None)
            hint = f"; did you mean {below.parent}?" if below else ""
            raise ValueError(f"{folder} is not a saved model: it has no {name}{hint}")
    try:
        facts: dict[str, Any] = json.loads((folder / CONFIG_NAME).read_text())
        facts["family"], facts["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG_NAME} is not a model configuration: {error}") from None
    return facts


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a saved model.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return load_file(folder / WEIGHTS_NAME)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS_NAME} is damaged: {error}") from None


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
