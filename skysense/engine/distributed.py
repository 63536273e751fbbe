"""Ranks: who takes part, and the few exchanges that losses and logs need.

Everything here also works in one process without a process group, and then costs nothing.

Legend: N rows of this rank, D width, W ranks.
"""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The place of this process among all that train together."""

    rank: int = 0
    """0 to `world - 1`; 0 writes and logs."""
    world: int = 1
    """How many processes train together."""
    local_rank: int = 0
    """The place on this machine, which picks the GPU."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where this process computes."""


_exchange: "dist.ProcessGroup | None" = None
"""A group of its own for what is exchanged in the backward pass: there DDP and FSDP send gradients
through the main one in an order that the missing modalities of a rank may change."""


def start(device: str = "auto") -> Ranks:
    """Join the processes that `torchrun` started: gloo on CPU, nccl on CUDA.

    One process starts nothing.

    Args:
        device: `auto` (CUDA where there is a GPU), `cpu` or `cuda`.

    Raises:
        ValueError: no such device, more processes than GPUs, or an environment that is not
            torchrun's.
    """
    global _exchange
    rank, world, local_rank = (
        _from_environment(name, default)
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    place = _place(device, local_rank)
    if world > 1 and not dist.is_initialized():
        if place.type == "cuda":
            torch.cuda.set_device(place)
            dist.init_process_group("nccl", device_id=place)
        else:
            dist.init_process_group("gloo")
        _exchange = dist.new_group()
    return Ranks(rank, world, local_rank, place)


def stop() -> None:
    """Leave the processes that train together; one process does nothing."""
    global _exchange
    _exchange = None
    if dist.is_initialized():
        dist.destroy_process_group()


def _from_environment(name: str, default: int) -> int:
    """A number that torchrun sets.

    Raises:
        ValueError: not a number.
    """
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"the environment variable {name} is `{text}`, expected a number: start several "
            f"processes with `torchrun --nproc-per-node N`"
        ) from None


def _place(device: str, local_rank: int) -> torch.device:
    """The device of the process with this place on the machine.

    Raises:
        ValueError: no such device, or more processes than GPUs.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device `{device}`; known: auto, cpu, cuda")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not gpus):
        return torch.device("cpu")
    if not gpus:
        raise ValueError("device `cuda`: no GPU is usable here; choose `auto` or `cpu`")
    if local_rank >= gpus:
        raise ValueError(f"process {local_rank} of this machine has no GPU: there are {gpus}")
    return torch.device("cuda", local_rank)


def world_size() -> int:
    """How many processes train together; 1 where no process group is started."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process; 0 where no process group is started."""
    return dist.get_rank() if dist.is_initialized() else 0


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        dist.barrier()


def from_first_rank(values: Any) -> Any:  # noqa: ANN401
    """What the first rank gives, on all ranks; anything that can be pickled."""
    if world_size() == 1:
        return values
    found = [values]
    dist.broadcast_object_list(found, src=0)
    return found[0]


@torch.no_grad()
def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum over the ranks, without gradient.

    Args:
        x: any shape, the same on each rank.

    Returns:
        The same shape, the same on each rank; for one process `x` itself, detached.
    """
    if world_size() == 1:
        return x.detach()
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def mean_over_ranks(x: Tensor) -> Tensor:
    """Mean over the ranks, without gradient: what a log shows of a rank's own value."""
    return sum_over_ranks(x) / world_size()


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all ranks.

    The gradient of a row is the sum of what every rank's loss asks of it, so that the mean of the
    gradients over ranks is the gradient of the mean of their losses. All ranks run the backward
    pass through it, or none.

    Args:
        x: `(N, ...)`, the same shape on each rank.

    Returns:
        `(W N, ...)` in order of rank; for one process `x` itself.
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _GatherRows.apply(x)  # type: ignore[no-untyped-call]
    return gathered


class _GatherRows(torch.autograd.Function):
    """All-gather whose backward pass sums over ranks and keeps the own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401
        """`(N, ...)` to `(W N, ...)`."""
        ctx.rows = len(x)
        parts = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous(), group=_exchange)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        """`(W N, ...)` to `(N, ...)`."""
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=_exchange)
        return total.narrow(0, rank() * ctx.rows, ctx.rows)


def global_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean over the rows of all ranks, as this rank's share of it.

    The share is scaled so that the mean over ranks, of values as of gradients (which is what DDP
    and FSDP take), is exactly that of one process that has all rows [ours].

    Args:
        values: `(N, ...)`; ranks may have different N, also 0.
        weight: the same shape, at least 0; by default 1 each. Where it is 0 the value does not
            matter.

    Returns:
        Scalar: local sum times W over the weight of all ranks; 0, with a graph, where all ranks
        together have no weight.
    """
    if weight is None:
        weight = torch.ones_like(values)
    weight = weight.to(values.dtype)
    total = sum_over_ranks(weight.sum())
    local = torch.where(weight > 0, values * weight, 0).sum()
    return local * world_size() / torch.where(total > 0, total, 1)
