"""`.npz` files: many images of one sensor, or one place in several modalities.

    images  (N, C, H, W)       N samples of one sensor; optional `bands` (C,), `names` (N,),
                               `dates` (N,), `locations` (N, 2) as (lon, lat)
    hr, s2, s1  (T, C, H, W)   one sample, of any subset; for each, optionally `s2_bands` (C,),
                               `s2_dates` (T,), `s2_mask` (T, H, W); optional `location` (2,),
                               `classes` (h, w) with `class_names`

Legend: N images, T acquisitions, C bands, H W pixels, h w cells of the class map.
"""

import functools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from skysense.data.shards.drafts import Draft
from skysense.data.shards.stored import AnyArray, StoredSample, StoredSeries, storable
from skysense.sample import Dates, undated
from skysense.sensors import DEFAULT_SENSORS, MODALITIES, get_sensor

Arrays = Mapping[str, AnyArray]

IMAGES = "images"


def arrays(
    path: Path,
    sensor: str,
    sensors: Mapping[str, str] = DEFAULT_SENSORS,  # type: ignore[assignment]
    bands: Sequence[str] | None = None,
) -> list[Draft]:
    """One draft an image of `images`, or one for the place that `hr`, `s2`, `s1` hold.

    Args:
        path: the file.
        sensor: card of `images`.
        sensors: card of each of `hr`, `s2`, `s1`.
        bands: names of the bands of `images`, where the file does not say them; default: the
            card's, in its order.

    Raises:
        ValueError: no such arrays in it, or it cannot be read.
    """
    have = _load(path)
    if IMAGES in have:
        if have[IMAGES].ndim != 4:
            raise ValueError(
                f"{path}: `images` has shape {have[IMAGES].shape}, expected (N, C, H, W)"
            )
        names = [f"{path.name}/{i}" for i in range(len(have[IMAGES]))]
        if "names" in have and len(have["names"]) == len(names):
            names = [f"{path.name}/{name}" for name in have["names"]]
        return [
            Draft(name, partial(_image, name, path, i, sensor, bands))
            for i, name in enumerate(names)
        ]
    if not set(have) & set(MODALITIES):
        raise ValueError(
            f"{path}: holds {', '.join(have) or 'nothing'}; expected `images`, or `hr`, `s2`, `s1`"
        )
    return [Draft(path.name, partial(_place, path, sensors))]


@functools.lru_cache(maxsize=1)  # drafts are read file by file
def _load_once(path: Path, _: int) -> Arrays:
    """All arrays of a file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read as .npz ({error})") from None


def _load(path: Path) -> Arrays:
    """All arrays of a file as it is now."""
    return _load_once(path, path.stat().st_mtime_ns)


def _image(
    name: str, path: Path, number: int, sensor: str, bands: Sequence[str] | None
) -> Iterator[StoredSample]:
    """One of many images."""
    have, card = _load(path), get_sensor(sensor)
    named = have["bands"].tolist() if "bands" in have else [band.name for band in card.bands]
    dates = _dates(have["dates"][number : number + 1]) if "dates" in have else undated(1)
    pixels = storable(have[IMAGES][number])[None]  # (1, C, H, W)
    series = StoredSeries(pixels, dates, card.name, tuple(bands or named))
    series.check_scale("an image")
    place = have["locations"][number] if "locations" in have else None
    yield StoredSample({card.modality: series}, _location(place), name)


def _place(path: Path, sensors: Mapping[str, str]) -> Iterator[StoredSample]:
    """One place in several modalities."""
    have = _load(path)
    series: dict[str, StoredSeries] = {}
    for key in MODALITIES:
        if key in have:
            card = get_sensor(sensors[key])
            pixels = storable(have[key])
            pixels = pixels[None] if pixels.ndim == 3 else pixels
            named = have.get(f"{key}_bands", np.array([band.name for band in card.bands]))
            dates, mask = have.get(f"{key}_dates"), have.get(f"{key}_mask")
            series[key] = StoredSeries(
                pixels,
                undated(len(pixels)) if dates is None else _dates(dates),
                card.name,
                tuple(named.tolist()),
                None if mask is None else mask.astype(bool).reshape(len(pixels), *pixels.shape[2:]),
            )
            series[key].check_scale(key)
    classes = have.get("classes")
    names = have["class_names"].tolist() if "class_names" in have else []
    yield StoredSample(
        series,
        _location(have.get("location")),
        path.name,
        None if classes is None else classes.astype(np.int16),
        tuple(names),
    )


def _dates(values: AnyArray) -> Dates:
    """Dates as text or as `datetime64`; what is empty is unknown."""
    if values.dtype.kind == "M":
        return values.astype("datetime64[D]")
    return np.array([str(value)[:10] or "NaT" for value in values], "datetime64[D]")


def _location(place: AnyArray | None) -> tuple[float, float] | None:
    """`(lon, lat)`, if it is known."""
    if place is None or not np.isfinite(place.astype(float)).all():
        return None
    lon, lat = place.astype(float).tolist()
    return lon, lat
