"""Helpers: the functions of `on_ranks.py`, here and on several processes."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("on_ranks.py")


@pytest.fixture(scope="session")
def program():
    """The module `on_ranks.py`."""
    spec = importlib.util.spec_from_file_location("on_ranks", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_on_ranks(folder, names, world=2):
    """Run functions of `on_ranks.py` on several processes; the results of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(world), *names],
        env=os.environ | found,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world)]


@pytest.fixture
def on_ranks():
    """`on_ranks(folder, names, world) -> list[dict]`."""
    return run_on_ranks


@pytest.fixture(scope="session")
def together(tmp_path_factory, program):
    """The quick functions on two processes, started once: `(folder, results of each rank)`."""
    folder = tmp_path_factory.mktemp("ranks")
    one = program.distributed.Ranks()
    alone = {"save_none": program.save_none(one, folder)}
    names = (
        "train_ddp", "train_fsdp", "save_fsdp", "restore_into_fsdp", "restore_into_ddp",
        "resume_ddp", "resume_fsdp", "accumulated", "half_precision", "nan_on_last",
        "mode_none_is_refused", "full_disk", "killed",
    )  # fmt: skip
    return folder, alone, run_on_ranks(folder, names)
