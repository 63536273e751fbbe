"""`skysense evaluate`: how much frozen features say about labelled images."""

import json
import os
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skysense.cli.options import check_folder, pick_device, progress_bar, terse_warnings

if TYPE_CHECKING:
    from skysense.data.labelled import LabelledSet
    from skysense.tasks.probe import ProbeResult


class Protocol(StrEnum):
    """How the vectors are classified."""

    knn = "knn"
    linear = "linear"


class Against(StrEnum):
    """What a model is compared with."""

    random = "random"


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Labelled training images: a folder of class folders, or a CSV (path,label) "
            "beside its images.",
            show_default=False,
        ),
    ],
    test: Annotated[
        Path | None,
        typer.Option(
            "--test",
            help="Labelled test images. Default: what the CSV's column `split` calls test, or "
            "else a fifth of each class of --data.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name, folder or hub id (see `skysense info`).")
    ] = "v2_nano",
    protocol: Annotated[
        Protocol, typer.Option("--protocol", help="Weighted nearest neighbors, or a linear probe.")
    ] = Protocol.knn,
    sensor: Annotated[
        str, typer.Option("--sensor", help="Sensor card of all images (see `skysense info`).")
    ] = "rgb8",
    bands: Annotated[
        str | None,
        typer.Option("--bands", help="Band names of images that do not name them: B2,B3,..."),
    ] = None,
    neighbors: Annotated[
        int, typer.Option("--neighbors", min=1, help="Neighbors that vote (knn).")
    ] = 20,
    least_size: Annotated[
        int | None,
        typer.Option(
            "--least-size",
            min=0,
            help="Pixels that images are enlarged to first where their longer side is shorter; 0 "
            "leaves all as they are. Default: what the model's vectors were fitted with.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Against | None,
        typer.Option("--against", help="Also score an untrained model of the same configuration."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file as JSON.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder to keep the vectors in for the next run.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images computed at a time.")
    ] = 32,
    device: Annotated[
        str, typer.Option("--device", help="cpu, cuda, cuda:1, mps; auto takes the best there is.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the split, the held-out images, the intervals.")
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but the table and errors.")
    ] = False,
) -> None:
    """Score the frozen features of a model on labelled images.

    Each image becomes one vector; test vectors are classified by training vectors. Prints
    accuracy, macro F1 and the recall of each class, with 95% intervals over test images. Example:

    skysense evaluate --model v2_nano --data train --test test --protocol linear --json scores.json
    """
    from skysense.hub import load, pack
    from skysense.models.embedding import own_least_size
    from skysense.models.encoder import UntrainedModelWarning, warn_if_untrained
    from skysense.sensors import get_sensor
    from skysense.tasks.probe import (
        difference,
        evaluate,
        fit_read_out,
        random_twin,
        train_and_test,
    )
    from skysense.tasks.probe.vectors import VectorCache, fingerprint

    card = get_sensor(sensor)
    _check_output(output)
    train_set, test_set = train_and_test(data, test, seed)
    names = [name.strip() for name in bands.split(",")] if bands else None
    device = pick_device(device)
    loaded = load(model, device)
    if least_size is None:
        least_size = own_least_size(loaded, card.modality)
    models = [loaded] if against is None else [loaded, random_twin(loaded, seed + 1)]
    results = []
    total = len(models) * (len(train_set) + len(test_set))
    with terse_warnings(quiet), progress_bar("embedding", "images", total, quiet) as advance:
        warn_if_untrained(loaded)
        warnings.simplefilter("ignore", UntrainedModelWarning)  # said once; the twin is meant to be
        for twin in models[1:]:
            fit_read_out(twin, loaded, train_set, sensor, names, least_size, batch_size)
        for current in models:
            kept = VectorCache(cache, fingerprint(current)) if cache else None
            result = evaluate(
                pack(current),
                train_set,
                test_set,
                protocol.value,
                sensor,
                bands=names,
                batch_size=batch_size,
                neighbors=neighbors,
                seed=seed,
                cache=kept,
                advance=advance,
                least_size=least_size,
            )
            results.append(result)
    facts = results[0].facts() | {
        "least_size": least_size,
        "split": _split_in_words(test, train_set, test_set, seed),
    }
    if against:
        value, interval = difference(results[0].scores, results[1].scores, seed)
        facts["random"] = results[1].facts()
        facts["difference"] = {"accuracy": value, "interval": list(interval)}
    _print(results, facts)
    if output:
        _write(output, facts)


def _check_output(output: Path | None) -> None:
    """Refuse before the work begins what cannot be written after it."""
    if output is None:
        return
    if output.is_dir():
        raise ValueError(f"{output} is a folder; give the name of a file")
    check_folder(output)


def _split_in_words(
    test: Path | None, train_set: "LabelledSet", test_set: "LabelledSet", seed: int
) -> str:
    """Where the test images are from."""
    from skysense.tasks.probe.evaluation import TEST_SHARE

    if test is not None:
        return "given"
    if {part.lower() for part in test_set.parts or ()} == {"test"}:
        return "column `split` of the CSV"
    return f"{TEST_SHARE:.0%} of each class, drawn with seed {seed}"


def _print(results: "list[ProbeResult]", facts: dict[str, Any]) -> None:
    """The scores side by side, then the recall of each class."""
    from rich.console import Console
    from rich.table import Table

    first = results[0]
    console = Console()
    least = facts["least_size"]
    size = f"enlarged to {least} pixels where they are smaller" if least else "as they are"
    console.print(
        f"{first.protocol} of {first.test_images} images of {first.test} by {first.train_images} "
        f"images of {first.train} as `{first.sensor}`, {size}; test images: {facts['split']}"
    )
    table = Table("", *_titles(results))
    for title, name in (("accuracy", "accuracy"), ("macro F1", "macro_f1")):
        table.add_row(title, *(_with_interval(result, name) for result in results))
    for i, name in enumerate(first.classes):
        recalls = [result.scores.recall[i] for result in results]
        cells = ["not tested" if value != value else f"{value:.3f}" for value in recalls]
        table.add_row(f"recall of {name}", *cells)
    console.print(table)
    if "difference" in facts:
        low, high = facts["difference"]["interval"]
        gain = facts["difference"]["accuracy"]
        console.print(
            f"accuracy above that of the random twin: {gain:+.3f} ({low:+.3f}...{high:+.3f})"
        )
    for result in results:
        chosen = ", ".join(f"{key} {value:.6g}" for key, value in result.scores.settings.items())
        console.print(f"{result.model}: {chosen}; {result.seconds:.1f} s")


def _titles(results: "list[ProbeResult]") -> list[str]:
    """The heads of the columns."""
    model = results[0].model + ("" if results[0].trained is not False else " (untrained)")
    return [model, "random twin"][: len(results)]


def _with_interval(result: "ProbeResult", name: str) -> str:
    """A score and its interval."""
    low, high = getattr(result.scores, f"{name}_interval")
    return f"{getattr(result.scores, name):.3f} ({low:.3f}...{high:.3f})"


def _write(output: Path, facts: dict[str, Any]) -> None:
    """Write under a temporary name and rename."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
