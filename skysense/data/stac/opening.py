"""Items as layers and scenes."""

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skysense.data.acquisitions import Acquisition, Layer, finish, on_card
from skysense.data.products.choice import check_bbox, check_max_cloud, parse_dates
from skysense.data.rasters import RasterFile, Signer
from skysense.data.scene import Scene, lay_over, open_layers, open_scene
from skysense.data.stac.assets import source_of
from skysense.data.stac.choosing import Choice, LackingBands, choose
from skysense.data.stac.items import Query, find_items
from skysense.data.stac.kinds import bands_of, card_of, number, scaling_of
from skysense.data.stac.signing import PlanetarySigner
from skysense.sensors import MODALITIES, SENSORS, SensorCard, get_sensor

if TYPE_CHECKING:
    import pystac

_THREADS = 8
"""Items that are looked at together."""


def open_stac(
    source: str | Path,
    bbox: Sequence[float] | None = None,
    dates: str | None = None,
    collections: Sequence[str] | None = None,
    max_cloud: float | None = None,
    *,
    sensors: Mapping[str, str] | None = None,
    sign: Signer | None = None,
    most: int = 1000,
) -> Scene:
    """The scene of STAC items: found now, read window by window later.

    Args:
        source: a STAC API, catalog, collection, item collection or item; URL or file.
        bbox: west, south, east, north in degrees; west above east lies over the antimeridian. An
            API needs it.
        dates: days such as `"2021-03/2021-10"`.
        collections: names of collections; an API needs them.
        max_cloud: dates with a greater share of clouds, 0 to 1, are left out: by `eo:cloud_cover`,
            else by the mask.
        sensors: modality to sensor card, instead of the one that the items tell.
        sign: turns the address of an asset into the one to read; it is asked each time that a
            file is opened. That of the Planetary Computer is built in.
        most: more items than that are refused.

    Raises:
        ValueError: the source cannot be read, has no such items, or the items cannot be used.
    """
    layers = stac_layers(
        source, bbox, dates, collections, max_cloud, sensors=sensors, sign=sign, most=most
    )
    return lay_over(layers, bbox=bbox, max_cloud=max_cloud)


def open_inputs(
    inputs: Mapping[str, Sequence[str | Path]],
    sensors: Mapping[str, str],
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    stac: str | Path | None = None,
    bbox: Sequence[float] | None = None,
    dates: str | None = None,
    collections: Sequence[str] | None = None,
    max_cloud: float | None = None,
) -> Scene:
    """Files and STAC items together as one scene.

    Args:
        inputs: modality to files, folders or archives; may be empty where `stac` is given.
        sensors: modality to sensor card, where it is not left to products and items.
        names: modality to band names, where files have none.
        stac: source of `open_stac`, for the modalities that `inputs` lacks.
        bbox: as of `open_stac`, for files too.
        dates: likewise.
        collections: of the STAC source.
        max_cloud: as of `open_stac`, for files too.

    Raises:
        ValueError: as of `open_scene` and `open_stac`, or both have a modality.
    """
    if stac is None:
        if collections:
            raise ValueError("collections are those of a STAC source; give --stac as well")
        return open_scene(inputs, sensors, names, bbox=bbox, dates=dates, max_cloud=max_cloud)
    layers = open_layers(inputs, sensors, names, dates)
    found = stac_layers(stac, bbox, dates, collections, max_cloud, sensors=sensors)
    both = [key for key in found if key in layers]
    if both:
        raise ValueError(
            f"{', '.join(both)} comes from files and from {stac}; choose other collections "
            f"with --collection, or leave the files out"
        )
    return lay_over({**layers, **found}, bbox=bbox, max_cloud=max_cloud)


def stac_layers(
    source: str | Path,
    bbox: Sequence[float] | None = None,
    dates: str | None = None,
    collections: Sequence[str] | None = None,
    max_cloud: float | None = None,
    *,
    sensors: Mapping[str, str] | None = None,
    sign: Signer | None = None,
    most: int = 1000,
) -> dict[str, Layer]:
    """The layers of `open_stac`, to be laid over others, such as files of one's own.

    Raises:
        ValueError: as of `open_stac`.
    """
    if max_cloud is not None:
        check_max_cloud(max_cloud)
    query = Query(
        None if bbox is None else check_bbox(bbox),
        None if dates is None else parse_dates(dates),
        tuple(collections or ()),
        most,
    )
    address = str(source)
    if sign is None and "planetarycomputer" in address:
        sign = PlanetarySigner()
    families = _by_card(find_items(address, query), sensors or {})
    layers = {}
    for card, items in families.items():
        key = card.modality
        if key in layers:
            names = sorted(one.name for one in families if one.modality == key)
            raise ValueError(
                f"{address}: the items are of several sensors of {key} ({', '.join(names)}); "
                f"choose with `--collection`"
            )
        layers[str(key)] = _layer(card, items, sign)
    return {key: layers[key] for key in MODALITIES if key in layers}


def _by_card(
    items: "Sequence[pystac.Item]", sensors: Mapping[str, str]
) -> "dict[SensorCard, list[pystac.Item]]":
    """Items by sensor card; one that the user names counts more than what the items tell.

    Raises:
        ValueError: nothing says which sensor an item is of.
    """
    found: dict[SensorCard, list[pystac.Item]] = {}
    for item in items:
        name = card_of(item)
        if name is None and len(sensors) == 1:
            name = next(iter(sensors.values()))  # the only sensor there is
        if name is None:
            raise ValueError(
                f"item {item.id} of collection {item.collection_id!r}: nothing says which sensor "
                f"it is of; choose one `--sensor`"
            )
        card = get_sensor(sensors.get(SENSORS[name].modality, name))
        found.setdefault(card, []).append(item)
    return found


def _layer(card: SensorCard, items: "Sequence[pystac.Item]", sign: Signer | None) -> Layer:
    """The layer of one sensor; a warning tells of items that lack a band.

    Raises:
        ValueError: all items lack a band, or a file cannot be used.
    """
    usable, chosen, lacking = [], [], []
    for item in items:
        try:
            chosen.append(choose(card, item))
            usable.append(item)
        except LackingBands as error:
            lacking.append(error)
    if not usable:
        raise lacking[0]
    if lacking:
        warnings.warn(
            f"{card.modality}: left out {len(lacking)} of {len(items)} items, for lack of bands: "
            f"{lacking[0]}",
            stacklevel=4,
        )
    with ThreadPoolExecutor(_THREADS) as threads:
        acquisitions = list(threads.map(partial(_acquisition, card, sign), usable, chosen))
    card = _by_offset(card, acquisitions)
    for acquisition in acquisitions:
        acquisition.sources = {
            name: (on_card(file, card), index)
            for name, (file, index) in acquisition.sources.items()
        }
    return finish(card, acquisitions)


def _acquisition(
    card: SensorCard, sign: Signer | None, item: "pystac.Item", chosen: Choice
) -> Acquisition:
    """One item, of whose assets those of the card's bands and of the masks were chosen."""
    bands, masks = chosen
    files: dict[str, RasterFile] = {}
    for key in dict.fromkeys(key for key, _ in [*bands.values(), *masks.values()]):
        files[key] = source_of(item, key, sign)
    cover = number(item.properties.get("eo:cloud_cover"))
    told = {
        key: scaling_of(item, card.name, bands_of(item.assets[key])) for key, _ in bands.values()
    }
    scaled = {key: replace(files[key], scaling=told[key]) for key in told}
    found = Acquisition(next(iter(files.values())).date)
    found.sources = {name: (scaled[key], index) for name, (key, index) in bands.items()}
    found.masks = {kind: (files[key], index) for kind, (key, index) in masks.items()}
    found.cloud_cover = None if cover is None else cover / 100
    return found


def _by_offset(card: SensorCard, acquisitions: Sequence[Acquisition]) -> SensorCard:
    """The baseline 04.00 twin of a Sentinel-2 card, where an item has its offset.

    Raises:
        ValueError: of another item nothing is known.
    """
    scalings = {file.scaling for a in acquisitions for file, _ in a.sources.values()}
    if card.name not in ("s2_l2a", "s2_l1c") or not any(s and s[1] < 0 for s in scalings):
        return card
    unknown = [a for a in acquisitions if any(f.scaling is None for f, _ in a.sources.values())]
    if unknown:
        days = ", ".join(str(a.date) for a in unknown[:5] if not np.isnat(a.date))
        raise ValueError(
            f"some items have the offset of baseline 04.00, and of others ({days}) nothing says; "
            f"narrow the dates"
        )
    return SENSORS[f"{card.name}_n0400"]
