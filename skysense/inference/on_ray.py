"""Compute tasks with Ray Data: actors that hold the model, on one machine or on a cluster.

The driver keeps the results, in its own folder; what actors need of the driver is the job, and that
they can read the scene's files under the same names. Ray Data sends an actor no more tasks than it
takes, holds back when results are taken slowly, and starts a lost actor and its tasks again. An
actor computes as one process does, so the results are the same bytes on the same kind of machine.
"""

import copy
import logging
import math
import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from skysense._optional import require
from skysense.hub import pack
from skysense.inference.pipeline import Job, Take, TaskReader, compute, side_by_side
from skysense.inference.plan import Task
from skysense.inference.work import Part
from skysense.layers.packing import PackedLinear


@dataclass(frozen=True)
class OnRay:
    """An engine of `embed_scene`. Joins the cluster that RAY_ADDRESS names, or starts one here."""

    actors: int = 2
    """Processes that hold a copy of the model each."""
    gpus: float = 0.0
    """GPUs of an actor; a part of one, such as 0.5, shares it. 0: it computes on the CPU."""
    cpus: float = 1.0
    """CPU cores that Ray counts for an actor."""

    def __call__(self, job: Job, tasks: Sequence[Task], take: Take) -> None:
        """Compute tasks; results come in any order.

        Raises:
            ValueError: Ray is not installed, the model is packed, or an actor failed.
        """
        ray, data = require("ray", "ray"), require("ray.data", "ray")
        model: Any = job.model
        if any(isinstance(module, PackedLinear) for module in model.modules()):
            raise ValueError("a packed model cannot be sent to other processes: leave it unpacked")
        if not tasks:
            return
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", DeprecationWarning)  # Ray's own, of its own defaults
            if not ray.is_initialized():
                _start(ray, self)
                stack.callback(ray.shutdown)
            context = data.DataContext.get_current()
            context.enable_progress_bars = False
            device = "cuda" if self.gpus else "cpu"
            _, threads = side_by_side(torch.device(device), job.scene.dates)
            if next(model.parameters()).device.type != "cpu":  # `cpu` would move the caller's
                model = copy.deepcopy(model).cpu()
            sent = ray.put(replace(job, model=model))
            known = {task.index: task for task in tasks}
            found = data.from_items(
                [{"index": index} for index in known], override_num_blocks=len(known)
            ).map_batches(
                _Actor,
                fn_constructor_args=(sent, list(tasks), device, threads),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=min(self.actors, len(known))),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
            )
            try:
                for row in found.iter_rows():
                    take(known[int(row["index"])], Part.from_bytes(row["part"]))
            except ray.exceptions.RayError as error:
                raise ValueError(f"a task failed on Ray: {_cause(error)}") from error


def _start(ray: Any, engine: OnRay) -> None:  # noqa: ANN401
    """Join a cluster, or start one that holds the actors, quietly.

    Raises:
        ValueError: neither is possible.
    """
    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {"include_dashboard": False}
    own["num_cpus"] = max(os.cpu_count() or 1, math.ceil(engine.actors * engine.cpus) + 1)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level="ERROR", **({} if address else own)
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"Ray cannot be reached or started: {error}") from None


def _cause(error: BaseException) -> str:
    """The last line of what an actor died of."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


class _Actor:
    """Holds the model and the open files."""

    def __init__(self, sent: Any, tasks: Sequence[Task], device: str, threads: int) -> None:  # noqa: ANN401
        torch.set_num_threads(threads)  # as in one process
        job: Job = require("ray", "ray").get(sent)
        model: Any = job.model
        model = model.to(device).eval()
        self._job = replace(job, model=pack(model) if device == "cpu" else model)
        self._tasks = {task.index: task for task in tasks}
        self._reader = TaskReader(self._job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One task, given by its number."""
        index = int(batch["index"][0])
        part = compute(self._job, self._reader.read(self._tasks[index]))
        return {"index": np.array([index]), "part": np.array([part.to_bytes()], dtype=object)}
