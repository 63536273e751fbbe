import errno
import sys
from pathlib import Path

import numpy as np
import pytest

from skysense.data.writing import temporary_beside
from skysense.inference.stores import STORE_SUFFIXES, check_store, write_store
from skysense.inference.stores import folders as folders_module

pytest.importorskip("zarr")
pytest.importorskip("pyarrow")
pytest.importorskip("lancedb")


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


async def no_space_async(*args, **kwargs):
    no_space()


FAILURES = {
    ".zarr": ("zarr.storage.LocalStore.set", no_space_async),
    ".parquet": ("pyarrow.parquet.ParquetWriter.write_table", no_space),
    ".lance": ("lancedb.table.LanceTable.add", no_space),
}


@pytest.mark.parametrize("suffix", STORE_SUFFIXES)
def test_a_full_disk_leaves_what_was_there(source, tmp_path, monkeypatch, tree, suffix):
    path = tmp_path / f"map{suffix}"
    write_store(source(), path, "float32")
    before = tree(path)
    monkeypatch.setattr(*FAILURES[suffix])

    with pytest.raises(ValueError, match=r"map\..* could not be written \(.*No space left"):
        write_store(source(), path, "float32")

    assert tree(path) == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", STORE_SUFFIXES)
def test_an_error_of_the_rows_leaves_nothing(source, values, tmp_path, small_bands, suffix):
    map_ = source()
    good = map_.rows

    def rows(first, stop):
        if first or stop == 23:
            raise KeyboardInterrupt
        return good(first, stop)

    object.__setattr__(map_, "rows", rows)

    with pytest.raises(KeyboardInterrupt):
        write_store(map_, tmp_path / f"map{suffix}", "float32")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("suffix", STORE_SUFFIXES)
def test_an_output_is_replaced(source, values, tmp_path, monkeypatch, tree, suffix, exchange):
    if not exchange:
        monkeypatch.setattr(folders_module, "_exchange", lambda first, second: False)
    path = tmp_path / f"map{suffix}"
    write_store(source(values(seed=1)), path, "float32")
    before = tree(path)

    write_store(source(values(seed=2)), path, "float32")

    assert tree(path) != before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_swap_that_fails_in_the_middle_is_undone(source, tmp_path, monkeypatch, tree):
    path = tmp_path / "map.zarr"
    write_store(source(), path, "float32")
    before = tree(path)
    monkeypatch.setattr(folders_module, "_exchange", lambda first, second: False)
    rename, calls = folders_module.os.rename, []

    def second_fails(first, second):
        calls.append(first)
        if len(calls) == 2:
            raise OSError(errno.EACCES, "Permission denied")
        rename(first, second)

    monkeypatch.setattr(folders_module.os, "rename", second_fails)

    with pytest.raises(ValueError, match="Permission denied"):
        write_store(source(), path, "float32")
    assert tree(path) == before


@pytest.mark.parametrize("suffix", [".tif", ".ZARR", "", ".csv"])
def test_another_suffix_is_refused(source, tmp_path, suffix):
    with pytest.raises(ValueError, match=r"must end in \.zarr, \.parquet, \.lance"):
        write_store(source(), tmp_path / f"map{suffix}", "float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "module", "extra"),
    [
        (".zarr", "zarr", "stores"),
        (".parquet", "pyarrow", "stores"),
        (".lance", "lancedb", "search"),
    ],
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, suffix, module, extra):
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ValueError, match=rf"needs `{module}`: run `pip install 'skysense\[{extra}"):
        check_store(tmp_path / f"map{suffix}")


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".zarr", "int8"), *((s, "float16") for s in STORE_SUFFIXES)]
)
def test_a_map_without_a_valid_cell_is_refused(source, tmp_path, suffix, dtype):
    empty = source(np.full((3, 8, 9), np.nan, np.float32))

    with pytest.raises(ValueError, match="no cell of the map holds a vector"):
        write_store(empty, tmp_path / f"map{suffix}", dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", STORE_SUFFIXES)
def test_what_is_not_ours_is_not_replaced(source, tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    path.mkdir()
    (path / "thesis.txt").write_text("all of it")

    with pytest.raises(ValueError, match="choose another name"):
        write_store(source(), path, "float16")
    assert (path / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize("suffix", [".zarr", ".lance"])
def test_a_file_in_place_of_a_folder_is_not_replaced(source, tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    path.write_text("kept")

    with pytest.raises(ValueError, match="is not a folder"):
        write_store(source(), path, "float16")
    assert path.read_text() == "kept"


def test_a_zarr_of_others_is_not_replaced(source, tmp_path):
    import zarr

    zarr.open_group(str(tmp_path / "map.zarr"), mode="w").create_array(
        "features", shape=(2,), dtype="int8"
    )

    with pytest.raises(ValueError, match="was not written here"):
        write_store(source(), tmp_path / "map.zarr", "float16")


def test_a_table_of_others_is_not_replaced(source, tmp_path):
    import lancedb

    lancedb.connect(str(tmp_path)).create_table("map", data=[{"a": 1}])

    with pytest.raises(ValueError, match="was not written here"):
        write_store(source(), tmp_path / "map.lance", "float16")


def test_rows_that_lie_beside_the_output_are_left_alone(source, tmp_path):
    path = tmp_path / "map.zarr"
    kept = temporary_beside(path)
    kept.mkdir()
    (kept / "rows.f32").write_bytes(b"1234")

    write_store(source(), path, "float16")

    assert (kept / "rows.f32").read_bytes() == b"1234"


@pytest.mark.parametrize("suffix", STORE_SUFFIXES)
def test_progress_adds_up_to_the_height(source, tmp_path, small_bands, suffix):
    steps = []
    write_store(source(), tmp_path / "new" / f"map{suffix}", "float16", steps.append)

    assert sum(steps) == 23


@pytest.mark.parametrize("suffix", STORE_SUFFIXES)
def test_a_partly_missing_vector_counts_as_missing(source, values, tmp_path, suffix):
    map_ = values(missing=0)
    map_[2, 10, 10] = np.inf
    path = tmp_path / f"map{suffix}"
    write_store(source(map_), path, "float32")

    assert [10, 10] not in found_cells(path)
    assert [10, 11] in found_cells(path)


def found_cells(path: Path) -> list[list[int]]:
    """`[row, col]` of the cells that a store holds."""
    if path.suffix == ".zarr":
        import zarr

        return np.argwhere(np.isfinite(zarr.open_group(str(path))["features"][0, 0])).tolist()
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
    else:
        import lancedb

        table = lancedb.connect(str(path.parent)).open_table(path.stem).to_arrow()
    return [
        list(cell) for cell in zip(*(table[k].to_pylist() for k in ("row", "col")), strict=True)
    ]


def test_values_beyond_half_precision_are_refused(source, values, tmp_path):
    for suffix in STORE_SUFFIXES:
        with pytest.raises(ValueError, match="half precision only 65504; store it as float32"):
            write_store(source(1e6 * values()), tmp_path / f"map{suffix}", "float16")
    assert not list(tmp_path.iterdir())
