"""Metrics: by name whatever their nesting, and what is damaged is passed over."""

import json

import numpy as np
import pytest

from skysense.pretrain.report.metrics import load_metrics


def test_nested_and_dotted_names_are_one(write_metrics):
    folder = write_metrics(
        [
            {"step": 10, "losses": {"image": 2.0}, "seconds_by_part": {"data": 0.5}},
            {"step": 20, "losses.image": 1.0, "seconds.data": 0.3},
        ]
    )
    metrics = load_metrics(folder)
    np.testing.assert_array_equal(metrics.series("losses.image").values, [2, 1])
    np.testing.assert_array_equal(metrics.series("losses.image").steps, [10, 20])
    assert metrics.parts() == {"data": pytest.approx(0.4)}
    assert metrics.steps == 20


@pytest.mark.parametrize("tail", ['{"step": 30, "lo', "\x00\x00\x00", "[1]\n", '{"loss": 4}\n'])
def test_damaged_lines_are_passed_over(write_metrics, tail):
    metrics = load_metrics(write_metrics([{"step": 10, "loss": 1.0}], tail))
    assert metrics.lines == ({"step": 10, "loss": 1.0},)


def test_what_is_no_finite_number_is_left_out(write_metrics):
    big = 10**400
    values = {"loss": None, "lr": float("nan"), "knn": True, "grad_norm": "3", "koleo": big}
    folder = write_metrics([{"step": 10, "feature_std": 0.5, **values}, {"step": 20, "loss": 3}])
    metrics = load_metrics(folder)
    assert metrics.names == ("step", "feature_std", "loss")
    assert len(metrics.series("lr")) == 0


@pytest.mark.parametrize("text", ["", "\n\n", "{}\n", "not JSON", '{"step": 10}\n'])
def test_no_metrics_at_all(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.jsonl holds no metrics; expected one JSON"):
        load_metrics(tmp_path)


def test_no_text(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is no text"):
        load_metrics(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_metrics(tmp_path)


def test_lines_are_ordered_by_step(write_metrics):
    folder = write_metrics([{"step": 20, "loss": 1.0}, {"step": 10, "loss": 2.0}])
    np.testing.assert_array_equal(load_metrics(folder).series("loss").values, [2, 1])


def test_parts_are_weighted_by_the_steps_that_a_line_stands_for(write_metrics):
    folder = write_metrics(
        [
            {"step": 10, "seconds.data": 1.0, "seconds.forward": 2.0},
            {"step": 15, "knn": 0.5},
            {"step": 40, "seconds.data": 3.0},
        ]
    )
    parts = load_metrics(folder).parts()
    assert list(parts) == ["data", "forward"], "longest first"
    assert parts["data"] == pytest.approx((10 * 1 + 30 * 3) / 40)
    assert parts["forward"] == pytest.approx(10 * 2 / 40)


@pytest.mark.parametrize(
    ("values", "elapsed"),
    [
        ([{"seconds": 5.0, "time": 1.0}, {"seconds": 9.0, "time": 2.0}], 9),
        ([{"time": 100.0}, {"time": 160.0}], 60),
        ([{"time": 100.0}], None),
        ([{"loss": 1.0}], None),
    ],
)
def test_elapsed(write_metrics, values, elapsed):
    folder = write_metrics([{"step": i, **line} for i, line in enumerate(values)])
    assert load_metrics(folder).elapsed() == elapsed


def test_lines_stay_as_json_wrote_them(write_metrics, lines):
    folder = write_metrics(lines())
    expected = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [dict(line) for line in load_metrics(folder).lines] == expected
