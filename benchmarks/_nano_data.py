"""What `pretrain_nano.py` trains on, from the imagery at hand.

`shards` is for the first phase: labelled images without those held out, and a little of
Sentinel-2 and Sentinel-1. `shards_multi` is for a phase on all modalities: all Sentinel-2 and
Sentinel-1 that the cards can read, and synthetic places, since real triples are rare.

Not in `shards_multi`: Sentinel-2 without all ten bands (two places and the monthly cube of the crop
series, whose Sentinel-1 is used), and TreeSatAI, whose HDF5 files need h5py.

Legend: T acquisitions, C bands, H W pixels.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.warp import transform

from skysense.data.labelled import stratified
from skysense.data.scene import CLOUDY
from skysense.data.shards import (
    Cut,
    Draft,
    Reading,
    StoredSample,
    StoredSeries,
    build_shards,
    drafts_of,
    leave_out,
    pairs,
    read_excluded,
    scene,
    synthetic,
)
from skysense.sample import undated
from skysense.sensors import TOKENIZER_BANDS

SHARE, SEED = 0.2, 0

WINDOW, CROP_WINDOW = 64, 32
"""Side of a window in 10 m pixels; that of the crop series, whose places are small."""
DATES = 24
"""At most, of a place of the crop series."""
CLEAR = 0.5
"""Share of a window that a date must have measured."""
SNOW = 11
"""Of the scene classification; left out with the clouds, from which it is hard to tell."""
OFFSET_CIRRUS = 900
"""Band 10 sees no ground and is near zero: larger numbers have the offset of baseline 04.00."""
SYNTHETIC = 200
FIRST_SYNTHETIC = 10_000
"""Far from the numbers that tests and examples use."""

L1C_BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
S1_BANDS = TOKENIZER_BANDS["s1"]
WHOLE = Cut(100_000)
"""A scene in one piece: windows are no larger than it."""


def split_off(rows: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write `train.csv` and `held_out.csv` of paths and classes, a fifth of each class held out."""
    names = sorted({name for _, name in rows})
    labels = np.array([names.index(name) for _, name in rows])
    for file, chosen in zip(("train", "held_out"), stratified(labels, SHARE, SEED), strict=True):
        with (folder / f"{file}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "class", "label"))
            writer.writerows((*rows[i], labels[i]) for i in chosen)


def link(target: Path, source: Path) -> None:
    """A link to the data, which stays where it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source.resolve())


def labelled(data: Path, work: Path) -> dict[str, Path]:
    """Split the two labelled sets; what holds their images, by name."""
    eurosat, merced = work / "eurosat", work / "ucmerced"
    link(eurosat / "images.zip", data / "eurosat_rgb/images.zip")
    with (data / "eurosat_rgb/labels.csv").open(newline="") as stream:
        split_off([(row["path"], row["class"]) for row in csv.DictReader(stream)], eurosat)
    link(merced / "images", data / "ucmerced")
    files = sorted((data / "ucmerced").glob("*/*.jpg"))
    split_off([(f"images/{f.parent.name}/{f.name}", f.parent.name) for f in files], merced)
    return {"eurosat": eurosat / "images.zip", "ucmerced": merced / "images"}


def patches(data: Path) -> list[Draft]:
    """Sentinel-2 L2A of 64 px, without dates or places."""
    files = sorted((data / "s2_l2a_patches").glob("*.npz"))
    return [draft for file in files for draft in drafts_of(file, Reading(sensors={"s2": "s2_l2a"}))]


def shards(data: Path, work: Path) -> None:
    """Write the shards of the first phase."""
    target = work / "shards"
    if (target / "index.json").exists():
        return
    drafts: list[Draft] = []
    for name, source in labelled(data, work).items():
        reading = Reading(sensors={"hr": "rgb8"}, max_size=128)
        held_out = read_excluded(work / name / "held_out.csv")
        kept, left_out = leave_out(drafts_of(source, reading), held_out)
        print(f"{name}: {len(kept)} images to train on, {left_out} held out")
        drafts += kept
    drafts += patches(data)
    mesh = data / "terramesh_multimodal"
    for name, inputs in pairs({"s2": mesh / "S2L2A", "s1": mesh / "S1RTC"}).items():
        drafts.append(scene(name, inputs, Reading().every, Cut.parse("64")))
    built = build_shards(drafts, target, samples_per_shard=2000, seed=SEED)
    print(f"{built.samples} samples of {built.modalities}; {len(built.bad)} could not be read")


def shards_multi(data: Path, work: Path) -> None:
    """Write the shards of the phase on all modalities, and print what each source gave."""
    target = work / "shards_multi"
    if (target / "index.json").exists():
        return
    tally: Counter[tuple[str, str]] = Counter()
    sources = {
        "s2_l2a_patches": patches(data),
        "terramesh L2A": terramesh(data, "S2L2A"),
        "terramesh L1C": terramesh(data, "S2L1C"),
        "dfc2020": dfc2020(data),
        "ssl4eo_s12": ssl4eo(data),
        "crop series": crop_series(data),
        "bigearthnet": bigearthnet(data),
        "sen1floods11": sen1floods11(data),
        "synthetic": synthetic(SYNTHETIC, size=32, hr_per_s2=4, seed=FIRST_SYNTHETIC),
    }
    drafts = [counted(name, draft, tally) for name, own in sources.items() for draft in own]
    built = build_shards(drafts, target, samples_per_shard=500, seed=SEED)
    print(f"{'source':16} {'samples':>7}  modalities")
    for (name, modalities), count in tally.items():
        print(f"{name:16} {count:7}  {modalities}")
    print(f"{built.samples} samples of {built.modalities}, {built.bytes / 1e6:.0f} MB")
    print("left out: treesatai_ts (HDF5), Sentinel-2 without all ten bands")
    for name, why in built.bad:
        print(f"could not be read: {name}: {why}")


def counted(source: str, draft: Draft, tally: Counter[tuple[str, str]]) -> Draft:
    """The same draft, whose samples are counted by source and modalities as they are read."""

    def read() -> Iterator[StoredSample]:
        for sample in draft.read():
            tally[source, " + ".join(sorted(sample.series))] += 1
            yield sample

    return Draft(draft.name, read)


def windows_of(draft: Draft, side: int = WINDOW, step: int = WINDOW) -> Draft:
    """A draft of the windows of the places of a draft.

    Args:
        draft: its places have pixels of the same ground in all modalities, of 10 m.
        side: of a window, in pixels.
        step: about so far apart, in pixels, over all of the place.
    """
    return Draft(draft.name, partial(_windows, draft, side, step))


def _windows(draft: Draft, side: int, step: int) -> Iterator[StoredSample]:
    """The windows; dates of which too little was measured are left out.

    Raises:
        ValueError: values that a card cannot mean, or modalities on different grids.
    """
    for place in draft.read():
        shapes = {series.pixels.shape[2:] for series in place.series.values()}
        if len(shapes) > 1:
            raise ValueError(f"modalities have {shapes} pixels, expected the same")
        for key, series in place.series.items():
            series.check_scale(key)
        height, width = shapes.pop()
        for row, col in product(_starts(height, side, step), _starts(width, side, step)):
            ground = (..., slice(row, row + side), slice(col, col + side))
            found = {}
            for key, series in place.series.items():
                mask = None if series.mask is None else series.mask[ground]
                part = replace(series, pixels=series.pixels[ground], mask=mask)
                dates = np.flatnonzero(part.measured().mean((1, 2)) >= CLEAR)
                if len(dates):
                    found[key] = part.at(dates)
            if found:
                south = row + (side - height) / 2
                east = col + (side - width) / 2
                yield StoredSample(
                    found, _moved(place.location, south, east), f"{draft.name}[{row},{col}]"
                )


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where windows begin along one side."""
    count = max(1, round((length - side) / step) + 1)
    return [int(start) for start in np.linspace(0, max(0, length - side), count).round()]


def _moved(
    location: tuple[float, float] | None, south: float, east: float
) -> tuple[float, float] | None:
    """A place so many pixels of 10 m away, north being up."""
    if location is None:
        return None
    lon, lat = location
    degree = 11_132.0  # pixels of 10 m in a degree of latitude
    return lon + east / (degree * math.cos(math.radians(lat))), lat - south / degree


def terramesh(data: Path, product_name: str) -> list[Draft]:
    """Sentinel-2 of one level with Sentinel-1; windows overlap by half."""
    mesh = data / "terramesh_multimodal"
    found = []
    for name, inputs in pairs({"s2": mesh / product_name, "s1": mesh / "S1RTC"}).items():
        card = "s2_l2a" if product_name == "S2L2A" else _l1c_card(inputs["s2"][0])
        place = scene(f"terramesh/{product_name}/{name}", inputs, {"s2": card, "s1": "s1"}, WHOLE)
        found.append(windows_of(place, step=WINDOW // 2))
    return found


def _l1c_card(path: Path) -> str:
    """The L1C card of a file, with or without the offset: the set has both, and does not say."""
    with rasterio.open(path) as file:
        cirrus = file.read(file.descriptions.index("B10") + 1)
    return "s2_l1c_n0400" if cirrus.min() > OFFSET_CIRRUS else "s2_l1c"


def dfc2020(data: Path) -> list[Draft]:
    """Sentinel-2 L1C with Sentinel-1, without dates or places."""
    files = sorted((data / "dfc2020_samples").glob("*_s2_*.tif"))
    return [windows_of(Draft(f"dfc2020/{file.stem}", partial(_dfc_tile, file))) for file in files]


def _dfc_tile(path: Path) -> Iterator[StoredSample]:
    """One tile, whose files have no place on the ground and are no scenes for that."""
    series = {}
    for key, sensor, bands in (("s2", "s2_l1c", L1C_BANDS), ("s1", "s1", S1_BANDS)):
        with rasterio.open(path.with_name(path.name.replace("_s2_", f"_{key}_"))) as file:
            series[key] = StoredSeries(file.read()[None], undated(1), sensor, bands)
    yield StoredSample(_card_bands(series))


def _card_bands(series: Mapping[str, StoredSeries]) -> dict[str, StoredSeries]:
    """Without bands that no card has."""
    kept = {}
    for key, own in series.items():
        order = [own.bands.index(band.name) for band in own.card.bands]
        bands = tuple(own.bands[i] for i in order)
        kept[key] = replace(own, pixels=own.pixels[:, order], bands=bands)
    return kept


def ssl4eo(data: Path) -> list[Draft]:
    """Seasons of two places: L2A and L1C, with Sentinel-1 where it is there."""
    found = []
    for level, card in (("s2a", "s2_l2a"), ("s2c", "s2_l1c")):
        for folder in sorted((data / "ssl4eo_s12_samples").glob(f"*/{level}")):
            inputs = {"s2": [folder], "s1": [folder.parent / "s1"]}
            inputs = {key: paths for key, paths in inputs.items() if paths[0].is_dir()}
            name = f"ssl4eo/{folder.parent.name}/{level}"
            found.append(windows_of(scene(name, inputs, {"s2": card, "s1": "s1"}, WHOLE)))
    return found


def bigearthnet(data: Path) -> list[Draft]:
    """Patches of Sentinel-2 or of Sentinel-1; none here has both."""
    found = []
    for key, pattern in (("s2", "*/*_10m.tif"), ("s1", "*/*_s1.tif")):
        for file in sorted((data / "bigearthnet_samples").glob(pattern)):
            name = f"bigearthnet/{file.parent.name}"
            found.append(
                windows_of(scene(name, {key: [file.parent]}, {key: Reading().every[key]}, WHOLE))
            )
    return found


def sen1floods11(data: Path) -> list[Draft]:
    """Sentinel-2 L1C with Sentinel-1, without dates."""
    found = []
    for file in sorted((data / "sen1floods11_sample").glob("*_S2Hand.tif")):
        inputs = {"s2": [file], "s1": [file.with_name(file.name.replace("S2Hand", "S1Hand"))]}
        names = {"s2": L1C_BANDS, "s1": S1_BANDS}
        cards = {"s2": "s2_l1c", "s1": "s1"}
        place = scene(f"sen1floods11/{file.stem}", inputs, cards, WHOLE, names)
        found.append(windows_of(place))
    return found


def crop_series(data: Path) -> list[Draft]:
    """Series of up to `DATES` dates of small places: Sentinel-1, and Sentinel-2 of all bands."""
    found = []
    for path in sorted((data / "s1s2_crop_timeseries").glob("*.npz")):
        read = _monthly_place if path.name.startswith("belgium_monthly") else _crop_place
        place = Draft(f"crop_series/{path.stem}", partial(read, path))
        found.append(windows_of(place, CROP_WINDOW, CROP_WINDOW))
    return found


def _crop_place(path: Path) -> Iterator[StoredSample]:
    """One place of all dates; what has pixels of 20 m is repeated to 10 m."""
    have = np.load(path)
    series = {}
    if "s2_10m" in have:
        s2 = np.concatenate([have["s2_10m"], _repeated(have["s2_20m"])], 1)  # (T, 10, H, W)
        bands = tuple(map(str, (*have["s2_10m_bands"], *have["s2_20m_bands"])))
        clear = ~np.isin(_repeated(have["scl_20m"]), (*CLOUDY, SNOW)) & (s2 > 0).all(1)
        series["s2"] = StoredSeries(s2, _days(have["s2_dates"]), "s2_l2a", bands, clear)
    s1 = _repeated(have["s1_20m_dBx100"])
    decibel = np.where(s1 == np.iinfo(np.int16).min, np.nan, s1 / 100).astype(np.float32)
    bands = tuple(map(str, have["s1_bands"]))
    series["s1"] = StoredSeries(decibel, _days(have["s1_dates"]), "s1", bands)
    west, south, east, north = have["bounds"]
    place = _lon_lat(int(have["epsg"]), (west + east) / 2, (south + north) / 2)
    yield StoredSample({key: _spread(own) for key, own in series.items()}, place)


def _monthly_place(path: Path) -> Iterator[StoredSample]:
    """The Sentinel-1 of the monthly cube; its Sentinel-2 lacks B8A."""
    have = np.load(path)
    stored = have["s1_10m"].view(np.uint16).astype(np.float32)  # kept as int16
    known = (stored > 0) & (stored < np.iinfo(np.uint16).max)
    decibel = np.where(known, 20 * np.log10(np.maximum(stored, 1)) - 83, np.float32(np.nan))
    bands = tuple(map(str, have["s1_bands"]))
    series = StoredSeries(decibel.astype(np.float32), _days(have["months"]), "s1", bands)
    place = _lon_lat(int(have["epsg"]), float(have["x"].mean()), float(have["y"].mean()))
    yield StoredSample({"s1": _spread(series)}, place)


def _spread(series: StoredSeries) -> StoredSeries:
    """The clearest date of each of `DATES` equal parts of the time, where one is clear."""
    clear = series.measured().mean((1, 2))
    since = (series.dates - series.dates.min()).astype(np.int64)
    part = since * DATES // (since.max() + 1)
    best = [max(np.flatnonzero(part == i), key=lambda date: clear[date]) for i in np.unique(part)]
    return series.at([int(date) for date in best if clear[date] >= CLEAR])


def _repeated(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`(..., H, W)` to `(..., 2 H, 2 W)`."""
    return pixels.repeat(2, -1).repeat(2, -2)


def _days(dates: npt.NDArray[np.str_]) -> npt.NDArray[np.datetime64]:
    """`(T,)` dates as text to datetime64[D]."""
    return np.array([str(date)[:10] for date in dates], "datetime64[D]")


def _lon_lat(epsg: int, x: float, y: float) -> tuple[float, float]:
    """`(lon, lat)` in degrees of a point."""
    (lon,), (lat,) = transform(f"EPSG:{epsg}", "EPSG:4326", [x], [y])
    return lon, lat
