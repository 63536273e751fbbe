"""The metrics file, the display, and TensorBoard."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from skysense.engine.log import Log, read_metrics


def make_log(folder, terminal=False, **options):
    """A log and what it showed."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=120)
    return Log(folder, 20, console=console, **options), shown


def test_one_object_a_line(tmp_path):
    log, _ = make_log(tmp_path / "run")
    with log:
        log.write(1, {"loss": 2.5, "norm": float("nan")}, samples=4)
        log.write(2, {"loss": 0.1}, samples=4)
        complete = (tmp_path / "run" / "metrics.jsonl").read_text()  # before it is closed

    lines = [json.loads(line) for line in complete.splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 2.5), (2, 0.1)]
    assert lines[0]["norm"] is None
    assert lines[1]["samples_per_second"] > 0
    assert lines[0]["time"] > 1.7e9


def test_resumed_log_drops_what_comes_again(tmp_path):
    log, _ = make_log(tmp_path)
    with log:
        for step in range(1, 8):
            log.write(step, {"loss": step / 3})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 8, "lo')  # killed while writing

    log, _ = make_log(tmp_path, start=5)
    with log:
        log.write(6, {"loss": 9.0})

    lines = read_metrics(path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert (lines[4]["loss"], lines[5]["loss"]) == (5 / 3, 9.0)
    assert [item.name for item in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_plain_lines_where_there_is_no_terminal(tmp_path):
    log, shown = make_log(tmp_path, every=10)
    with log:
        for step in range(1, 21):
            log.write(step, {"loss": 1.25, "hidden": 3.0} | ({"knn": 0.5} if step == 4 else {}), 2)
        log.say("saved [step 20]")

    lines = shown.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step 10/20 loss 1.25 knn 0.5 ")
    assert "samples/s" in lines[0]
    assert lines[1].endswith("0:00:00 left")
    assert lines[2] == "saved [step 20]"


def test_a_bar_in_a_terminal(tmp_path):
    log, shown = make_log(tmp_path, terminal=True, start=3)
    with log:
        log.write(4, {"loss": 1.25}, samples=2)

    assert "4/20" in shown.getvalue()
    assert "loss 1.25" in shown.getvalue()


def test_other_ranks_are_silent(tmp_path, monkeypatch):
    monkeypatch.setattr("skysense.engine.log.rank", lambda: 1)
    log, shown = make_log(tmp_path / "run", terminal=True)
    with log:
        log.write(20, {"loss": 1.0})
        log.say("hello")

    assert not (tmp_path / "run").exists()
    assert shown.getvalue() == ""


def test_tensorboard_gets_the_values(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, *values):
            written.append(values)

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboard", SimpleNamespace())
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer)
    )
    log, _ = make_log(tmp_path, start=5, tensorboard=True)
    with log:
        log.write(6, {"loss": 2.0})

    assert written == [(str(tmp_path / "tensorboard"), 6), ("loss", 2.0, 6), "closed"]


def test_missing_tensorboard_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)

    with pytest.raises(ValueError, match=r"skysense\[track\]"):
        make_log(tmp_path, tensorboard=True)
