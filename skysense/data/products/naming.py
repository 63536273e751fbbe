"""What the name of a product says: which, of which level, of which day.

Sources: ESA "Sentinel-2 Products Specification Document" (compact naming); USGS "Landsat
Collection 2 product identifiers"; ESA "Sentinel-1 Product Specification"; ASF "HyP3 RTC naming
convention"; JPL "OPERA RTC-S1 product specification"; Element 84 "Earth Search" for the folders of
its Sentinel-2 GeoTIFFs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skysense.data.rasters import parse_date

SENTINEL2 = re.compile(
    r"^S2[A-D]_MSIL(?P<level>1C|2A)_\d{8}T\d{6}_N(?P<baseline>\d{4})_R\d{3}_T\w{5}_\w+$"
)
EARTH_SEARCH = re.compile(r"^S2[A-D]_\d{1,2}[A-Z]{3}_\d{8}_\d+_L(?P<level>1C|2A)$")
LANDSAT = re.compile(
    r"^L(?P<sensor>[COTEM])(?P<number>0[4-9])_(?P<level>L\d\w\w)_\d{6}_\d{8}_\d{8}_02_(?:T1|T2|RT)"
)
HYP3 = re.compile(
    r"^S1[A-D]_(?:IW|EW|S\d)_\d{8}T\d{6}_[SD][VH][PRO]_RTC\d\d_[A-Z]"
    r"_[gs](?P<scale>[pda])[uw][nf][ec][dm]_[0-9A-F]{4}"
)
OPERA = re.compile(r"^OPERA_L2_RTC-S1_\w+-\w+-\w+_\d{8}T\d{6}Z_\d{8}T\d{6}Z_S1[A-D]_\d+_v[\d.]+")
SENTINEL1 = re.compile(r"^S1[A-D]_(?:IW|EW|SM|S\d)_(?:GRD|SLC)\w_\w+$")
GRD_FILE = re.compile(
    r"^s1[a-d]-(?:iw|ew|s[1-6])-grd-(?P<polarization>vv|vh|hh|hv)-\d{8}t\d{6}-[\w-]+\.tiff?$", re.I
)
"""A measurement of a SAFE folder."""
RTC_FILE = re.compile(r"^(?:iw|ew|s\d)-(?:vv|vh|hh|hv)\.rtc$")

_L2A = ("s2_l2a", "s2_l2a_n0400", "s2")
_L1C = ("s2_l1c", "s2_l1c_n0400", "s2")

_OLDER_LANDSAT = {
    "SR_B1": "blue",
    "SR_B2": "green",
    "SR_B3": "red",
    "SR_B4": "nir08",
    "SR_B5": "swir16",
    "SR_B7": "swir22",
}
"""Surface reflectance of Landsat 4 to 7, whose bands are counted from the blue one on. Source:
USGS, band designations of TM and ETM+."""


@dataclass(frozen=True)
class Product:
    """What a name, or what is written beside it, says of the rasters of a product."""

    root: Path
    """Its folder, or the common beginning of its files' names; inside an archive, a member's."""
    name: str
    """Its name, without endings."""
    date: np.datetime64
    """Day of acquisition, NaT if unknown."""
    cards: tuple[str, ...] = ()
    """Sensor cards that may read it, the best first; nothing if it does not say."""
    baseline: int | None = None
    """Sentinel-2 processing baseline, e.g. 400."""
    scaling: tuple[float, float] | None = None
    """`(scale, offset)` from stored to physical numbers, where the metadata say so."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What a band in a file's name is called instead."""
    problem: str = ""
    """Why it cannot be read, and what to do."""
    is_ground_range: bool = False
    """Sentinel-1 GRD, to be calibrated, and placed by its control points."""
    note: str = ""
    """What the user should know before it is read."""


def named(path: Path) -> Product | None:
    """The product that a raster belongs to, by its own name or that of the nearest folder.

    Args:
        path: the raster, or a member of an archive.
    """
    own = _of_file(path)
    if own is not None:
        return own
    for folder in path.parents:
        text = _stem(folder)
        for pattern, make in _FOLDERS:
            if match := pattern.match(text):
                return make(folder, text, match)
    return None


def _stem(folder: Path) -> str:
    """The name of a product's folder or archive without endings."""
    text = folder.name.removesuffix("}")
    for ending in (".zip", ".tar", ".SAFE"):
        text = text.removesuffix(ending)
    return text


def _of_file(path: Path) -> Product | None:
    """The product whose name a file's name begins with."""
    for pattern, make in _FILES:
        if match := pattern.match(path.name):
            return make(path.parent / match[0], match[0], match)
    if match := GRD_FILE.match(path.name):
        return _ground_range(path, match)
    if RTC_FILE.match(path.stem):
        parents = [folder for folder in path.parents if SENTINEL1.match(folder.name)]
        root = parents[0] if parents else path.parent
        return Product(root, root.name, parse_date(root.name), ("s1_linear",))
    return None


def _sentinel2(root: Path, name: str, match: re.Match[str]) -> Product:
    cards = _L2A if match["level"] == "2A" else _L1C
    return Product(root, name, parse_date(name), cards, int(match["baseline"]))


def _earth_search(root: Path, name: str, match: re.Match[str]) -> Product:
    """Its numbers may or may not contain the offset of baseline 04.00; only its item says."""
    date = parse_date(name)
    note = ""
    if date >= np.datetime64("2022-01-25"):
        note = (
            f"{root}: without its STAC item `{name}.json` beside the bands, nothing says whether "
            f"the offset of processing baseline 04.00 is in the numbers; read as it stands (choose "
            f"`--sensor s2_l2a_n0400` if it is)"
        )
    return Product(root, name, date, _L2A if match["level"] == "2A" else _L1C, note=note)


def _landsat(root: Path, name: str, match: re.Match[str]) -> Product:
    date = parse_date(name)
    if not match["level"].startswith("L2"):
        problem = (
            f"{name} is Landsat Level-1 ({match['level']}), digital numbers without atmospheric "
            f"correction: order Level-2 surface reflectance (L2SP)"
        )
        return Product(root, name, date, problem=problem)
    names = _OLDER_LANDSAT if match["sensor"] in "TEM" else {}
    return Product(root, name, date, ("landsat_c2_l2",), names=names)


def _hyp3(root: Path, name: str, match: re.Match[str]) -> Product:
    """Radiometry is the first letter of the options, its scale the second."""
    if match["scale"] == "a":
        problem = f"{name} holds amplitudes: order HyP3 RTC in power or decibel"
        return Product(root, name, parse_date(name), problem=problem)
    cards = ("s1_linear",) if match["scale"] == "p" else ("s1", "s1_vv")
    return Product(root, name, parse_date(name), cards)


def _opera(root: Path, name: str, _: re.Match[str]) -> Product:
    return Product(root, name, parse_date(name), ("s1_linear",))


_NO_TERRAIN = (
    "Sentinel-1 GRD is placed by its control points, without terrain correction: on mountains it "
    "lies off by up to hundreds of metres, and slopes keep their brightness; take RTC there (ASF "
    "HyP3, or `sentinel-1-rtc` of the Planetary Computer)"
)
"""Without a path: one line for all dates of a series."""


def _ground_range(path: Path, match: re.Match[str]) -> Product:
    """A measurement of GRD in its SAFE folder; without a name of the folder, both polarizations."""
    inside = path.parent.name == "measurement"
    root = path.parent.parent if inside else path.parent
    name, date = _stem(root) if inside else path.stem, parse_date(path.name)
    if match["polarization"].upper() in ("HH", "HV"):
        problem = (
            f"{name} holds HH and HV, which no sensor card has: take a product of VV and VH "
            f"(1SDV in its name)"
        )
        return Product(root, name, date, is_ground_range=True, problem=problem)
    single = SENTINEL1.match(name) and "_1SSV_" in name
    cards = ("s1_vv",) if single else ("s1", "s1_vv")
    return Product(root, name, date, cards, is_ground_range=True, note=_NO_TERRAIN)


def _sentinel1(root: Path, name: str, _: re.Match[str]) -> Product:
    """A SAFE folder, or corrected rasters in a folder of that name: the units are not said."""
    return Product(root, name, parse_date(name))


_Maker = Callable[[Path, str, re.Match[str]], Product]
_FILES: tuple[tuple[re.Pattern[str], _Maker], ...] = (
    (LANDSAT, _landsat),
    (HYP3, _hyp3),
    (OPERA, _opera),
)
_FOLDERS: tuple[tuple[re.Pattern[str], _Maker], ...] = (
    *_FILES,
    (SENTINEL2, _sentinel2),
    (EARTH_SEARCH, _earth_search),
    (SENTINEL1, _sentinel1),
)


def is_product(name: str) -> bool:
    """Whether a folder's or an archive's name, without its ending, is that of a product."""
    return any(pattern.match(name) for pattern, _ in _FOLDERS)
