"""The rasters of files, folders and archives, each with the product that it belongs to."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from skysense.data.folders import below
from skysense.data.products import grd
from skysense.data.products.archives import SUFFIXES, is_archive, members
from skysense.data.products.metadata import with_metadata
from skysense.data.products.naming import GRD_FILE, Product, is_product, named
from skysense.data.rasters import RASTER_SUFFIXES, RasterFile, inspect, is_wanted, named_date
from skysense.sensors.match import tokens


@dataclass(frozen=True)
class Found:
    """A raster that was found, and how."""

    path: Path
    """The file, or a member of an archive."""
    given: Path
    """The path of the user under which it was found: itself, a folder, an archive."""
    product: Product | None
    """The product it belongs to, if its name says so."""

    @property
    def by_name(self) -> bool:
        """Whether the user named the file itself, or nothing but its product."""
        if self.path == self.given:
            return True
        name = self.given.name.removesuffix(".zip").removesuffix(".tar").removesuffix(".SAFE")
        return self.product is not None and self.product.name == name

    @property
    def date(self) -> np.datetime64:
        """Day that names and the product's metadata say, NaT if only the raster itself may."""
        product = np.datetime64("NaT") if self.product is None else self.product.date
        return named_date(self.path) if np.isnat(product) else product


def find_files(paths: Sequence[str | Path]) -> list[Found]:
    """Replace folders and archives by the rasters in them, sorted, each once.

    Hidden files are passed over, and the masks and pictures of a Sentinel-2 product; so are the
    archives of a folder that are not named as products, and those that are unpacked beside.

    Raises:
        ValueError: a folder or an archive holds no raster, or metadata cannot be understood.
    """
    known: _Known = {}
    found: dict[Path, Found] = {}
    for given in map(Path, paths):
        for path in _inside(given):
            if path not in found or path == given:
                found[path] = Found(path, given, _product(path, known))
    for note in dict.fromkeys(product.note for product in known.values() if product.note):
        warnings.warn(note, stacklevel=2)
    return list(found.values())


_Known = dict[tuple[Path, tuple[str, ...]], Product]


def _product(path: Path, known: _Known) -> Product | None:
    """The product of a raster; the metadata of each are read once."""
    product = named(path)
    if product is None:
        return None
    key = (product.root, product.cards)  # a folder may hold files that say more than its name
    if key not in known:
        known[key] = with_metadata(product)
    return known[key]


def _inside(given: Path) -> list[Path]:
    """A file itself, or the rasters of a folder or an archive."""
    if is_archive(given):
        return _of_archive(given)
    if not given.is_dir():
        return [given]
    every = below(given)
    files = [p for p in every if is_wanted(p.relative_to(given)) and p.is_file()]
    unpacked = {part for path in files for part in path.relative_to(given).parts}
    for archive in every:
        if archive.suffix.lower() in SUFFIXES and archive.is_file():
            name = archive.stem.removesuffix(".SAFE")
            if is_product(name) and not {name, f"{name}.SAFE"} & unpacked:
                files.extend(_of_archive(archive))
    if not files:
        raise ValueError(f"{given}: this folder holds no raster ({', '.join(RASTER_SUFFIXES)})")
    return files


def _of_archive(archive: Path) -> list[Path]:
    """The rasters in an archive.

    Raises:
        ValueError: there are none.
    """
    depth = len(archive.absolute().parts) + 1
    files = [path for path in members(archive) if is_wanted(Path(*path.parts[depth:]))]
    if not files:
        raise ValueError(f"{archive}: this archive holds no raster ({', '.join(RASTER_SUFFIXES)})")
    return files


def inspect_found(found: Found, names: Sequence[str] | None = None) -> RasterFile:
    """The facts of a raster, with what its product says of it.

    Args:
        found: of `find_files`.
        names: band names to use instead of what file and product say.

    Raises:
        ValueError: as of `inspect`, or the product cannot be used.
    """
    product = found.product
    if product is not None and product.problem:
        raise ValueError(f"{found.path}: {product.problem}")
    ground_range = GRD_FILE.match(found.path.name) is not None
    file = (grd.inspect if ground_range else inspect)(found.path, names)
    if product is None:
        return file
    renamed = file.names if names is not None else tuple(_renamed(n, product) for n in file.names)
    return replace(
        file,
        names=renamed,
        product=str(product.root),
        date=file.date if np.isnat(product.date) else product.date,
        baseline=file.baseline if product.baseline is None else product.baseline,
        scaling=product.scaling,
    )


def _renamed(name: str | None, product: Product) -> str | None:
    """A band's name as the product means it."""
    for old, new in product.names.items():
        if name is not None and tokens(old) <= tokens(name):
            return new
    return name
