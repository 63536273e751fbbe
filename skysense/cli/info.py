"""`skysense info`: which models and sensors there are."""

import json
from typing import Annotated

import typer


def info(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of tables.")
    ] = False,
) -> None:
    """List the models with their parameters by part, and the sensor cards."""
    from skysense.hub import describe, list_models
    from skysense.sensors import SENSORS

    models = [describe(name) for name in list_models()]
    if as_json:
        facts = {
            "models": {
                model.name: {"parameters": dict(model.parameters), "trained": model.trained}
                for model in models
            },
            "sensors": list(SENSORS),
        }
        typer.echo(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Models (millions of parameters)")
    for column in ("model", *models[0].parameters, "weights"):
        table.add_column(column, justify="left" if column in ("model", "weights") else "right")
    for model in models:
        counts = [f"{count / 1e6:.2f}" for count in model.parameters.values()]
        table.add_row(model.name, *counts, "trained" if model.trained else "random")
    console.print(table)
    table = Table(title="Sensors (--sensor)")
    for column in ("sensor", "feeds", "bands", "unit", "what it is"):
        table.add_column(column)
    for card in SENSORS.values():
        bands = " ".join(band.name for band in card.bands)
        table.add_row(card.name, card.modality, bands, card.unit, card.title)
    console.print(table)
