"""What a checkpoint holds as one flat table of tensors, alike in every mode and world size.

Keys: `NAME.PARAMETER` of a module; `NAME.PARAMETER.FIELD` and `NAME.steps` of an optimizer;
`random.RANK.KIND` of the generators; `NAME` of a tensor. What is sharded stays a `DTensor`, of
which each rank stores and reads its own share.

Legend: P parameters of an optimizer.
"""

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skysense.engine.distributed import rank
from skysense.engine.parallel import unwrapped
from skysense.engine.random import random_state, set_random_state

State = Mapping[str, object]
"""Name to module, optimizer, tensor, or plain value that JSON can hold."""

RANDOM = "random"
"""What the keys of the random generators start with."""

_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
_STEPS = "steps"
_NEVER = -1.0


def tensors_of(state: State) -> dict[str, Tensor]:
    """The flat table to store; its tensors share memory with what they come from.

    Args:
        state: an optimizer's parameters all belong to modules in it.
    """
    table: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, nn.Module):
            table |= _module(name, value)
        elif isinstance(value, Optimizer):
            table |= _optimizer(name, value, _names(state, value))
        elif isinstance(value, Tensor):
            table[name] = value.detach()
    return table | {f"{_random_prefix()}{key}": value for key, value in random_state().items()}


def values_of(state: State) -> dict[str, Any]:
    """What is neither module, optimizer nor tensor."""
    kinds = (nn.Module, Optimizer, Tensor)
    return {name: value for name, value in state.items() if not isinstance(value, kinds)}


def expected(state: State, stored: Container[str]) -> dict[str, Tensor]:
    """The table to read into: tensors in use where there are some, new ones elsewhere.

    Args:
        state: as for `tensors_of`; an optimizer may be new.
        stored: the keys that the checkpoint has.
    """
    table: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, nn.Module):
            table |= _module(name, value)
        elif isinstance(value, Optimizer):
            named = _names(state, value)
            table[f"{name}.{_STEPS}"] = torch.zeros(len(named))
            for key, parameter in named.items():
                for field in _fields(f"{name}.{key}.", stored):
                    table[f"{name}.{key}.{field}"] = torch.zeros_like(parameter).detach()
        elif isinstance(value, Tensor):
            table[name] = value.detach()
    own = {f"{_random_prefix()}{key}": value for key, value in random_state().items()}
    return table | {key: value for key, value in own.items() if key in stored}


def apply(state: State, table: Mapping[str, Tensor]) -> None:
    """Put what was read where it belongs, apart from what was read in place.

    Args:
        state: as for `expected`.
        table: from `expected`, filled.
    """
    for name, value in state.items():
        if isinstance(value, Optimizer):
            _fill(name, value, _names(state, value), table)
    own = _random_prefix()
    generators = {
        key.removeprefix(own): value for key, value in table.items() if key.startswith(own)
    }
    if generators:
        set_random_state(generators)


def _random_prefix() -> str:
    """What the keys of this rank's generators start with."""
    return f"{RANDOM}.{rank()}."


def _module(name: str, module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers."""
    return {f"{name}.{key}": value for key, value in unwrapped(module).state_dict().items()}


def _names(state: State, optimizer: Optimizer) -> dict[str, nn.Parameter]:
    """P names, `MODULE.PARAMETER`, of an optimizer's parameters, in its order."""
    known = {
        id(parameter): f"{name}.{key}"
        for name, module in state.items()
        if isinstance(module, nn.Module)
        for key, parameter in unwrapped(module).named_parameters()
    }
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(id(p) in known for p in parameters), "an optimizer's module is not in the state"
    return {known[id(parameter)]: parameter for parameter in parameters}


def _optimizer(
    name: str, optimizer: Optimizer, named: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Adam's moments of each parameter, and in one tensor how many steps each has seen."""
    table: dict[str, Tensor] = {}
    steps = torch.full((len(named),), _NEVER)
    for i, (key, parameter) in enumerate(named.items()):
        fields = optimizer.state.get(parameter, {})
        for field, value in fields.items():
            if field == "step":
                steps[i] = float(value)
            else:
                assert field in _MOMENTS, f"no room in a checkpoint for `{field}`"
                table[f"{name}.{key}.{field}"] = value
    return table | {f"{name}.{_STEPS}": steps}


def _fields(prefix: str, stored: Container[str]) -> list[str]:
    """The moments that a checkpoint has of one parameter."""
    return [field for field in _MOMENTS if prefix + field in stored]


def _fill(
    name: str,
    optimizer: Optimizer,
    named: Mapping[str, nn.Parameter],
    table: Mapping[str, Tensor],
) -> None:
    """Replace an optimizer's state; a parameter that never had a step has none."""
    steps = table[f"{name}.{_STEPS}"].tolist()
    fused = {id(p): bool(g.get("fused")) for g in optimizer.param_groups for p in g["params"]}
    optimizer.state.clear()
    for step, (key, parameter) in zip(steps, named.items(), strict=True):
        if step == _NEVER:
            continue
        device = parameter.device if fused[id(parameter)] else torch.device("cpu")
        prefix = f"{name}.{key}."
        optimizer.state[parameter] = {
            "step": torch.tensor(step, device=device),
            **{field: table[prefix + field] for field in _fields(prefix, table)},
        }
