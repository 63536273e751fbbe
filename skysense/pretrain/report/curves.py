"""Which curves the report has, and how each is to be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skysense.pretrain.report.charts import Reference, draw_bars, draw_curve
from skysense.pretrain.report.metrics import LOSS, Metrics, Series
from skysense.pretrain.report.page import Section, card, cards, paragraph
from skysense.pretrain.report.summary import (
    EFFECTIVE_RANK_FLOOR,
    FEATURE_STD_FLOOR,
    end_value,
    random_knn,
)


@dataclass(frozen=True)
class Curve:
    """A value of the metrics, and what a reader needs to know of it."""

    name: str
    """In the metrics."""
    title: str
    """Over the picture."""
    reading: str
    """One sentence under it."""
    smooth: bool = False
    """Noisy: shown with its running mean, and its last value is the mean of the last tenth."""
    log: bool = False
    """Over several powers of ten."""
    floor: float | None = None
    """Where trouble begins."""


LEARNING = (
    Curve(
        "loss",
        "Total loss",
        "The weighted sum that is minimized; it falls fast, then slowly, and may rise a little "
        "while the teacher sharpens.",
        smooth=True,
    ),
    Curve(
        "knn",
        "kNN accuracy",
        "Share of labelled images whose nearest neighbors tell their class; it should leave the "
        "dashed line of untrained weights behind and keep rising.",
    ),
)
SPREAD = (
    Curve(
        "feature_std",
        "Feature standard deviation",
        "1 where the vectors of different images point everywhere, 0 where all are the same; a "
        "fall below the dashed floor is a collapse.",
        smooth=True,
        floor=FEATURE_STD_FLOOR,
    ),
    Curve(
        "effective_rank",
        "Effective rank",
        "In how many directions the vectors spread; 1 means a single line, and below the dashed "
        "floor the features have collapsed into a few directions.",
        smooth=True,
        floor=EFFECTIVE_RANK_FLOOR,
    ),
    Curve(
        "target_entropy",
        "Entropy of the teacher's targets",
        "In nats: 0 where each target is one single code; a value that stays at the logarithm of "
        "the number of codes means that the teacher says nothing.",
        smooth=True,
    ),
)
SCHEDULES = (
    Curve("lr", "Learning rate", "A warm-up, if there is one, then half a cosine."),
    Curve("momentum", "Momentum of the teacher", "The nearer to 1, the slower it follows."),
    Curve("weight_decay", "Weight decay", "Of matrices alone; it grows along half a cosine."),
    Curve(
        "teacher_temperature",
        "Temperature of the teacher",
        "The lower, the sharper the targets.",
    ),
    Curve(
        "grad_norm",
        "Gradient norm",
        "Before clipping; single peaks are harmless, a steady climb announces a divergence.",
        smooth=True,
        log=True,
    ),
)
SPEED = (
    Curve(
        "samples_per_second",
        "Samples a second",
        "Over all ranks; dips are evaluations, checkpoints, or other work on the machine.",
        smooth=True,
    ),
)
LOSS_READING: Mapping[str, str] = {
    "image": "Whole views of one sample should get the codes that the teacher gives it.",
    "pixel": "The same place in two views should get the same codes.",
    "object": "Groups of like places should get the same codes in two views.",
    "alignment": "Two sensors that see one place should give it the same codes.",
    "qsacl": "What a query gathers from one view should match what it gathers from another.",
    "text": "Features of a place should be nearest to the name of its class.",
    "masked": "Hidden pixels should be told from what is left, in the bands' standard deviations.",
    "variance": "Zero where every channel of every level varies enough over images.",
    "instance": "Views of an image should be nearer to each other than to any other image's.",
    "koleo": "Falls as each vector moves away from its nearest neighbor in the batch.",
    "load_balance": "About 1 where experts share the tokens evenly, more where few get most.",
}
_LONGEST = 15
"""Parts of a profile that are shown."""


def learning_section(metrics: Metrics) -> Section | None:
    """Total loss and kNN."""
    return _section("Learning", _drawn(metrics, LEARNING))


def losses_section(metrics: Metrics) -> Section | None:
    """Each loss by itself."""
    names = [name for name in metrics.names if name.startswith(LOSS)]
    curves = [
        Curve(
            name,
            f"Loss: {name.removeprefix(LOSS)}",
            LOSS_READING.get(name.removeprefix(LOSS), "One term of the total."),
            smooth=True,
        )
        for name in names
    ]
    return _section("Each loss", _drawn(metrics, curves), "Each before it is weighted.")


def spread_section(metrics: Metrics) -> Section | None:
    """What shows a collapse."""
    return _section("Spread of the features", _drawn(metrics, SPREAD))


def schedules_section(metrics: Metrics) -> Section | None:
    """What was set from step to step, and the gradients."""
    return _section("Schedules and gradients", _drawn(metrics, SCHEDULES))


def speed_section(metrics: Metrics, profile: Sequence[tuple[str, float]] | None) -> Section | None:
    """Samples a second, and where the time goes."""
    made = _drawn(metrics, SPEED)
    parts = metrics.parts()
    if parts:
        reading = (
            "Mean over the run (on a GPU, of what launching takes); all but the passes of the "
            "model should be short."
        )
        made.append(card("Where a step's time goes", draw_bars(parts), reading))
    if profile:
        reading = "Measured apart, longest first; shorten what is at the top."
        longest = dict(sorted(_summed(profile).items(), key=lambda item: -item[1])[:_LONGEST])
        made.append(card("Profile of a step", draw_bars(longest), reading))
    return _section("Speed", made)


def _summed(profile: Sequence[tuple[str, float]]) -> dict[str, float]:
    """A part that comes twice has both times."""
    found: dict[str, float] = {}
    for part, seconds in profile:
        found[part] = found.get(part, 0.0) + seconds
    return found


def _drawn(metrics: Metrics, curves: Sequence[Curve]) -> list[str]:
    """A card for each curve that has any value."""
    made = []
    for curve in curves:
        series = metrics.series(curve.name)
        if len(series):
            references = _references(metrics, curve)
            picture = draw_curve(series, references, smooth=curve.smooth, log=curve.log)
            last = end_value(series) if curve.smooth else series.values[-1]
            made.append(card(curve.title, picture, curve.reading, f"{last:.4g}"))
    return made


def _references(metrics: Metrics, curve: Curve) -> list[Reference]:
    """The dashed lines of a curve."""
    if curve.name == "knn":
        found = random_knn(metrics)
        return [found] if found else []
    if curve.floor is None:
        return []
    return [Reference("floor", Series(np.zeros(1), np.array([curve.floor])))]


def _section(title: str, made: Sequence[str], reading: str = "") -> Section | None:
    """Cards under a title, or nothing where there are none."""
    if not made:
        return None
    return Section(title, (paragraph(reading) if reading else "") + cards(made))
