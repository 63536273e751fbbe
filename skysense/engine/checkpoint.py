"""Checkpoints: complete or absent, the last few kept, any world size into any other.

A checkpoint is a folder `step-00000020` with `facts.json` and what `torch.distributed.checkpoint`
writes: one file of tensors for each rank and an index. All ranks call `save` and `restore`; the
folder is one that all of them see. Nothing is unpickled but names, shapes and offsets.
"""

import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as read_tensors
from torch.distributed.checkpoint.state_dict_saver import save as write_tensors

from skysense.engine.distributed import rank, world_size
from skysense.engine.index import Reader
from skysense.engine.state import RANDOM, State, apply, expected, tensors_of, values_of

FACTS_NAME = "facts.json"
_NAME = re.compile(r"step-(\d{8,})")
_PART = ".part"
_OLD = ".old"

Facts = Mapping[str, Any]


def save(
    folder: str | Path,
    step: int,
    state: State,
    facts: Facts,
    keep_last: int | None = None,
) -> Path:
    """Write a checkpoint, all or nothing, then remove old ones.

    It is made under a temporary name and renamed when complete on all ranks. The random generators
    of each rank go with it. Learning rates and other options of an optimizer do not: they are the
    recipe's.

    Args:
        folder: where the checkpoints of a run are; made if need be.
        step: how many steps are done.
        state: modules, optimizers, tensors, and values for JSON, by name.
        facts: what `restore` compares and returns, for JSON.
        keep_last: how many checkpoints remain, this one among them; by default all.

    Returns:
        The new checkpoint's folder.

    Raises:
        ValueError: it cannot be written, as on a full disk; what was there before stays.
    """
    folder = Path(folder)
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}{_PART}"
    described = {"step": step, "world": world_size(), "facts": facts, "values": values_of(state)}
    text = json.dumps(described, indent=2) + "\n"
    try:
        with _explained(f"checkpoint {target} could not be written"):
            _on_first(lambda: _prepare(folder, temporary))
            _write(temporary, state)
            _on_first(lambda: _complete(temporary, target, text))
            _on_first(lambda: _remove_old(folder, target, keep_last))
    except BaseException:
        if rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def latest(folder: str | Path) -> Path | None:
    """The complete checkpoint with the highest step, if there is one."""
    found = checkpoints(folder)
    return found[-1] if found else None


def checkpoints(folder: str | Path) -> list[Path]:
    """All complete checkpoints, the oldest first, without what an interrupted run left."""
    folder = Path(folder)
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted((path for path in found if (path / FACTS_NAME).is_file()), key=_step)


def read_facts(path: str | Path) -> dict[str, Any]:
    """What `save` was told, without the tensors: `step`, `world`, `facts` and `values`.

    Raises:
        ValueError: no checkpoint, or a damaged one.
    """
    try:
        described = json.loads((Path(path) / FACTS_NAME).read_text("utf-8"))
        return {key: described[key] for key in ("step", "world", "facts", "values")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error!r})") from None


def restore(path: str | Path, state: State, facts: Facts) -> dict[str, Any]:
    """Read a checkpoint into modules, optimizers and tensors, in place.

    The random generators continue where they stood, on ranks that the checkpoint knows.

    Args:
        path: the checkpoint's folder.
        state: what `save` had, or some of it, under the same names and in whatever mode; plain
            values are ignored.
        facts: what has to be the same, such as the architecture; facts not named here may differ.

    Returns:
        `step`, `world`, `facts` and `values` as saved.

    Raises:
        ValueError: other facts, other parameters, no checkpoint or a damaged one.
    """
    described = read_facts(path)
    _compare_facts(path, described["facts"], facts)
    with _explained(f"checkpoint {path} could not be read"):
        reader = Reader(path)
        stored = reader.shapes()
        table = expected(state, stored)
        _compare_shapes(path, stored, {key: value.shape for key, value in table.items()})
        with _no_process_group_is_fine():
            read_tensors(dict(table), storage_reader=reader, no_dist=world_size() == 1)
    apply(state, table)
    return described


def _step(path: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(path.name.removeprefix("step-"))


def _write(temporary: Path, state: State) -> None:
    """Each rank's tensors and the index."""
    writer = FileSystemWriter(temporary, overwrite=False)
    with _no_process_group_is_fine():
        write_tensors(tensors_of(state), storage_writer=writer, no_dist=world_size() == 1)


def _prepare(folder: Path, temporary: Path) -> None:
    """Clean what an interrupted run left, and make an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f".step-*{_OLD}"):
        original = folder / old.name[1:].removesuffix(_OLD)
        if not original.exists():  # interrupted between two renames
            os.replace(old, original)
        shutil.rmtree(old, ignore_errors=True)
    for part in folder.glob(f".step-*{_PART}"):
        shutil.rmtree(part)
    temporary.mkdir()


def _complete(temporary: Path, target: Path, text: str) -> None:
    """Add the facts, let everything reach the disk, and give the folder its name."""
    with (temporary / FACTS_NAME).open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(temporary)
    previous = target.with_name(f".{target.name}{_OLD}")
    if target.exists():
        os.replace(target, previous)
    os.replace(temporary, target)
    _sync_folder(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


def _remove_old(folder: Path, newest: Path, keep_last: int | None) -> None:
    """Remove all but the last few, and never the newest."""
    if keep_last is None:
        return
    others = [path for path in checkpoints(folder) if path != newest]
    for path in others[: max(0, len(others) - max(keep_last, 1) + 1)]:
        doomed = path.with_name(f".{path.name}{_PART}")
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _on_first(work: Callable[[], None]) -> None:
    """Do something on rank 0 alone, and fail on all ranks where it fails.

    Raises:
        OSError: it failed.
    """
    problem: list[str | None] = [None]
    if rank() == 0:
        try:
            work()
        except OSError as error:
            problem = [str(error)]
    if world_size() > 1:
        dist.broadcast_object_list(problem, 0)
    if problem[0] is not None:
        raise OSError(problem[0])


@contextmanager
def _no_process_group_is_fine() -> Iterator[None]:
    """Without the warning that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn failures of files, ours and PyTorch's, into one line.

    Raises:
        ValueError: something failed.
    """
    try:
        yield
    except CheckpointException as error:  # a BaseException
        number, (first, _) = next(iter(error.failures.items()))
        where = f" on rank {number}" if world_size() > 1 else ""
        raise ValueError(f"{what}{where}: {_reason(first)}") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{what}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """The first error of a chain, on one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return " ".join(str(error).split()) or type(error).__name__


def _compare_facts(path: str | Path, stored: Facts, wanted: Facts) -> None:
    """Refuse a checkpoint of something else.

    Raises:
        ValueError: it names each difference.
    """
    wanted = json.loads(json.dumps(wanted))  # tuples are lists in JSON
    have, want = _flat({key: stored.get(key) for key in wanted}), _flat(wanted)
    differ = [
        f"`{key}` is {have.get(key)!r} there and {want.get(key)!r} here"
        for key in sorted(have.keys() | want.keys())
        if have.get(key) != want.get(key)
    ]
    if differ:
        more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise ValueError(
            f"checkpoint {path} does not fit: {'; '.join(differ[:5])}{more}. Continue with the "
            f"recipe it was made with, or start in another folder"
        )


def _flat(values: Facts, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _compare_shapes(
    path: str | Path, stored: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]
) -> None:
    """Refuse a checkpoint with other tensors than are wanted.

    Raises:
        ValueError: it names some of them.
    """
    parts = {key.partition(".")[0] for key in wanted} - {
        RANDOM
    }  # ranks have generators of their own
    other = [
        f"`{key}` is {tuple(stored[key])} there and {tuple(wanted[key])} here"
        for key in wanted
        if key in stored and stored[key] != wanted[key]
    ]
    missing = [f"`{key}` is missing" for key in wanted if key not in stored]
    extra = [
        f"`{key}` is not wanted"
        for key in stored
        if key not in wanted and key.partition(".")[0] in parts
    ]
    found = [*other, *missing, *extra]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(f"checkpoint {path} does not fit: {'; '.join(found[:5])}{more}")
