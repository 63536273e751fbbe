"""`skysense doctor`: what rasters are, what is wrong with them, and what mends it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skysense.cli.options import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from skysense.data.doctor import FileReport, Finding, Report

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}

_MOST_FILES = 3
"""Files that a finding about several names."""
_MOST_BANDS = 16
"""Bands whose names are all shown."""


def doctor(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Rasters, or folders of them.")
    ],
    sensor: Annotated[
        str | None,
        typer.Option(
            "--sensor", help="The sensor card you mean to read them with.", show_default="guess it"
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option("--bands", help="Band names of files that do not name them, e.g. VV,VH."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of text.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Say what rasters are and what is wrong with them, with the option that mends it.

    Looks at the header and a sample of each file. Exit code 1 if there are errors: files that
    `skysense embed` would refuse or make nonsense of. Example:

    skysense doctor scenes/ --sensor s2_l2a
    """
    from skysense.data.doctor import count_files, examine

    names = [name.strip() for name in bands.split(",")] if bands else None
    with progress_bar("looking at", "files", count_files(files), quiet) as advance:
        report = examine(files, sensor, names, advance)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        _print(report)
    if report.count("error"):
        raise typer.Exit(1)


def _print(report: "Report") -> None:
    """A block a file, what concerns several, the summary and the commands."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for file in report.files:
        _print_file(console, file, report.of(file.path))
    for finding in report.across:
        named = ", ".join(Path(path).name for path in finding.files[:_MOST_FILES])
        more = len(finding.files) - _MOST_FILES
        _print_finding(console, finding, f"{named}{f' and {more} more' if more > 0 else ''}: ")
    if report.across:
        console.print()
    counts = [(report.count(kind), kind) for kind in ("error", "warning", "note")]
    summary = ", ".join(f"{n} {kind}{'s' * (n != 1)}" for n, kind in counts)
    of_files = f"{len(report.files)} file{'s' * (len(report.files) != 1)}"
    if not report.commands:
        console.print(f"{of_files}: {summary}; as they are, no command embeds them")
    elif len(report.commands) == 1:
        console.print(f"{of_files}: {summary}; to embed: {report.commands[0]}", markup=False)
    else:
        console.print(f"{of_files}: {summary}; to embed, place by place:")
        console.print("\n".join(report.commands), markup=False)


def _print_file(console: "Console", file: "FileReport", findings: "tuple[Finding, ...]") -> None:
    """What a file is, and the findings about it."""
    console.print(file.path, style="bold", markup=False)
    if file.shape is not None:
        size = f"{file.metres:.3g} m" if file.metres else "pixels of unknown size"
        names = [name or "(no name)" for name in file.bands]
        if len(names) > _MOST_BANDS:
            names = [*names[:3], "...", f"{names[-1]} ({len(names)})"]
        bands = ", ".join(names)
        nodata = "none" if file.nodata is None else file.nodata
        console.print(
            f"  {file.shape[0]} x {file.shape[1]}, {size}, {file.crs or 'no CRS'}, {file.dtype}, "
            f"{file.date or 'no date'}, nodata {nodata}; bands {bands}",
            markup=False,
        )
    if file.guess is not None:
        others = f" (or {', '.join(file.guess.others)})" if file.guess.others else ""
        why = "; ".join(file.guess.reasons)
        console.print(f"  sensor {file.guess.card}{others}: {why}", markup=False)
    for finding in findings:
        _print_finding(console, finding, "")
    console.print()


def _print_finding(console: "Console", finding: "Finding", about: str) -> None:
    """Severity, code, sentence, and the fix below it."""
    from rich.text import Text

    line = Text("  ").append(finding.severity, _STYLES[finding.severity])
    console.print(line.append(f" {finding.code}: {about}{finding.message}"))
    if finding.fix:
        console.print(f"      fix: {finding.fix}", markup=False)
