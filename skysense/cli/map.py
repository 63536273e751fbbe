"""`skysense map`: a scene and a handful of labels to a class map, or to clusters."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skysense.cli.embed import Stage
from skysense.cli.options import check_folder, pick_device, progress_bar, terse_warnings

if TYPE_CHECKING:
    from skysense.tasks.mapping import LabelSet, MapResult


class HeadKind(StrEnum):
    """What classifies the features."""

    logistic = "logistic"
    knn = "knn"
    mlp = "mlp"


def make_map(
    scene: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCENE...",
            help="A feature map of `skysense embed`; or imagery of the sensor named by --sensor "
            "(files or a folder), which is embedded first.",
            show_default=False,
        ),
    ],
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
        typer.Option("--features", help="Keep the features of imagery in this GeoTIFF."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Of imagery: name, folder or hub id.")
    ] = "v2_nano",
    sensor: Annotated[
        str, typer.Option("--sensor", help="Of imagery: its sensor card (see `skysense info`).")
    ] = "rgb8",
    bands: Annotated[
        str | None,
        typer.Option("--bands", help="Of imagery that does not name its bands: B2,B3,..."),
    ] = None,
    stage: Annotated[
        Stage,
        typer.Option("--stage", help="Of imagery: which features; 1 has the finest cells."),
    ] = Stage.fused,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Of imagery: images at a time.")
    ] = 4,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; auto takes the best there is.")
    ] = "auto",
    keep_clouds: Annotated[
        bool,
        typer.Option("--keep-clouds", help="Do not drop what the SCL band calls cloud or shadow."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of folds, head and clusters.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Turn a scene and a handful of labels into a land-cover map.

    A light head learns the classes from the features of the labelled cells; blocks of ground that
    are held out say how good it is. Without labels, --clusters maps like cells. Examples:

    skysense map scene.tif --labels points.geojson -o landcover.tif --picture landcover.png

    skysense map features.tif --clusters 8 -o clusters.tif
    """
    from skysense.tasks.mapping import check_outputs, is_feature_map, read_labels

    _check(labels, clusters, block)
    inputs = [*scene, *([labels] if labels else [])]
    files = check_outputs(output, picture, metrics, inputs, with_confidence=labels is not None)
    _check_folders([*files.maps, files.metrics, files.picture], features, inputs)
    with terse_warnings(quiet):
        known = read_labels(labels, class_field, crs, layer) if labels else None
        given = len(scene) == 1 and is_feature_map(scene[0])
        if given and features is not None:
            raise ValueError(f"{scene[0]} is a feature map already; leave --features out")
        imagery = _Imagery(scene, model, sensor, bands, stage, batch_size, device, not keep_clouds)
        settings: dict[str, Any] = {"picture": picture, "metrics": metrics, "seed": seed}
        with _features(None if given else imagery, scene[0], features, output, known, quiet) as at:
            if known is not None:
                settings |= {"head": head.value, "folds": folds, "block": block}
            result = _map(at, known or clusters or 0, output, settings, quiet)
    if not quiet:
        _print(result, picture)


class _Imagery:
    """Imagery and how to embed it."""

    def __init__(
        self,
        paths: list[Path],
        model: str,
        sensor: str,
        bands: str | None,
        stage: Stage,
        batch_size: int,
        device: str,
        mask_clouds: bool,
    ) -> None:
        self.paths, self.model, self.sensor = paths, model, sensor
        self.bands = [name.strip() for name in bands.split(",")] if bands else None
        self.level = None if stage is Stage.fused else int(stage)
        self.batch_size, self.device, self.mask_clouds = batch_size, device, mask_clouds

    def embed(self, output: Path, known: "LabelSet | None", quiet: bool) -> None:
        """Write the feature map; labels that miss it are an error before the work begins."""
        from skysense.data.scene import open_scene
        from skysense.hub import load, pack
        from skysense.inference.embed import EmbedOptions, embed_scene
        from skysense.inference.plan import make_plan
        from skysense.sensors import get_sensor
        from skysense.tasks.mapping import label_cells

        key: str = get_sensor(self.sensor).modality
        names = {key: self.bands} if self.bands else None
        scene = open_scene({key: self.paths}, {key: self.sensor}, names)
        loaded = pack(load(self.model, pick_device(self.device)))
        plan = make_plan(loaded, scene, self.level)
        if known is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is left out is said when it is mapped
                label_cells(known, plan.grid)
        options = EmbedOptions(self.batch_size, mask_clouds=self.mask_clouds)
        with progress_bar("embedding", "tiles", plan.tiling.count, quiet) as advance:
            embed_scene(loaded, scene, plan, output, options, advance)


@contextmanager
def _features(
    imagery: _Imagery | None,
    given: Path,
    kept: Path | None,
    output: Path,
    known: "LabelSet | None",
    quiet: bool,
) -> Iterator[Path]:
    """The feature map: the one given, one to keep, or one that goes at the end."""
    from skysense.tasks.mapping.output import working_folder

    if imagery is None:
        yield given
    elif kept is not None:
        imagery.embed(kept, known, quiet)
        yield kept
    else:
        with working_folder(output.with_name(f"{output.name}.features")) as folder:
            imagery.embed(folder / "features.tif", known, quiet)
            yield folder / "features.tif"


def _map(
    features: Path,
    what: "LabelSet | int",
    output: Path,
    settings: dict[str, Any],
    quiet: bool,
) -> "MapResult":
    """Map classes by labels, or so many clusters."""
    from skysense.tasks.mapping import FeatureMap, map_classes, map_clusters

    with FeatureMap(features) as source:
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


def _check_folders(outputs: list[Path | None], kept: Path | None, inputs: list[Path]) -> None:
    """Refuse folders that cannot be written to, and features over another file."""
    for path in (*outputs, kept):
        if path is not None:
            check_folder(path)
    if kept is None:
        return
    if kept.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"--features {kept}: the name must end in .tif or .tiff")
    others = {path.resolve() for path in (*outputs, *inputs) if path is not None}
    if kept.is_dir() or kept.resolve() in others:
        raise ValueError(f"--features {kept} is an input, another output or a folder")


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
