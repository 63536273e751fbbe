"""Processes of torchrun share the tasks of a plan and write the bytes of one process."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

NOISE = np.random.default_rng(0).integers(20, 200, (3, 256, 192)).astype(np.uint8)


@pytest.fixture
def embed(raster, tmp_path):
    """`embed(name, processes) -> command` of a scene of many tiles."""
    path = raster("a.tif", NOISE)

    def command(name, processes):
        python = [sys.executable]
        if processes > 1:
            python += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
            python += ["--master-port", "29611"]
        options = ["--tile", "32", "--overlap", "0", "--batch-size", "1", "--quiet"]
        return [*python, "-m", "skysense", "embed", path, "-o", tmp_path / name, *options]

    return command


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(embed, tmp_path):
    for name, processes in (("one.tif", 1), ("two.tif", 2)):
        subprocess.run(embed(name, processes), env=environment(), check=True)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


@pytest.mark.slow
def test_what_two_killed_processes_kept_is_gone_on_with_by_one(embed, tmp_path):
    subprocess.run(embed("one.tif", 1), env=environment(), check=True)
    started = subprocess.Popen(
        embed("two.tif", 2), env=environment(), start_new_session=True, stderr=subprocess.DEVNULL
    )
    kept = tmp_path / ".two.tif.work"
    while started.poll() is None and len(list(kept.glob("*.npz"))) < 3:
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    subprocess.run(embed("two.tif", 1), env=environment(), check=True)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
