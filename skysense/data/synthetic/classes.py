"""The land-cover classes of the synthetic world: what each looks like to each sensor over a year.

Legend: K classes, C bands.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

S2_BANDS: Final = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
WATER, FOREST, GRASSLAND, WINTER_CROP, SUMMER_CROP, BARE_SOIL, BUILT_UP = range(7)


@dataclass(frozen=True)
class CoverClass:
    """One land cover in two states, between which the season moves it.

    Source: *ours*; typical values of a temperate lowland, rounded, for looks and not for science.
    """

    name: str
    """Name in lower case; the code of a class is its index in `LAND_COVER`."""
    bare: tuple[float, ...]
    """(10,) surface reflectance 0..1 in `S2_BANDS`, bare or senescent."""
    green: tuple[float, ...]
    """(10,) surface reflectance 0..1 in `S2_BANDS`, at full green."""
    bare_db: tuple[float, float]
    """Backscatter VV, VH in dB, bare or senescent."""
    green_db: tuple[float, float]
    """Backscatter VV, VH in dB, at full green."""
    season: tuple[int, int, int]
    """Days of year at which green starts, peaks, ends; below 0 lies in the last year."""


LAND_COVER: Final[tuple[CoverClass, ...]] = (
    CoverClass(
        name="water",
        bare=(0.050, 0.044, 0.026, 0.022, 0.016, 0.016, 0.014, 0.012, 0.008, 0.006),
        green=(0.042, 0.052, 0.028, 0.030, 0.020, 0.020, 0.017, 0.015, 0.009, 0.007),
        bare_db=(-21.5, -27.5),
        green_db=(-22.0, -28.0),
        season=(90, 210, 310),
    ),
    CoverClass(
        name="forest",
        bare=(0.035, 0.045, 0.045, 0.075, 0.120, 0.135, 0.150, 0.165, 0.135, 0.080),
        green=(0.022, 0.042, 0.022, 0.070, 0.230, 0.300, 0.320, 0.340, 0.145, 0.065),
        bare_db=(-10.5, -16.5),
        green_db=(-9.5, -15.0),
        season=(90, 175, 325),
    ),
    CoverClass(
        name="grassland",
        bare=(0.050, 0.075, 0.080, 0.125, 0.185, 0.205, 0.225, 0.245, 0.250, 0.165),
        green=(0.034, 0.078, 0.040, 0.115, 0.320, 0.410, 0.430, 0.445, 0.215, 0.110),
        bare_db=(-13.5, -21.5),
        green_db=(-12.0, -19.0),
        season=(45, 150, 340),
    ),
    CoverClass(
        name="winter crop",
        bare=(0.075, 0.112, 0.145, 0.175, 0.200, 0.215, 0.235, 0.255, 0.310, 0.250),
        green=(0.025, 0.058, 0.027, 0.095, 0.330, 0.430, 0.460, 0.470, 0.180, 0.085),
        bare_db=(-11.5, -19.5),
        green_db=(-15.5, -18.5),
        season=(-70, 125, 195),
    ),
    CoverClass(
        name="summer crop",
        bare=(0.078, 0.105, 0.135, 0.160, 0.175, 0.185, 0.200, 0.215, 0.285, 0.240),
        green=(0.028, 0.070, 0.035, 0.110, 0.340, 0.430, 0.450, 0.465, 0.220, 0.110),
        bare_db=(-12.0, -20.5),
        green_db=(-9.5, -15.5),
        season=(120, 205, 280),
    ),
    CoverClass(
        name="bare soil",
        bare=(0.110, 0.145, 0.190, 0.220, 0.240, 0.255, 0.275, 0.295, 0.370, 0.330),
        green=(0.102, 0.138, 0.178, 0.215, 0.250, 0.270, 0.290, 0.308, 0.360, 0.315),
        bare_db=(-14.0, -23.0),
        green_db=(-13.5, -22.0),
        season=(90, 190, 300),
    ),
    CoverClass(
        name="built-up",
        bare=(0.095, 0.108, 0.115, 0.135, 0.165, 0.178, 0.190, 0.195, 0.205, 0.170),
        green=(0.082, 0.100, 0.098, 0.130, 0.190, 0.210, 0.220, 0.225, 0.190, 0.145),
        bare_db=(-3.5, -11.0),
        green_db=(-3.5, -10.5),
        season=(75, 170, 320),
    ),
)

SEASONS: Final[FloatArray] = np.array([c.season for c in LAND_COVER], np.float32)  # (K, 3)
REFLECTANCE: Final[FloatArray] = np.array(
    [[c.bare for c in LAND_COVER], [c.green for c in LAND_COVER]], np.float32
)  # (2, K, 10), bare then green
_DECIBELS = [[c.bare_db for c in LAND_COVER], [c.green_db for c in LAND_COVER]]
POWER: Final[FloatArray] = np.power(10, np.array(_DECIBELS) / 10).astype(np.float32)
# (2, K, 2) linear backscatter VV, VH, bare then green


def greenness(day: float | FloatArray, season: FloatArray) -> FloatArray:
    """How green a cover is on a day: 0 outside its season, 1 at the peak, half cosines between.

    Args:
        day: Day of year, of any shape that broadcasts with `season[0]`.
        season: (3, ...) days of year of start, peak and end.

    Returns:
        Greenness 0..1. The year is cyclic, so a season that starts in autumn is seen then too.

    Source: *ours*.
    """
    start, peak, end = season
    best = np.zeros(1, np.float32)
    for shifted in (np.asarray(day - 365.0, np.float32), np.asarray(day, np.float32)):
        rise = np.clip((shifted - start) / (peak - start), 0, 1)
        fall = np.clip((end - shifted) / (end - peak), 0, 1)
        best = np.maximum(best, 0.5 - 0.5 * np.cos(np.pi * np.minimum(rise, fall)))
    return best.astype(np.float32)
