"""What a run keeps beside its output until that is complete, so that it can go on after any end.

In the folder `.NAME.work`: the manifest, which says whose work it is; a file a finished task; the
rows of the map that are complete; how many those are. Every file gets its name when it is whole,
and rows count when they are told: a process may be killed at any moment. A lock, which the system
releases when its process ends, keeps a second process out.

Legend: B tiles of a task that hold anything, D bands of the map, h w cells of a tile.
"""

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps a second process out
    fcntl = None  # type: ignore[assignment]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

VERSION = 1
"""Of the manifest and the files beside it."""

_PART = re.compile(r"^task-(\d{8})\.npz$")


def lost(folder: Path) -> ValueError:
    """What to say of a folder that lacks what it says is finished, as after a power cut."""
    return ValueError(f"{folder} has lost what it says is finished: begin anew with --restart")


@dataclass(frozen=True)
class Part:
    """What a task found."""

    seen: tuple[int, ...]
    """Which of its tiles hold anything at all."""
    values: FloatArray
    """`(B, D, h, w)` of those."""
    valid: BoolArray
    """`(B, h, w)`."""
    pictures: tuple[FloatArray, ...] = field(default=())
    """What the picture of the scene takes of each tile, `(3, rows, columns)`, if there is one."""

    def to_bytes(self) -> bytes:
        """As the contents of a file."""
        buffer = io.BytesIO()
        pictures = {f"picture_{i}": picture for i, picture in enumerate(self.pictures)}
        seen = np.array(self.seen, np.int64)
        np.savez(buffer, seen=seen, values=self.values, valid=self.valid, **pictures)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Part":
        """From the contents of a file.

        Raises:
            ValueError: they are damaged.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                pictures = [name for name in arrays.files if name.startswith("picture_")]
                pictures.sort(key=lambda name: int(name.removeprefix("picture_")))
                return cls(
                    tuple(arrays["seen"].tolist()),
                    arrays["values"],
                    arrays["valid"],
                    tuple(arrays[name] for name in pictures),
                )
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"a finished task is damaged: {error}") from None


class WorkFolder:
    """The work of one output. Of several processes one holds it, and others may add tasks."""

    def __init__(self, output: Path) -> None:
        """Name it; nothing is made."""
        self.output = output
        self.path = output.parent / f".{output.name}.work"
        self._lock: IO[str] | None = None

    def open(self, identity: Mapping[str, Any], restart: bool = False) -> bool:
        """Make it or go on with it, and keep others out.

        Args:
            identity: all that the result depends on, as plain values.
            restart: throw away what is there.

        Returns:
            Whether there is work to go on with.

        Raises:
            ValueError: another process holds it, it belongs to other work or another version, or
                nothing can be written there.
        """
        try:
            self._acquire()
            if restart:
                self._empty()
            known = self._manifest()
            if known is not None:
                self._compare(known, identity)
                return True
            self._empty()
            self._write("manifest.json", json.dumps({"version": VERSION, **identity}).encode())
        except OSError as error:
            self.close()
            raise ValueError(
                f"cannot write to {self.output.parent}: {error.strerror}; free some space there "
                f"or choose another folder"
            ) from None
        except ValueError:
            self.close()
            raise
        return False

    def _acquire(self) -> None:
        """Hold the lock; a folder that its last holder just removed is made again."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = open(self.path / "lock", "a", encoding="utf-8")  # noqa: SIM115
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.close()
                    raise ValueError(
                        f"{self.output} is being written by another process; wait for it or choose "
                        f"another output"
                    ) from None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), os.stat(self.path / "lock")):
                    self._lock = lock
                    return
            lock.close()

    def _manifest(self) -> dict[str, Any] | None:
        """What the folder says of itself, if anything."""
        try:
            text = (self.path / "manifest.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        return values if isinstance(values, dict) else {}

    def _compare(self, known: dict[str, Any], identity: Mapping[str, Any]) -> None:
        """Refuse work that is not this work.

        Raises:
            ValueError: it is of another version or differs; the message says in what.
        """
        version = known.pop("version", None)
        begin = f"begin anew with --restart, or choose another output than {self.output}"
        if version != VERSION:
            raise ValueError(
                f"{self.path} holds unfinished work of another version of skysense (manifest "
                f"{version}, here {VERSION}): {begin}"
            )
        wanted = json.loads(json.dumps(identity))
        differing = [key for key in wanted if wanted[key] != known.get(key)]
        if differing:
            raise ValueError(
                f"{self.path} holds unfinished work with other {', '.join(differing)}: repeat "
                f"the command that began it, {begin}"
            )

    def _empty(self) -> None:
        """Remove everything but the lock."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def close(self) -> None:
        """Let others in, and keep what is there; a folder without finished work goes."""
        if self._lock is None:
            return
        if not self.finished() and not self.committed()[1]:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        self._lock = None

    def remove(self) -> None:
        """Remove it: the output is complete."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def finished(self) -> list[int]:
        """Tasks whose results are here, in order."""
        if not self.path.is_dir():
            return []
        found = (_PART.match(name) for name in os.listdir(self.path))
        return sorted(int(match[1]) for match in found if match)

    def put(self, index: int, part: Part) -> None:
        """Keep a task's result.

        Raises:
            OSError: the disk is full, or it cannot be written for another reason.
        """
        self._write(self._name(index), part.to_bytes())

    def get(self, index: int) -> Part | None:
        """A task's result, if it is here and whole."""
        try:
            return Part.from_bytes((self.path / self._name(index)).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:  # of a file system that lost its end: to be computed again
            self.drop(index)
            return None

    def drop(self, index: int) -> None:
        """Forget a task's result."""
        (self.path / self._name(index)).unlink(missing_ok=True)

    def keep_pictures(self, index: int, part: Part) -> None:
        """Keep what the picture of the scene takes of a task when the task itself is forgotten."""
        empty = Part((), part.values[:0], part.valid[:0], part.pictures)
        self._write(f"picture-{index:08}.npz", empty.to_bytes())

    def pictures(self, index: int) -> tuple[FloatArray, ...]:
        """What was kept of a task for the picture of the scene."""
        path = self.path / f"picture-{index:08}.npz"
        return Part.from_bytes(path.read_bytes()).pictures if path.is_file() else ()

    def commit(self, tile_rows: int, rows: int) -> None:
        """Say how many rows of tiles, and of the map, are complete and written."""
        values = {"tile_rows": tile_rows, "rows": rows}
        self._write("committed.json", json.dumps(values).encode())

    def committed(self) -> tuple[int, int]:
        """Rows of tiles, and of the map, that are complete and written."""
        try:
            values = json.loads((self.path / "committed.json").read_text(encoding="utf-8"))
            return int(values["tile_rows"]), int(values["rows"])
        except FileNotFoundError:
            return 0, 0
        except (ValueError, TypeError, KeyError):  # a power cut can leave an empty file
            raise lost(self.path) from None

    def _write(self, name: str, data: bytes) -> None:
        """A file that has its name only when it is whole."""
        temporary = self.path / f"{name}.{os.getpid()}.part"
        try:
            temporary.write_bytes(data)
            os.replace(temporary, self.path / name)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    @staticmethod
    def _name(index: int) -> str:
        return f"task-{index:08}.npz"
