"""`skysense embed`: GeoTIFFs to a georeferenced feature map."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skysense.cli.imagery import Imagery, QuietOption, Request, with_imagery
from skysense.cli.inputs import check_not_among
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


@with_imagery
def embed(
    imagery: Imagery,
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
    tile: Annotated[
        int | None, typer.Option("--tile", help="Side of a tile in pixels.", show_default="auto")
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option("--overlap", help="Pixels that tiles share.", show_default="auto"),
    ] = None,
    dtype: Annotated[
        Dtype, typer.Option("--dtype", help="int8 is written with a scale for each band.")
    ] = Dtype.float16,
    quicklook: Annotated[
        Path | None,
        typer.Option(
            "--quicklook", help="PNG of scene and first three principal components to write."
        ),
    ] = None,
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
    quiet: QuietOption = False,
) -> None:
    """Turn a scene into a georeferenced feature map.

    Takes one image, a Sentinel-2 series, a Sentinel-1 series, or any combination, on different
    grids and coordinate systems; the bands of a date may sit in several files. Dates are read
    from the file names. A run that was interrupted goes on when the same command is sent again,
    for example:

    skysense embed --hr aerial.tif --s2 s2_folder --s1 s1_folder -o map.tif --quicklook map.png
    """
    from skysense.engine.distributed import rank
    from skysense.inference.embed import EmbedOptions, embed_scene
    from skysense.inference.on_ray import OnRay
    from skysense.inference.pipeline import run_here

    request = Request.of(imagery, inputs)
    _check_paths(output, quicklook, [path for paths in request.files.values() for path in paths])
    on_ray = engine is EngineName.ray
    with processes(imagery.device) as device, terse_warnings(quiet):
        scene = request.open([output], quiet or rank() > 0)
        prepared = request.prepare(
            scene, "cpu" if on_ray else device, not on_ray, tile=tile, overlap=overlap
        )
        plan = prepared.plan
        options = EmbedOptions(
            imagery.batch_size,
            dtype.value,
            prepared.schedules,
            quicklook,
            mask_clouds=not imagery.keep_clouds,
            weights=prepared.weights,
            restart=imagery.restart,
        )
        started = time.monotonic()
        quiet = quiet or rank() > 0
        with progress_bar("embedding", "tiles", plan.tiling.count, quiet) as advance:
            run = OnRay(actors, gpus) if on_ray else run_here
            embed_scene(prepared.model, scene, plan, output, options, advance, run)
    if not quiet:
        seconds = time.monotonic() - started
        height, width = plan.grid.shape
        metres, tiles = scene.pixel_metres * plan.cell, plan.tiling.count
        typer.echo(
            f"{output}: {plan.channels} bands, {height} x {width} cells of {metres:.3g} m, "
            f"{tiles} tile{'s' * (tiles != 1)} in {seconds:.1f} s"
        )
        if quicklook is not None:
            typer.echo(f"{quicklook}: scene (left) and first three principal components (right)")


def _check_paths(output: Path, quicklook: Path | None, inputs: list[Path]) -> None:
    """Refuse outputs of another kind, that are no PNG, a folder, an input, or not writable."""
    from skysense.inference.stores import STORE_SUFFIXES, check_store

    for path, kinds in ((output, (".tif", ".tiff", *STORE_SUFFIXES)), (quicklook, (".png",))):
        if path is None:
            continue
        if path.suffix.lower() not in kinds:
            raise ValueError(f"{path}: the output's name must end in {' or '.join(kinds)}")
        if path.suffix.lower() in STORE_SUFFIXES:
            check_store(path)
        elif path.is_dir():
            raise ValueError(f"{path} is a folder; give the name of a file")
        check_not_among(path, inputs)
        check_folder(path)
