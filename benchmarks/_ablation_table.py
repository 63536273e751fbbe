"""What runs of an ablation say together: means, differences, intervals, a table.

An outcome is what `ablations.py` keeps of one run, a variant with a seed.

Legend: S seeds, Q test images, R resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.tasks.probe import Protocol

Outcome = Mapping[str, Any]
Interval = tuple[float, float]
Values = npt.NDArray[np.float64]

SETS = {"eurosat": "EuroSAT", "ucmerced": "UC Merced"}
PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear")
MEASURES = {f"{name} {how}": (name, how) for name in SETS for how in PROTOCOLS}
MEAN = "mean"
RESAMPLES = 1000
_AS_THEY_ARE = ("steps", "minutes", "samples_per_second", "feature_std", "effective_rank")


def resample(values: Sequence[Values], seed: int = 0) -> tuple[float, Interval]:
    """A mean, and the middle 95% of what it is when images and seeds are drawn anew.

    With one seed that is the bootstrap of `skysense.tasks.probe.difference`. With more, a seed
    counts with all its images: one image scored under three seeds is not three images. [ours]

    Args:
        values: `(S, Q)` of each labelled set, which count alike.
        seed: of the draw.

    Returns:
        Mean, and its low and high.
    """
    rng = np.random.default_rng(seed)
    runs = len(values[0])
    seeds = rng.multinomial(runs, np.full(runs, 1 / runs), RESAMPLES) / runs  # (R, S)
    means = np.zeros(RESAMPLES)
    for table in values:
        count = table.shape[1]
        images = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count  # (R, Q)
        means += (seeds * (images @ table.T)).sum(1) / len(values)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(np.mean([table.mean() for table in values])), (float(low), float(high))


def right(outcomes: Sequence[Outcome], measure: str) -> list[Values]:
    """Which test images were classified rightly, `(S, Q)`; of `MEAN` the share, for each set."""
    if measure == MEAN:
        return [np.mean([right(outcomes, f"{n} {p}") for p in PROTOCOLS], (0, 1)) for n in SETS]
    found = [outcome["scores"][measure] for outcome in outcomes]
    return [np.array([np.equal(s["labels"], s["predictions"]) for s in found], np.float64)]


def accuracy(outcomes: Sequence[Outcome], measure: str) -> dict[str, Any]:
    """Mean over the seeds; its interval over images where there is one seed, else its spread."""
    values = right(outcomes, measure)
    mean, interval = resample(values)
    by_seed = np.mean([table.mean(1) for table in values], 0)  # (S,)
    if len(by_seed) == 1:
        return {"accuracy": mean, "interval": interval}
    return {"accuracy": mean, "spread": float(by_seed.std(ddof=1)), "by_seed": by_seed.tolist()}


def against(outcomes: Sequence[Outcome], full: Sequence[Outcome]) -> dict[str, Any]:
    """By measure, how much more accurate a variant is than the full method, seed by seed.

    Args:
        outcomes: of the variant.
        full: of the full method; seeds that both have are compared.

    Returns:
        Difference and interval of each measure and of their mean; empty without a common seed.

    Raises:
        ValueError: they were scored on other images.
    """
    common = {o["seed"] for o in outcomes} & {o["seed"] for o in full}
    pairs = [
        sorted((o for o in side if o["seed"] in common), key=lambda o: int(o["seed"]))
        for side in (outcomes, full)
    ]
    if not common:
        return {}
    for measure in MEASURES:
        labels = [o["scores"][measure]["labels"] for side in pairs for o in side]
        if any(other != labels[0] for other in labels):
            raise ValueError(f"{measure}: the runs were scored on different images")
    found = {}
    for measure in (*MEASURES, MEAN):
        gains = [a - b for a, b in zip(*(right(side, measure) for side in pairs), strict=True)]
        mean, interval = resample(gains)
        found[measure] = {"difference": mean, "interval": interval}
    return found


def summarize(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What is told of each variant, in the order in which they first come."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome["variant"], []).append(outcome)
    rows = []
    for name, runs in groups.items():
        row = {key: runs[0][key] for key in ("variant", "what", "changes")}
        row["seeds"] = [run["seed"] for run in runs]
        row |= {key: round(float(np.mean([r[key] for r in runs])), 3) for key in _AS_THEY_ARE}
        row["accuracy"] = {m: accuracy(runs, m) for m in (*MEASURES, MEAN)}
        row["against_full"] = {} if name == "full" else against(runs, groups.get("full", []))
        rows.append(row)
    return rows


def tables(rows: Sequence[Mapping[str, Any]], markdown: bool) -> str:
    """The table of scores and that of the differences, as text or as Markdown."""
    names = [f"{SETS[name]} {'kNN' if how == 'knn' else how}" for name, how in MEASURES.values()]
    costs = ["steps", "minutes", "samples/s"]
    first = [["variant", *costs, *names, MEAN, "feature std", "effective rank"]]
    second = [["against the full method", *names, MEAN]]
    for row in rows:
        cost = [f"{row['steps']:.0f}", f"{row['minutes']:.1f}", f"{row['samples_per_second']:.1f}"]
        cost = cost if row["steps"] else ["0", "-", "-"]
        scores = [_score(row["accuracy"][m]) for m in (*MEASURES, MEAN)]
        ends = [f"{row['feature_std']:.2f}", f"{row['effective_rank']:.1f}"]
        first.append([row["what"], *cost, *scores, *ends])
        if row["against_full"]:
            gains = [_gain(row["against_full"][m]) for m in (*MEASURES, MEAN)]
            second.append([row["what"], *gains])
    return "\n\n".join(_aligned(table, markdown) for table in (first, second) if len(table) > 1)


def _score(found: Mapping[str, Any]) -> str:
    """Accuracy, and how sure it is."""
    if "spread" in found:
        return f"{found['accuracy']:.3f} ± {found['spread']:.3f}"
    return "{:.3f} [{:.3f}, {:.3f}]".format(found["accuracy"], *found["interval"])


def _gain(found: Mapping[str, Any]) -> str:
    """A difference with its interval."""
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(found["difference"], *found["interval"])


def _aligned(rows: Sequence[Sequence[str]], markdown: bool) -> str:
    """Columns of one width, the first row above the rest."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    if not markdown:
        return "\n".join("  ".join(row).rstrip() for row in padded)
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)
