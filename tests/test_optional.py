"""Optional packages: there, or an error that says which extra to install."""

import json
import sys

import pytest

from skysense._optional import require


def test_what_is_there_is_imported():
    assert require("json", "plots") is json
    assert require("json.decoder", "plots").__name__ == "json.decoder"


@pytest.mark.parametrize("name", ["matplotlib", "matplotlib.pyplot"])
def test_what_is_missing_names_the_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)

    with pytest.raises(ValueError, match=r"`matplotlib`: run `pip install 'skysense\[plots\]'`"):
        require(name, "plots")


def test_what_is_broken_names_the_extra_and_the_reason(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('operator does not exist')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ValueError, match=r"skysense\[detect\].*operator does not exist"):
        require("broken_package", "detect")
