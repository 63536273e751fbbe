"""Further forms of a finished feature map: Zarr, GeoParquet, a LanceDB table, and a STAC item."""

from skysense.inference.stores.outputs import STORE_SUFFIXES, check_store, write_store
from skysense.inference.stores.provenance import (
    InputFile,
    Provenance,
    describe_inputs,
    make_provenance,
    package_version,
    weights_hash,
)
from skysense.inference.stores.quantize import Quantization
from skysense.inference.stores.source import MapSource, StoreType
from skysense.inference.stores.stac_item import write_stac_item

__all__ = [
    "STORE_SUFFIXES",
    "InputFile",
    "MapSource",
    "Provenance",
    "Quantization",
    "StoreType",
    "check_store",
    "describe_inputs",
    "make_provenance",
    "package_version",
    "weights_hash",
    "write_stac_item",
    "write_store",
]
