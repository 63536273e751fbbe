"""The run in a table, and in two sentences: did it learn, and did its features collapse?"""

from collections.abc import Iterator, Mapping
from typing import Any

from skysense.pretrain.report.charts import Reference
from skysense.pretrain.report.metrics import Metrics, Series
from skysense.pretrain.report.page import Section, paragraph, table

FEATURE_STD_FLOOR = 0.2
"""Below it the vectors of different images are all but one: mean cosine similarity 0.96 [ours]."""
EFFECTIVE_RANK_FLOOR = 4.0
"""Below it they spread in a handful of directions alone [ours]."""
_END = 10
"""What a value is at the end is its mean over one such part of its lines."""

_WATCHED = (
    ("feature_std", "Feature standard deviation", FEATURE_STD_FLOOR),
    ("effective_rank", "Effective rank", EFFECTIVE_RANK_FLOOR),
)


def summary_section(
    metrics: Metrics, recipe: Mapping[str, Any], facts: Mapping[str, Any]
) -> Section:
    """Verdicts and the table.

    Args:
        metrics: of the run.
        recipe: its plain values; empty where there is none.
        facts: further rows, nested or not.
    """
    verdicts = (judge_learning(metrics), judge_spread(metrics))
    told = [
        paragraph(text, "verdict" if good else "verdict bad")
        for good, text in filter(None, verdicts)
    ]
    rows = {**_rows(metrics, recipe), **dict(_flat(facts))}
    return Section("Summary", "".join(told) + table(rows))


def judge_learning(metrics: Metrics) -> tuple[bool, str] | None:
    """Whether kNN went past that of untrained weights; `None` where it was not asked."""
    knn, random = metrics.series("knn"), random_knn(metrics)
    if not len(knn) or random is None:
        return None
    last, level = knn.values[-1], random.series.values[-1]
    good = bool(last > level)
    word = "above" if good else "not above"
    return good, f"kNN accuracy is {last:.3f} at the end, {word} {level:.3f} {random.label}."


def judge_spread(metrics: Metrics) -> tuple[bool, str] | None:
    """Whether the features collapsed; `None` where it was not watched."""
    found = [(name, metrics.series(key), floor) for key, name, floor in _WATCHED]
    watched = [(name, series, floor) for name, series, floor in found if len(series)]
    if not watched:
        return None
    good = all(end_value(series) >= floor for _, series, floor in watched)
    told = "; ".join(
        f"{name.lower()} {end_value(series):.3g} at the end, floor {floor:g}"
        for name, series, floor in watched
    )
    if not good:
        return False, f"The features collapsed: {told}."
    dipped = [name.lower() for name, series, floor in watched if series.values.min() < floor]
    after = f" On the way {' and '.join(dipped)} went below." if dipped else ""
    return True, f"The features did not collapse: {told}.{after}"


def random_knn(metrics: Metrics) -> Reference | None:
    """The kNN score of untrained weights: the random twin's, or that before the first step."""
    twin = metrics.series("knn_random")
    if len(twin):
        return Reference("with random weights", twin)
    knn = metrics.series("knn")
    if len(knn) > 1 and knn.steps[0] == 0:
        return Reference("before training", Series(knn.steps[:1], knn.values[:1]))
    return None


def duration_text(seconds: float) -> str:
    """Hours and minutes, or what is shorter."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _rows(metrics: Metrics, recipe: Mapping[str, Any]) -> dict[str, str]:
    """What the metrics alone tell."""
    rows = {"Steps": f"{metrics.steps:,}"}
    elapsed, data = metrics.elapsed(), recipe.get("data")
    if elapsed is not None:
        rows["Wall time"] = f"{duration_text(elapsed)}, pauses included"
    batch_size = data.get("batch_size") if isinstance(data, Mapping) else None
    if isinstance(batch_size, int):
        rows["Samples seen"] = f"{metrics.steps * batch_size:,}"
    speed = metrics.series("samples_per_second")
    if len(speed):
        rows["Samples a second"] = f"{end_value(speed):.3g} at the end"
    loss = metrics.series("loss")
    if len(loss):
        rows["Total loss"] = f"{end_value(loss):.4g} at the end, {loss.values[0]:.4g} at first"
    rows.update(_knn_row(metrics))
    for key, name, floor in _WATCHED:
        series = metrics.series(key)
        if len(series):
            lowest = f"lowest {series.values.min():.3g}, floor {floor:g}"
            rows[name] = f"{end_value(series):.3g} at the end, {lowest}"
    return rows


def _knn_row(metrics: Metrics) -> dict[str, str]:
    """The last kNN score, the best one, and that of untrained weights."""
    knn, random = metrics.series("knn"), random_knn(metrics)
    if not len(knn):
        return {}
    text = f"{knn.values[-1]:.3f} at the end, best {knn.values.max():.3f}"
    if random is not None:
        text += f", {random.series.values[-1]:.3f} {random.label}"
    return {"kNN accuracy": text}


def end_value(series: Series) -> float:
    """The mean over the last tenth of its lines."""
    return float(series.values[-max(len(series) // _END, 1) :].mean())


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Rows of facts, one a leaf."""
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value))
        elif isinstance(value, int) and not isinstance(value, bool):
            yield name, f"{value:,}"
        else:
            yield name, f"{value:.6g}" if isinstance(value, float) else str(value)
