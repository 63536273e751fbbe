"""Bands whose names are exchanged: what no surface looks like.

Source: *ours*. Legend: N pixels.
"""

from collections.abc import Mapping

import numpy as np

from skysense.data.doctor.findings import Finding
from skysense.data.doctor.look import Look
from skysense.data.doctor.sample import Bools, Floats
from skysense.sensors import SensorCard

_FEWEST = 100
"""Pixels of a kind from which on they say something."""

_PART = 0.3
"""Share of the image that must look wrong, for near infrared under a visible band's name."""

_MOST = 0.9
"""Share of the soil that must look wrong, for red and blue."""

_STRAYING = 0.4
"""Share of the lit pixels on which one near infrared band must differ from the others."""

_BLUER = 1.5
"""How much brighter soil must be in blue than in red; haze over fields makes 1.3."""


def exchanged(look: Look, card: SensorCard, found: Mapping[str, int]) -> Finding | None:
    """Two bands that carry each other's names, if the pixels say so beyond doubt."""
    bands = _physical(look, card, found)
    if card.modality == "s1" and len(bands) == 2:
        return _polarizations(look, bands, found)
    if card.unit != "reflectance":
        return None
    nir = next((bands[name] for name in ("B8", "B8A", "NIR") if name in bands), None)
    pair = _near_infrared(bands, nir) or _neighbours(bands)
    if pair is None and not card.name.startswith("s2_l1c"):
        pair = _red_and_blue(bands, nir)
    if pair is None:
        return None
    first, second, why = pair
    names = _swapped(look, found, first, second)
    text = f"{first} and {second} look exchanged: {why}"
    return Finding("warning", "bands-exchanged", text, f"--bands {','.join(names)}")


def _physical(look: Look, card: SensorCard, found: Mapping[str, int]) -> dict[str, Floats]:
    """`(N,)` kept values of each band in the card's unit."""
    bands = {}
    for name, index in found.items():
        stored = look.sample.pixels[index].astype(np.float32)
        bands[name] = card.to_physical(stored).astype(np.float64)
    return bands


def _polarizations(
    look: Look, bands: Mapping[str, Floats], found: Mapping[str, int]
) -> Finding | None:
    """Cross-polarized backscatter is the weaker one, nearly everywhere."""
    both = np.isfinite(bands["VV"]) & np.isfinite(bands["VH"])
    if both.sum() < _FEWEST:
        return None
    median = float(np.median(bands["VV"][both] - bands["VH"][both]))
    if median >= -1:
        return None
    names = _swapped(look, found, "VV", "VH")
    text = f"VH is brighter than VV by {-median:.1f} dB (median): they are exchanged"
    return Finding("error", "polarizations-exchanged", text, f"--bands {','.join(names)}")


def _swapped(look: Look, found: Mapping[str, int], first: str, second: str) -> list[str]:
    """The file's band names with two exchanged."""
    names = [name or f"other{i + 1}" for i, name in enumerate(look.names)]
    i, j = found[first], found[second]
    names[i], names[j] = names[j], names[i]
    return names


def _near_infrared(bands: Mapping[str, Floats], nir: Floats | None) -> tuple[str, str, str] | None:
    """A visible band far brighter than green and near infrared, as vegetation is in the latter."""
    if nir is None:
        return None
    visible = [name for name in ("B2", "B3", "B4") if name in bands]
    for name in visible:
        rest = np.max([bands[other] for other in visible if other != name] or [nir], 0)
        wrong = (bands[name] > 0.12) & (bands[name] > 1.5 * rest) & (bands[name] > 1.5 * nir)
        if wrong.sum() >= _FEWEST and wrong.mean() >= _PART:
            share = 100 * float(wrong.mean())
            why = f"{name} is over 1.5 times as bright as the near infrared on {share:.0f} %"
            other = "B8" if "B8" in bands else "B8A"
            return name, other, f"{why} of the pixels"
    return None


def _neighbours(bands: Mapping[str, Floats]) -> tuple[str, str, str] | None:
    """B7, B8 and B8A see the same: one that differs is another band."""
    if not {"B7", "B8", "B8A"} <= set(bands):
        return None
    trio = np.stack([bands[name] for name in ("B7", "B8", "B8A")])  # (3, N)
    lit = np.median(trio, 0) > 0.1
    if lit.sum() < _FEWEST:
        return None
    ratio = trio[:, lit] / np.maximum(np.median(trio[:, lit], 0), 1e-3)
    for i, name in enumerate(("B7", "B8", "B8A")):
        off = (ratio[i] < 0.6) | (ratio[i] > 1.7)
        if off.mean() >= _STRAYING:
            others = [n for n in bands if n not in ("B7", "B8", "B8A")]
            middle = np.median(trio[:, lit], 0)
            closest = min(others, key=lambda n: float(np.abs(bands[n][lit] - middle).mean()))
            share = 100 * float(off.mean())
            why = f"{name} differs from its neighbours in the near infrared on {share:.0f} %"
            return name, closest, f"{why} of the lit pixels"
    return None


def _red_and_blue(bands: Mapping[str, Floats], nir: Floats | None) -> tuple[str, str, str] | None:
    """Soil is redder than blue: land that is neither dense vegetation nor bright nor dark."""
    blue, green, red = (next((bands[n] for n in ns if n in bands), None) for ns in _VISIBLE)
    if nir is None or blue is None or green is None or red is None:
        return None
    soil = _soil(nir, green) & (np.maximum(blue, red) < 0.3)
    if soil.sum() < _FEWEST or soil.mean() < 0.02:
        return None
    ratio = blue[soil] / np.maximum(red[soil], 1e-3)
    if (ratio > 1.1).mean() < _MOST or np.median(ratio) < _BLUER:
        return None
    why = f"bare land is {float(np.median(ratio)):.1f} times as bright in blue as in red"
    first, second = ("B2", "B4") if "B2" in bands else ("B", "R")
    return first, second, why


_VISIBLE = (("B2", "B"), ("B3", "G"), ("B4", "R"))


def _soil(nir: Floats, green: Floats) -> Bools:
    """Land without dense vegetation, told by green and near infrared alone."""
    return np.asarray((nir > 0.12) & (nir < 0.5) & (nir > 1.2 * green) & (nir < 3.0 * green))
