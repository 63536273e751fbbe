"""Parameter groups and AdamW: what decays, and whose learning rate differs."""

from collections.abc import Callable, Mapping

from torch import nn
from torch.optim import AdamW, Optimizer

Group = dict[str, object]


def decays(name: str, parameter: nn.Parameter, tables: frozenset[str] = frozenset()) -> bool:
    """Whether weight decay applies: to the matrices of layers alone.

    Biases, norms, scales, tokens, prompts, queries, position and calendar tables and embeddings do
    not decay: they have one dimension, or another name than `weight` or `w<number>`, or are listed
    [after timm].

    Args:
        name: with dots, as in `named_parameters`.
        parameter: of the full shape.
        tables: names of further parameters that do not decay.
    """
    leaf = name.rpartition(".")[2]
    matrix = leaf.endswith("weight") or (leaf[:1] == "w" and leaf[1:].isdigit())
    return parameter.ndim > 1 and matrix and name not in tables


def embedding_tables(module: nn.Module) -> frozenset[str]:
    """Names of the parameters of `nn.Embedding`: matrices by name, tables by use."""
    return frozenset(
        f"{name}.{inner}" if name else inner
        for name, part in module.named_modules()
        if isinstance(part, nn.Embedding)
        for inner, _ in part.named_parameters(recurse=False)
    )


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    *,
    multipliers: Mapping[str, float] | None = None,
    layer_of: Callable[[str], int] | None = None,
    layer_decay: float = 1.0,
) -> list[Group]:
    """Trainable parameters by weight decay and learning rate.

    Args:
        module: its names are taken without wrappers (see `unwrapped`).
        weight_decay: of what decays.
        multipliers: prefix of a name to a factor of the learning rate; the longest prefix holds.
        layer_of: name of a parameter to the index of its layer, 0 nearest to the input.
        layer_decay: factor of the learning rate from each layer to the one below it; the highest
            layer has 1. Source: BEiT [paper].

    Returns:
        Groups for an optimizer, each with `params`, `weight_decay`, `lr_scale` and `decays`, in an
        order that depends on the module alone.

    Raises:
        ValueError: a prefix that no parameter has, a layer decay without layers, or nothing to
            train.
    """
    multipliers = dict(multipliers or {})
    if layer_decay != 1 and layer_of is None:
        raise ValueError(f"a layer decay of {layer_decay} needs `layer_of`, which numbers layers")
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError("the module has no trainable parameter")
    _check_prefixes(multipliers, named)
    layers = {name: layer_of(name) if layer_of else 0 for name in named}
    top, tables = max(layers.values()), embedding_tables(module)
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        scale = _multiplier(name, multipliers) * layer_decay ** (top - layers[name])
        groups.setdefault((decays(name, parameter, tables), scale), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decay else 0.0,
            "lr_scale": scale,
            "decays": decay,
        }
        for (decay, scale), parameters in groups.items()
    ]


def _check_prefixes(multipliers: Mapping[str, float], names: Mapping[str, object]) -> None:
    """Refuse a prefix that nothing has.

    Raises:
        ValueError: there is one.
    """
    for prefix in multipliers:
        if not any(name.startswith(prefix) for name in names):
            parts = sorted({name.partition(".")[0] for name in names})
            raise ValueError(
                f"no trainable parameter's name starts with `{prefix}`; they start with: "
                f"{', '.join(parts)}"
            )


def _multiplier(name: str, multipliers: Mapping[str, float]) -> float:
    """The factor of the longest prefix that the name has, or 1."""
    fitting = [prefix for prefix in multipliers if name.startswith(prefix)]
    return multipliers[max(fitting, key=len)] if fitting else 1.0


def build_adamw(
    groups: list[Group],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> AdamW:
    """AdamW in its fused form, which repeats its results to the bit.

    On one CPU core it takes a quarter of the time of the others. It does not count its changes on
    the parameters (`Tensor._version`).

    Args:
        groups: from `parameter_groups`.
        lr: before the groups' own factor.
        betas: of the moments.
        eps: added to the root of the second moment.
    """
    optimizer = AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    return optimizer


def set_lr_and_decay(optimizer: Optimizer, lr: float, weight_decay: float | None = None) -> None:
    """Set what the schedules say before a step.

    Args:
        optimizer: with the groups of `parameter_groups`.
        lr: before the groups' own factor.
        weight_decay: of the groups that decay; by default it stays.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
        if weight_decay is not None and group["decays"]:
            group["weight_decay"] = weight_decay
