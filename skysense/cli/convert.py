"""`skysense convert`: released SkySense checkpoints to folders that `skysense.load` takes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from skysense.hub.convert import ConversionReport


def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN... OUT",
            help="The merged checkpoint, one part, or all six parts; last, the folder to write.",
            show_default=False,
        ),
    ],
    eps: Annotated[
        float,
        typer.Option(help="Of the norms of the S2 and S1 backbones; 1e-6 for SkySense++ weights."),
    ] = 1e-5,
) -> None:
    """Convert released SkySense (V1) weights, which you have to bring yourself.

    Takes .pth, .pt, .ckpt (read without running any code from them) and .safetensors. The merged
    checkpoint, or the files hr, s2, s1, fusion, head_s2 and head_s1 together, become a whole model;
    one of these alone becomes that part. Example:

    skysense convert skysense_model_*.pth skysense_v1/
    """
    from skysense.hub.convert import convert as convert_files

    *sources, folder = paths
    if not sources:
        raise ValueError(
            f"only one path ({folder}) is given: name the input, then the output folder"
        )
    _print(convert_files(sources, folder, eps), folder)


def _print(report: "ConversionReport", folder: Path) -> None:
    """What was recognized, left out and filled in."""
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "file", "prefix")
    for column in ("tensors", "parameters"):
        table.add_column(column, justify="right", no_wrap=True)
    for part in report.parts:
        counts = (str(part.tensors), f"{part.parameters:,}")
        table.add_row(part.title, part.source, part.prefix or "none", *counts)
    Console().print(table)
    by_reason: dict[str, list[str]] = {}
    for key, reason in report.left_out:
        by_reason.setdefault(reason, []).append(key)
    for reason, keys in by_reason.items():
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        typer.echo(f"left out, {reason}: {', '.join(keys[:3])}{more}")
    for key, how in report.filled:
        typer.echo(f"filled in: {key} ({how})")
    typer.echo(f"{folder}: {report.family}, {report.parameters:,} parameters")
