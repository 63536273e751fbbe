"""The command line. A command's modules are imported when it is called.

Exit codes: 0 done, 1 it ran and found faults, 2 the input or the options are wrong, 130
interrupted, 143 terminated.
"""

from typing import Annotated

import typer

from skysense import __version__
from skysense.cli.command import ManyValues, Program
from skysense.cli.convert import convert
from skysense.cli.doctor import doctor
from skysense.cli.embed import embed
from skysense.cli.evaluate import evaluate
from skysense.cli.info import info
from skysense.cli.map import make_map
from skysense.cli.pretrain import pretrain
from skysense.cli.shards import shards

app = typer.Typer(
    cls=Program,
    help="SkySense: satellite scenes to features, with one model for every modality.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(cls=ManyValues)(embed)
app.command()(doctor)
app.command()(convert)
app.command()(pretrain)
app.command()(evaluate)
app.command("map", cls=ManyValues)(make_map)
app.add_typer(shards, name="shards")
app.command()(info)


def _version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        typer.echo(f"skysense {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run the command line."""
    app()
