"""The table's numbers, and the verdicts on either side of the floors."""

import html

import pytest

from skysense.pretrain.report.metrics import load_metrics
from skysense.pretrain.report.summary import (
    EFFECTIVE_RANK_FLOOR,
    FEATURE_STD_FLOOR,
    duration_text,
    judge_learning,
    judge_spread,
    random_knn,
    summary_section,
)


@pytest.fixture
def metrics(write_metrics):
    return lambda lines: load_metrics(write_metrics(lines))


def test_rows(metrics, lines):
    recipe = {"data": {"batch_size": 64}}
    facts = {"parameters": 2214312, "device": "<cpu>", "samples": {"hr": 3}, "dates": [1, 2]}
    body = html.unescape(summary_section(metrics(lines()), recipe, facts).body)
    for name, value in {
        "Steps": "80",
        "Wall time": "2 min 40 s, pauses included",
        "Samples seen": "5,120",
        "Samples a second": "30 at the end",
        "Total loss": "8.2 at the end, 8.9 at first",
        "kNN accuracy": "0.500 at the end, best 0.500, 0.250 before training",
        "Feature standard deviation": "0.6 at the end, lowest 0.6, floor 0.2",
        "parameters": "2,214,312",
        "device": "<cpu>",
        "samples.hr": "3",
        "dates": "1, 2",
    }.items():
        assert f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' in body


@pytest.mark.parametrize(
    "recipe", [{}, {"data": None}, {"data": {}}, {"data": {"batch_size": "x"}}]
)
def test_what_is_not_known_is_left_out(metrics, recipe):
    body = summary_section(metrics([{"step": 5, "lr": 0.1}]), recipe, {}).body
    assert body.count("<tr>") == 1
    assert "verdict" not in body


@pytest.mark.parametrize(
    ("std", "rank", "good"),
    [
        (FEATURE_STD_FLOOR, EFFECTIVE_RANK_FLOOR, True),
        (FEATURE_STD_FLOOR - 0.01, 50.0, False),
        (0.9, EFFECTIVE_RANK_FLOOR - 0.1, False),
    ],
)
def test_collapse(metrics, lines, std, rank, good):
    verdict = judge_spread(metrics(lines(feature_std=std, effective_rank=rank)))
    assert verdict is not None
    assert verdict[0] == good
    assert verdict[1].startswith("The features did not collapse" if good else "The features coll")


def test_recovery_is_told(metrics):
    values = [0.1, *[0.5] * 9]
    verdict = judge_spread(metrics([{"step": i, "feature_std": v} for i, v in enumerate(values)]))
    assert verdict is not None
    assert verdict[0]
    assert verdict[1].endswith("On the way feature standard deviation went below.")


@pytest.mark.parametrize(
    ("values", "good", "words"),
    [
        ([(0, 0.2), (9, 0.6)], True, "0.600 at the end, above 0.200 before training"),
        ([(0, 0.4), (9, 0.4)], False, "0.400 at the end, not above 0.400 before training"),
    ],
)
def test_learning(metrics, values, good, words):
    verdict = judge_learning(metrics([{"step": step, "knn": knn} for step, knn in values]))
    assert verdict == (good, f"kNN accuracy is {words}.")


def test_the_random_twin_comes_before_the_first_score(metrics):
    lines = [{"step": 0, "knn": 0.2}, {"step": 9, "knn": 0.6, "knn_random": 0.3}]
    reference = random_knn(metrics(lines))
    assert reference is not None
    assert (reference.label, list(reference.series.values)) == ("with random weights", [0.3])


@pytest.mark.parametrize("steps", [[5], [0], [5, 10]])
def test_without_a_score_before_training_there_is_no_comparison(metrics, steps):
    found = metrics([{"step": step, "knn": 0.5} for step in steps])
    assert random_knn(found) is None
    assert judge_learning(found) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5 s"),
        (59.4, "59.4 s"),
        (59.9, "1 min 0 s"),
        (3661, "1 h 1 min"),
        (9e5, "250 h 0 min"),
    ],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text
