"""Options that commands share: where to compute, where to write, warnings, progress."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer


def pick_device(name: str) -> str:
    """Check what `--device` says; `auto` picks one."""
    from skysense.engine import devices

    return devices.pick_device(name, "--device")


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Join the processes that `torchrun` started, if it did; gives the device to compute on."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield pick_device(device)
        return
    from skysense.engine.distributed import start, stop

    ranks = start(device)
    try:
        yield str(ranks.device)
    finally:
        stop()


def check_folder(path: Path) -> None:
    """Say before the work begins that an output's folder cannot be had or written to."""
    from skysense.data.writing import existing_folder

    folder = existing_folder(path)
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise ValueError(f"{path} cannot be written: no permission to write in {folder}")


@contextmanager
def terse_warnings(quiet: bool) -> Iterator[None]:
    """Warnings as one line each, without file and source."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if not quiet:
            typer.echo(f"note: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def progress_bar(doing: str, unit: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal; gives what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        unit,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.update(task, advance=count)
