"""Read a foreign checkpoint: tensors by name, and nothing that would have to be executed."""

import pickletools
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

WRAPPERS = ("model", "state_dict")
"""Keys under which trainers keep the weights."""

_ZIP = b"PK\x03\x04"
_WRAPPING = re.compile(r"^(module\.)+")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds."""

    name: str
    """The file's name, for messages and to tell parts apart."""
    tensors: Mapping[str, Tensor]
    """Keys, without `module.`, to tensors."""
    ignored: tuple[str, ...] = ()
    """What else it holds: the state of an optimizer, counters."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file, or what `torch.save` wrote, without running code from it.

    Args:
        path: the file. Weights in a zip (all since PyTorch 1.6) are mapped, not read, into memory.

    Raises:
        ValueError: damaged, not a checkpoint, or one that would have to run code.
        OSError: there is no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == ".safetensors":
        try:
            return Checkpoint(path.name, _flat(load_file(path), path))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    loaded = _load(path, start == _ZIP)
    ignored: list[str] = []
    while isinstance(loaded, Mapping) and (wrapper := _wrapper(loaded)) is not None:
        ignored += [str(key) for key in loaded if key != wrapper]
        loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds no weights by name but a {type(loaded).__name__}")
    ignored += [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    return Checkpoint(path.name, _flat(tensors, path), tuple(ignored))


def _load(path: Path, zipped: bool) -> Any:  # noqa: ANN401
    """Let torch read a file, with weights only.

    Raises:
        ValueError: it cannot, with the reason; never torch's advice to run the code after all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickles; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # the reader raises nearly every kind; all mean "not to be had"
        code = _code_in(path, zipped, str(error))
        if code is not None:
            raise ValueError(
                f"{path} needs code to be run to be read (`{code}`), which is never done: save "
                "the weights alone, with `torch.save(model.state_dict(), ...)` or as safetensors"
            ) from None
        raise ValueError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__}): "
            "download it again, or give a .pth, .pt, .ckpt or .safetensors file"
        ) from None


def _code_in(path: Path, zipped: bool, refusal: str) -> str | None:
    """What a refused file would run; `None` where it is no pickle at all."""
    named = re.search(r"GLOBAL ([\w.]+)|`?([\w.]+)`? was not an allowed global", refusal)
    if named:
        return named[1] or named[2]
    if "TorchScript" in refusal:
        return "TorchScript"
    if "Unsupported operand" not in refusal:
        return None
    try:
        with path.open("rb") as file:  # this reads the instructions and follows none
            return "pickle" if zipped or list(pickletools.genops(file)) else None
    except (ValueError, IndexError, OverflowError):
        return None


def _wrapper(loaded: Mapping[Any, Any]) -> str | None:
    """The key that holds the weights, if they are not there themselves."""
    return next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)


def _flat(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Strip `module.`, which parallel training puts in front.

    Raises:
        ValueError: no tensors, tensors without values, or two of one name.
    """
    if not tensors:
        raise ValueError(f"{path} holds no tensors")
    flat: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = _WRAPPING.sub("", key)
        if name in flat:
            raise ValueError(f"{path} holds `{name}` twice, with and without `module.`")
        if value.is_meta:
            raise ValueError(f"{path}: `{key}` has a shape but no values")
        flat[name] = value.detach()
    return flat
