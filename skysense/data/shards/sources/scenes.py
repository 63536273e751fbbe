"""Rasters of one place in several modalities and dates, cut into windows of aligned ground.

Legend: T acquisitions, C bands, H W pixels.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from skysense.data.acquisitions import Layer
from skysense.data.rasters import expand
from skysense.data.scene import Scene, SceneReader, open_scene
from skysense.data.shards.drafts import Draft
from skysense.data.shards.stored import STORED_TYPES, StoredSample, StoredSeries
from skysense.geo import Window
from skysense.sample import Sample
from skysense.sensors import MODALITIES

Inputs = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Cut:
    """How large the windows are."""

    length: float = 256
    """Side of a window."""
    metres: bool = False
    """`length` is in metres; otherwise in pixels of the finest layer."""

    @classmethod
    def parse(cls, text: str) -> "Cut":
        """`256` is pixels, `640m` is metres.

        Raises:
            ValueError: it is neither.
        """
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text.strip())
        if found is None or float(found[1]) <= 0:
            raise ValueError(
                f"`--size {text}`: expected pixels such as 256, or metres such as 640m"
            )
        return cls(float(found[1]), bool(found[2]))


def scene(
    name: str,
    inputs: Inputs,
    sensors: Mapping[str, str],
    cut: Cut | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    mask_clouds: bool = True,
) -> Draft:
    """A draft of the windows of one scene.

    Args:
        name: what it is called.
        inputs: modality to files or folders.
        sensors: modality to sensor card.
        cut: how large windows are.
        names: modality to band names, where the files have none.
        mask_clouds: mask what a scene classification calls cloud or shadow.
    """
    read = partial(read_windows, name, inputs, sensors, cut or Cut(), names, mask_clouds)
    return Draft(name, read)


def places(folder: Path) -> dict[str, Inputs]:
    """The places of a folder: its sub-folders, or itself, that hold files of known modality.

    The modality of a file is the first word of its name, or of a folder between it and the place:
    `s2_20240601.tif`, `S1/a.tif`, `hr.tif`.
    """
    own = {key: files for key, files in _by_modality(folder).items() if files}
    direct = [path for files in own.values() for path in files if path.parent == folder]
    nested = [path for path in folder.iterdir() if path.is_dir() and _modality(path.name)]
    if own and (direct or nested):
        return {folder.name: own}
    found: dict[str, Inputs] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        if inputs := _by_modality(place):
            found[f"{folder.name}/{place.name}"] = inputs
    return found


def pairs(folders: Mapping[str, Path]) -> dict[str, Inputs]:
    """Files of the same name in one folder each modality, as one place each.

    Raises:
        ValueError: a folder holds no raster.
    """
    found: dict[str, Inputs] = {}
    for key, folder in folders.items():
        for path in expand([folder]):
            name = path.relative_to(folder).with_suffix("").as_posix()
            found[name] = {**found.get(name, {}), key: [path]}
    return dict(sorted(found.items()))


def _by_modality(folder: Path) -> dict[str, list[Path]]:
    """The rasters below a folder whose modality their names tell."""
    found: dict[str, list[Path]] = {}
    try:
        files = expand([folder])
    except ValueError:  # holds none
        return {}
    for path in files:
        parts = path.relative_to(folder).with_suffix("").parts
        key = next((key for part in parts if (key := _modality(part))), None)
        if key is not None:
            found.setdefault(key, []).append(path)
    return {key: found[key] for key in MODALITIES if key in found}


def _modality(name: str) -> str | None:
    """The modality that the first word of a name is."""
    word = re.split(r"[^a-z0-9]+", name.lower())[0]
    return word if word in MODALITIES else None


def read_windows(
    name: str,
    inputs: Inputs,
    sensors: Mapping[str, str],
    cut: Cut,
    names: Mapping[str, Sequence[str]] | None,
    mask_clouds: bool,
) -> Iterator[StoredSample]:
    """The samples of a scene; windows of which nothing was measured are left out.

    Raises:
        ValueError: files that cannot be used, or do not belong together.
    """
    opened = open_scene(inputs, sensors, names)
    with SceneReader(opened, mask_clouds) as reader:
        reader.check_scale()
    kept = replace(opened, layers={key: _unscaled(own) for key, own in opened.layers.items()})
    with SceneReader(kept, mask_clouds) as reader:
        for window in windows(opened, cut):
            sample = reader.read(window)
            series = {
                key: stored
                for key, layer in opened.layers.items()
                if (stored := _stored(sample, key, layer)) is not None
            }
            if series:
                source = f"{name}[{window.row},{window.col}]"
                yield StoredSample(series, sample.location, source)


def windows(scene: Scene, cut: Cut) -> Iterator[Window]:
    """Windows of one size over all of a scene, on whole pixels of every layer.

    They overlap a little, or leave a little out, where the scene is no multiple of their size; of
    a smaller scene the window is all.
    """
    step = max(scene.ratios.values())
    side = cut.length / scene.pixel_metres if cut.metres else cut.length
    side = max(1, round(side / step)) * step
    sizes = [min(int(side), length) for length in scene.grid.shape]
    starts = []
    for length, size in zip(scene.grid.shape, sizes, strict=True):
        count = max(1, round(length / size))
        room = (length - size) // step
        starts.append([round(room * i / max(1, count - 1)) * step for i in range(count)])
    for row, col in product(*starts):
        yield Window(row, col, *sizes)


def _unscaled(layer: Layer) -> Layer:
    """The same layer, read as stored numbers."""
    card = replace(layer.card, scale=1.0, offset=0.0, power_to_decibel=False)
    return replace(layer, card=card)


def _stored(sample: Sample, key: str, layer: Layer) -> StoredSeries | None:
    """One modality of a window, without dates of which nothing was measured."""
    card, series = layer.card, sample.series[key]
    mask = series.mask.numpy()
    dates = np.flatnonzero(mask.any((1, 2)))
    if not len(dates):
        return None
    mask = mask[dates]
    pixels = series.pixels.numpy()[dates][:, list(card.channels)]
    files = [file for acquisition in layer.acquisitions for file in acquisition.files]
    dtype = np.result_type(*(file.dtype for file in files)).name
    if dtype in STORED_TYPES and not dtype.startswith("float"):
        limits = np.iinfo(dtype)
        pixels = np.clip(np.rint(pixels), limits.min, limits.max).astype(dtype)
    else:
        pixels = np.where(mask[:, None], pixels, np.float32(math.nan))
    bands = tuple(band.name for band in card.bands)
    stored = StoredSeries(pixels, layer.dates[dates], card.name, bands)
    if np.array_equal(stored.measured(), mask):
        return stored
    return replace(stored, mask=mask)
