"""Colours of classes: those one expects by name, and distinct ones for the rest."""

import colorsys
from collections.abc import Sequence

Color = tuple[int, int, int]

_BY_WORD: dict[str, Color] = {
    "water": (44, 104, 178),
    "river": (44, 104, 178),
    "lake": (44, 104, 178),
    "sea": (31, 78, 140),
    "wetland": (96, 170, 168),
    "forest": (27, 107, 51),
    "tree": (27, 107, 51),
    "wood": (27, 107, 51),
    "shrub": (148, 150, 58),
    "grass": (150, 199, 92),
    "pasture": (150, 199, 92),
    "meadow": (150, 199, 92),
    "crop": (235, 199, 82),
    "field": (235, 199, 82),
    "agric": (235, 199, 82),
    "farm": (235, 199, 82),
    "urban": (196, 54, 58),
    "built": (196, 54, 58),
    "building": (196, 54, 58),
    "settlement": (196, 54, 58),
    "town": (196, 54, 58),
    "road": (120, 120, 120),
    "bare": (186, 156, 120),
    "soil": (186, 156, 120),
    "sand": (226, 208, 160),
    "rock": (150, 138, 128),
    "snow": (216, 232, 242),
    "ice": (198, 224, 240),
    "cloud": (225, 225, 225),
}
"""Colours of land cover, by a word in the name of the class. [ours]"""

_DISTINCT: tuple[Color, ...] = (
    (68, 119, 170),
    (238, 102, 119),
    (34, 136, 51),
    (204, 187, 68),
    (102, 204, 238),
    (170, 51, 119),
    (238, 153, 68),
    (119, 119, 119),
    (136, 204, 170),
    (102, 51, 153),
    (153, 102, 51),
    (221, 170, 204),
)
"""For what has no colour of its own: told apart by most colour-blind people as well. [ours]"""


def class_colors(names: Sequence[str]) -> list[Color]:
    """A different colour for each class, the same for the same names."""
    used: list[Color] = []
    spare = iter([*_DISTINCT, *(_turned(i) for i in range(2 * len(names)))])
    expected = [_expected(name) for name in names]
    for color in expected:
        if color is None or color in used:
            color = next(c for c in spare if c not in used and c not in expected)
        used.append(color)
    return used


def _expected(name: str) -> Color | None:
    """The colour of the first known word that a name holds."""
    words = "".join(c if c.isalpha() else " " for c in name.lower()).split()
    found = [color for key, color in _BY_WORD.items() if any(w.startswith(key) for w in words)]
    return found[0] if found else None


def _turned(step: int) -> Color:
    """Hues by the golden angle, ever new."""
    lightness = (0.45, 0.62, 0.32)[step % 3]
    red, green, blue = colorsys.hls_to_rgb(step * 0.381966 % 1, lightness, 0.6)
    return round(255 * red), round(255 * green), round(255 * blue)
