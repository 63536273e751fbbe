"""The scene: one layout seen by the aerial camera, Sentinel-2 and Sentinel-1.

Legend: T acquisitions, H W aerial pixels, h w pixels of the 10 m grid.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skysense.data.synthetic.aerial import render_aerial
from skysense.data.synthetic.classes import FloatArray
from skysense.data.synthetic.layout import draw_layout
from skysense.data.synthetic.satellites import Ground, sentinel1, sentinel2

S2_GSD = 10.0  # metres per pixel of the common satellite grid


@dataclass(frozen=True, eq=False)
class SyntheticScene:
    """One place in three modalities; all arrays share the upper-left corner `origin`.

    Source: *ours*.
    """

    classes: npt.NDArray[np.uint8]
    """(h, w) index into `LAND_COVER`, the cover of most of each 10 m pixel."""
    hr: npt.NDArray[np.uint8]
    """(3, H, W) red, green, blue of an aerial image in mid June."""
    s2: npt.NDArray[np.uint16]
    """(T2, 10, h, w) level 2A digital numbers: reflectance * 10000, no offset, 0 = nodata."""
    s2_scl: npt.NDArray[np.uint8]
    """(T2, h, w) Sen2Cor scene classes: 3 shadow, 4 vegetation, 5 bare, 6 water, 9 cloud."""
    s2_dates: npt.NDArray[np.datetime64]
    """(T2,) datetime64[D], increasing."""
    s1: FloatArray
    """(T1, 2, h, w) VV and VH backscatter in dB, with speckle."""
    s1_dates: npt.NDArray[np.datetime64]
    """(T1,) datetime64[D], increasing."""
    crs: str
    """Coordinate reference system of `origin`."""
    origin: tuple[float, float]
    """(x, y) of the upper-left corner in metres of `crs`."""
    hr_gsd: float
    """Metres per pixel of `hr`; the satellites have 10."""


def make_scene(
    size: int = 64,
    hr_per_s2: int = 8,
    s2_dates: int = 6,
    s1_dates: int = 4,
    cloud_cover: float = 0.2,
    seed: int = 0,
    year: int = 2021,
) -> SyntheticScene:
    """Makes a scene whose modalities show the same ground.

    The land cover is drawn at the aerial resolution; the satellites see class fractions averaged
    over their pixels. The ground, the aerial image and each series have random streams of their
    own: another number of dates in one of them leaves the others as they are.

    Args:
        size: Pixels per side of the 10 m grid, 8 or more.
        hr_per_s2: Aerial pixels per 10 m; 8 gives 1.25 m.
        s2_dates: Number of Sentinel-2 acquisitions over the year, 1..365.
        s1_dates: Number of Sentinel-1 acquisitions over the year, 1..365.
        cloud_cover: Expected share of cloudy Sentinel-2 pixels, 0..1; single dates vary around it.
        seed: Not negative; equal arguments give equal scenes.
        year: Calendar year of all acquisitions.

    Returns:
        The scene, in EPSG:32632 (UTM zone 32 north).

    Raises:
        ValueError: If an argument is outside the range given above.

    Source: *ours*.
    """
    _check_whole("size", size, 8, None)
    _check_whole("hr_per_s2", hr_per_s2, 1, None)
    _check_whole("s2_dates", s2_dates, 1, 365)
    _check_whole("s1_dates", s1_dates, 1, 365)
    _check_whole("seed", seed, 0, None)
    _check_whole("year", year, 1, 9999)
    if not 0 <= cloud_cover <= 1:
        raise ValueError(f"`cloud_cover` is {cloud_cover}; expected a share from 0 to 1")
    gsd = S2_GSD / hr_per_s2
    layout = draw_layout((size * hr_per_s2, size * hr_per_s2), seed, gsd)
    hr_rng, s2_rng, s1_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2, 3))
    ground = Ground.of(layout, hr_per_s2)
    s2_days, s1_days = _days(s2_dates, s2_rng), _days(s1_dates, s1_rng)
    s2, s2_scl = sentinel2(ground, s2_days, cloud_cover, s2_rng)
    new_year = np.datetime64(f"{year:04d}-01-01", "D")
    return SyntheticScene(
        classes=ground.classes,
        hr=render_aerial(layout, hr_rng),
        s2=s2,
        s2_scl=s2_scl,
        s2_dates=new_year + (s2_days - 1),
        s1=sentinel1(ground, s1_days, s1_rng),
        s1_dates=new_year + (s1_days - 1),
        crs="EPSG:32632",
        origin=(600_000.0, 5_340_000.0),
        hr_gsd=gsd,
    )


def _check_whole(name: str, value: int, low: int, high: int | None) -> None:
    """Raises ValueError unless `value` is a whole number from `low` to `high`."""
    if not isinstance(value, int | np.integer) or value < low or (high and value > high):
        wanted = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"`{name}` is {value!r}; expected a whole number {wanted}")


def _days(num: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Distinct sorted days of year, one from the middle half of each of `num` equal parts."""
    edges = np.arange(num + 1) * 365 // num
    quarter = np.diff(edges) // 4
    days: npt.NDArray[np.int64] = rng.integers(edges[:-1] + quarter, edges[1:] - quarter) + 1
    return days
