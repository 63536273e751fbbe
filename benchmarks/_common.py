"""What every benchmark shares: its closing line, its saved result, alternating timing."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
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
