"""The synthetic world: aerial image, Sentinel-2 and Sentinel-1 series, and class map of a place.

Source: *ours*.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from skysense.data.scene import CLOUDY
from skysense.data.shards.drafts import Draft
from skysense.data.shards.stored import StoredSample, StoredSeries
from skysense.data.synthetic import LAND_COVER, S2_BANDS, make_scene
from skysense.data.synthetic.aerial import DAY

_PLACES = (np.array([0.0, 44.0]), np.array([20.0, 55.0]))
"""Corners `(lon, lat)` of the temperate lowland in which the places are said to lie."""


def synthetic(count: int, size: int = 16, hr_per_s2: int = 8, seed: int = 0) -> list[Draft]:
    """Drafts of synthetic places.

    Args:
        count: how many.
        size: pixels a side of the 10 m grid, 8 or more.
        hr_per_s2: aerial pixels per 10 m; 8 gives 1.25 m.
        seed: of the first; the next ones have the numbers after it.
    """
    return [
        Draft(f"synthetic/{i}", partial(_place, i, size, hr_per_s2))
        for i in range(seed, seed + count)
    ]


def _place(number: int, size: int, hr_per_s2: int) -> Iterator[StoredSample]:
    """One place."""
    scene = make_scene(size=size, hr_per_s2=hr_per_s2, seed=number)
    clear = ~np.isin(scene.s2_scl, CLOUDY) & (scene.s2 != 0).any(1)
    new_year = scene.s2_dates[:1].astype("datetime64[Y]").astype("datetime64[D]")
    june = new_year + (int(DAY) - 1)
    series = {
        "hr": StoredSeries(scene.hr[None], june, "rgb8", ("R", "G", "B")),
        "s2": StoredSeries(
            scene.s2, scene.s2_dates, "s2_l2a", S2_BANDS, None if clear.all() else clear
        ),
        "s1": StoredSeries(scene.s1, scene.s1_dates, "s1", ("VV", "VH")),
    }
    lon, lat = np.random.default_rng([number, 7]).uniform(*_PLACES)
    yield StoredSample(
        series,
        (round(float(lon), 4), round(float(lat), 4)),
        f"synthetic/{number}",
        scene.classes.astype(np.int16),
        tuple(cover.name for cover in LAND_COVER),
    )
