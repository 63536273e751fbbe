"""`skysense embed`: GeoTIFFs to a georeferenced feature map."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skysense.cli.inputs import (
    Budget,
    Stage,
    check_not_among,
    check_sound,
    gather_inputs,
    parse_bands,
    parse_box,
    parse_schedules,
)
from skysense.cli.options import check_folder, processes, progress_bar, terse_warnings


class EngineName(StrEnum):
    """Who computes."""

    local = "local"
    ray = "ray"


class Dtype(StrEnum):
    """Type of the map's numbers."""

    float16 = "float16"
    float32 = "float32"
    int8 = "int8"


def embed(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="Files or folders of the sensor named by --sensor (default: 8-bit RGB).",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="What to write, by its suffix: .tif (Cloud Optimized GeoTIFF), .zarr, .parquet "
            "(GeoParquet), .lance (LanceDB).",
        ),
    ] = Path("features.tif"),
    hr: Annotated[
        list[Path] | None, typer.Option("--hr", help="High-resolution image (files or folder).")
    ] = None,
    s2: Annotated[
        list[Path] | None,
        typer.Option(
            "--s2", help="Sentinel-2: all files of all dates, or a folder. Takes several values."
        ),
    ] = None,
    s1: Annotated[
        list[Path] | None,
        typer.Option("--s1", help="Sentinel-1: all files of all dates, or a folder."),
    ] = None,
    stac: Annotated[
        str | None,
        typer.Option(
            "--stac", help="STAC API, catalog, item collection or item (URL or file) to read from."
        ),
    ] = None,
    bbox: Annotated[
        str | None,
        typer.Option("--bbox", help="Ground to map: west,south,east,north in degrees."),
    ] = None,
    dates: Annotated[
        str | None,
        typer.Option("--dates", help="Days to use: 2021, 2021-06, or 2021-03-01/2021-10."),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", help="Collection of the STAC source; takes several."),
    ] = None,
    max_cloud: Annotated[
        float | None,
        typer.Option("--max-cloud", help="Leave out dates with a greater share of clouds (0...1)."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name, folder or hub id (see `skysense info`).")
    ] = "v2_nano",
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            "--sensor",
            help="Sensor card of the input; once a modality. Defaults: hr rgb8, s2 s2_l2a, s1 s1.",
        ),
    ] = None,
    bands: Annotated[
        list[str] | None,
        typer.Option(
            "--bands",
            help="Band names of files that do not name them, e.g. B2,B3,... or s1=VV,VH.",
        ),
    ] = None,
    stage: Annotated[
        Stage,
        typer.Option(
            "--stage",
            help="Map the fused features, or a level of the finest modality's pyramid.",
        ),
    ] = Stage.fused,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            "--merge-schedule",
            help="Patch merging of a modality, e.g. hr=merge,merge,keep: finer maps, more work.",
        ),
    ] = None,
    budget: Annotated[
        Budget | None,
        typer.Option(
            "--budget",
            help="Merging schedule of hr by cost: cells of 32 (fast), 16 (balanced) or 8 pixels.",
            show_default="the model's own",
        ),
    ] = None,
    tile: Annotated[
        int | None, typer.Option("--tile", help="Side of a tile in pixels.", show_default="auto")
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option("--overlap", help="Pixels that tiles share.", show_default="auto"),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=1,
            help="Images at a time: tiles times dates, at least one tile with all its dates.",
        ),
    ] = 4,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; auto takes the best there is.")
    ] = "auto",
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="int8 is written with a scale for each band.")
    ] = Dtype.float16,
    quicklook: Annotated[
        Path | None,
        typer.Option(
            "--quicklook", help="PNG of scene and first three principal components to write."
        ),
    ] = None,
    keep_clouds: Annotated[
        bool,
        typer.Option(
            "--keep-clouds", help="Do not drop what SCL, QA_PIXEL or a cloud_mask calls cloud."
        ),
    ] = False,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked", help="Do not look for what `skysense doctor` calls an error first."
        ),
    ] = False,
    engine: Annotated[
        EngineName,
        typer.Option(
            "--engine",
            help="Who computes: this process (of torchrun: all of them), or actors of Ray Data.",
        ),
    ] = EngineName.local,
    actors: Annotated[
        int, typer.Option("--actors", min=1, help="Of Ray: processes that hold the model.")
    ] = 2,
    gpus: Annotated[
        float,
        typer.Option("--gpus-per-actor", min=0, help="Of Ray; a part of one, such as 0.5, shares."),
    ] = 0.0,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Do not go on with what an unfinished run of this output kept."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Turn a scene into a georeferenced feature map.

    Takes one image, a Sentinel-2 series, a Sentinel-1 series, or any combination, on different
    grids and coordinate systems; the bands of a date may sit in several files. Dates are read
    from the file names. A run that was interrupted goes on when the same command is sent again,
    for example:

    skysense embed --hr aerial.tif --s2 s2_folder --s1 s1_folder -o map.tif --quicklook map.png
    """
    from skysense.data.stac import open_inputs
    from skysense.engine.distributed import rank
    from skysense.hub import load, pack
    from skysense.inference.embed import EmbedOptions, embed_scene
    from skysense.inference.on_ray import OnRay
    from skysense.inference.pipeline import run_here
    from skysense.inference.plan import make_plan
    from skysense.inference.stores import weights_hash

    named = {"hr": hr, "s2": s2, "s1": s1}
    given, cards = gather_inputs(inputs or [], named, sensor or [], stac is not None)
    _check_paths(output, quicklook, [path for paths in given.values() for path in paths])
    asked = schedule or [], budget
    schedules = None if stac else parse_schedules(*asked, list(given))
    names = parse_bands(bands or [], list(given))
    with processes(device) as device, terse_warnings(quiet):
        scene = open_inputs(
            given,
            cards,
            names,
            stac=stac,
            bbox=parse_box(bbox),
            dates=dates,
            collections=collection,
            max_cloud=max_cloud,
        )
        schedules = schedules or parse_schedules(*asked, list(scene.layers))
        check_not_among(output, scene.files)  # those of a folder are known now
        if not unchecked:
            check_sound(given, cards, names)
        loaded = load(model, "cpu" if engine is EngineName.ray else device)
        weights = weights_hash(loaded)
        if engine is EngineName.local:
            loaded = pack(loaded)
        level = None if stage is Stage.fused else int(stage)
        plan = make_plan(loaded, scene, level, schedules, tile, overlap)
        options = EmbedOptions(
            batch_size,
            dtype.value,
            schedules,
            quicklook,
            mask_clouds=not keep_clouds,
            weights=weights,
            restart=restart,
        )
        started = time.monotonic()
        quiet = quiet or rank() > 0
        with progress_bar("embedding", "tiles", plan.tiling.count, quiet) as advance:
            run = OnRay(actors, gpus) if engine is EngineName.ray else run_here
            embed_scene(loaded, scene, plan, output, options, advance, run)
    if not quiet:
        seconds = time.monotonic() - started
        height, width = plan.grid.shape
        metres = scene.pixel_metres * plan.cell
        typer.echo(
            f"{output}: {plan.channels} bands, {height} x {width} cells of {metres:.3g} m, "
            f"{plan.tiling.count} tiles in {seconds:.1f} s"
        )
        if quicklook is not None:
            typer.echo(f"{quicklook}: scene (left) and first three principal components (right)")


def _check_paths(output: Path, quicklook: Path | None, inputs: list[Path]) -> None:
    """Refuse outputs of another kind, that are no PNG, a folder, an input, or not writable."""
    from skysense.inference.stores import STORE_SUFFIXES

    for path, kinds in ((output, (".tif", ".tiff", *STORE_SUFFIXES)), (quicklook, (".png",))):
        if path is None:
            continue
        if path.suffix.lower() not in kinds:
            raise ValueError(f"{path}: the output's name must end in {' or '.join(kinds)}")
        if path.is_dir() and path.suffix not in STORE_SUFFIXES:
            raise ValueError(f"{path} is a folder; give the name of a file")
        check_not_among(path, inputs)
        check_folder(path)
