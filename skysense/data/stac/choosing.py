"""Which asset of an item holds which band of a card, and which is a cloud mask."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from skysense.data.products import find_masks
from skysense.data.rasters import RASTER_SUFFIXES
from skysense.data.stac.kinds import BandFacts, bands_of
from skysense.sensors import SensorCard, missing_bands
from skysense.sensors.cards import Band
from skysense.sensors.match import matches, tokens

if TYPE_CHECKING:
    import pystac

_PICTURES = {"visual", "thumbnail", "overview", "preview", "rendered_preview", "tilejson"}
"""Keys and roles of assets that are for looking at."""

_NO_RASTER = re.compile(r"json|xml|html|text/|png|jpeg|pdf|zip|x-hdf")
"""Media types that hold no bands."""

Place = tuple[str, int]
"""Key of an asset, and index of a band in it."""

Choice = tuple[dict[str, Place], dict[str, Place]]
"""Of the bands of a card, and of the cloud masks by kind."""


class LackingBands(ValueError):
    """An item without an asset for a band of the card."""


def choose(card: SensorCard, item: "pystac.Item") -> Choice:
    """Assets of the card's bands, and of the cloud masks by kind.

    An asset is known by its key, the name of its band, or its common name, in that order; one
    file a band is preferred to several in one, GeoTIFF to JPEG 2000, and fine pixels to coarse.

    Raises:
        LackingBands: a band has no asset; the message lists those there are.
        ValueError: an asset's bands are not told as STAC has them.
    """
    rasters = {key: asset for key, asset in item.assets.items() if _is_raster(key, asset)}
    bands = {key: bands_of(asset) for key, asset in rasters.items()}
    found: dict[str, Place] = {}
    for band in card.bands:
        ranked = sorted(
            (rank, key, index)
            for key, own in bands.items()
            for index, facts in enumerate(own)
            if (rank := _rank(band, key, rasters[key], own, facts)) is not None
        )
        if ranked:
            found[band.name] = ranked[0][1:]
    missing = missing_bands(card, list(found))
    if missing:
        raise LackingBands(
            f"item {item.id} has no asset for {', '.join(missing)} of sensor `{card.name}`; its "
            f"assets are {', '.join(sorted(item.assets)) or 'none'}"
        )
    return found, _masks(rasters)


def _is_raster(key: str, asset: "pystac.Asset") -> bool:
    """Whether an asset may hold measurements."""
    if key.lower() in _PICTURES or _PICTURES & set(asset.roles or ()):
        return False
    if asset.media_type:
        return not _NO_RASTER.search(asset.media_type)
    return PurePosixPath(asset.href.partition("?")[0]).suffix.lower() in RASTER_SUFFIXES


_Rank = tuple[bool, int, bool, float]


def _rank(
    band: Band, key: str, asset: "pystac.Asset", own: list[BandFacts], facts: BandFacts
) -> _Rank | None:
    """How well a band of an asset fits, less is better; `None` if it does not."""
    alone = len(own) == 1
    texts = [key, facts.name, facts.common] if alone else [facts.name, facts.common]
    quality = next(_qualities(band, texts), None)
    if quality is None:
        return None
    jpeg2000 = "jp2" in f"{asset.media_type or ''}{asset.href.partition('?')[0]}".lower()
    told = asset.extra_fields.get("gsd") or asset.extra_fields.get("raster:spatial_resolution")
    size = re.search(r"_(\d+)m\b", key)
    return not alone, quality, jpeg2000, float(told or (size[1] if size else band.gsd))


def _qualities(band: Band, texts: list[str | None]) -> Iterator[int]:
    """0, 1, 2 for the texts that name the band exactly; then 3, 4, 5 for those that contain it."""
    names = [tokens(name) for name in (band.name, *band.aliases)]
    yield from (i for i, text in enumerate(texts) if text and tokens(text) in names)
    yield from (3 + i for i, text in enumerate(texts) if text and matches(band, text))


def _masks(rasters: "dict[str, pystac.Asset]") -> dict[str, Place]:
    """Kind of mask to asset."""
    keys = sorted(rasters, key=lambda key: ("jp2" in key.lower(), key))
    return {kind: (keys[i], 0) for kind, i in find_masks(keys).items()}
