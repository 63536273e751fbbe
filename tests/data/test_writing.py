"""What is written appears complete or not at all, and its failures are one line."""

import os
import subprocess
import sys

import pytest

from skysense.data.writing import (
    clean_stale,
    existing_folder,
    temporary_beside,
    working_folder,
    writing,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_what_killed_runs_left_is_cleaned_and_what_others_do_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = os.getppid()
    for name in ("map.tif", "map[1].tif", "other.tif"):
        for pid in (dead.pid, alive, os.getpid()):  # a container may give us our own number again
            folder = tmp_path / f".{name}.{pid}.part"
            folder.mkdir()
            (folder / "rows.f32").touch()
    (tmp_path / f".map.png.{dead.pid}.part").touch()
    (tmp_path / ".map.tif.notes.part").touch()
    clean_stale(tmp_path, "map.tif")
    clean_stale(tmp_path, "map[1].tif")
    assert names(tmp_path) == sorted(
        [
            f".map.png.{dead.pid}.part",
            f".map.tif.{alive}.part",
            ".map.tif.notes.part",
            f".map[1].tif.{alive}.part",
            *(f".other.tif.{pid}.part" for pid in (dead.pid, alive, os.getpid())),
        ]
    )
    assert temporary_beside(tmp_path / "map.png").name == f".map.png.{os.getpid()}.part"
    assert f".map.png.{dead.pid}.part" not in names(tmp_path)


@pytest.mark.parametrize("purpose", ["", ".store"])
def test_a_working_folder_goes_whatever_happens(tmp_path, purpose):
    path = tmp_path / "new" / "map.zarr"
    with working_folder(path, purpose) as folder:
        assert folder.name == f".map.zarr{purpose}.{os.getpid()}.part"
        (folder / "part").touch()
    assert names(path.parent) == []
    with pytest.raises(KeyboardInterrupt), working_folder(path, purpose) as folder:
        raise KeyboardInterrupt
    assert names(path.parent) == []


def test_no_working_folder_where_a_file_is(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/map.tif", tmp_path / "file/below/map.tif"):
        with (
            pytest.raises(ValueError, match=r"cannot be written: .*file is a file, not a folder"),
            working_folder(path),
        ):
            pass


def test_a_failing_disk_is_one_line_and_a_bug_is_not(tmp_path):
    path = tmp_path / "map.tif"
    with (
        pytest.raises(ValueError, match=r"map\.tif could not be written \(.*No space.*; free some"),
        writing(path),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(ZeroDivisionError), writing(path):
        _ = 1 / 0


@pytest.mark.parametrize("inside", ["store.zarr/zarr.json", "table.lance/_versions/1.manifest"])
def test_nothing_is_written_into_a_store(tmp_path, inside):
    part = tmp_path / inside
    part.parent.mkdir(parents=True)
    part.write_text("{}")
    store = tmp_path / inside.partition("/")[0]
    with pytest.raises(ValueError, match=f"{store} is a store, not a plain folder"):
        existing_folder(store / "below/map.tif")
    assert existing_folder(tmp_path / "map.tif") == tmp_path
