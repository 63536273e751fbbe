"""Compute tasks: read, compute and keep at the same time, in one process.

A reader thread prepares batches, others compute, a last one takes the results. The first error of
any of them stops all. On a CPU several batches are computed side by side with few threads each,
which is faster than one after the other with all: the operations on a few small tiles are too small
to be shared well.

Legend: B tiles, D bands of the map, h w cells of a tile.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from skysense.data.scene import Scene, SceneReader
from skysense.inference.plan import Plan, Task
from skysense.inference.quicklook import Thumbnail
from skysense.inference.work import Part
from skysense.models.encoder import Encoder, Schedules
from skysense.sample import Batch, Sample, Series, collate

FloatArray = npt.NDArray[np.float32]
ItemT = TypeVar("ItemT")
Take = Callable[[Task, Part], None]
"""What is done with a result."""

_AHEAD = 2
"""Batches that are read ahead, and results that wait to be taken."""

_SIDE_BY_SIDE = 4
"""Batches that a CPU computes at the same time, at most: each takes memory."""

_DATES = 16
"""Dates of these batches, at most; the many of a long series are shared well by themselves."""


@dataclass(frozen=True)
class Job:
    """All that computing a task needs."""

    model: Encoder
    """On the device to compute on."""
    scene: Scene
    """What is read."""
    plan: Plan
    """Of that scene and model."""
    schedule: Schedules = None
    """Merging schedules that replace the model's."""
    mask_clouds: bool = True
    """Drop clouds and shadows where a scene classification is there."""
    pictures: bool = False
    """Cut what the picture of the scene takes."""

    def thumbnail(self) -> Thumbnail:
        """The scene in little, still empty."""
        scene = self.scene
        return Thumbnail(scene.grid.shape, scene.reference, scene.layers[scene.reference].card)


@dataclass(frozen=True)
class Loaded:
    """A task on its way to the model."""

    task: Task
    seen: tuple[int, ...]
    """Which of its tiles hold anything."""
    batch: Batch | None
    """Of those tiles."""
    pictures: tuple[FloatArray, ...]


class TaskReader:
    """The open files of a job; use it in the thread that opened it, and close it."""

    def __init__(self, job: Job) -> None:
        """Open the scene's files."""
        self._job = job
        self._thumbnail = job.thumbnail()
        self._reader = SceneReader(job.scene, job.mask_clouds)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def read(self, task: Task) -> Loaded:
        """Read the tiles of a task; those without a valid pixel are not computed."""
        samples = [self._reader.read(tile) for tile in task.tiles]
        pictures: tuple[FloatArray, ...] = ()
        if self._job.pictures:
            pairs = zip(task.tiles, samples, strict=True)
            pictures = tuple(self._thumbnail.cut(tile, sample) for tile, sample in pairs)
        seen = tuple(
            i
            for i, sample in enumerate(samples)
            if any(series.mask.numpy().any() for series in sample.series.values())
        )
        batch = collate([_without_empty_dates(samples[i]) for i in seen]) if seen else None
        return Loaded(task, seen, batch, pictures)


def _without_empty_dates(sample: Sample) -> Sample:
    """Leave out dates without a valid pixel, which would be computed for nothing.

    Of images side by side, each a date of its own, most windows see one. A modality keeps a date.
    """
    series = {}
    for key, every in sample.series.items():
        holds = every.mask.numpy().any((1, 2))  # (T,)
        if not holds.all():
            kept = np.flatnonzero(holds) if holds.any() else np.arange(1)
            pixels, mask = (part.numpy()[kept] for part in (every.pixels, every.mask))
            dates = every.dates[kept]
            every = Series(torch.from_numpy(pixels), torch.from_numpy(mask), dates, every.sensor)
        series[key] = every
    return replace(sample, series=series)


@torch.inference_mode()
def compute(job: Job, loaded: Loaded) -> Part:
    """Features of a task."""
    plan = job.plan
    if loaded.batch is None:
        empty = np.zeros((0, plan.channels, 0, 0), np.float32)
        return Part((), empty, np.zeros((0, 0, 0), bool), loaded.pictures)
    batch = loaded.batch.to(next(job.model.parameters()).device)
    features = job.model(batch, job.schedule, plan.stage)
    if plan.stage is None:
        values, valid = features.fused, features.fused_valid
        assert values is not None
        assert valid is not None
    else:
        values, valid = features.pyramid[job.scene.reference][-1].over_dates()
    arrays = values.float().cpu().numpy(), valid.cpu().numpy()
    return Part(loaded.seen, *arrays, loaded.pictures)


def side_by_side(device: torch.device, dates: int) -> tuple[int, int]:
    """How many batches are computed at the same time, and with how many threads each.

    Args:
        device: that computes.
        dates: of the scene.
    """
    threads, most = torch.get_num_threads(), max(1, _DATES // dates)
    count = min(threads, most, _SIDE_BY_SIDE) if device.type == "cpu" else 1
    return count, threads // count


def run_here(job: Job, tasks: Sequence[Task], take: Take) -> None:
    """Compute tasks in this process.

    Args:
        job: what all share.
        tasks: which.
        take: called with each result, about in order, in a thread of its own.
    """
    crew = _Crew()
    batches: _Channel[Loaded] = _Channel(_AHEAD, crew.stop)
    results: _Channel[tuple[Task, Part]] = _Channel(_AHEAD, crew.stop)
    before = torch.get_num_threads()
    count, threads = side_by_side(next(job.model.parameters()).device, job.scene.dates)

    def read() -> None:
        with closing(TaskReader(job)) as reader:
            for task in tasks:
                batches.put(reader.read(task))
        for _ in range(count):
            batches.put(None)

    def work() -> None:
        torch.set_num_threads(threads)  # of this thread
        for loaded in batches:
            results.put((loaded.task, compute(job, loaded)))
        results.put(None)

    def keep() -> None:
        for _ in range(count):
            for task, part in results:
                take(task, part)

    try:
        with crew.work():
            for part in (read, keep, *[work] * count):
                crew.start(part)
            crew.wait()
    finally:
        torch.set_num_threads(before)


class _Channel(Generic[ItemT]):
    """A bounded queue between two threads that both leave when one of them fails."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[ItemT | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: ItemT | None) -> None:
        """Hand over an item, `None` for the end; gives up silently once all is stopped."""
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def __iter__(self) -> Iterator[ItemT]:
        """Items until the end, or until all is stopped."""
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item


class _Crew:
    """Threads whose first error is raised in the thread that waits for them."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, task: Callable[[], None]) -> None:
        """Run a task in a thread."""

        def guarded() -> None:
            try:
                task()
            except BaseException as error:  # handed to the waiting thread
                self._errors.append(error)
                self.stop.set()

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Stop all threads if the body, which starts them and waits for them, fails."""
        try:
            yield
        except BaseException:
            self.stop.set()
            self.wait()
            raise
        if self._errors:
            raise self._errors[0]

    def wait(self) -> None:
        """Until all are done."""
        for thread in self._threads:
            thread.join()
