"""Where the time of a step goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the seconds of named parts. On a GPU a part is what its launching takes."""

    def __init__(self) -> None:
        """Nothing measured yet."""
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - began
            self._seconds[name] = self._seconds.get(name, 0.0) + taken

    def means(self, steps: int) -> dict[str, float]:
        """Seconds a step of each part, as `seconds.PART`, since this was last asked."""
        found = {f"seconds.{name}": value / steps for name, value in self._seconds.items()}
        self._seconds.clear()
        return found
