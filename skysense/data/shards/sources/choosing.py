"""Which kind of source a path is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skysense.data.folders import below
from skysense.data.shards.drafts import Draft
from skysense.data.shards.sources.arrays import arrays
from skysense.data.shards.sources.images import IMAGE_SUFFIXES, images
from skysense.data.shards.sources.items import items
from skysense.data.shards.sources.scenes import Cut, places, scene
from skysense.sensors import DEFAULT_SENSORS, MODALITIES, get_sensor


@dataclass(frozen=True)
class Reading:
    """How sources are read."""

    sensors: Mapping[str, str] = field(default_factory=dict)
    """Modality to sensor card, where it is not the default; images and `.npz` files take the only
    one, or that of `hr`."""
    bands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Modality to band names of files that do not say them."""
    cut: Cut = field(default_factory=Cut)
    """Windows of scenes."""
    max_size: int | None = None
    """Longest side of an image that is not cut."""
    mask_clouds: bool = True
    """Mask what a scene classification calls cloud or shadow."""

    @property
    def single(self) -> str:
        """The card of images of one sensor."""
        alone = next(iter(self.sensors.values())) if len(self.sensors) == 1 else None
        return alone or self.every["hr"]

    @property
    def every(self) -> dict[str, str]:
        """The card of each modality."""
        return {key: self.sensors.get(key, DEFAULT_SENSORS[key]) for key in MODALITIES}


def drafts_of(source: Path, reading: Reading | None = None) -> list[Draft]:
    """The drafts of one path: an image, an archive, arrays, items, or a folder of any of these.

    A folder whose files or sub-folders are named after modalities holds places; any other is
    searched for `.npz` files and images.

    Raises:
        ValueError: it does not exist, or holds nothing of that kind.
    """
    reading = reading or Reading()
    bands = reading.bands.get(get_sensor(reading.single).modality)
    kind = source.suffix.lower()
    if not source.exists():
        raise ValueError(f"{source}: there is no such file or folder")
    if source.is_dir():
        found = _of_folder(source, reading, bands)
    elif kind == ".npz":
        found = arrays(source, reading.single, reading.every, bands)
    elif kind in (".json", ".geojson"):
        found = items(source, reading.sensors, reading.cut)
    elif kind == ".zip" or kind in IMAGE_SUFFIXES:
        found = images(source, reading.single, bands, reading.max_size)
    else:
        known = ", ".join((*IMAGE_SUFFIXES, ".zip", ".npz", ".json"))
        raise ValueError(f"{source}: is of no kind that can be read ({known}, or a folder)")
    if not found:
        raise ValueError(f"{source}: holds no images, no .npz files and no places")
    return found


def _of_folder(folder: Path, reading: Reading, bands: Sequence[str] | None) -> list[Draft]:
    """The drafts of a folder."""
    if inside := places(folder):
        return [
            scene(name, inputs, reading.every, reading.cut, reading.bands, reading.mask_clouds)
            for name, inputs in inside.items()
        ]
    found = images(folder, reading.single, bands, reading.max_size)
    for path in below(folder):
        if path.suffix == ".npz":
            found += arrays(path, reading.single, reading.every, bands)
    return found
