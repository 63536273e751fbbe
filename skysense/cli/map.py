"""`skysense map`: a scene and a handful of labels to a class map, or to clusters."""

import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skysense.cli.imagery import Imagery, QuietOption, Request, with_imagery
from skysense.cli.options import check_folder, pick_device, progress_bar, terse_warnings

if TYPE_CHECKING:
    from skysense.tasks.mapping import LabelSet, MapResult


class HeadKind(StrEnum):
    """What classifies the features."""

    logistic = "logistic"
    knn = "knn"
    mlp = "mlp"


@with_imagery
def make_map(
    imagery: Imagery,
    scene: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SCENE]...",
            help="Features of `skysense embed` (.tif, .zarr, .parquet, .lance); or imagery of the "
            "sensor named by --sensor (files, folders, archives), which is embedded first.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            "-l",
            help="Points or polygons with a class: GeoJSON, GeoPackage, or CSV (lon,lat).",
        ),
    ] = None,
    clusters: Annotated[
        int | None,
        typer.Option(
            "--clusters",
            min=2,
            max=254,
            help="Instead of labels: map so many clusters of like cells.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The map to write, a GeoTIFF.")
    ] = Path("landcover.tif"),
    class_field: Annotated[
        str | None,
        typer.Option(
            "--class-field", help="Field of the labels that holds the class.", show_default="auto"
        ),
    ] = None,
    crs: Annotated[
        str | None,
        typer.Option("--crs", help="Coordinate system of labels that do not say it: EPSG:32633."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer of a label file that has several.")
    ] = None,
    head: Annotated[
        HeadKind,
        typer.Option("--head", help="Logistic regression, nearest neighbors or a small network."),
    ] = HeadKind.logistic,
    folds: Annotated[
        int, typer.Option("--folds", min=2, help="Folds of the cross-validation.")
    ] = 5,
    block: Annotated[
        float | None,
        typer.Option(
            "--block",
            help="Side in metres of the blocks of ground that folds are made of.",
            show_default="auto",
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="PNG of map, legend and confidence to write.")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", help="JSON of scores to write.", show_default="beside the map"),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features", help="Keep the features of imagery here: .tif, .zarr, .parquet, .lance."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of folds, head and clusters.")] = 0,
    quiet: QuietOption = False,
) -> None:
    """Turn a scene and a handful of labels into a land-cover map.

    A light head learns the classes from the features of the labelled cells; blocks of ground that
    are held out say how good it is. Without labels, --clusters maps like cells. Examples:

    skysense map scene.tif --labels points.geojson -o landcover.tif --picture landcover.png

    skysense map --hr aerial.tif --s2 s2_folder --labels points.geojson -o landcover.tif

    skysense map features.zarr --clusters 8 -o clusters.tif
    """
    from skysense.tasks.mapping import check_outputs, read_labels

    _check(labels, clusters, block)
    scenes = [path for paths in (scene, *imagery.named.values()) for path in paths or []]
    inputs = [*scenes, *([labels] if labels else [])]
    files = check_outputs(output, picture, metrics, inputs, with_confidence=labels is not None)
    outputs = [path for path in (*files.maps, files.metrics, files.picture) if path]
    _check_folders(outputs, features, inputs)
    with terse_warnings(quiet):
        known = read_labels(labels, class_field, crs, layer) if labels else None
        others = {**imagery.named, **imagery.searched, "features": features}
        source: Path | Request | None = _given(scene or [], others)
        if source is None:
            source = Request.of(imagery, scene)
        settings: dict[str, Any] = {"picture": picture, "metrics": metrics, "seed": seed}
        with _features(source, features, outputs, known, quiet) as at:
            if known is not None:
                settings |= {"head": head.value, "folds": folds, "block": block}
            result = _map(at, known or clusters or 0, output, settings, quiet)
    if not quiet:
        _print(result, picture)


def _embed(
    request: Request,
    output: Path,
    taken: list[Path],
    known: "LabelSet | None",
    quiet: bool,
    item: bool = True,
) -> None:
    """Write the feature map; labels that miss it are an error before the work begins.

    Args:
        request: which imagery.
        output: feature map to make.
        taken: further files that will be written.
        known: labels.
        quiet: without a bar.
        item: write a STAC item beside the features.
    """
    from skysense.inference.embed import EmbedOptions, embed_scene
    from skysense.tasks.mapping import label_cells

    asked = request.options
    scene = request.open([output, *taken], quiet)
    prepared = request.prepare(scene, pick_device(asked.device))
    plan = prepared.plan
    if known is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is left out is said when it is mapped
            label_cells(known, plan.grid, plan.extent)
    options = EmbedOptions(
        asked.batch_size,
        schedule=prepared.schedules,
        mask_clouds=not asked.keep_clouds,
        weights=prepared.weights,
        item=item,
        restart=asked.restart,
    )
    with progress_bar("embedding", "tiles", plan.tiling.count, quiet) as advance:
        embed_scene(prepared.model, scene, plan, output, options, advance)


@contextmanager
def _features(
    source: Path | Request,
    kept: Path | None,
    outputs: list[Path],
    known: "LabelSet | None",
    quiet: bool,
) -> Iterator[Path]:
    """The features: those given, some to keep, or some that go when the map is made.

    Raises:
        ValueError, KeyboardInterrupt: of the body; they say where the features are then.
    """
    if isinstance(source, Path):
        yield source
    elif kept is not None:
        _embed(source, kept, outputs, known, quiet)
        yield kept
    else:
        hidden = outputs[0].with_name(f".{outputs[0].stem}.features.tif")
        _embed(source, hidden, outputs, known, quiet, item=False)
        said = f"its features are in {hidden}: give that file in place of the imagery"
        try:
            yield hidden
        except ValueError as error:
            raise ValueError(f"{error}; {said}") from None
        except KeyboardInterrupt as error:
            number = error.args[0] if error.args else signal.SIGINT
            raise KeyboardInterrupt(number, f"stopped early; {said}") from None
        hidden.unlink()


def _map(
    features: Path,
    what: "LabelSet | int",
    output: Path,
    settings: dict[str, Any],
    quiet: bool,
) -> "MapResult":
    """Map classes by labels, or so many clusters."""
    from skysense.tasks.mapping import map_classes, map_clusters, open_features

    with open_features(features) as source:
        windows = len(source.windows())
    passes = 2 if isinstance(what, int) else 1
    with progress_bar("mapping", "windows", passes * windows, quiet) as advance:
        if isinstance(what, int):
            return map_clusters(features, what, output, **settings, progress=advance)
        return map_classes(features, what, output, **settings, progress=advance)


def _check(labels: Path | None, clusters: int | None, block: float | None) -> None:
    """Refuse options that cannot be before the work begins."""
    if (labels is None) == (clusters is None):
        raise ValueError("give either --labels (a file of points or polygons) or --clusters K")
    if block is not None and not block > 0:
        raise ValueError(f"--block {block:g}: expected metres above 0")


def _given(scene: list[Path], others: Mapping[str, object]) -> Path | None:
    """The features given instead of imagery; `None` if it is imagery.

    Args:
        scene: files without an option.
        others: options that go with imagery alone.

    Raises:
        ValueError: no such file, or options of imagery beside features.
    """
    from skysense.tasks.mapping import holds_features, is_class_map, is_store

    store = next((path for path in scene if is_store(path)), None)
    if store is not None and len(scene) > 1:
        raise ValueError(f"{store} is a store of features; give it alone")
    if len(scene) != 1 or not (holds_features(scene[0]) or is_class_map(scene[0])):
        return None
    for name, value in others.items():
        if value is not None and value != []:
            raise ValueError(f"{scene[0]} is a feature map already; leave --{name} out")
    return scene[0]


def _check_folders(outputs: list[Path], kept: Path | None, inputs: list[Path]) -> None:
    """Refuse folders that cannot be written to, and features over another file."""
    from skysense.inference.stores import STORE_SUFFIXES, check_store

    for path in outputs:
        check_folder(path)
    if kept is None:
        return
    check_folder(kept)
    if kept.suffix.lower() in STORE_SUFFIXES:
        check_store(kept)
    elif kept.suffix.lower() not in (".tif", ".tiff"):
        kinds = ", ".join((".tif", *STORE_SUFFIXES))
        raise ValueError(f"--features {kept}: the name must end in one of {kinds}")
    elif kept.is_dir():
        raise ValueError(f"--features {kept} is a folder")
    others = {path.resolve() for path in (*outputs, *inputs)}
    if kept.resolve() in others:
        raise ValueError(f"--features {kept} is an input or another output")
    if kept.with_suffix(".json").resolve() in others:  # their STAC item
        raise ValueError(f"--features {kept}: choose a name that is not that of the map")


def _print(result: "MapResult", picture: Path | None) -> None:
    """The map, its scores and its files."""
    facts = result.metrics
    shares = [f"{name} {own['share']:.1%}" for name, own in facts["classes"].items()]
    typer.echo(f"{result.path}: {', '.join(shares)}")
    found = facts.get("cross_validation")
    if found:
        setting, value = next(iter(facts["setting"].items()))
        typer.echo(
            f"{facts['head']} ({setting} {value:g}) of {facts['labels']['labelled_cells']} cells, "
            f"{found['folds']} folds of {found['blocks']} blocks of {found['block_metres']:.4g} m:"
        )
        for title, key in (
            ("accuracy", "accuracy"),
            ("balanced accuracy", "balanced_accuracy"),
            ("macro F1", "macro_f1"),
            ("kappa", "kappa"),
        ):
            typer.echo(f"  {title:<18}{_with_interval(found[key], found[f'{key}_interval'])}")
        for name, value in found["f1"].items():
            interval = found["f1_interval"][name]
            typer.echo(f"  {f'F1 of {name}':<18}{_with_interval(value, interval)}")
        near = found["random_folds_accuracy"]
        typer.echo(f"  cells at random   {near:.3f} (tested beside what was learned)")
        calibration = facts["calibration"]
        before, after = (
            calibration[f"expected_calibration_error_{when}"] for when in ("before", "after")
        )
        typer.echo(
            f"  confidence off by {after:.3f} ({before:.3f} before temperature "
            f"{calibration['temperature']:.3g})"
        )
    others = [result.confidence, result.metrics_path, picture]
    typer.echo(f"also made: {', '.join(str(path) for path in others if path)}")


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    """A score and its interval."""
    if value is None or interval is None:
        return "not tested"
    return f"{value:.3f} ({interval[0]:.3f}...{interval[1]:.3f})"
