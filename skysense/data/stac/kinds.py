"""Which sensor an item is of, and what its numbers mean.

Sources: the collections of Earth Search (Element 84), of the Planetary Computer and of the
Copernicus Data Space; STAC extensions eo, raster, processing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skysense.data.products.metadata import baseline_offset
from skysense.sensors import EIGHT_BIT, SENSORS

if TYPE_CHECKING:
    import pystac

_BASELINE = re.compile(r"_N(\d\d)(\d\d)_")


@dataclass(frozen=True)
class BandFacts:
    """What an asset says of one of its bands."""

    name: str | None
    """Name of the band."""
    common: str | None
    """Common name of the eo extension, such as `red`."""
    scale: float | None
    """physical = stored * scale + offset."""
    offset: float | None
    """physical = stored * scale + offset."""
    nodata: float | None
    """Stored value that is missing."""
    dtype: str | None
    """Stored type."""


def bands_of(asset: "pystac.Asset") -> list[BandFacts]:
    """The bands of an asset, as STAC 1.1 (`bands`) or 1.0 (`eo:bands`, `raster:bands`) has them.

    Raises:
        ValueError: they are not what STAC says they are.
    """
    fields = asset.extra_fields
    lists = [fields.get(name) or [] for name in ("bands", "eo:bands", "raster:bands")]
    if not all(isinstance(one, list) and all(isinstance(b, dict) for b in one) for one in lists):
        raise ValueError(f"{asset.href}: its bands in STAC are no list of objects")
    count = max([1, *map(len, lists)])
    found = []
    for i in range(count):
        told: dict[str, Any] = dict(fields)
        told.pop("name", None)
        for one in lists:
            told |= one[i] if i < len(one) else {}
        found.append(_facts(told))
    return found


def _facts(told: Mapping[str, Any]) -> BandFacts:
    """One band's fields under their old and new names."""
    return BandFacts(
        name=told.get("name") or told.get("eo:name"),
        common=told.get("eo:common_name") or told.get("common_name"),
        scale=number(told.get("raster:scale", told.get("scale"))),
        offset=number(told.get("raster:offset", told.get("offset"))),
        nodata=number(told.get("nodata")),
        dtype=told.get("data_type"),
    )


def number(value: object) -> float | None:
    """A number as JSON has it; `"nan"` and `"-inf"` are texts there."""
    try:
        return None if value is None else float(str(value))
    except ValueError:
        return None


def card_of(item: "pystac.Item") -> str | None:
    """The sensor card of an item's product, `None` if it is none that is known.

    Raises:
        ValueError: the product cannot be used; the message says what to take instead.
    """
    properties = item.properties
    collection = (item.collection_id or "").lower()
    maker = " ".join(str(properties.get(key, "")) for key in ("platform", "constellation")).lower()
    words = f"{collection} {maker}"
    level = " ".join(
        [
            collection,
            str(properties.get("processing:level", "")),
            str(properties.get("s2:product_type", "")),
        ]
    ).upper()
    if "sentinel-2" in words or "sentinel2" in words:
        return "s2_l1c" if re.search(r"L1C|MSI1C", level) else "s2_l2a"
    if "landsat" in words:
        return _landsat(item, collection)
    if "sentinel-1" in words or "sentinel1" in words:
        return _sentinel1(item, collection)
    return "naip" if "naip" in collection else None


def _landsat(item: "pystac.Item", collection: str) -> str:
    """Level-2 surface reflectance alone."""
    told = f"{item.id} {item.properties.get('landsat:correction', '')} {collection}".upper()
    if re.search(r"L2SP|L2SR|C2-?L2|C2L2", told):
        return "landsat_c2_l2"
    raise ValueError(
        f"item {item.id} is Landsat Level-1; take a collection of Level-2 surface reflectance, "
        f"such as `landsat-c2-l2`"
    )


def _sentinel1(item: "pystac.Item", collection: str) -> str:
    """Terrain-corrected backscatter alone, which all archives have as linear power."""
    if "rtc" in collection or "rtc" in item.id.lower():
        return "s1_linear"
    raise ValueError(
        f"item {item.id} is Sentinel-1 {collection.upper() or 'GRD'} in radar geometry; take "
        f"terrain-corrected backscatter, such as `sentinel-1-rtc` of the Planetary Computer"
    )


def scaling_of(
    item: "pystac.Item", card: str, bands: Sequence[BandFacts]
) -> tuple[float, float] | None:
    """`(scale, offset)` from stored to physical numbers, where the item says so.

    Of Sentinel-2 the processing baseline and Earth Search's `earthsearch:boa_offset_applied` count
    more than `raster:bands`, which there holds the offset even where it was taken out. Decibel are
    made of stored numbers, and brightness is them.

    Raises:
        ValueError: the bands differ.
    """
    if card in ("s2_l2a", "s2_l1c", "s2_l2a_n0400", "s2_l1c_n0400"):
        shifted = _shifted(item)
        if shifted is not None:
            return 1e-4, -0.1 if shifted else 0.0
    if SENSORS[card].power_to_decibel or SENSORS[card].unit == EIGHT_BIT:
        return None
    told = {
        (1.0 if band.scale is None else band.scale, band.offset or 0.0)
        for band in bands
        if band.scale is not None or band.offset is not None
    }
    if len(told) > 1:
        raise ValueError(f"item {item.id}: the bands of one asset differ in scale or offset")
    return told.pop() if told else None


def _shifted(item: "pystac.Item") -> bool | None:
    """Whether the numbers of a Sentinel-2 item hold the offset of baseline 04.00."""
    properties = item.properties
    applied = properties.get("earthsearch:boa_offset_applied")
    for key in ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline"):
        shifted = baseline_offset(properties.get(key), applied)
        if shifted is not None:
            return shifted
    for text in (str(properties.get("s2:product_uri", "")), item.id):
        if match := _BASELINE.search(text):
            return baseline_offset(f"{match[1]}.{match[2]}", applied)
    return None
