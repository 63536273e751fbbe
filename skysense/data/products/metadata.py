"""What is written beside the rasters of a product: scaling, baseline, day.

Sources: ESA "Sentinel-2 Products Specification Document" (quantification value, added offset);
USGS "Landsat Collection 2 Level-2 metadata" (MTL); Element 84 "Earth Search" items.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from skysense.data.products.archives import read_text
from skysense.data.products.naming import EARTH_SEARCH, LANDSAT, SENTINEL2, Product
from skysense.data.rasters import parse_date

_LANDSAT_BANDS = range(2, 8)
"""Bands whose factors are compared; of Landsat 4 to 7 those that are there."""


def with_metadata(product: Product) -> Product:
    """A product with what its metadata say; they count more than its name.

    Raises:
        ValueError: the metadata cannot be understood.
    """
    if SENTINEL2.match(product.name):
        return _sentinel2(product)
    if EARTH_SEARCH.match(product.name):
        return _earth_search(product)
    if LANDSAT.match(product.name) and not product.problem:
        return _landsat(product)
    return product


def _sentinel2(product: Product) -> Product:
    """Quantification, offset and baseline of `MTD_MSIL2A.xml` or `MTD_MSIL1C.xml`."""
    level = "2A" if "s2_l2a" in product.cards else "1C"
    path = product.root / f"MTD_MSIL{level}.xml"
    text = read_text(path)
    if text is None:  # the archive may lack the folder SAFE, or be cut down to the images
        return product
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: is not XML ({error})") from None
    values: dict[str, list[str]] = {}
    for element in root.iter():
        values.setdefault(element.tag.rpartition("}")[2], []).append((element.text or "").strip())
    return replace(product, **_sentinel2_facts(path, values))  # type: ignore[arg-type]


def _sentinel2_facts(path: Path, values: dict[str, list[str]]) -> dict[str, object]:
    """What the elements of the metadata say."""
    facts: dict[str, object] = {}
    try:
        offsets = {
            float(text)
            for name in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
            for text in values.get(name, [])
        }
        quantities = {
            float(text)
            for name in ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
            for text in values.get(name, [])
        }
    except ValueError as error:
        raise ValueError(f"{path}: an offset or quantification is no number ({error})") from None
    if len(offsets) > 1 or len(quantities) > 1:
        raise ValueError(
            f"{path}: the bands differ in offset ({sorted(offsets)}) or quantification "
            f"({sorted(quantities)}); bring them to reflectance first and choose `--sensor s2`"
        )
    if quantities:
        quantity = quantities.pop()
        if not quantity > 0:
            raise ValueError(f"{path}: the quantification value is {quantity}")
        facts["scaling"] = (1 / quantity, (offsets.pop() if offsets else 0.0) / quantity)
    baseline = re.fullmatch(
        r"(\d\d)\.(\d\d)", next(iter(values.get("PROCESSING_BASELINE", [])), "")
    )
    if baseline:
        facts["baseline"] = int(baseline[1] + baseline[2])
    date = parse_date(next(iter(values.get("PRODUCT_START_TIME", [])), ""))
    if not np.isnat(date):
        facts["date"] = date
    return facts


def _earth_search(product: Product) -> Product:
    """Whether the offset was taken out of the numbers, of the STAC item beside the bands."""
    text = read_text(product.root / f"{product.name}.json")
    if text is None:
        return product
    try:
        properties = json.loads(text)["properties"]
        applied = properties.get("earthsearch:boa_offset_applied")
        baseline = properties.get("s2:processing_baseline")
        shifted = baseline_offset(baseline, applied)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{product.root / product.name}.json: is no STAC item ({error})") from None
    if shifted is None:
        return product
    return replace(product, scaling=(1e-4, -0.1 if shifted else 0.0), note="")


def baseline_offset(baseline: object, applied: object = None) -> bool | None:
    """Whether Sentinel-2 numbers contain the offset of 1000; `None` if nothing says so.

    Args:
        baseline: processing baseline such as `"04.00"`.
        applied: `earthsearch:boa_offset_applied`: the offset was taken out again.
    """
    if applied is True:
        return False
    match = re.fullmatch(r"(\d{1,2})\.(\d\d)", str(baseline or ""))
    if match is None:
        return None
    number = int(match[1]) * 100 + int(match[2])
    return number >= 400 and number != 9999


def _landsat(product: Product) -> Product:
    """Reflectance factors and day of `..._MTL.txt`."""
    path = product.root.parent / f"{product.name}_MTL.txt"
    text = read_text(path)
    if text is None:  # named as a folder: the file lies inside
        path = product.root / f"{product.name}_MTL.txt"
        text = read_text(path)
    if text is None:
        return product
    return replace(product, **_landsat_facts(path, text))  # type: ignore[arg-type]


def _landsat_facts(path: Path, text: str) -> dict[str, object]:
    """What an MTL says of surface reflectance."""
    facts: dict[str, object] = {}
    group = re.search(
        r"GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS(.*?)END_GROUP", text, re.DOTALL
    )
    values = dict(re.findall(r"(\w+) = \"?([^\"\n]+?)\"?\s*\n", group[1])) if group else {}
    try:
        pairs = {
            (
                float(values[f"REFLECTANCE_MULT_BAND_{i}"]),
                float(values[f"REFLECTANCE_ADD_BAND_{i}"]),
            )
            for i in _LANDSAT_BANDS
            if f"REFLECTANCE_MULT_BAND_{i}" in values
        }
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path}: a reflectance factor is missing or no number ({error})"
        ) from None
    if len(pairs) > 1:
        raise ValueError(f"{path}: the bands differ in their reflectance factors: {sorted(pairs)}")
    if pairs:
        facts["scaling"] = pairs.pop()
    day = re.search(r"DATE_ACQUIRED = (\S+)", text)
    if day and not np.isnat(parse_date(day[1])):
        facts["date"] = parse_date(day[1])
    return facts
