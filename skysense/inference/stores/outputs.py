"""Write a finished map as the store that its name asks for."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from skysense._optional import require
from skysense.data.writing import working_folder, writing
from skysense.inference.stores.folders import put
from skysense.inference.stores.geoparquet import Geometry, write_geoparquet
from skysense.inference.stores.lance_table import check_table_name, table_metadata, write_lance
from skysense.inference.stores.provenance import METADATA_KEY
from skysense.inference.stores.quantize import Quantization, make_coding
from skysense.inference.stores.source import MapSource, Progress, StoreType
from skysense.inference.stores.zarr_store import write_zarr

STORE_SUFFIXES = (".zarr", ".parquet", ".lance")
"""What a store's name ends in."""

_NEEDS = {
    ".zarr": (("zarr", "stores"),),
    ".parquet": (("pyarrow", "stores"),),
    ".lance": (("lancedb", "search"), ("pyarrow", "search")),
}


def write_store(
    source: MapSource,
    path: Path,
    dtype: StoreType,
    progress: Progress = lambda rows: None,
    *,
    window: int | None = None,
    geometry: Geometry = "polygon",
) -> Quantization | None:
    """Write a map as Zarr v3 (`.zarr`), GeoParquet (`.parquet`) or a LanceDB table (`.lance`).

    Memory does not grow with the map's height. An output of ours under the name is replaced once
    the new one is complete; after an error it is as it was.

    Args:
        source: the map.
        path: what to make.
        dtype: type of the numbers; int8 has a scale for each dimension.
        progress: called with numbers of rows, which add up to the map's height.
        window: of Zarr: cells along a window of the map, that chunks are a multiple or divisor of.
        geometry: of GeoParquet: outlines of the cells, or their centres.

    Returns:
        Scales and measured loss, for int8.

    Raises:
        ValueError: another suffix, a library that is not installed, a map without a valid cell,
            something else under the name, or it cannot be written.
    """
    path = Path(path)
    check_store(path, dtype)
    coding = make_coding(source, dtype)
    suffix = path.suffix
    with writing(path), working_folder(path, ".store") as folder:
        made = folder / path.name
        writers: dict[str, Callable[[], int]] = {
            ".zarr": lambda: write_zarr(source, made, coding, progress, window),
            ".parquet": lambda: write_geoparquet(source, made, coding, progress, geometry),
            ".lance": lambda: write_lance(source, made, coding, progress),
        }
        if not writers[suffix]():
            raise ValueError("no cell of the map holds a vector; there is nothing to store")
        put(made, path)
    return coding.quantization


def check_store(path: Path, dtype: StoreType = "float16") -> None:
    """Refuse what `write_store` would refuse, before anything is computed.

    Raises:
        ValueError: another suffix, a library that is not installed, a type that the store cannot
            hold, or something under the name that is not such a store.
    """
    suffix = path.suffix
    if suffix not in STORE_SUFFIXES:
        raise ValueError(f"{path}: the name of a store must end in {', '.join(STORE_SUFFIXES)}")
    for module, extra in _NEEDS[suffix]:
        require(module, extra)
    if suffix == ".lance":
        check_table_name(path)
        if dtype == "int8":
            raise ValueError(
                f"{path}: LanceDB does not search int8 vectors; choose float16 or float32, or "
                f"int8 with .parquet or .zarr"
            )
    _check_replaceable(path, suffix)


def _check_replaceable(path: Path, suffix: str) -> None:
    """Refuse to replace anything but a store of ours, since all that is there goes."""
    if not path.exists() and not path.is_symlink():
        return
    if suffix == ".parquet":
        if not path.is_file():
            raise ValueError(f"{path} is not a file; choose another name")
    elif not path.is_dir() or path.is_symlink():
        raise ValueError(f"{path} is not a folder; choose another name")
    elif any(path.iterdir()) and not _is_ours(path, suffix):
        raise ValueError(f"{path} holds something that was not written here; choose another name")


def _is_ours(path: Path, suffix: str) -> bool:
    """Whether a folder is a store that a map was written to."""
    if suffix == ".lance":
        return METADATA_KEY in table_metadata(path)
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return METADATA_KEY in facts["attributes"] and (path / "features").is_dir()
    return False
