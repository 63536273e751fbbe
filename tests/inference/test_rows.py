"""Rows of a map in a file: those that are asked for, and no more."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skysense.inference.rows import StoredRows


@pytest.fixture(scope="module")
def values():
    return np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def rows(values, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.f32"
    path.write_bytes(values.tobytes())
    return StoredRows(path, 3, 5)


def test_all_of_them(rows, values):
    assert len(rows) == 7
    assert rows.shape == values.shape
    np.testing.assert_array_equal(list(rows), values)


@given(st.integers(0, 7), st.integers(0, 7))
def test_some_of_them(rows, values, one, other):
    first, stop = sorted((one, other))
    np.testing.assert_array_equal(rows.span(first, stop), values[first:stop])


@pytest.mark.parametrize("span", [(-1, 2), (3, 2), (0, 8), (7, 9)])
def test_others_are_refused(rows, span):
    with pytest.raises(IndexError, match="there are 7 rows"):
        rows.span(*span)


def test_none_yet(tmp_path):
    (tmp_path / "rows.f32").touch()
    rows = StoredRows(tmp_path / "rows.f32", 3, 5)
    assert (len(rows), list(rows), rows.span(0, 0).shape) == (0, [], (0, 3, 5))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_is_held_is_not_mapped(rows):
    held = [rows.span(0, 7), *rows]
    assert len(held) == 8
    assert "rows.f32" not in Path("/proc/self/maps").read_text()
