"""What is computed from parameters and kept until they change."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

ValueT = TypeVar("ValueT")


class Derived(Generic[ValueT]):
    """A value computed from parameters, kept until one of them is replaced or changed in place.

    In-place changes count themselves on a tensor (`Tensor._version`), except those of fused
    optimizers and of `parameter.data`; so the owner also calls `clear` where training may begin or
    end: in `train()` and in a forward with gradients. It holds on to the parameters it saw, or new
    ones could come to lie at their address. A copied or pickled one is empty. [ours]
    """

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._kept: tuple[list[Tensor], list[tuple[object, ...]], ValueT] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle as an empty one: a copy's tensors count their changes anew."""
        return Derived, ()

    def clear(self) -> None:
        """Forget the value."""
        self._kept = None

    def get(self, parts: Sequence[Tensor], compute: Callable[[], ValueT]) -> ValueT:
        """The value, computed without gradients where need be.

        Args:
            parts: all tensors that it depends on; inference tensors count no changes, and what
                depends on one is computed at each call.
            compute: gives the value.
        """
        if torch.compiler.is_compiling() or any(part.is_inference() for part in parts):
            return compute()
        state: list[tuple[object, ...]]
        state = [(part.data_ptr(), part._version, part.device, part.dtype) for part in parts]
        kept = self._kept
        if kept is None or kept[1] != state:
            with torch.inference_mode(False), torch.no_grad():  # so that any later mode may use it
                kept = ([part.detach() for part in parts], state, compute())
            self._kept = kept
        return kept[2]
