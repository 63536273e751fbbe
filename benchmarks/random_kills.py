"""`skysense embed` killed at random moments: nothing lost, nothing done twice, the same bytes?

Runs of a small Sentinel-2 and Sentinel-1 scene end by SIGKILL at random moments of their three
phases: start-up, computing, assembling (blending and writing what is left, the GeoTIFF or store,
its picture and its STAC item). Each is then completed by the same command. Limits: every file
beside the output, the output too, has the bytes of a run without a break; no finished task is
computed again. Run: python benchmarks/random_kills.py [--form .zarr]
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

from _common import finish
from _scenes import write_series

from skysense.inference.work import WorkFolder

PHASES = ("start-up", "computing", "computing", "assembling")
"""Of one kill after the other."""
ATTEMPTS = 10
"""Runs that may be done before one is hit."""
SHORTER = 0.8
"""The time in which a moment is drawn after a run that was done before it, of that before."""
POLL_SECONDS = 0.005

_LOGGED = """
import json, sys, time
from skysense.cli import main
from skysense.inference import pipeline

log, compute = open(sys.argv[1], "a", buffering=1), pipeline.compute

def logged(job, loaded):
    part, task = compute(job, loaded), loaded.task
    log.write(json.dumps([task.index, task.row, len(task.tiles), time.time()]) + chr(10))
    return part

pipeline.compute = logged
sys.argv = ["skysense", *sys.argv[2:]]
main()
"""
"""The command, which also tells of each task that it computed."""


@dataclass(frozen=True)
class Done:
    """A task that was computed."""

    index: int
    row: int
    """Of tiles."""
    tiles: int
    at: float
    """Seconds since the epoch."""


class Command:
    """`skysense embed` of one scene into one folder."""

    def __init__(self, folder: Path, scene: dict[str, list[Path]], arguments: list[str]) -> None:
        """Name it; nothing runs."""
        folder.mkdir()
        self.folder, self.output = folder, folder / arguments[0]
        self._log = folder.with_suffix(".log")
        files = [text for key, paths in scene.items() for p in paths for text in (f"--{key}", p)]
        picture = ["--quicklook", folder / "map.png", "-o", self.output]
        command = [sys.executable, "-c", _LOGGED, self._log, "embed", "-q", *arguments[1:]]
        self._command = [str(part) for part in (*command, *files, *picture)]

    def start(self) -> "subprocess.Popen[bytes]":
        """Begin; what an earlier run computed is forgotten."""
        self._log.write_text("")
        return subprocess.Popen(self._command)

    def complete(self) -> tuple[float, float]:
        """Run to the end; when it began and when all was done, in seconds since the epoch.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        began = time.time()
        process = self.start()
        while process.poll() is None and not self.is_complete():
            time.sleep(POLL_SECONDS)
        ended = time.time()
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, self._command)
        return began, ended

    def computed(self) -> list[Done]:
        """Tasks that the last run computed; a line that a kill cut off does not count."""
        lines = self._log.read_text().split("\n")[:-1]
        return [Done(*json.loads(line)) for line in lines]

    def bytes(self) -> dict[str, str]:
        """Every file beside the output, hidden ones too, and what it holds."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }

    def is_complete(self) -> bool:
        """Whether a run had nothing left to do but to leave: the map is there, its work is not."""
        return self.output.exists() and not WorkFolder(self.output).path.exists()

    def kept(self, tasks: list[Done]) -> set[int]:
        """Tasks whose result a killed run left, in its own file or in finished rows."""
        work = WorkFolder(self.output)
        rows, _ = work.committed()
        return {task.index for task in tasks if task.row < rows} | set(work.finished())


def kill(command: Command, tasks: int, wait: float) -> bool:
    """Start a command and kill it.

    Args:
        command: of an empty folder.
        tasks: how many must be computed first.
        wait: seconds more.

    Returns:
        Whether it was hit before all was done.
    """
    process = command.start()
    while process.poll() is None and len(command.computed()) < tasks:
        time.sleep(POLL_SECONDS)
    time.sleep(wait)
    process.kill()
    return process.wait() == -signal.SIGKILL and not command.is_complete()


@dataclass(frozen=True)
class Whole:
    """A run without a break."""

    tasks: list[Done]
    files: dict[str, str]
    """What it left, as of `Command.bytes`."""
    spans: dict[str, tuple[int, float]]
    """Phase to the tasks that are computed when it begins, and its seconds from then on."""

    @classmethod
    def of(cls, command: Command) -> "Whole":
        """Run a command."""
        began, ended = command.complete()
        tasks = command.computed()
        first, last = tasks[0].at, tasks[-1].at
        spans = {
            "start-up": (0, first - began),
            "computing": (1, last - first),
            "assembling": (len(tasks), ended - last),
        }
        return cls(tasks, command.bytes(), spans)

    def tiles(self, indexes: set[int]) -> int:
        """Tiles of some tasks."""
        return sum(task.tiles for task in self.tasks if task.index in indexes)


def kill_and_complete(
    commands: Iterator[Command], whole: Whole, phase: str, rng: random.Random
) -> dict[str, Any] | None:
    """Facts of one kill; none if no run was hit.

    Args:
        commands: each of an empty folder.
        whole: what is expected.
        phase: in which it is to be killed.
        rng: draws the moment.
    """
    tasks, span = whole.spans[phase]
    for attempt, command in enumerate(islice(commands, ATTEMPTS)):
        wait = rng.uniform(0, span * SHORTER**attempt)
        if not kill(command, tasks, wait):
            continue
        kept = command.kept(whole.tasks)
        command.complete()
        again = {task.index for task in command.computed()}
        found, expected = command.bytes(), whole.files
        return {
            "phase": phase,
            "after_s": round(wait, 3),
            "tiles_kept": whole.tiles(kept),
            "tiles_again": whole.tiles(kept & again),
            "differing": sorted(
                file for file in {*found, *expected} if found.get(file) != expected.get(file)
            ),
        }
    return None


def all_kills(options: argparse.Namespace, whole: Whole, commands: Iterator[Command]) -> list[Any]:
    """Facts of every kill, printed as they come."""
    rng, started = random.Random(options.seed), time.monotonic()
    rows = []
    for i, phase in enumerate(islice(cycle(PHASES), options.kills)):
        if time.monotonic() - started > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over after {i} kills")
            break
        row = kill_and_complete(commands, whole, phase, rng)
        if row is None:
            print(f"kill {i:3}  {phase:10}  {ATTEMPTS} runs were done before they were hit")
            continue
        rows.append(row)
        differing = row["differing"]
        same = f"DIFFERENT: {', '.join(differing)}" if differing else "same bytes"
        print(
            f"kill {i:3}  {phase:10} + {row['after_s']:6.3f} s  tiles kept {row['tiles_kept']:4}, "
            f"done again {row['tiles_again']:3}  {same}",
            flush=True,
        )
    return rows


def main() -> None:
    """Run without a break, then kill and complete as often as asked, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="v2_nano")
    parser.add_argument("--size", type=int, default=224, help="Sentinel-2 pixels of a side")
    parser.add_argument("--form", choices=(".tif", ".zarr", ".parquet"), default=".tif")
    parser.add_argument("--minutes", type=float, default=15, help="no kill is begun later")
    options = parser.parse_args()
    arguments = [f"map{options.form}", "--model", options.model, "--tile", "64", "--overlap", "16"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        scene = write_series(root / "scene", (options.size, options.size), (2, 1))
        commands = (Command(root / f"run{i}", scene, arguments) for i in count())
        next(commands).complete()  # the system's caches are warm from here on
        whole = Whole.of(next(commands))
        seconds = {phase: round(span, 2) for phase, (_, span) in whole.spans.items()}
        tiles = whole.tiles({task.index for task in whole.tasks})
        print(f"without a break: {seconds} s, {tiles} tiles", flush=True)
        rows = all_kills(options, whole, commands)
    different = sum(bool(row["differing"]) for row in rows)
    again = sum(row["tiles_again"] for row in rows)
    print(f"{len(rows)} kills: {different} with other bytes, {again} finished tiles done again")
    finish(
        "random_kills" if options.form == ".tif" else f"random_kills_{options.form[1:]}",
        {
            "model": options.model,
            "form": options.form,
            "size": options.size,
            "seed": options.seed,
            "tiles": tiles,
            "seconds_by_phase": seconds,
            "files": sorted(whole.files),
            "asked": options.kills,
            "kills": len(rows),
            "with_other_bytes": different,
            "tiles_done_again": again,
            "limits": {"with_other_bytes": 0, "tiles_done_again": 0},
            "each": rows,
        },
        len(rows) == options.kills and not different and not again,
    )


if __name__ == "__main__":
    main()
