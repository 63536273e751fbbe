"""How every command ends: errors of the user are one line on stderr and exit code 2."""

import signal
import sys
from types import FrameType
from typing import Any

from typer.core import TyperCommand


def _terminated(number: int, _: FrameType | None) -> None:
    """Leave through the `finally` blocks, so that nothing half-written stays."""
    sys.exit(128 + number)


class Command(TyperCommand):
    """A command whose expected errors carry no traceback; a traceback is a bug of ours."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command."""
        signal.signal(signal.SIGTERM, _terminated)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("interrupted: nothing was written")
            sys.exit(130)
        except (ValueError, OSError) as error:
            _say(f"error: {' '.join(str(error).split())}")
            sys.exit(2)


class ManyValues(Command):
    """Lets `--s2 a.tif b.tif` stand for `--s2 a.tif --s2 b.tif`."""

    many = ("--hr", "--s2", "--s1")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Repeat the option before each of its values, then parse as usual."""
        expanded: list[str] = []
        option: str | None = None
        for argument in args:
            if argument.startswith("-"):
                option = argument if argument in self.many else None
            elif option is not None and expanded[-1] != option:
                expanded.append(option)
            expanded.append(argument)
        return super().parse_args(ctx, expanded)


def _say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")
