"""Single pictures as PNG: curves, bars, heat maps. Each is a figure of its own, without pyplot.

Legend: H W pixels of an image, E experts.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense._optional import require
from skysense.pretrain.report.metrics import Series

Axes = Any
Figure = Any
"""Of matplotlib, whose types are known only where it is installed."""

EXTRA = "plots"
INK, MAIN, FAINT, REFERENCE = "#1a1a1a", "#1f5fa8", "#b5cde6", "#b3500b"
_DPI = 160
_WIDTH = 4.4
"""Inches; narrow, so that its text can still be read on a phone."""
_SMOOTH = 40
"""Longer curves than this also get a running mean, over one such part of them."""
_FEW = 25
"""Curves of at most so many points have each of them marked."""


@dataclass(frozen=True)
class Reference:
    """A dashed line to compare a curve with."""

    label: str
    """What it is."""
    series: Series
    """One point alone is drawn as a level."""


def draw_curve(
    series: Series, references: Sequence[Reference] = (), *, smooth: bool, log: bool
) -> bytes:
    """A value over the steps.

    Args:
        series: at least one point.
        references: dashed lines; with any there is a legend.
        smooth: show the running mean, and what it is the mean of only faintly.
        log: logarithmic axis, where all values are positive.

    Raises:
        ValueError: matplotlib is not installed.
    """
    figure, axes = _figure(2.6)
    smooth = smooth and len(series) > _SMOOTH
    marker = "o" if len(series) <= _FEW else ""
    style = {"color": FAINT if smooth else MAIN, "linewidth": 1.0 if smooth else 1.8}
    axes.plot(series.steps, series.values, marker=marker, markersize=3.5, **style)
    if smooth:
        axes.plot(series.steps, running_mean(series.values), color=MAIN, linewidth=1.8)
    axes.lines[-1].set_label("run")
    for reference in references:
        _draw_reference(axes, reference)
    if references:
        axes.legend(frameon=False, fontsize=9.5, labelcolor=INK)
    axes.margins(y=0.08)
    if log and (series.values > 0).all():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(_ticker().LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(_ticker().NullFormatter())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("step", color=INK)
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: shorten(value))
    axes.grid(color="#e4e4e4", linewidth=0.6)
    return _png(figure)


def _draw_reference(axes: Axes, reference: Reference) -> None:
    """A dashed line, or a level all across."""
    style = {"color": REFERENCE, "linestyle": (0, (4, 2)), "linewidth": 1.6}
    values = reference.series.values
    if len(values) == 1:
        axes.axhline(values[0], label=reference.label, **style)
    else:
        axes.plot(reference.series.steps, values, label=reference.label, **style)


def running_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Centered mean over one fortieth of all points on either side, fewer at the ends."""
    count = len(values)
    reach = max(count // _SMOOTH, 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(count) - reach, 0)
    high = np.minimum(np.arange(count) + reach + 1, count)
    means: npt.NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return means


def draw_bars(parts: Mapping[str, float]) -> bytes:
    """Seconds by part, with the share of their sum, in the order given.

    Raises:
        ValueError: matplotlib is not installed.
    """
    figure, axes = _figure(0.6 + 0.4 * len(parts))
    seconds = np.array(list(parts.values()))
    total, longest = max(seconds.sum(), 1e-12), max(seconds.max(), 1e-12)
    axes.barh(range(len(parts)), seconds, color=MAIN, height=0.4)
    style = {"color": INK, "fontsize": 9.5, "parse_math": False}
    for place, (name, value) in enumerate(parts.items()):
        told = f" {seconds_text(value)}, {100 * value / total:.0f}%"
        axes.text(value, place, told, va="center", **style)
        axes.text(0, place - 0.24, f" {_clipped(name)}", va="bottom", **style)
    axes.set_yticks([])
    axes.set_ylim(len(parts) - 0.6, -0.75)
    axes.set_xlim(0, 1.35 * longest)
    axes.xaxis.set_major_locator(_ticker().MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("seconds", color=INK)
    return _png(figure)


def draw_heat(shares: npt.NDArray[np.floating[Any]], top: float) -> bytes:
    """Shares `(blocks, E)` of experts, as multiples of an even use.

    Args:
        shares: times E already, so 1 is even.
        top: the multiple that gets the darkest color.

    Raises:
        ValueError: matplotlib is not installed.
    """
    blocks, experts = shares.shape
    figure, axes = _figure(1.1 + 0.27 * min(blocks, 24))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    axes.set_xlabel("expert", color=INK)
    axes.set_ylabel("block", color=INK)
    for axis, count in ((axes.xaxis, experts), (axes.yaxis, blocks)):
        axis.set_major_locator(_ticker().MaxNLocator(min(count, 9), integer=True))
    if experts <= 8 and blocks <= 24:
        for (block, expert), value in np.ndenumerate(shares):
            color = "white" if value > 0.6 * top else INK
            text = f"{value:.1f}" if np.isfinite(value) else ""
            axes.text(expert, block, text, ha="center", va="center", color=color, fontsize=9)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("times an even share", color=INK)
    bar.ax.tick_params(labelsize=9.5, colors=INK)
    return _png(figure)


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    """`(3, H, W)` as a PNG.

    Raises:
        ValueError: matplotlib is not installed.
    """
    buffer = io.BytesIO()
    whole = np.ascontiguousarray(image.transpose(1, 2, 0))  # (H, W, 3)
    require("matplotlib.image", EXTRA).imsave(buffer, whole, format="png")
    return buffer.getvalue()


def shorten(value: float) -> str:
    """A count with k or M: 12k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def seconds_text(seconds: float) -> str:
    """A short time with its unit."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _clipped(name: str, longest: int = 44) -> str:
    """A name that fits over its bar."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _figure(height: float) -> tuple[Figure, Axes]:
    """An empty white figure with plain axes."""
    module = require("matplotlib.figure", EXTRA)
    figure = module.Figure(
        figsize=(_WIDTH, height), dpi=_DPI, layout="constrained", facecolor="white"
    )
    axes = figure.add_subplot(facecolor="white")
    axes.tick_params(labelsize=9.5, colors=INK, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _ticker() -> Any:  # noqa: ANN401
    """Of matplotlib."""
    return require("matplotlib.ticker", EXTRA)


def _png(figure: Figure) -> bytes:
    """Drawn by Agg, which needs no screen."""
    canvas = require("matplotlib.backends.backend_agg", EXTRA).FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
