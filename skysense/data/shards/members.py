"""A sample as members of a tar archive, by the rules of WebDataset, and back.

    KEY.json            {"version", "source", "location", "class_names", "series": {MODALITY:
                        {"sensor", "bands", "dates"}}}
    KEY.MODALITY.npy    (T, C, H, W) stored numbers
    KEY.MODALITY_mask.npy   (T, H, W) bool, where the card's nodata value does not say it
    KEY.classes.npy     (h, w) int16

Members of one sample stand side by side; its key is the name up to the first dot. Source: the
WebDataset format, docs/shards.md.

Legend: T acquisitions, C bands, H W pixels, h w cells of the class map.
"""

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from skysense.data.shards.stored import AnyArray, StoredSample, StoredSeries
from skysense.sample import Dates
from skysense.sensors import MODALITIES

VERSION = 1
"""Of the layout; a reader refuses higher ones."""

FACTS = "json"
CLASSES = "classes.npy"


def split_name(name: str) -> tuple[str, str]:
    """A member's name to key and kind: `a/b.s2.npy` to `a/b` and `s2.npy`."""
    folder, slash, base = name.rpartition("/")
    key, _, kind = base.partition(".")
    return folder + slash + key, kind


def encode(key: str, sample: StoredSample) -> bytes:
    """The members of a sample as a piece of a tar archive, without its end mark."""
    parts: dict[str, bytes] = {FACTS: json.dumps(_facts(sample)).encode()}
    for modality, series in sample.series.items():
        parts[f"{modality}.npy"] = _to_npy(series.pixels)
        if series.mask is not None:
            parts[f"{modality}_mask.npy"] = _to_npy(series.mask)
    if sample.classes is not None:
        parts[CLASSES] = _to_npy(sample.classes)
    piece = bytearray()
    for kind, content in parts.items():
        header = tarfile.TarInfo(f"{key}.{kind}")
        header.size = len(content)
        piece += header.tobuf(tarfile.USTAR_FORMAT) + content
        piece += bytes(-len(content) % tarfile.BLOCKSIZE)
    return bytes(piece)


def _facts(sample: StoredSample) -> dict[str, Any]:
    """What the arrays do not say."""
    facts: dict[str, Any] = {
        "version": VERSION,
        "source": sample.source,
        "location": sample.location,
        "series": {
            modality: {
                "sensor": series.sensor,
                "bands": series.bands,
                "dates": [None if np.isnat(d) else str(d) for d in series.dates],
            }
            for modality, series in sample.series.items()
        },
    }
    return facts | ({"class_names": sample.class_names} if sample.classes is not None else {})


def _to_npy(array: AnyArray) -> bytes:
    """An array as the content of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def split(piece: bytes) -> tuple[str, dict[str, bytes]]:
    """A piece of a tar archive to key and contents by kind.

    Raises:
        ValueError: not whole members of one sample.
    """
    contents: dict[str, bytes] = {}
    keys = set()
    piece += bytes(-len(piece) % tarfile.BLOCKSIZE)  # some writers do not pad the last member
    try:
        with tarfile.open(fileobj=io.BytesIO(piece), mode="r:") as archive:
            for member in archive:
                if member.isfile():
                    start, end = member.offset_data, member.offset_data + member.size
                    key, kind = split_name(member.name)
                    keys.add(key)
                    contents[kind] = piece[start:end]
    except tarfile.TarError as error:
        raise ValueError(f"no tar archive ({error})") from None
    if len(keys) != 1:
        raise ValueError(f"holds {len(keys)} samples where one was expected")
    return keys.pop(), contents


def decode(contents: Mapping[str, bytes], modalities: tuple[str, ...] = MODALITIES) -> StoredSample:
    """Contents by kind to a sample of the wanted modalities.

    Raises:
        ValueError: something is missing, damaged, or does not fit together.
    """
    try:
        facts = read_facts(contents)
        wanted = [key for key in modalities if key in facts["series"]]
        classes = contents.get(CLASSES)
        location = facts.get("location")
        return StoredSample(
            {key: _series(key, facts["series"][key], contents) for key in wanted},
            None if location is None else (float(location[0]), float(location[1])),
            str(facts.get("source", "")),
            None if classes is None else _from_npy(classes).astype(np.int16),
            tuple(map(str, facts.get("class_names", ()))),
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"is incomplete ({type(error).__name__}: {error})") from None


def read_facts(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The JSON of a sample.

    Raises:
        ValueError: there is none, it is no JSON of ours, or of a newer version.
    """
    try:
        facts = json.loads(contents[FACTS])
    except KeyError:
        raise ValueError("has no .json member") from None
    if not isinstance(facts, dict) or not isinstance(facts.get("series"), dict):
        raise ValueError("its .json member does not describe `series`")
    if facts.get("version", VERSION) > VERSION:
        raise ValueError(f"is of version {facts['version']}; this release reads {VERSION}")
    return facts


def _series(key: str, facts: Mapping[str, Any], contents: Mapping[str, bytes]) -> StoredSeries:
    """One modality."""
    pixels = _from_npy(contents[f"{key}.npy"])
    mask = contents.get(f"{key}_mask.npy")
    return StoredSeries(
        pixels,
        parse_dates(facts["dates"]),
        facts["sensor"],
        tuple(facts["bands"]),
        None if mask is None else _from_npy(mask).astype(bool),
    )


def parse_dates(dates: list[str | None]) -> Dates:
    """`YYYY-MM-DD` or `None` each to `(T,)` datetime64[D]."""
    return np.array(["NaT" if date is None else date for date in dates], "datetime64[D]")


def _from_npy(content: bytes) -> AnyArray:
    """An array from the content of a `.npy` file."""
    try:
        array: AnyArray = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # of any kind: NumPy parses a header as Python
        raise ValueError(f"an array is damaged ({error})") from None
    return array.astype(array.dtype.newbyteorder("="), copy=False)
