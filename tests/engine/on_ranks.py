"""What the tests run on one process and on several: `on_ranks.py FOLDER WORLD FUNCTION...`.

Each function takes the ranks and a folder and returns what rank-independent numbers it got.
"""

import functools
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path

import torch
import torch._dynamo  # what the first step of an optimizer would import in each process
from torch import nn
from torch.distributed.tensor import DTensor

from skysense.engine import checkpoint, distributed, optim, parallel

ROWS = 8


class Toy(nn.Module):
    """Two forward passes through a shared part, a branch for some rows, and one for none."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.block = nn.Sequential(nn.Linear(7, 7), nn.LayerNorm(7))
        self.last = nn.Linear(7, 3)
        self.branch = nn.Linear(5, 3, bias=False)
        self.never = nn.Linear(2, 2)
        self.register_buffer("center", torch.zeros(3))

    def embed(self, x):
        return self.last(self.block(torch.tanh(self.first(x))))

    def forward(self, x, special):
        a, b = self.embed(x), self.embed(x + 1)
        if special.any():
            a = a + torch.where(special[:, None], self.branch(x), 0)
        everyone = distributed.gather_rows(b)  # (W N, 3)
        pairs = torch.logsumexp(a @ everyone.T, 1)
        return distributed.global_mean(pairs) + distributed.global_mean(
            (a * b).sum(1), (x[:, 0] > 0).float()
        )


class Run:
    """Student, teacher and optimizer in a mode."""

    def __init__(self, ranks, mode, seed=0, **options):
        torch.manual_seed(seed)
        self.ranks, self.student, self.teacher = ranks, Toy(), Toy()
        self.model, _ = (
            parallel.parallelize(module, mode, ranks, blocks=[module.block], **options)
            for module in (self.student, self.teacher)
        )
        groups = optim.parameter_groups(self.student, 0.1)
        self.optimizer = optim.build_adamw(groups, 1e-2)
        self.losses, self.norms = [], []

    def state(self):
        return {"student": self.model, "teacher": self.teacher, "optimizer": self.optimizer}

    def train(self, first, last):
        for step in range(first, last):
            optim.set_lr_and_decay(self.optimizer, 1e-2 / (1 + step), 0.1)
            x = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(step))
            special = (torch.arange(ROWS) < 2) & (step % 3 != 2)  # of the first rank alone
            own = slice(
                *(ROWS * r // self.ranks.world for r in (self.ranks.rank, self.ranks.rank + 1))
            )
            self.step(x[own], special[own])
        return self

    def step(self, x, special):
        self.optimizer.zero_grad()
        loss = self.model(x, special)
        loss.backward()
        parallel.complete_gradients(self.student.parameters())
        self.norms.append(float(parallel.clip_gradients(self.student.parameters(), 1.0)))
        self.optimizer.step()
        parallel.ema_update(self.teacher, self.model, 0.9)
        self.losses.append(float(distributed.mean_over_ranks(loss)))

    def numbers(self):
        tensors = {
            f"{part}.{name}": value.clone()
            for part in ("student", "teacher")
            for name, value in parallel.whole_state(getattr(self, part)).items()
        }
        return {"losses": self.losses, "norms": self.norms, "tensors": tensors}


def whole(value):
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()


def train_none(ranks, folder):
    return Run(ranks, "none").train(0, 10).numbers()


def train_ddp(ranks, folder):
    return Run(ranks, "ddp", seed=ranks.rank).train(0, 10).numbers()


def train_fsdp(ranks, folder):
    return Run(ranks, "fsdp", seed=ranks.rank).train(0, 10).numbers()


def save_none(ranks, folder):
    run = Run(ranks, "none").train(0, 3)
    checkpoint.save(folder / "none", 3, run.state(), {"toy": 1})
    return run.numbers()


def save_fsdp(ranks, folder):
    run = Run(ranks, "fsdp").train(0, 3)
    checkpoint.save(folder / "fsdp", 3, run.state(), {"toy": 1})
    return run.numbers()


def restored(ranks, path, mode):
    run = Run(ranks, mode, seed=5)
    checkpoint.restore(path, run.state(), {"toy": 1})
    return run.train(3, 5).numbers()


def restore_into_none(ranks, folder):
    return restored(ranks, checkpoint.latest(folder / "fsdp"), "none")


def restore_into_fsdp(ranks, folder):
    return restored(ranks, checkpoint.latest(folder / "none"), "fsdp")


def restore_into_ddp(ranks, folder):
    return restored(ranks, checkpoint.latest(folder / "none"), "ddp")


def resume_ddp(ranks, folder):
    return resume(ranks, folder, "ddp")


def resume_fsdp(ranks, folder):
    return resume(ranks, folder, "fsdp")


def resume_none(ranks, folder):
    return resume(ranks, folder, "none")


def resume(ranks, folder, mode):
    """At once, and with a checkpoint between; both ends and the random numbers after them."""
    run = Run(ranks, mode)
    torch.manual_seed(100 + ranks.rank)
    path = checkpoint.save(folder / f"resume_{mode}", 4, run.train(0, 4).state(), {})
    whole_run = [run.train(4, 8).numbers()["tensors"], torch.rand(3)]
    again = Run(ranks, mode, seed=7)
    torch.manual_seed(1)
    checkpoint.restore(path, again.state(), {})
    return whole_run, [again.train(4, 8).numbers()["tensors"], torch.rand(3)]


def full_disk(ranks, folder):
    """The last rank's disk fills up; every rank says so and the older checkpoint stays."""
    run = Run(ranks, "ddp")
    checkpoint.save(folder / "full", 1, run.state(), {})
    if ranks.rank == ranks.world - 1:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))
    try:
        checkpoint.save(folder / "full", 2, run.state(), {})
    except ValueError as error:
        return str(error)
    finally:
        if ranks.rank == ranks.world - 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    return "saved"


def accumulated(ranks, folder):
    """Two halves of the rows one after the other, in each mode: the gradient of their mean."""
    results = {}
    for mode in ("ddp", "fsdp"):
        run = Run(ranks, mode)
        x = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(0))
        halves = x[ranks.rank * 4 :][:4].chunk(2)
        for i, half in enumerate(halves):
            with parallel.accumulating(run.model, last=i == 1):
                (run.model(half, torch.zeros(2, dtype=torch.bool)) / 2).backward()
        results[mode] = whole(run.student.first.weight.grad)
    return results


def half_precision(ranks, folder):
    """Gradients of FSDP2 with blocks gathered in bfloat16, under autocast, and in float32."""
    results = []
    for compute in (None, torch.bfloat16):
        run = Run(ranks, "fsdp", compute=compute)
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(ranks.rank))
        with torch.autocast("cpu", torch.bfloat16, enabled=compute is not None):
            loss = run.model(x, torch.zeros(4, dtype=torch.bool))
        loss.backward()
        results.append(whole(run.student.block[0].weight.grad))
    return results


def nan_on_last(ranks, folder):
    """What each rank says when one has a NaN."""
    from skysense.engine.precision import check_finite

    value = torch.tensor(float("nan") if ranks.rank == ranks.world - 1 else 1.0)
    try:
        return str(check_finite({"loss": value, "norm": torch.ones(())}))
    except ValueError as error:
        return str(error)


def mode_none_is_refused(ranks, folder):
    try:
        parallel.parallelize(Toy(), "none", ranks)
    except ValueError as error:
        return str(error)
    return "accepted"


def save_and_die(folder, point):
    """Save one checkpoint, and be killed in the middle of the next."""
    run = Run(distributed.Ranks(), "none").train(0, 2)
    checkpoint.save(folder, 1, run.state(), {"toy": 1})
    module, name, calls = point
    original, left = getattr(module, name), [calls]

    def kill(*args, **kwargs):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return original(*args, **kwargs)

    setattr(module, name, kill)
    checkpoint.save(folder, 2, run.train(2, 3).state(), {"toy": 1})


KILLED = {
    "before": (checkpoint, "write_tensors", 0),
    "tensors": (torch, "save", 7),
    "facts": (checkpoint, "_sync_folder", 0),
    "rename": (checkpoint.os, "replace", 0),
}
"""Where a save is killed: module, function, and how many calls of it go well."""


def in_child(work):
    """The wait status of a forked process that does some work."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return child


def join(rank, world, folder, names):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    ranks = distributed.start("cpu")
    results = {name: globals()[name](ranks, folder) for name in names}
    torch.save(results, folder / f"{rank}.pt")
    distributed.stop()


def main(folder, world, *names):
    """Import once, then fork: killed saves first, if asked for, then the ranks."""
    warnings.simplefilter("error")
    warnings.filterwarnings(
        "ignore", ".*fork", DeprecationWarning
    )  # Python 3.12 on: no threads yet
    torch.set_num_threads(1)
    folder, world = Path(folder), int(world)
    statuses = []
    if "killed" in names:
        for name, point in KILLED.items():
            work = functools.partial(save_and_die, folder / f"killed_{name}", point)
            statuses.append(os.waitpid(in_child(work), 0)[1] != signal.SIGKILL)
    names = [name for name in names if name != "killed"]
    children = [
        in_child(functools.partial(join, rank, world, folder, names)) for rank in range(world)
    ]
    statuses += [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(statuses))


if __name__ == "__main__":
    main(*sys.argv[1:])
