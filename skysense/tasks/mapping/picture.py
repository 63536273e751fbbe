"""The map as a picture: classes with their legend, and beside them how sure the map is.

Legend: H W pixels of the picture, K classes.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling

from skysense._optional import require
from skysense.tasks.mapping.output import NODATA
from skysense.tasks.mapping.palette import Color

Axes = Any
"""Of matplotlib, whose types are known only where it is installed."""
ByteArray = npt.NDArray[np.uint8]

EXTRA = "plots"
SIDE = 1200
"""Longest side of a panel in pixels; larger maps are shown by their majority."""
_INK, _FAINT, _EMPTY = "#1a1a1a", "#666666", (255, 255, 255)
_DPI = 160
_PANEL = 5.2
"""Longest side of a panel in inches."""
_LINE = 12.5
"""Height of a line of small print in points."""
_FEW_POINTS = 300
_STEPS = (1, 2, 5)
_DOT: Mapping[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 3,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.6,
}


@dataclass(frozen=True)
class Legend:
    """What the colours of a map mean."""

    names: Sequence[str]
    """K names."""
    values: Sequence[int]
    """Their numbers in the map."""
    colors: Sequence[Color]
    """Their colours."""
    shares: Sequence[float]
    """Their shares of the map, 0...1."""
    title: str
    """Above the classes."""
    note: str
    """Under the title, in small."""


def draw_map(
    target: Path,
    classes: Path,
    confidence: Path | None,
    legend: Legend,
    metres: tuple[float, float],
    labelled: npt.NDArray[np.float64] | None = None,
) -> None:
    """Write a PNG of a map.

    Args:
        target: where to.
        classes: the class map.
        confidence: the confidence map, if there is one.
        legend: what the colours mean.
        metres: sides of a cell, `(down, across)`.
        labelled: `(N, 2)` rows and columns of labelled cells, shown as dots where they are few.

    Raises:
        ValueError: matplotlib is not installed.
    """
    module = require("matplotlib.figure", EXTRA)
    numbers, shape = _read(classes, Resampling.mode)
    panels = 1 if confidence is None else 2
    height, width = shape[0] * metres[0], shape[1] * metres[1]
    wide, high = (_PANEL * side / max(height, width) for side in (width, height))
    wide, high = max(wide, 2.2), max(high, 1.2)
    rows = _legend_rows(legend, panels * wide)
    size = (panels * (wide + 0.25) + 0.45 * (panels - 1), high + 0.75 + 0.24 * rows)
    figure = module.Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    axes = np.atleast_1d(figure.subplots(1, panels))
    aspect = metres[0] / metres[1]
    extent = (0, shape[1], shape[0], 0)
    axes[0].imshow(_colored(numbers, legend), extent=extent, interpolation="nearest", aspect=aspect)
    note = textwrap.wrap(legend.note, max(12, int(15 * wide)))
    _titles(axes[0], legend.title, note, len(note))
    dotted = labelled is not None and len(labelled) <= _FEW_POINTS
    if labelled is not None and dotted:
        dots = (labelled[:, ::-1] + 0.5).T
        axes[0].plot(*dots, **_DOT)
    if confidence is not None:
        _show_confidence(figure, axes[1], confidence, aspect, len(note))
    _scale_bar(axes[0], shape, metres[1])
    _add_legend(figure, legend, panels * wide, dotted=dotted)
    figure.savefig(
        target, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None}
    )


def _show_confidence(
    figure: Any,  # noqa: ANN401
    axes: Axes,
    path: Path,
    aspect: float,
    lines: int,
) -> None:
    """The panel of the confidence map, with its scale."""
    percent, shape = _read(path, Resampling.average)
    shown = np.ma.masked_equal(percent, NODATA)
    image = axes.imshow(
        shown,
        extent=(0, shape[1], shape[0], 0),
        interpolation="nearest",
        aspect=aspect,
        cmap="viridis",
        vmin=0,
        vmax=100,
    )
    _titles(axes, "Confidence", [f"mean {float(shown.mean()):.0f} %"], lines)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, format="%d %%")
    bar.ax.tick_params(labelsize=8, colors=_INK)
    bar.outline.set_visible(False)


def _read(path: Path, resampling: Resampling) -> tuple[ByteArray, tuple[int, int]]:
    """A band, reduced to `SIDE`, and its full shape."""
    with rasterio.open(path) as dataset:
        step = max(1.0, max(dataset.shape) / SIDE)
        shape = tuple(max(1, round(side / step)) for side in dataset.shape)
        return dataset.read(1, out_shape=shape, resampling=resampling), dataset.shape


def _colored(numbers: ByteArray, legend: Legend) -> ByteArray:
    """`(H, W)` classes to `(H, W, 3)` colours."""
    table = np.full((256, 3), _EMPTY, np.uint8)
    table[list(legend.values)] = legend.colors
    return table[numbers]


def _titles(axes: Axes, title: str, lines: Sequence[str], height: int) -> None:
    """A heading over `height` lines of small print, and a thin frame without ticks."""
    top = 8 + _LINE * height
    axes.set_title(title, fontsize=11, color=_INK, loc="left", pad=top, fontweight="bold")
    axes.annotate(
        "\n".join(lines),
        (0, 1),
        (0, top - 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        color=_FAINT,
        va="top",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
        spine.set_linewidth(0.6)


def _scale_bar(axes: Axes, shape: tuple[int, int], metres: float) -> None:
    """A bar of a round length, about a fifth of the width."""
    wanted = shape[1] * metres / 5
    power = 10.0 ** np.floor(np.log10(wanted))
    length = max(step * power for step in _STEPS if step * power <= wanted)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    axes.annotate(
        "",
        xy=(0, -0.02),
        xytext=(length / metres / shape[1], -0.02),
        xycoords="axes fraction",
        textcoords="axes fraction",
        arrowprops={
            "arrowstyle": "|-|,widthA=0.25,widthB=0.25",
            "color": _INK,
            "lw": 1.1,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        annotation_clip=False,
    )
    axes.annotate(
        text,
        (length / metres / shape[1], -0.02),
        (6, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        color=_INK,
        va="center",
    )


def _columns(legend: Legend, inches: float) -> int:
    """Entries of the legend that fit beside each other."""
    longest = max(len(_entry(*pair)) for pair in zip(legend.names, legend.shares, strict=True))
    return int(np.clip(inches / (0.4 + 0.07 * longest), 1, len(legend.names) + 1))


def _legend_rows(legend: Legend, inches: float) -> int:
    """Lines of the legend."""
    return -(-(len(legend.names) + 1) // _columns(legend, inches))


def _entry(name: str, share: float) -> str:
    """A line of the legend."""
    shown = name if len(name) <= 32 else f"{name[:31]}…"
    return f"{shown}  {share:.1%}"


def _add_legend(
    figure: Any,  # noqa: ANN401
    legend: Legend,
    inches: float,
    *,
    dotted: bool,
) -> None:
    """Patches with names and shares, under the panels."""
    patch = require("matplotlib.patches", EXTRA).Patch
    handles = [
        patch(
            facecolor=tuple(c / 255 for c in color),
            edgecolor="#888888",
            linewidth=0.5,
            label=_entry(name, share),
        )
        for name, color, share in zip(legend.names, legend.colors, legend.shares, strict=True)
    ]
    if dotted:
        line = require("matplotlib.lines", EXTRA).Line2D
        handles.append(line([], [], label="labelled cell", **_DOT))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=_columns(legend, inches),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        handlelength=1.2,
        handleheight=1.0,
        columnspacing=1.6,
    )
