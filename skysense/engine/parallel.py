"""One module on several ranks: DDP, FSDP2, and the gradients' agreement.

What is parallelized is the module whose one forward pass makes the whole loss of a step: DDP and
FSDP2 then see every use of every parameter, however many views a step has.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from skysense.engine.distributed import Ranks

Mode = Literal["none", "ddp", "fsdp"]


def parallelize(
    module: nn.Module,
    mode: Mode,
    ranks: Ranks,
    *,
    blocks: Sequence[nn.Module] = (),
    unused: bool = True,
    compute: torch.dtype | None = None,
    reshard: bool = True,
) -> nn.Module:
    """Make the ranks train one module together; call it before the optimizer is made.

    Rank 0's parameters and buffers go to all ranks. Later, buffers are each rank's own: whoever
    changes one does so alike on all ranks. One process gets the module back as it is.

    Args:
        module: on the device of this rank.
        mode: `none` (one process), `ddp` (everything on each rank) or `fsdp` (a share of
            parameters, gradients and optimizer state on each rank).
        ranks: this process among all.
        blocks: for `fsdp`, what is gathered and freed on its own. Every rank runs each of them in
            every step; parts that a rank's batch may not need (tokenizers, prompts) stay with
            the root.
        unused: a rank may leave parameters without gradient, as where its batch lacks a modality.
            What no rank used has no gradient at all in `ddp`, zeros in `fsdp`;
            `complete_gradients` makes it zeros everywhere.
        compute: for `fsdp`, the type in which the blocks' parameters are gathered, to be used
            under an autocast of the same type; gradients are summed in float32. By default the
            parameters' own.
        reshard: for `fsdp`, free a block's gathered parameters between forward and backward. The
            root's own stay, so that after its forward pass its parts can be called by themselves.

    Returns:
        The module to call: in `ddp` a wrapper, whose module `unwrapped` returns.

    Raises:
        ValueError: several processes and mode `none`, or a torch too old for `unused`.
    """
    if ranks.world == 1:
        return module
    if mode == "none":
        raise ValueError(
            f"{ranks.world} processes were started, but the mode is `none`: choose `ddp` or `fsdp`"
        )
    if mode == "ddp":
        wrapped = DistributedDataParallel(
            module,
            device_ids=[ranks.device] if ranks.device.type == "cuda" else None,
            find_unused_parameters=unused,
            gradient_as_bucket_view=True,
        )
        # The option of the constructor has another name in each torch, the attribute has not.
        wrapped.broadcast_buffers = False
        return wrapped
    _broadcast(module)
    return _shard(module, ranks, blocks, unused, compute, reshard)


def _broadcast(module: nn.Module) -> None:
    """Rank 0's parameters and buffers to all ranks, as DDP does by itself."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            dist.broadcast(tensor, 0)


def _shard(
    module: nn.Module,
    ranks: Ranks,
    blocks: Sequence[nn.Module],
    unused: bool,
    compute: torch.dtype | None,
    reshard: bool,
) -> nn.Module:
    """FSDP2 for each block, then for what remains."""
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    half = MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False)
    plain = MixedPrecisionPolicy()
    for part in [*blocks, module]:
        root = part is module
        policy = plain if compute is None or root else half
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard and not root)
    if unused:  # otherwise ranks would send different sets of gradients, and hang
        sharded: Any = module
        if not hasattr(sharded, "set_reduce_scatter_unused_params"):
            raise ValueError(
                f"torch {torch.__version__} cannot shard a model of which a rank may leave parts "
                f"unused: install torch 2.13 or newer, or choose the mode `ddp`"
            )
        sharded.set_reduce_scatter_unused_params(True)
    return module


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that `parallelize` was given, whose parameters have their own names."""
    if isinstance(module, DistributedDataParallel):
        inner: nn.Module = module.module
        return inner
    return module


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with every tensor whole and on the CPU, alike in every mode.

    All ranks call it together.
    """
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu()
        for name, value in unwrapped(module).state_dict().items()
    }


@contextmanager
def accumulating(module: nn.Module, last: bool) -> Iterator[None]:
    """Around forward and backward of one part of a batch: exchange gradients in the last alone."""
    if isinstance(module, DistributedDataParallel) and not last:
        with module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    yield


def complete_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Zeros where a trainable parameter got no gradient, after the backward pass.

    A parameter that no sample of the step needed is then treated alike in every mode: it decays,
    and its moments fade [ours].
    """
    for parameter in parameters:
        if parameter.grad is None and parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float | None) -> Tensor:
    """Scale all gradients so that their common norm is at most `limit`.

    Args:
        parameters: those without gradient are passed over.
        limit: of the Euclidean norm; `None` measures alone.

    Returns:
        Scalar: the norm before, over all ranks' shares, the same in every mode.
    """
    some = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in some if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if limit is not None and some:
        nn.utils.clip_grads_with_norm_(some, limit, norm)
    return norm


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """`teacher <- m teacher + (1 - m) student` in place; buffers are copied.

    Args:
        teacher: as many parameters and buffers as the student's, in the same order, and shared
            over the ranks in the same way.
        student: may be wrapped by `parallelize`.
        momentum: m in 0...1.
    """
    for module in teacher.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    mine, theirs = (list(module.parameters()) for module in (teacher, student))
    assert len(mine) == len(theirs), "teacher and student differ"
    if mine:
        torch._foreach_lerp_([_local(p) for p in mine], [_local(p) for p in theirs], 1 - momentum)
    buffers = list(teacher.buffers())
    if buffers:
        torch._foreach_copy_(buffers, list(student.buffers()))
    if isinstance(teacher, FSDPModule):  # gathered parameters count no changes (layers.derived)
        teacher.train(teacher.training)


def _local(tensor: Tensor) -> Tensor:
    """This rank's share of a sharded tensor, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
