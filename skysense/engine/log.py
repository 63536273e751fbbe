"""What a run says: one JSON object a line, a live display, and TensorBoard when asked.

`step` counts the steps that are done: a checkpoint of step 20 and the line of step 20 belong
together. Rank 0 alone writes and shows.
"""

import json
import math
import os
import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from skysense._optional import require
from skysense.engine.distributed import rank

METRICS_NAME = "metrics.jsonl"
_RECENT = 50


class Log:
    """Metrics to a file and to the screen, from one step on to the last.

    A context manager; what it writes is complete line by line, whatever ends the run.
    """

    def __init__(
        self,
        folder: str | Path,
        total: int,
        *,
        start: int = 0,
        every: int = 10,
        shown: tuple[str, ...] = ("loss", "knn"),
        tensorboard: bool = False,
        console: Console | None = None,
    ) -> None:
        """Continue or begin `metrics.jsonl`; lines after step `start` are dropped.

        Args:
            folder: of the run; made if need be.
            total: steps of the whole run.
            start: steps that are done already.
            every: where the console is no terminal, one plain line every so many steps.
            shown: which values the display has, in order.
            tensorboard: also write event files to `folder/tensorboard` (extra `track`).
            console: where to show; by default the standard error stream.

        Raises:
            ValueError: TensorBoard is asked for and not installed.
            OSError: the file cannot be written.
        """
        self.total, self.every, self.shown = total, max(every, 1), shown
        self.writes = rank() == 0
        self._latest: dict[str, float] = {}
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=_RECENT)
        self._recent.append((time.monotonic(), 0, start))
        self._progress: Progress | None = None
        self._board: Any = None
        if not self.writes:
            return
        self._console = console or Console(stderr=True)
        path = Path(folder) / METRICS_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        if tensorboard:
            self._board = _board(path.parent / "tensorboard", start)
        drop_after(path, start)
        self._file = path.open("a", encoding="utf-8")
        if self._console.is_terminal:
            self._progress = _progress(self._console)
            self._task = self._progress.add_task("", total=total, completed=start, said="")
            self._progress.start()

    def write(self, step: int, values: Mapping[str, float], samples: int = 0) -> None:
        """Record a step.

        Args:
            step: steps done.
            values: by name; what is not finite is written as null.
            samples: seen in this step, over all ranks.
        """
        if not self.writes:
            return
        seen = self._recent[-1][1] + samples
        self._recent.append((time.monotonic(), seen, step))
        self._latest |= values
        speed = {"samples_per_second": round(self.samples_per_second(), 2)} if samples else {}
        line: dict[str, float | None] = {"step": step, "time": round(time.time(), 3)}
        line |= {key: _plain(value) for key, value in {**values, **speed}.items()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
        self._show(step)

    def say(self, text: str) -> None:
        """A line for the reader, above the progress bar."""
        if self.writes:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def samples_per_second(self) -> float:
        """Over the last steps; 0 before the first."""
        (began, before, _), (now, seen, _) = self._recent[0], self._recent[-1]
        return (seen - before) / (now - began) if now > began else 0.0

    def _show(self, step: int) -> None:
        """Move the bar, or now and then print a line."""
        said = " ".join(
            f"{key} {self._latest[key]:.4g}" for key in self.shown if key in self._latest
        )
        said += f" {self.samples_per_second():.1f} samples/s"
        if self._progress is not None:
            self._progress.update(self._task, completed=step, said=said)
        elif step % self.every == 0 or step == self.total:
            self.say(f"step {step}/{self.total} {said} {self._remaining(step)} left")

    def _remaining(self, step: int) -> timedelta:
        """How long the rest takes at the speed of the last steps."""
        (began, _, first), (now, _, last) = self._recent[0], self._recent[-1]
        seconds = (now - began) / max(last - first, 1) * (self.total - step)
        return timedelta(seconds=round(seconds))

    def close(self) -> None:
        """End the display and the files."""
        if not self.writes:
            return
        if self._progress is not None:
            self._progress.stop()
        if self._board is not None:
            self._board.close()
        self._file.close()

    def __enter__(self) -> "Log":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a last one that was cut off is passed over."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [line for line in map(_parsed, lines) if line is not None]


def drop_after(path: Path, step: int) -> None:
    """Remove, all or nothing, the lines of steps after `step`, and what is cut off."""
    if not path.exists():
        return
    kept = [line for line in read_metrics(path) if line["step"] <= step]
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)


def _parsed(line: str) -> dict[str, Any] | None:
    """One line, or `None` where it is no object with a step."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and "step" in values else None


def _plain(value: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def _progress(console: Console) -> Progress:
    """Step of steps, bar, time left, and what the run says."""
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        console=console,
        refresh_per_second=2,
    )


def _board(folder: Path, start: int) -> Any:  # noqa: ANN401
    """A TensorBoard writer that hides what an interrupted run wrote after `start`.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    require("tensorboard", "track")
    writer: Any = require("torch.utils.tensorboard", "track")
    return writer.SummaryWriter(str(folder), purge_step=start + 1)
