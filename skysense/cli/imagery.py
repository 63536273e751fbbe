"""Options of every command that embeds imagery: which, how it is read, how it is computed."""

from pathlib import Path
from typing import Annotated

import typer

from skysense.cli.inputs import Budget, Stage

_INPUT = "Imagery"
_COMPUTE = "Features of imagery"

HrOption = Annotated[
    list[Path] | None,
    typer.Option("--hr", help="High-resolution image (files or folder).", rich_help_panel=_INPUT),
]
S2Option = Annotated[
    list[Path] | None,
    typer.Option(
        "--s2",
        help="Sentinel-2: all files of all dates, or a folder. Takes several values.",
        rich_help_panel=_INPUT,
    ),
]
S1Option = Annotated[
    list[Path] | None,
    typer.Option(
        "--s1", help="Sentinel-1: all files of all dates, or a folder.", rich_help_panel=_INPUT
    ),
]
SensorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sensor",
        help="Sensor card of the input; once a modality. Defaults: hr rgb8, s2 s2_l2a, s1 s1.",
        rich_help_panel=_INPUT,
    ),
]
BandsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--bands",
        help="Band names of files that do not name them, e.g. B2,B3,... or s1=VV,VH.",
        rich_help_panel=_INPUT,
    ),
]
StacOption = Annotated[
    str | None,
    typer.Option(
        "--stac",
        help="STAC API, catalog, item collection or item (URL or file) to read from.",
        rich_help_panel=_INPUT,
    ),
]
CollectionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--collection",
        help="Collection of the STAC source; takes several.",
        rich_help_panel=_INPUT,
    ),
]
BboxOption = Annotated[
    str | None,
    typer.Option(
        "--bbox", help="Ground to use: west,south,east,north in degrees.", rich_help_panel=_INPUT
    ),
]
DatesOption = Annotated[
    str | None,
    typer.Option(
        "--dates",
        help="Days to use: 2021, 2021-06, or 2021-03-01/2021-10.",
        rich_help_panel=_INPUT,
    ),
]
MaxCloudOption = Annotated[
    float | None,
    typer.Option(
        "--max-cloud",
        help="Leave out dates with a greater share of clouds (0...1).",
        rich_help_panel=_INPUT,
    ),
]
KeepCloudsOption = Annotated[
    bool,
    typer.Option(
        "--keep-clouds",
        help="Do not drop what SCL, QA_PIXEL or a cloud_mask calls cloud.",
        rich_help_panel=_INPUT,
    ),
]
UncheckedOption = Annotated[
    bool,
    typer.Option(
        "--unchecked",
        help="Do not look for what `skysense doctor` calls an error first.",
        rich_help_panel=_INPUT,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name, folder or hub id (see `skysense info`).",
        rich_help_panel=_COMPUTE,
    ),
]
StageOption = Annotated[
    Stage,
    typer.Option(
        "--stage",
        help="The fused features, or a level of the finest modality's pyramid; 1 has the finest "
        "cells.",
        rich_help_panel=_COMPUTE,
    ),
]
BudgetOption = Annotated[
    Budget | None,
    typer.Option(
        "--budget",
        help="Merging schedule of hr by cost: cells of 32 (fast), 16 (balanced) or 8 pixels.",
        show_default="the model's own",
        rich_help_panel=_COMPUTE,
    ),
]
MergeScheduleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--merge-schedule",
        help="Patch merging of a modality, e.g. hr=merge,merge,keep: finer maps, more work.",
        rich_help_panel=_COMPUTE,
    ),
]
BatchSizeOption = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        help="Images at a time: tiles times dates, at least one tile with all its dates.",
        rich_help_panel=_COMPUTE,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1, mps; auto takes the best there is.",
        rich_help_panel=_COMPUTE,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
