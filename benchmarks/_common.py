"""What every benchmark shares: its closing line, its saved result, timing, memory."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

RESULTS = Path(__file__).parent / "results"


def finish(name: str, facts: dict[str, Any], passed: bool, save: bool = True) -> NoReturn:
    """Save the facts, print `RESULT {json}`, and exit 1 where the stated limit is missed."""
    facts = {
        "benchmark": name,
        "passed": passed,
        **facts,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print("RESULT", json.dumps(facts))
    sys.exit(0 if passed else 1)


def alternate(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of each call, in turn, after one uncounted call of both."""
    first(), second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return times


def paired_ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios of neighbouring runs: holds when the machine's speed drifts."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    """Wall time from its start to its end."""
    peak_mb: float
    """Peak resident memory in MiB."""


_WATCH = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def measure(command: Sequence[str | Path]) -> Cost:
    """Wall time and peak memory of a command in a process of its own.

    A process that holds next to nothing starts it: the system counts what the parent held when it
    forked as the child's.

    Raises:
        subprocess.CalledProcessError: it failed; what it said went to stderr.
    """
    watch = [sys.executable, "-c", _WATCH, *map(str, command)]
    done = subprocess.run(watch, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak_mb = map(float, done.stdout.split())
    return Cost(seconds, peak_mb)
