"""`skysense pretrain`: train a model with the published method."""

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Recipe, a YAML file; see recipes/pretrain/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=VALUE", help="Replace a value of the recipe."),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(help="`auto` goes on from the last checkpoint; `never` starts anew."),
    ] = "never",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run, as `--set output=`.")
    ] = None,
) -> None:
    """Train a model; start several processes with `torchrun --nproc-per-node N -m skysense`."""
    from skysense.cli.options import terse_warnings
    from skysense.config import read_recipe
    from skysense.engine.distributed import rank
    from skysense.pretrain.recipe import Recipe
    from skysense.pretrain.run import pretrain as run

    if resume not in ("auto", "never"):
        raise ValueError(f"--resume is `auto` or `never`, got `{resume}`")
    changes = [*(overrides or []), *([] if output is None else [f"output={output}"])]
    with terse_warnings(quiet=False):
        outcome = run(read_recipe(Recipe, recipe, changes), "auto" if resume == "auto" else "never")
    if rank() == 0:
        typer.echo(f"model   {outcome.model}")
        if outcome.report is not None:
            typer.echo(f"report  {outcome.report}")
        if outcome.knn is not None:
            typer.echo(f"kNN     {outcome.knn:.3f}")
