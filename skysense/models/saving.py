"""Write a model as `config.json` and `model.safetensors`, all or nothing."""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def save_model(model: nn.Module, folder: str | Path) -> Path:
    """Write a model into a folder, replacing what a model saved there before.

    The files are made in a temporary folder beside it and moved in place when complete.

    Args:
        model: has `family`, `name`, `trained` and `config`.
        folder: where to; its parent is made if need be.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is a file, or holds something that is not a saved model.
    """
    target = Path(folder)
    if target.exists():
        _check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    temporary.chmod(0o755)
    try:
        described: Any = model
        text = {
            "family": described.family,
            "name": described.name,
            "trained": described.trained,
            "config": described.config.model_dump(mode="json"),
        }
        (temporary / CONFIG_NAME).write_text(json.dumps(text, indent=2) + "\n")
        tensors: dict[str, torch.Tensor] = {
            key: value.detach().contiguous().cpu() for key, value in model.state_dict().items()
        }
        save_file(tensors, temporary / WEIGHTS_NAME)
        if target.exists():
            previous = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            os.replace(target, previous / "model")
            try:
                os.replace(temporary, target)
            except OSError:
                os.replace(previous / "model", target)
                previous.rmdir()
                raise
            shutil.rmtree(previous)
        else:
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _check_replaceable(target: Path) -> None:
    """Refuse to replace anything but a saved model, since all that is there goes."""
    if not target.is_dir():
        raise ValueError(f"{target} is a file; choose another folder")
    other = sorted({item.name for item in target.iterdir()} - {CONFIG_NAME, WEIGHTS_NAME})
    if other:
        raise ValueError(
            f"{target} exists and holds other files ({', '.join(other[:3])}); choose another folder"
        )
