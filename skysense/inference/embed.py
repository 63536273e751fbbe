"""Embed a scene: all tasks of its plan, wherever they are computed, become one map.

What is finished is kept beside the output until the map is complete: the same call goes on after
any end, and the map has the same bytes as without one.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from skysense.data.scene import Scene, SceneReader
from skysense.engine.distributed import from_first_rank, rank, world_size
from skysense.engine.memory import give_back
from skysense.inference.assembly import Assembler
from skysense.inference.pipeline import Job, Take, run_here
from skysense.inference.plan import Plan, Task
from skysense.inference.quicklook import ByteArray, features_picture, write_quicklook
from skysense.inference.stores import (
    STORE_SUFFIXES,
    InputFile,
    MapSource,
    Provenance,
    check_store,
    describe_inputs,
    package_version,
    weights_hash,
    write_stac_item,
    write_store,
)
from skysense.inference.work import Part, WorkFolder
from skysense.inference.writer import MapType, MapWriter
from skysense.layers.packing import PackedLinear
from skysense.models.encoder import Encoder, Schedules

POLL_SECONDS = 0.2
"""How often the first of several processes looks for what the others finished."""


class Engine(Protocol):
    """Who computes tasks, and hands each result over; in any order."""

    def __call__(self, job: Job, tasks: Sequence[Task], take: Take) -> None:
        """Compute."""


@dataclass(frozen=True)
class EmbedOptions:
    """How to run."""

    batch_size: int = 2
    """Images (tiles times dates) of a batch; at least one tile with all its dates. On a CPU several
    batches are computed at a time, see `skysense.inference.pipeline.side_by_side`."""
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
    weights: str | None = None
    """`weights_hash` of the model, which a packed one cannot give any more."""
    item: bool = True
    """Write a STAC item beside the output."""
    restart: bool = False
    """Throw away what an earlier, unfinished run of the same output kept."""


def embed_scene(
    model: Encoder,
    scene: Scene,
    plan: Plan,
    output: Path,
    options: EmbedOptions | None = None,
    progress: Callable[[int], None] = lambda tiles: None,
    engine: Engine = run_here,
) -> None:
    """Write the feature map of a scene.

    Args:
        model: on the device to compute on.
        scene: what to embed.
        plan: of `make_plan`, with the same model, scene and schedule.
        output: to make or replace: a GeoTIFF, or a store (`.zarr`, `.parquet`, `.lance`).
        options: how to run.
        progress: called with the number of tiles after each task; first with those that an earlier
            run finished.
        engine: who computes; where `torchrun` started several processes, each of them takes its
            share of the tasks, and the first one writes.

    Raises:
        ValueError: damaged input, wrong scaling, nothing valid, the output cannot be written, or
            unfinished work that is not this work; nothing is left under the output's name, and
            finished tasks are kept beside it.
    """
    options = options or EmbedOptions()
    if output.suffix.lower() in STORE_SUFFIXES:
        check_store(output, options.dtype)
    with SceneReader(scene, options.mask_clouds) as reader:
        reader.check_scale()
    job = Job(
        model, scene, plan, options.schedule, options.mask_clouds, options.quicklook is not None
    )
    tasks = plan.tasks(max(1, options.batch_size // scene.dates))
    folder = WorkFolder(output)
    if world_size() > 1 and rank() > 0:
        _compute_share(job, tasks, folder, engine)
        return
    made = _provenance(job, options)
    folder.open(_identity(job, options, made), options.restart)
    try:
        problem = _embed(job, tasks, folder, options, made, progress, engine)
    except BaseException:
        folder.close()
        raise
    folder.remove()
    if problem is not None:
        raise problem


def _embed(
    job: Job,
    tasks: Sequence[Task],
    folder: WorkFolder,
    options: EmbedOptions,
    made: Provenance,
    progress: Callable[[int], None],
    engine: Engine,
) -> ValueError | None:
    """Compute what is missing, put all together, finish the map; why there is no picture of it."""
    plan = job.plan
    thumbnail = job.thumbnail() if job.pictures else None
    writer = MapWriter(folder.output, plan.grid, plan.channels, folder.path, folder.committed()[1])
    try:
        assembler = Assembler(plan, tasks, folder, writer, options.dtype, thumbnail)
        _compute(job, assembler.pending, folder, assembler, progress, engine)
        if not writer.valid_cells:
            folder.remove()
            raise _nothing_valid(options)
        pictures = None
        if thumbnail is not None:
            pictures = thumbnail.picture(), features_picture(writer.rows(), assembler.moments)
        give_back()
        return _finish(job, writer, options, made, pictures)
    finally:
        writer.abort()


def _finish(
    job: Job,
    writer: MapWriter,
    options: EmbedOptions,
    made: Provenance,
    pictures: tuple[ByteArray, ByteArray] | None,
) -> ValueError | None:
    """Make the GeoTIFF or the store, then the picture, if it can be written, and the STAC item."""
    plan, path = job.plan, writer.path
    rows = writer.rows()
    days = [date for layer in job.scene.layers.values() for date in layer.dates]
    source = MapSource(
        plan.grid,
        plan.channels,
        lambda first, stop: rows.span(first, stop).transpose(1, 0, 2),
        days,
        made,
    )
    quantization = None
    if path.suffix in STORE_SUFFIXES:
        window = plan.tiling.stride // plan.cell
        quantization = write_store(source, path, options.dtype, window=window)
    else:
        names = [f"feature_{i:04d}" for i in range(plan.channels)]
        writer.finish(options.dtype, names, _tags(job, options, made))
    others, problem = {}, None
    if options.quicklook is not None and pictures is not None:
        try:
            write_quicklook(options.quicklook, *pictures)
            others["quicklook"] = options.quicklook
        except ValueError as error:
            problem = error
    if not options.item:
        return problem
    try:
        write_stac_item(source, path, dtype=options.dtype, quantization=quantization, others=others)
    except ValueError as error:  # a local coordinate system, files of another kind
        warnings.warn(f"no STAC item is written: {error}", stacklevel=2)
    return problem


def _compute(
    job: Job,
    pending: Sequence[Task],
    folder: WorkFolder,
    assembler: Assembler,
    progress: Callable[[int], None],
    engine: Engine,
) -> None:
    """Have all tasks computed that are missing, by this process or by all of them."""
    told = 0

    def tell() -> None:
        nonlocal told
        count = assembler.tiles
        if count > told:
            progress(count - told)
        told = count

    def take(task: Task, part: Part) -> None:
        with _writing(folder):
            assembler.take(task, part)
        tell()

    with _writing(folder):
        assembler.advance()
    tell()
    shared = from_first_rank([task.index for task in pending])
    engine(job, [pending[i] for i in range(0, len(shared), world_size())], take)
    while not assembler.complete:  # others still compute; if one fails, torchrun ends all
        time.sleep(POLL_SECONDS)
        with _writing(folder):
            assembler.advance()
        tell()


def _compute_share(job: Job, tasks: Sequence[Task], folder: WorkFolder, engine: Engine) -> None:
    """Compute the share of a rank behind the first, into the folder that the first one holds."""

    def take(task: Task, part: Part) -> None:
        with _writing(folder):
            folder.put(task.index, part)

    pending = from_first_rank(None)
    engine(job, [tasks[i] for i in pending[rank() :: world_size()]], take)


@contextmanager
def _writing(folder: WorkFolder) -> Iterator[None]:
    """Say what to do when results cannot be kept.

    Raises:
        ValueError: they cannot.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"finished tasks cannot be kept in {folder.path} ({error.strerror}); free some space "
            f"there and send the same command again: it goes on from what is finished"
        ) from None


def _nothing_valid(options: EmbedOptions) -> ValueError:
    """What to say of a scene without a valid pixel."""
    return ValueError(
        "the scene holds no valid pixel: all is nodata, not a finite number"
        + (", cloud or shadow (see --keep-clouds)" if options.mask_clouds else "")
    )


def _provenance(job: Job, options: EmbedOptions) -> Provenance:
    """What makes the map, from what, how."""
    model, plan, scene = job.model, job.plan, job.scene
    weights = options.weights
    if weights is None:
        assert isinstance(model, nn.Module)
        packed = any(isinstance(module, PackedLinear) for module in model.modules())
        weights = "unknown" if packed else weights_hash(model)
    return Provenance(
        model=model.name,
        trained=bool(model.trained),
        weights=weights,
        package=package_version(),
        inputs=(
            *(_input(path) for path in scene.files),
            *(InputFile(label, 0, "") for label in scene.labels if "://" in label),
        ),
        dates={
            key: [None if np.isnat(day) else str(day) for day in layer.dates]
            for key, layer in scene.layers.items()
        },
        options={
            "sensors": {key: layer.card.name for key, layer in scene.layers.items()},
            "stage": plan.stage or "fused",
            "pixels": list(plan.tiling.shape),
            "cell": plan.cell,
            "tile": plan.tiling.tile,
            "overlap": plan.tiling.overlap,
            "batch_size": options.batch_size,
            "schedule": {key: list(value) for key, value in (options.schedule or {}).items()},
            "mask_clouds": options.mask_clouds,
        },
    )


def _input(path: Path) -> InputFile:
    """A file that is read; of one that is not on this machine only its name is known."""
    try:
        return describe_inputs([path])[0]
    except OSError:
        return InputFile(str(path), 0, "")


def _identity(job: Job, options: EmbedOptions, made: Provenance) -> dict[str, Any]:
    """All that the output's bytes depend on."""
    return {
        "package": made.package,
        "model": [made.model, made.weights],
        "plan": job.plan.describe(),
        "inputs": [[asdict(_input(path)), _changed(path)] for path in job.scene.files],
        "sources": job.scene.labels,
        "options": {
            **made.options,
            "dtype": options.dtype,
            "quicklook": options.quicklook is not None,
        },
        "tags": dict(options.tags or {}),
    }


def _changed(path: Path) -> int:
    """When a file was last changed, as finely as it is known."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _tags(job: Job, options: EmbedOptions, made: Provenance) -> dict[str, str]:
    """Where a map comes from, as metadata of the file."""
    plan = job.plan
    layers = {
        f"SKYSENSE_{key.upper()}": f"{layer.card.name} "
        + " ".join("undated" if np.isnat(date) else str(date) for date in layer.dates)
        for key, layer in job.scene.layers.items()
    }
    return {
        "SKYSENSE_MODEL": job.model.name,
        "SKYSENSE_TRAINED": str(job.model.trained).lower(),
        "SKYSENSE_STAGE": "fused" if plan.stage is None else str(plan.stage),
        "SKYSENSE_TILE": f"{plan.tiling.tile} overlap {plan.tiling.overlap}",
        "SKYSENSE_PROVENANCE": made.text(),
        **layers,
        **(options.tags or {}),
    }
