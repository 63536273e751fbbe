"""Open features, whatever they lie in."""

from collections.abc import Callable
from pathlib import Path

from skysense.tasks.mapping.features import FeatureMap, is_feature_map
from skysense.tasks.mapping.sources import FeatureSource
from skysense.tasks.mapping.table_features import LanceFeatures, ParquetFeatures
from skysense.tasks.mapping.zarr_features import ZarrFeatures

STORES: dict[str, Callable[[Path], FeatureSource]] = {
    ".zarr": ZarrFeatures,
    ".parquet": ParquetFeatures,
    ".lance": LanceFeatures,
}
"""What a store's name ends in, and what reads it."""


def is_store(path: str | Path) -> bool:
    """Whether a name is that of a store."""
    return Path(path).suffix.lower() in STORES


def holds_features(path: str | Path) -> bool:
    """Whether a path is that of a store, or of a feature map that `skysense embed` made.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(path)
    if is_store(path) and path.exists():
        return True
    return is_feature_map(path)


def open_features(path: str | Path) -> FeatureSource:
    """Open features by the suffix: `.zarr`, `.parquet`, `.lance`; anything else is a raster.

    Raises:
        ValueError: no such file, a library that is not installed, something that holds no
            features, a class map, or a damaged file.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such file")
    return STORES.get(path.suffix.lower(), FeatureMap)(path)
