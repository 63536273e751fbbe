"""Reading ahead: a thread or processes that make items while the caller uses the last one.

Both give the items of 0, 1, 2, ... in order, raise the error of whoever reads in the caller's
thread, and stop when the caller closes the iterator.
"""

import itertools
import multiprocessing
import queue
import threading
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

ItemT = TypeVar("ItemT")

AHEAD = 2
"""Items that wait, of the thread or of each process."""

_PATIENCE = 0.1
"""Seconds after which a waiting thread looks whether it should stop."""


def read_ahead(read: Callable[[int], ItemT], start: int) -> Generator[ItemT, None, None]:
    """`read(start)`, `read(start + 1)`, ... by a thread.

    `read` must not start threads of torch's own: a second team of them beside the one that
    computes would cost both dearly.
    """
    waiting: queue.Queue[ItemT | _Failure] = queue.Queue(AHEAD)
    stop = threading.Event()

    def put(item: "ItemT | _Failure") -> None:
        while not stop.is_set():
            try:
                return waiting.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
        return None

    def work() -> None:
        try:
            for number in itertools.count(start):
                if stop.is_set():
                    return
                put(read(number))
        except BaseException as error:  # raised in the caller's thread
            put(_Failure(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            yield _checked(waiting.get())
    finally:
        stop.set()
        thread.join()


def read_with_workers(
    read: Callable[[int], ItemT], start: int, workers: int
) -> Generator[ItemT, None, None]:
    """`read(start)`, `read(start + 1)`, ... by processes; `read` is sent to each of them."""
    methods = multiprocessing.get_all_start_methods()
    items = DataLoader(
        _Numbered(read),
        batch_size=None,
        sampler=itertools.count(start),
        collate_fn=_same,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="forkserver" if "forkserver" in methods else "spawn",
        generator=torch.Generator(),  # leaves the random state of the caller alone
    )
    for item in items:
        yield _checked(item)


class _Failure:
    """An error on its way to the caller."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _checked(item: ItemT | _Failure) -> ItemT:
    """The item; an error is raised."""
    if isinstance(item, _Failure):
        raise item.error
    return item


def _same(item: ItemT) -> ItemT:
    """The item."""
    return item


class _Numbered(Dataset[ItemT | _Failure], Generic[ItemT]):
    """Items by number; errors are sent as they are, without the worker's traceback."""

    def __init__(self, read: Callable[[int], ItemT]) -> None:
        self._read = read

    def __getitem__(self, number: int) -> ItemT | _Failure:
        """Item number `number`."""
        try:
            return self._read(number)
        except Exception as error:
            return _Failure(error)
