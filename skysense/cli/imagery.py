"""Options of every command that embeds imagery: which, how it is read, how it is computed."""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from skysense.data.scene import Scene
    from skysense.inference.plan import Plan
    from skysense.models.encoder import Encoder, Schedule

_INPUT = "Imagery"
_COMPUTE = "Features of imagery"

QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


@dataclass(frozen=True)
class Imagery:
    """The options; each field is one, and what it means is its help."""

    hr: Annotated[
        list[Path] | None,
        typer.Option(
            "--hr", help="High-resolution image (files or folder).", rich_help_panel=_INPUT
        ),
    ] = None
    s2: Annotated[
        list[Path] | None,
        typer.Option(
            "--s2",
            help="Sentinel-2: all files of all dates, or a folder. Takes several values.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    s1: Annotated[
        list[Path] | None,
        typer.Option(
            "--s1", help="Sentinel-1: all files of all dates, or a folder.", rich_help_panel=_INPUT
        ),
    ] = None
    stac: Annotated[
        str | None,
        typer.Option(
            "--stac",
            help="STAC API, catalog, item collection or item (URL or file) to read from.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    bbox: Annotated[
        str | None,
        typer.Option(
            "--bbox",
            help="Ground to use: west,south,east,north in degrees.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    dates: Annotated[
        str | None,
        typer.Option(
            "--dates",
            help="Days to use: 2021, 2021-06, or 2021-03-01/2021-10.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    collection: Annotated[
        list[str] | None,
        typer.Option(
            "--collection",
            help="Collection of the STAC source; takes several.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    max_cloud: Annotated[
        float | None,
        typer.Option(
            "--max-cloud",
            help="Leave out dates with a greater share of clouds (0...1).",
            rich_help_panel=_INPUT,
        ),
    ] = None
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            "--sensor",
            help="Sensor card of the input; once a modality. Defaults: hr rgb8, s2 s2_l2a, s1 s1.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    bands: Annotated[
        list[str] | None,
        typer.Option(
            "--bands",
            help="Band names of files that do not name them, e.g. B2,B3,... or s1=VV,VH.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    keep_clouds: Annotated[
        bool,
        typer.Option(
            "--keep-clouds",
            help="Do not drop what SCL, QA_PIXEL or a cloud_mask calls cloud.",
            rich_help_panel=_INPUT,
        ),
    ] = False
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked",
            help="Do not look for what `skysense doctor` calls an error first.",
            rich_help_panel=_INPUT,
        ),
    ] = False
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Name, folder or hub id (see `skysense info`).",
            rich_help_panel=_COMPUTE,
        ),
    ] = "v2_nano"
    stage: Annotated[
        Stage,
        typer.Option(
            "--stage",
            help="The fused features, or a level of the finest modality's pyramid; 1 has the "
            "finest cells.",
            rich_help_panel=_COMPUTE,
        ),
    ] = Stage.fused
    merge_schedule: Annotated[
        list[str] | None,
        typer.Option(
            "--merge-schedule",
            help="Patch merging of a modality, e.g. hr=merge,merge,keep: finer maps, more work.",
            rich_help_panel=_COMPUTE,
        ),
    ] = None
    budget: Annotated[
        Budget | None,
        typer.Option(
            "--budget",
            help="Merging schedule of hr by cost: cells of 32 (fast), 16 (balanced) or 8 pixels.",
            show_default="the model's own",
            rich_help_panel=_COMPUTE,
        ),
    ] = None
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size",
            min=1,
            help="Images of a batch: tiles times dates, at least one tile with all its dates.",
            rich_help_panel=_COMPUTE,
        ),
    ] = 2
    device: Annotated[
        str,
        typer.Option(
            "--device",
            help="cpu, cuda, cuda:1, mps; auto takes the best there is.",
            rich_help_panel=_COMPUTE,
        ),
    ] = "auto"

    restart: Annotated[
        bool,
        typer.Option(
            "--restart",
            help="Do not go on with what an unfinished run of this output kept.",
            rich_help_panel=_COMPUTE,
        ),
    ] = False

    @property
    def named(self) -> dict[str, list[Path] | None]:
        """Modality to what its option lists."""
        return {"hr": self.hr, "s2": self.s2, "s1": self.s1}

    @property
    def searched(self) -> dict[str, object]:
        """Options that choose from a catalog or among dates, by their names."""
        return {
            "stac": self.stac,
            "bbox": self.bbox,
            "dates": self.dates,
            "collection": self.collection,
            "max-cloud": self.max_cloud,
        }

    @property
    def level(self) -> int | None:
        """The pyramid level to map; `None` for the fused features."""
        return None if self.stage is Stage.fused else int(self.stage)


def with_imagery(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options in the place of its parameter `imagery`."""
    own = inspect.signature(command)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=field.default,
            annotation=field.type,
        )
        for field in fields(Imagery)
    ]
    parameters = [
        part
        for name, parameter in own.parameters.items()
        for part in (options if name == "imagery" else [parameter])
    ]

    @functools.wraps(command)
    def expanded(**given: Any) -> None:  # noqa: ANN401
        chosen = {option.name: given.pop(option.name, option.default) for option in options}
        command(imagery=Imagery(**chosen), **given)

    expanded.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {part.name: part.annotation for part in parameters}
    return expanded


@dataclass(frozen=True)
class Request:
    """Imagery that was asked for, its options checked as far as they can be without opening it."""

    options: Imagery
    """As given."""
    files: dict[str, list[Path]]
    """Modality to files, folders and archives."""
    cards: dict[str, str]
    """Modality to sensor card, where one was named."""
    bands: dict[str, list[str]]
    """Modality to band names, where they were given."""
    bbox: list[float] | None
    """Ground, in degrees."""

    @classmethod
    def of(cls, options: Imagery, positional: list[Path] | None) -> "Request":
        """Check options.

        Args:
            options: of the imagery.
            positional: files without an option.

        Raises:
            ValueError: no input, or options that do not go together.
        """
        catalog = options.stac is not None
        named, sensors = options.named, options.sensor or []
        files, cards = gather_inputs(positional or [], named, sensors, catalog)
        bands = parse_bands(options.bands or [], list(files))
        request = cls(options, files, cards, bands, parse_box(options.bbox))
        if not catalog:
            request.schedules(list(files))
        return request

    def schedules(self, modalities: list[str]) -> "dict[str, Schedule] | None":
        """Merging schedules of modalities that are there, where they were given."""
        options = self.options
        return parse_schedules(options.merge_schedule or [], options.budget, modalities)

    def open(self, outputs: Iterable[Path], quiet: bool) -> "Scene":
        """Open the scene and see that it can be used.

        Args:
            outputs: what will be written, which must not be an input.
            quiet: without a bar.

        Raises:
            ValueError: a file is unreadable, an output, or has an error that the doctor finds.
        """
        from skysense.data.stac import open_inputs

        scene = open_inputs(
            self.files,
            self.cards,
            self.bands,
            stac=self.options.stac,
            bbox=self.bbox,
            dates=self.options.dates,
            collections=self.options.collection,
            max_cloud=self.options.max_cloud,
        )
        self.schedules(list(scene.layers))
        for output in outputs:
            check_not_among(output, scene.files)  # those of a folder are known now
        if not self.options.unchecked:
            dates = self.options.dates
            check_sound(self.files, self.cards, self.bands, scene, dates, self.bbox, quiet)
        return scene

    def prepare(
        self, scene: "Scene", device: str, packed: bool = True, **tiling: int | None
    ) -> "Prepared":
        """Load the model and lay tiles over the scene.

        Args:
            scene: opened.
            device: where the model goes.
            packed: bring the weights into the form that computes fastest here.
            tiling: `tile` and `overlap`, in pixels; the model's own where not given.

        Raises:
            ValueError: no such model, or tiles that do not fit it.
        """
        from skysense.hub import load, pack
        from skysense.inference.plan import make_plan
        from skysense.inference.stores import weights_hash

        model = load(self.options.model, device)
        weights = weights_hash(model)
        if packed:
            model = pack(model)
        schedules = self.schedules(list(scene.layers))
        plan = make_plan(model, scene, self.options.level, schedules, **tiling)
        return Prepared(model, weights, schedules, plan)


@dataclass(frozen=True)
class Prepared:
    """What embedding takes beside the scene."""

    model: "Encoder"
    """On its device."""
    weights: str
    """Hash of the weights as they were loaded."""
    schedules: "dict[str, Schedule] | None"
    """Merging schedules that replace the model's."""
    plan: "Plan"
    """Tiles of the scene."""
