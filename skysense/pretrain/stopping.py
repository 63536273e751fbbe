"""Stop between two steps when a signal asks for it, so that nothing is lost."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from skysense.engine.distributed import Ranks, sum_over_ranks

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class Stopped(KeyboardInterrupt):
    """A signal ended the run; everything up to the last step is saved."""


class StopRequest:
    """Whether a signal came; a second one ends the program at once."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self.number: int | None = None

    def handle(self, number: int, _: FrameType | None) -> None:
        """Remember the signal, or give up at the second."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def agreed(self, ranks: Ranks) -> bool:
        """Whether any rank was asked to stop; all of them answer alike."""
        if ranks.world == 1:
            return self.number is not None
        asked = torch.tensor(float(self.number or 0), device=ranks.device)
        total = int(sum_over_ranks(asked))
        if total and self.number is None:
            self.number = signal.SIGTERM
        return total > 0


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch Ctrl-C, SIGTERM and SIGUSR1 (as clusters send before the time is up) while inside."""
    request = StopRequest()
    before: dict[int, Any] = {}
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, request.handle)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
