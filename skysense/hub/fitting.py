"""Bring one part of a released checkpoint into our form, and name all that does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from skysense.config import Config
from skysense.hub.parts import KINDS, PartKind, build_empty
from skysense.hub.recognition import Found
from skysense.hub.released import DERIVED, is_official, rename_key
from skysense.hub.sizes import SIZES
from skysense.models.skysense_v1 import VitConfig


@dataclass
class Fitted:
    """One part under our names."""

    found: Found
    """Where it comes from."""
    config: Config
    """Its sizes."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """Our names to tensors, in float32; without the calendar."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Keys of the file that have no place, and why."""
    filled: list[tuple[str, str]] = field(default_factory=list)
    """Keys that the file lacks, and how they were filled in."""
    problems: list[str] = field(default_factory=list)
    """What does not fit."""
    taken: int = 0
    """Tensors of the file that were taken over."""
    parameters: int = 0
    """How many numbers these have."""


def fit(found: Found, eps: float) -> Fitted:
    """Tell a part's sizes, rename it, fill in what no released file has, and compare strictly.

    Args:
        found: a part as it stands in the file.
        eps: of the norms of `s2` and `s1` backbones.

    Returns:
        The part; its `problems` are to be looked at before its `state`.

    Raises:
        ValueError: shapes of which no sizes can be told.
    """
    kind = KINDS[found.part]
    config = SIZES[found.part](found.tensors, found.source)
    if isinstance(config, VitConfig):
        config = config.model_copy(update={"eps": eps})
    fitted = Fitted(found, config)
    expected = build_empty(kind, config, found.source).state_dict()
    expected.pop("calendar", None)  # a file of its own kind of key, `ctpe`
    origin = _rename(fitted, kind)
    _compare(fitted, expected, origin)
    if found.part == "hr":
        _fill_norms(fitted, expected)
    missing = (key for key in expected if key not in fitted.state)
    fitted.problems[:0] = [f"missing {found.prefix}{rename_key(key, kind.back)}" for key in missing]
    return fitted


def _rename(fitted: Fitted, kind: PartKind) -> dict[str, str]:
    """Put the tensors under our names; returns the file's key of each."""
    prefix = fitted.found.prefix
    origin: dict[str, str] = {}
    for key, value in fitted.found.tensors.items():
        name = rename_key(key, kind.rules)
        if DERIVED.search(key) and fitted.found.part == "hr":
            fitted.left_out.append((prefix + key, "computed from the sizes"))
        elif key == "mask_token" and fitted.found.part == "hr":
            fitted.left_out.append((prefix + key, "mask token of the pre-training"))
        elif not is_official(key, kind.rules, kind.back):
            fitted.problems.append(f"unexpected {prefix}{key}")
        elif name in origin:
            fitted.problems.append(f"unexpected {prefix}{key} beside {origin[name]}")
        else:
            origin[name] = prefix + key
            fitted.state[name] = value
    return origin


def _compare(fitted: Fitted, expected: Mapping[str, Tensor], origin: Mapping[str, str]) -> None:
    """Find what is unexpected or misshapen, and bring the rest to float32."""
    for name, value in list(fitted.state.items()):
        if name not in expected:
            fitted.problems.append(f"unexpected {origin[name]}")
        elif value.shape != expected[name].shape:
            fitted.problems.append(
                f"{origin[name]} has shape {tuple(value.shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
        elif not value.is_floating_point() or value.layout is not torch.strided:
            fitted.problems.append(f"{origin[name]} is {value.dtype}, expected float32")
        else:
            fitted.state[name] = value.float()
            fitted.taken += 1
            fitted.parameters += value.numel()


def _fill_norms(fitted: Fitted, expected: Mapping[str, Tensor]) -> None:
    """Output norms of all stages but the last, which the released file lacks, as identity."""
    stages = len(getattr(fitted.config, "depths", ()))
    device = next(iter(fitted.state.values())).device if fitted.state else "cpu"
    for i in range(stages - 1):
        weight, bias = f"norms.{i}.weight", f"norms.{i}.bias"
        if weight in fitted.state or bias in fitted.state:
            continue
        width = expected[weight].shape
        fitted.state[weight] = torch.ones(width, device=device)
        fitted.state[bias] = torch.zeros(width, device=device)
        fitted.filled.append((f"{fitted.found.prefix}norm{i}", "identity: not in the file"))
