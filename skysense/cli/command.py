"""How every command ends: errors of the user are one line on stderr and exit code 2."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from typer.core import TyperCommand, TyperGroup

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(KeyboardInterrupt):
    """Another signal than Ctrl-C: leave in the same way, so that nothing half-written stays."""


def _terminated(number: int, _: FrameType | None) -> None:
    """Raise what came in the main thread."""
    raise Terminated(number)


@contextmanager
def _signals() -> Iterator[None]:
    """Let signals that end the program end it through the `finally` blocks."""
    before: dict[signal.Signals, Any] = {}
    try:
        with suppress(ValueError):  # they can be set in the main thread alone
            for number in _SIGNALS:
                if signal.getsignal(number) == signal.SIG_DFL:  # under nohup it stays ignored
                    before[number] = signal.signal(number, _terminated)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn what is expected to go wrong into a line and an exit code; the rest is a bug of ours."""
    try:
        yield
    except KeyboardInterrupt as error:
        _leave(error)
    except Exception as error:
        before = error.__cause__ or error.__context__
        if isinstance(before, KeyboardInterrupt):  # it came while C code was running
            _leave(before)
        text = _explained(error)
        if text is None:
            raise
        _say(f"error: {text}")
        sys.exit(2)


def _leave(error: KeyboardInterrupt) -> NoReturn:
    """Say which signal ended it, and what is left; Ctrl-C raises an error that tells neither."""
    number, *said = error.args or (signal.SIGINT,)
    left = said[0] if said else "stopped early, nothing half-written is left"
    _say(f"{'interrupted' if number == signal.SIGINT else 'terminated'}: {left}")
    sys.exit(128 + number)


def _explained(error: Exception) -> str | None:
    """What to say of an error; `None` for what is not the user's to mend."""
    kind = type(error)
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        return None  # the reader of our output left; typer knows what to do
    if kind.__name__ == "NoArgsIsHelpError":
        return None  # the help is the message
    if hasattr(error, "format_message"):  # the parser's, of whichever click typer comes with
        where = getattr(getattr(error, "ctx", None), "command_path", "skysense")
        return f"{error.format_message().rstrip('.')} (see `{where} --help`)"
    starved = isinstance(error, MemoryError) or kind.__name__ == "OutOfMemoryError"
    if starved or "DefaultCPUAllocator" in str(error):
        return f"out of memory ({error}); give a smaller --tile or --batch-size"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | OSError) or kind.__module__.startswith("rasterio."):
        return str(error) or kind.__name__
    return None


class Program(TyperGroup):
    """The program: every error of the user in any command ends in one line, without traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Parse the program's own options."""
        with _one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Parse and run the command."""
        with _signals(), _one_line():
            return super().invoke(ctx)


class ManyValues(TyperCommand):
    """Lets `--s2 a.tif b.tif` stand for `--s2 a.tif --s2 b.tif`."""

    many = ("--hr", "--s2", "--s1")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Repeat the option before each of its values, then parse as usual."""
        expanded: list[str] = []
        option: str | None = None
        for argument in [*args, "--"]:
            if argument.startswith("-"):
                if expanded and expanded[-1] in self.many:
                    raise ValueError(f"{expanded[-1]} needs a file or a folder after it")
                name = argument.partition("=")[0]
                option = name if name in self.many else None
            elif option is not None and expanded[-1] != option:
                expanded.append(option)
            expanded.append(argument)
        return super().parse_args(ctx, expanded[:-1])


def _say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(" ".join(text.split()) + "\n")
