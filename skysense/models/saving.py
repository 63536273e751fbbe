"""Write a model as `config.json` and `model.safetensors`, all or nothing."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def save_model(model: nn.Module, folder: str | Path) -> Path:
    """Write a model into a folder, replacing what a model saved there before.

    Args:
        model: has `family`, `name`, `trained` and `config`.
        folder: where to; its parent is made if need be.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is a file, or holds something that is not a saved model.
    """
    described: Any = model
    facts = {
        "family": described.family,
        "name": described.name,
        "trained": described.trained,
        "config": described.config.model_dump(mode="json"),
    }
    return save_files(folder, facts, model.state_dict())


def save_files(
    folder: str | Path, facts: Mapping[str, object], state: Mapping[str, Tensor]
) -> Path:
    """Write the two files of a model, or of a part of one, into a folder.

    They are made in a temporary folder beside it and moved in place when complete.

    Args:
        folder: where to; its parent is made if need be.
        facts: what `config.json` says: `family`, `name`, `trained`, `config`.
        state: the weights.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is a file, holds something that is not a saved model, or cannot
            be written.
    """
    target = Path(folder)
    check_replaceable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    temporary.chmod(0o755)
    try:
        (temporary / CONFIG_NAME).write_text(json.dumps(facts, indent=2) + "\n")
        tensors = {key: value.detach().contiguous().cpu() for key, value in state.items()}
        try:
            save_file(tensors, temporary / WEIGHTS_NAME)
        except SafetensorError as error:
            raise ValueError(f"{target} could not be written ({error})") from None
        mode = (temporary / CONFIG_NAME).stat().st_mode
        (temporary / WEIGHTS_NAME).chmod(mode)  # safetensors lets none but the owner read it
        if target.exists():
            _swap(temporary, target)
        else:
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _swap(new: Path, target: Path) -> None:
    """Put a folder in another's place, or leave the other where it was."""
    previous = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        os.replace(target, previous / "model")
        os.replace(new, target)
    except BaseException:
        if (previous / "model").exists() and not target.exists():
            os.replace(previous / "model", target)
        raise
    finally:
        shutil.rmtree(previous, ignore_errors=True)


def check_replaceable(target: Path) -> None:
    """Refuse to replace anything but a saved model, since all that is there goes.

    Raises:
        ValueError: the folder is a file, or holds something that is not a saved model.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file; choose another folder")
    other = sorted({item.name for item in target.iterdir()} - {CONFIG_NAME, WEIGHTS_NAME})
    if other:
        raise ValueError(
            f"{target} exists and holds other files ({', '.join(other[:3])}); choose another folder"
        )
