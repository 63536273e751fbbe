"""Half precision where it pays, and the guard against numbers that are none."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from skysense.engine.distributed import mean_over_ranks

PrecisionName = Literal["float32", "bfloat16", "float16"]


class NotFiniteError(ValueError):
    """A loss or a norm is NaN or infinite; training on would spread it into every weight."""


class Precision:
    """Autocast around the forward pass and, in float16, loss scaling around the backward pass.

    A step is `with autocast()`, `backward`, `unscale`, clipping, `step`. In float32 and bfloat16
    the scaling is absent, and each call is the plain one.
    """

    def __init__(self, name: PrecisionName, device: torch.device, sharded: bool = False) -> None:
        """Build for a device.

        Args:
            name: in which type matrices are multiplied; parameters stay float32.
            device: where the model is.
            sharded: the gradients are spread over ranks, as FSDP2 does.

        Raises:
            ValueError: half precision on the CPU, or float16 with spread gradients.
        """
        if name != "float32" and device.type == "cpu":
            raise ValueError(
                f"precision `{name}` is for GPUs: on the CPU most operations are slower in it than "
                f"in float32, or compute in float32 anyway; choose `float32`"
            )
        if name == "float16" and sharded:
            raise ValueError(
                "precision `float16` scales the loss by what all gradients together allow, and "
                "with `fsdp` no rank sees them all; choose `bfloat16`, or the mode `ddp`"
            )
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type) if name == "float16" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Around everything that computes a loss."""
        if self.name == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=getattr(torch, self.name))

    def backward(self, loss: Tensor) -> None:
        """The backward pass."""
        scaled = self.scaler.scale(loss) if self.scaler else loss
        scaled.backward()

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring the gradients to their true size, before they are clipped."""
        if self.scaler:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> None:
        """The optimizer's step; float16 skips it where gradients overflowed."""
        if self.scaler:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; none but in float16."""
        return self.scaler.state_dict() if self.scaler else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's values."""
        if self.scaler and state:
            self.scaler.load_state_dict(dict(state))


def check_finite(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Means over the ranks, for the log, if each is a number; one exchange and one transfer.

    What is not finite on one rank is not finite in the mean: all ranks stop together.

    Args:
        values: name to scalar, the same names on each rank, all on one device.

    Raises:
        NotFiniteError: it names those that are NaN or infinite.
    """
    if not values:
        return {}
    stacked = torch.stack([value.detach().float() for value in values.values()])
    means = dict(zip(values, mean_over_ranks(stacked).tolist(), strict=True))
    bad = [f"{name} is {value}" for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise NotFiniteError(
            f"training stopped: {', '.join(bad)}. Look at the batch, lower the learning rate, or "
            f"compute in float32"
        )
    return means
