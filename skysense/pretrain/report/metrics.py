"""The numbers of a run, as its `metrics.jsonl` has them, by name.

Legend: L lines that hold a value.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.engine.log import METRICS_NAME, read_metrics

FloatArray = npt.NDArray[np.float64]

LOSS = "losses."
PART = ("seconds.", "seconds_by_part.")
"""What the names of losses and of the parts of a step begin with."""


@dataclass(frozen=True)
class Series:
    """One value over the run; steps where it was not written are left out."""

    steps: FloatArray
    """`(L,)`, steps that were done; never falling."""
    values: FloatArray
    """`(L,)`, finite."""

    def __len__(self) -> int:
        """L."""
        return len(self.values)


@dataclass(frozen=True)
class Metrics:
    """All lines of a run: nested objects have dotted names, such as `losses.image`."""

    lines: tuple[Mapping[str, float], ...]
    """Ordered by `step`; what is not a finite number is left out."""

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return int(self.lines[-1]["step"])

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that occurs, in the order of its first line."""
        return tuple(dict.fromkeys(name for line in self.lines for name in line))

    def series(self, name: str) -> Series:
        """The steps and values of one name; empty where it never occurs."""
        pairs = [(line["step"], line[name]) for line in self.lines if name in line]
        found = np.array(pairs, np.float64).reshape(-1, 2)
        return Series(found[:, 0], found[:, 1])

    def parts(self) -> dict[str, float]:
        """Mean seconds a step of each part, over all lines that tell them, largest first."""
        found: dict[str, float] = {}
        total = sum(steps for steps, _ in self._told())
        for steps, line in self._told():
            for name, seconds in line.items():
                if name.startswith(PART):
                    part = name.partition(".")[2]
                    found[part] = found.get(part, 0.0) + seconds * steps / total
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def _told(self) -> Iterator[tuple[float, Mapping[str, float]]]:
        """Lines that tell seconds of parts, each with the steps that it stands for."""
        before = 0.0
        for line in self.lines:
            if any(name.startswith(PART) for name in line):
                yield max(line["step"] - before, 1), line
                before = line["step"]

    def elapsed(self) -> float | None:
        """Seconds from the run's beginning to its last line, pauses between resumes included."""
        seconds = self.series("seconds")
        if len(seconds):
            return float(seconds.values.max())
        clock = self.series("time")
        return float(np.ptp(clock.values)) if len(clock) > 1 else None


def load_metrics(folder: Path) -> Metrics:
    """Read the metrics of a run.

    Raises:
        ValueError: there are none, or the file is no text.
        OSError: there is no such file, or it cannot be read.
    """
    path = folder / METRICS_NAME
    try:
        lines = [dict(_flat(line)) for line in read_metrics(path)]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text; expected one JSON object a line") from None
    kept = [line for line in lines if "step" in line and len(line) > 1]
    if not kept:
        raise ValueError(
            f"{path} holds no metrics; expected one JSON object a line with `step` and values, "
            "such as a run writes them"
        )
    return Metrics(tuple(sorted(kept, key=lambda line: line["step"])))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Dotted names and finite numbers; the rest is passed over."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            number = _finite(value)
            if number is not None:
                yield name, number


def _finite(value: float) -> float | None:
    """As a float, where it is one; JSON allows whole numbers of any length."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
