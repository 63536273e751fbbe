"""The inference form of a model: weights laid out once the way matrix products read them.

A brick that can be packed has a method `pack_weights`, which does nothing a second time.

Legend: K input width, N output width.
"""

from collections.abc import Callable
from typing import Any, Literal, NoReturn, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)

Activation = Literal["none", "gelu"]


class PackedLinear(nn.Module):
    """A linear map on the CPU whose weight is packed by oneDNN, with or without GELU behind it.

    `nn.Linear` gives oneDNN or MKL a plain weight, which is laid out anew at each call; these are
    the operators with which PyTorch's compiler freezes a model. [ours]
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none"
    ) -> None:
        """Pack `weight (N, K)` float32 on the CPU; `bias (N,)`; GELU is the erf form."""
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`(..., K)` to `(..., N)`.

        Raises:
            ValueError: `x` is not float32 on the CPU, or its gradient is wanted.
        """
        if x.dtype != torch.float32 or x.device.type != "cpu":
            raise ValueError(
                f"a packed model computes in float32 on the CPU, got {x.dtype} on {x.device}: "
                "load the model again and leave it unpacked"
            )
        if x.requires_grad and torch.is_grad_enabled():
            _refuse("give gradients")
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, self.activation, [], "none"
        )
        return out

    def train(self, mode: bool = True) -> "PackedLinear":
        """Stay in evaluation mode.

        Raises:
            ValueError: training mode is asked for.
        """
        return _refuse("be trained") if mode else super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NoReturn:
        """Refuse what `to`, `half`, `cuda` and the like come to."""
        _refuse("be moved or converted")

    def _save_to_state_dict(self, *arguments: Any) -> NoReturn:  # noqa: ANN401
        """Refuse to give the weights out."""
        _refuse("be saved")

    def _load_from_state_dict(self, *arguments: Any) -> NoReturn:  # noqa: ANN401
        """Refuse other weights."""
        _refuse("take other weights")

    def __getstate__(self) -> NoReturn:
        """Refuse to be copied and pickled."""
        _refuse("be copied or pickled")


def _refuse(what: str) -> NoReturn:
    """Say what a packed model cannot do."""
    raise ValueError(
        f"a packed model cannot {what}: its weights are laid out for computing alone; "
        "load the model again and do that before `pack`"
    )


def pack_linear(
    linear: nn.Module, bias: Tensor | None = None, activation: Activation = "none"
) -> PackedLinear:
    """A packed copy of a linear map.

    Args:
        linear: a `nn.Linear`.
        bias: takes the place of its own.
        activation: what is computed behind it.
    """
    assert isinstance(linear, nn.Linear)
    return PackedLinear(linear.weight, linear.bias if bias is None else bias, activation)


def can_pack(model: nn.Module) -> bool:
    """Whether a model's weights can be packed: all float32 on a CPU, and PyTorch has oneDNN."""
    plain = all(
        p.device.type == "cpu" and p.dtype == torch.float32 and not p.is_inference()
        for p in model.parameters()
    )
    operators = all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )
    return plain and operators and torch.backends.mkldnn.is_available()


@torch.no_grad()
def pack(model: ModuleT) -> ModuleT:
    """Turn a model into its inference form, in place: faster on the CPU, the same numbers.

    Layer by layer, so that no second copy of all weights is ever in memory. A packed model takes
    no gradients, and cannot be trained, moved, saved or copied: that is a `ValueError`. Attention,
    perceptrons and merging of both families are packed; mixtures of experts stay as they are.

    Args:
        model: a model of either family or a part of one, in evaluation mode.

    Returns:
        The same object; unchanged where it cannot be packed: not float32 on a CPU, or a PyTorch
        without oneDNN.

    Raises:
        ValueError: the model is in training mode.
    """
    if model.training:
        raise ValueError("a model in training mode cannot be packed: call `model.eval()` first")
    if not can_pack(model):
        return model
    model.requires_grad_(False)
    packers = [getattr(module, "pack_weights", None) for module in model.modules()]
    for pack_weights in packers:
        if pack_weights is not None:
            pack_weights()
    return model
