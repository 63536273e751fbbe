"""Full disks, signals, sudden death: one line, the right exit code, never a half map."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio

import skysense as package

resource = pytest.importorskip("resource", reason="no such limits here")

ENOUGH = 400  # KiB for the map of the fixture `image` at stage 1, while it is made


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def whole_or_refused(result, output, expected):
    """A run near the limit either makes the same map as ever, or says why not and leaves none."""
    folder = output.parent
    if result.exit_code == 0:
        np.testing.assert_array_equal(read(output), expected)
        return True
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "free some space" in line or "MB are free" in line
    kept = folder / f".{output.name}.work"  # finished tasks, from which the next run would go on
    shutil.rmtree(kept, ignore_errors=True)
    others = {"filler", "map.json"}  # the STAC item of an earlier map of the same name
    assert {path.name for path in folder.iterdir()} <= others
    return False


@pytest.fixture
def expected(embed, image):
    assert embed(image, "--stage", "1").exit_code == 0
    return read(embed.output)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of one mebibyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # a map may still be open in memory


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_full_disk(embed, image, expected, small_disk, dtype):
    output = small_disk / "map.tif"
    if dtype != "float16":
        assert embed(image, "--stage", "1", "--dtype", dtype).exit_code == 0
        expected = read(embed.output)
    ends = set()
    for free in (0, 16, 52, 56, 64, 72, 80, 88, 96, 112, ENOUGH):
        (small_disk / "filler").write_bytes(bytes((1024 - free) << 10))
        result = embed(image, "--stage", "1", "--dtype", dtype, output=output)
        ends.add(whole_or_refused(result, output, expected))
        output.unlink(missing_ok=True)
    assert ends == {True, False}


def test_files_that_may_not_grow(embed, image, expected, capfd):
    """Like a full disk, but for anybody: a limit on the size of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ends = set()
    for limit in (10, 48, 50, 56, 64, ENOUGH):  # KiB
        embed.output.unlink(missing_ok=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit << 10, before[1]))
        try:
            result = embed(image, "--stage", "1")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        ends.add(whole_or_refused(result, embed.output, expected))
    assert ends == {True, False}
    assert capfd.readouterr().err == "", "nor did a library print past us"


@pytest.fixture(autouse=True)
def signals_arrive():
    """As in a terminal: a suite started in the background or under nohup inherits them ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals_in_the_middle(embed, image, monkeypatch, name):
    """Sent from within, while the first tiles are computed."""
    number = getattr(signal, name, None) or pytest.skip(f"no {name} here")
    handler = signal.getsignal(number)
    from skysense.inference.embed import embed_scene

    def interrupted(*arguments):
        embed_scene(*arguments[:5], lambda tiles: os.kill(os.getpid(), number))

    monkeypatch.setattr("skysense.inference.embed.embed_scene", interrupted)
    result = embed(image, "--tile", "32", "--overlap", "0", "--batch-size", "1")
    assert result.exit_code == 128 + number
    word = "interrupted" if name == "SIGINT" else "terminated"
    assert result.stderr == f"{word}: stopped early, nothing half-written is left\n"
    assert {path.name for path in embed.output.parent.iterdir()} <= {".map.tif.work"}
    assert signal.getsignal(number) == handler, "as it was"


def test_a_signal_that_c_code_turns_into_an_error(embed, image, monkeypatch):
    def interrupted(*_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error

    monkeypatch.setattr("skysense.inference.embed.embed_scene", interrupted)
    result = embed(image)
    assert result.exit_code == 130
    assert result.stderr == "interrupted: stopped early, nothing half-written is left\n"


def test_ignored_signals_stay_ignored(embed, image, monkeypatch):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from skysense.inference.embed import embed_scene

        def hung_up(*arguments):
            os.kill(os.getpid(), signal.SIGHUP)
            embed_scene(*arguments)

        monkeypatch.setattr("skysense.inference.embed.embed_scene", hung_up)
        assert embed(image).exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def running(raster, tmp_path):
    """A run in a process of its own that has begun to write and will take long to end."""
    scene = raster("scene.tif", np.resize(np.arange(20, 200, dtype=np.uint8), (3, 1024, 1024)))
    output = tmp_path / "out" / "map.tif"
    command = [
        *(sys.executable, "-m", "skysense", "embed", str(scene), "-o", str(output)),
        *("-m", "v2_tiny", "-q", "--tile", "32", "--overlap", "0", "--batch-size", "1"),
        *("--stage", "1"),
    ]
    root = str(Path(package.__file__).parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True
    )
    waited = time.monotonic() + 100
    while not any(output.parent.glob(".map.tif.work/rows.f32")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < waited, "it never began"
        time.sleep(0.05)
    process.output, process.scene = output, scene
    yield process
    process.kill()
    process.communicate()


def test_ctrl_c(running):
    running.send_signal(signal.SIGINT)
    _, message = running.communicate(timeout=60)
    assert running.returncode == 130, message
    assert message == "interrupted: stopped early, nothing half-written is left\n"
    assert {path.name for path in running.output.parent.iterdir()} <= {".map.tif.work"}


def test_kill_leaves_no_map_and_another_run_is_told(running, embed, image):
    running.kill()
    running.communicate(timeout=60)
    assert not running.output.exists()
    if (running.output.parent / ".map.tif.work/committed.json").exists():
        refused = embed(image, output=running.output)
        assert refused.exit_code == 2
        assert "unfinished work with other" in refused.stderr
    assert embed(image, "--restart", output=running.output).exit_code == 0
    names = {path.name for path in running.output.parent.iterdir()}
    assert names == {"map.json", "map.tif"}
