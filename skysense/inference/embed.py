"""Embed a scene: read, compute, blend and write at the same time, one row of tiles in memory.

A reader thread prepares batches, the calling thread computes and blends, a writer thread appends
finished rows. The first error of any of them stops all, and leaves nothing behind.

Legend: D bands of the map, h w its cells.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from skysense.data.scene import Scene, SceneReader
from skysense.geo import RowBlender, Window
from skysense.inference.plan import Plan
from skysense.inference.quicklook import Moments, Thumbnail, features_picture, write_quicklook
from skysense.inference.writer import MapType, MapWriter
from skysense.models.encoder import Encoder, Schedules
from skysense.sample import Batch, collate

FloatArray = npt.NDArray[np.float32]
ItemT = TypeVar("ItemT")

_AHEAD = 2
"""Batches that are read ahead, and row bands that wait to be written."""


@dataclass(frozen=True)
class EmbedOptions:
    """How to run."""

    batch_size: int = 4
    """Images (tiles times dates) computed at a time; at least one tile with all its dates."""
    dtype: MapType = "float16"
    """Type of the map's numbers."""
    schedule: Schedules = None
    """Merging schedules that replace the model's."""
    quicklook: Path | None = None
    """Where to write the picture, if anywhere."""
    mask_clouds: bool = True
    """Drop clouds and shadows where a scene classification is there."""
    tags: Mapping[str, str] | None = None
    """Further metadata of the output."""


@dataclass(frozen=True)
class _Work:
    """A batch of tiles on its way to the model."""

    tiles: Sequence[Window]
    valid: Sequence[bool]
    batch: Batch | None
    next_row: int | None
    """After this batch, map rows above it are complete."""


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
        """Wait for all threads at the end; stop them first if the body fails."""
        try:
            yield
        except BaseException:
            self.stop.set()
            self._join()
            raise
        self._join()
        if self._errors:
            raise self._errors[0]

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()


def embed_scene(
    model: Encoder,
    scene: Scene,
    plan: Plan,
    output: Path,
    options: EmbedOptions | None = None,
    progress: Callable[[int], None] = lambda tiles: None,
) -> None:
    """Write the feature map of a scene.

    Args:
        model: on the device to compute on.
        scene: what to embed.
        plan: of `make_plan`, with the same model, scene and schedule.
        output: GeoTIFF to make or replace.
        options: how to run.
        progress: called with the number of tiles after each batch.

    Raises:
        ValueError: damaged input, wrong scaling, nothing valid, or the output cannot be written;
            nothing is left under the output's name.
    """
    options = options or EmbedOptions()
    with SceneReader(scene, options.mask_clouds) as reader:
        reader.check_scale()
    run = _Run(model, scene, plan, options, progress)
    writer = MapWriter(output, plan.grid, plan.channels)
    try:
        run.execute(writer)
        if not writer.valid_cells:
            raise ValueError(
                "the scene holds no valid pixel: all is nodata, not a finite number"
                + (", cloud or shadow (see --keep-clouds)" if options.mask_clouds else "")
            )
        picture = None
        if options.quicklook is not None:
            picture = features_picture(writer.rows(), run.moments)
        names = [f"feature_{i:04d}" for i in range(plan.channels)]
        writer.finish(options.dtype, names, _tags(model, scene, plan, options))
        if options.quicklook is not None and picture is not None:
            write_quicklook(options.quicklook, run.thumbnail.picture(), picture)
    except BaseException:
        writer.abort()
        raise


class _Run:
    """The three threads of one scene."""

    def __init__(
        self,
        model: Encoder,
        scene: Scene,
        plan: Plan,
        options: EmbedOptions,
        progress: Callable[[int], None],
    ) -> None:
        self._model, self._scene, self._plan, self._options = model, scene, plan, options
        self._progress = progress
        self._device = next(model.parameters()).device
        self.moments = Moments(plan.channels)
        card = scene.layers[scene.reference].card
        self.thumbnail = Thumbnail(scene.grid.shape, scene.reference, card)

    def execute(self, writer: MapWriter) -> None:
        """Run to the end or to the first error."""
        crew = _Crew()
        batches: _Channel[_Work] = _Channel(_AHEAD, crew.stop)
        rows: _Channel[FloatArray] = _Channel(_AHEAD, crew.stop)

        def write() -> None:
            for values in rows:
                writer.write(values)
                if self._options.quicklook is not None:
                    self.moments.add(values)

        with crew.work():
            crew.start(lambda: self._read(batches))
            crew.start(write)
            self._compute(batches, rows)
            rows.put(None)

    def _read(self, batches: _Channel[_Work]) -> None:
        """Reader thread: tiles to batches."""
        dates = sum(len(layer.acquisitions) for layer in self._scene.layers.values())
        size = max(1, self._options.batch_size // dates)
        with SceneReader(self._scene, self._options.mask_clouds) as reader:
            for next_row, row in self._plan.batches(size):
                for i, tiles in enumerate(row):
                    last = i == len(row) - 1
                    batches.put(self._prepare(reader, tiles, next_row if last else None))
        batches.put(None)

    def _prepare(self, reader: SceneReader, tiles: Sequence[Window], next_row: int | None) -> _Work:
        """Read tiles; those without a valid pixel are not computed."""
        samples = [reader.read(tile) for tile in tiles]
        if self._options.quicklook is not None:
            for tile, sample in zip(tiles, samples, strict=True):
                self.thumbnail.add(tile, sample)
        valid = [
            any(series.mask.numpy().any() for series in sample.series.values())
            for sample in samples
        ]
        kept = [sample for sample, ok in zip(samples, valid, strict=True) if ok]
        return _Work(tiles, valid, collate(kept) if kept else None, next_row)

    def _compute(self, batches: _Channel[_Work], rows: _Channel[FloatArray]) -> None:
        """Model and blending, in the calling thread."""
        plan = self._plan
        blender = RowBlender(
            plan.channels,
            plan.grid.shape,
            plan.tiling.overlap // plan.cell,
            plan.tiling.tile // plan.cell,
        )
        for work in batches:
            if work.batch is not None:
                values, valid = self._features(work.batch)
                kept = [tile for tile, ok in zip(work.tiles, work.valid, strict=True) if ok]
                for tile, value, mask in zip(kept, values, valid, strict=True):
                    place = plan.place(tile)
                    inside = (slice(0, place.height), slice(0, place.width))
                    blender.add(place, value[:, *inside], mask[inside])
            if work.next_row is not None:
                _, finished = blender.finish(work.next_row)
                rows.put(finished)
            self._progress(len(work.tiles))

    @torch.inference_mode()
    def _features(self, batch: Batch) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """`(B, D, h, w)` and `(B, h, w)` of one batch."""
        plan, schedule = self._plan, self._options.schedule
        features = self._model(batch.to(self._device), schedule, plan.stage)
        if plan.stage is None:
            values, valid = features.fused, features.fused_valid
            assert values is not None
            assert valid is not None
        else:
            values, valid = features.pyramid[self._scene.reference][-1].over_dates()
        return values.float().cpu().numpy(), valid.cpu().numpy()


def _tags(model: Encoder, scene: Scene, plan: Plan, options: EmbedOptions) -> dict[str, str]:
    """Where a map comes from, as metadata of the file."""
    layers = {
        f"SKYSENSE_{key.upper()}": f"{layer.card.name} "
        + " ".join("undated" if np.isnat(date) else str(date) for date in layer.dates)
        for key, layer in scene.layers.items()
    }
    return {
        "SKYSENSE_MODEL": model.name,
        "SKYSENSE_TRAINED": str(model.trained).lower(),
        "SKYSENSE_STAGE": "fused" if plan.stage is None else str(plan.stage),
        "SKYSENSE_TILE": f"{plan.tiling.tile} overlap {plan.tiling.overlap}",
        **layers,
        **(options.tags or {}),
    }
