"""A scene: layers of several modalities brought onto nested grids, read by windows.

The layer with the finest pixels is the reference and is never resampled. Every other layer is
read on a grid that shares its origin and has pixels 2, 4, 8, ... times as wide, the power of two
nearest to its own pixel size: so a tile, a window and a token of one modality always cover whole
pixels of the others (as the paper's 0.3 m and 10 m, 32 to 1).

Legend: T acquisitions, C tokenizer channels, H W pixels.
"""

import errno
import importlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from skysense.data.acquisitions import Acquisition, Layer, open_layer
from skysense.data.caching import block_cache
from skysense.data.ground import bounds_in, footprint, lon_lat, metres
from skysense.data.products import is_clear
from skysense.data.products.choice import (
    bbox_window,
    check_bbox,
    check_max_cloud,
    in_dates,
    on_ground,
    parse_dates,
    without_clouds,
)
from skysense.data.products.clouds import CLOUDY as CLOUDY
from skysense.data.rasters import REMOTE, RasterFile, Source
from skysense.data.warping import GridReader
from skysense.geo import Grid, Window
from skysense.sample import Sample, Series
from skysense.sensors import MODALITIES, SensorCard

_TOO_MANY = os.strerror(errno.EMFILE)
_MOST_FILES = 10_240
"""Open files that macOS allows where it says that there is no limit (`OPEN_MAX`)."""

_ENVIRONMENT = {name: value for name, value in REMOTE.items() if name.startswith("GDAL_HTTP")}


@dataclass(frozen=True)
class Scene:
    """Layers of one place and the grids they are read on."""

    layers: Mapping[str, Layer]
    """Modality to layer."""
    grid: Grid
    """Pixels of the reference layer, over the ground that all layers share; its shape is a
    multiple of every ratio (what lies beyond the files is masked)."""
    ratios: Mapping[str, int]
    """How many reference pixels a pixel of each layer's reading grid is wide; 1 for the
    reference."""
    pixel_metres: float
    """Side of a reference pixel on the ground."""
    reference: str
    """The modality with the finest pixels; among equals (within 5 %) the first of hr, s2, s1."""

    @property
    def dates(self) -> int:
        """Acquisitions of all modalities."""
        return sum(len(layer.acquisitions) for layer in self.layers.values())

    @property
    def labels(self) -> list[str]:
        """Everything that is read, as it may be shown: paths, addresses, titles of arrays.

        The same for the same data: an address is without its signature, and with a digest of what
        else it asks for.
        """
        dates = [date for layer in self.layers.values() for date in layer.acquisitions]
        return list(dict.fromkeys(file.identity for date in dates for file in date.files))

    @property
    def files(self) -> list[Path]:
        """The files of this machine that are read; an archive counts as one."""
        dates = [date for layer in self.layers.values() for date in layer.acquisitions]
        files = [file for date in dates for file in date.files if isinstance(file, RasterFile)]
        return list(dict.fromkeys(file.local for file in files if file.local is not None))


def open_scene(
    inputs: Mapping[str, Sequence[str | Path]],
    sensors: Mapping[str, str],
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    bbox: Sequence[float] | None = None,
    dates: str | None = None,
    max_cloud: float | None = None,
) -> Scene:
    """Open the files of a scene and lay them over each other.

    Args:
        inputs: modality to files, folders or archives.
        sensors: modality to sensor card; a modality that is not in it takes the card of its
            products, else its default.
        names: modality to band names, where the files have none.
        bbox: see `lay_over`.
        dates: days to keep, such as `"2021-03/2021-10"`.
        max_cloud: see `lay_over`.

    Raises:
        ValueError: a file is unusable, a band is missing, the layers share no ground, or nothing
            is left of what was asked for.
    """
    if not inputs:
        raise ValueError("no input: give GeoTIFFs, or --hr, --s2, --s1")
    layers = open_layers(inputs, sensors, names, dates)
    return lay_over(layers, bbox=bbox, max_cloud=max_cloud)


def open_layers(
    inputs: Mapping[str, Sequence[str | Path]],
    sensors: Mapping[str, str],
    names: Mapping[str, Sequence[str]] | None = None,
    dates: str | None = None,
) -> dict[str, Layer]:
    """The layers of `open_scene`, to be laid over others.

    Raises:
        ValueError: a file is unusable, a band is missing, or no date is left.
    """
    days = None if dates is None else parse_dates(dates)
    wanted = None if days is None else days.__contains__
    layers = {
        key: open_layer(paths, sensors.get(key), (names or {}).get(key), key, wanted)
        for key, paths in inputs.items()
    }
    return layers if days is None else {key: in_dates(layer, days) for key, layer in layers.items()}


def lay_over(
    layers: Mapping[str, Layer],
    *,
    bbox: Sequence[float] | None = None,
    max_cloud: float | None = None,
) -> Scene:
    """Lay layers over each other, wherever they come from.

    Args:
        layers: modality to layer.
        bbox: west, south, east, north in degrees: the scene is cut to the pixels that cover it,
            and acquisitions that have none there are left out. West above east lies over the
            antimeridian.
        max_cloud: dates with a greater share of clouds, 0 to 1, are left out; a warning says
            which.

    Raises:
        ValueError: the layers share no ground, or nothing is left of what was asked for.
    """
    if max_cloud is not None:
        check_max_cloud(max_cloud)
    if bbox is not None:
        box = check_bbox(bbox)
        layers = {key: on_ground(layer, box) for key, layer in layers.items()}
    sizes = {key: metres(layer.grid) for key, layer in layers.items()}
    least = 1.05 * min(sizes.values())
    reference = next(key for key in MODALITIES if sizes.get(key, math.inf) <= least)
    ratios = {
        key: 2 ** max(0, round(math.log2(size / sizes[reference]))) for key, size in sizes.items()
    }
    ratios[reference] = 1
    window = _common(layers, reference)
    if bbox is not None:
        window = _cut(window, bbox_window(layers[reference].grid, box), bbox)
    step = max(ratios.values())
    height, width = (-(-side // step) * step for side in (window.height, window.width))
    grid = layers[reference].grid.window(Window(window.row, window.col, height, width))
    if max_cloud is not None:
        layers = {key: without_clouds(key, layer, grid, max_cloud) for key, layer in layers.items()}
    return Scene(layers, grid, ratios, sizes[reference], reference)


def _common(layers: Mapping[str, Layer], reference: str) -> Window:
    """The pixels of the reference on the ground that all layers share.

    Raises:
        ValueError: there are none.
    """
    grid = layers[reference].grid
    top, left, bottom, right = 0, 0, *grid.shape
    for key, layer in layers.items():
        window = footprint(grid, layer.grid) if key != reference else Window(0, 0, *grid.shape)
        top, left = max(top, window.row), max(left, window.col)
        bottom = min(bottom, window.row + window.height)
        right = min(right, window.col + window.width)
        if top >= bottom or left >= right:
            raise ValueError(
                f"the rasters do not overlap: {reference} covers {_box(grid.bounds)}, "
                f"{key} covers {_box(bounds_in(layer.grid, grid.crs))} (both in the "
                f"coordinates of {reference})"
            )
    return Window(top, left, bottom - top, right - left)


def _cut(window: Window, other: Window | None, bbox: Sequence[float]) -> Window:
    """The common part of two windows.

    Raises:
        ValueError: there is none.
    """
    other = other or Window(0, 0, 0, 0)
    top, left = max(window.row, other.row), max(window.col, other.col)
    bottom = min(window.row + window.height, other.row + other.height)
    right = min(window.col + window.width, other.col + other.width)
    if top >= bottom or left >= right:
        raise ValueError(f"bbox {list(bbox)} holds no ground that all inputs share")
    return Window(top, left, bottom - top, right - left)


def _box(bounds: tuple[float, float, float, float]) -> str:
    """Bounds in words."""
    return "[" + ", ".join(f"{value:.6g}" for value in bounds) + "]"


def _allow_many_files() -> None:
    """Let this process open as many files at once as its system allows it."""
    try:
        limits = importlib.import_module("resource")
    except ImportError:  # Windows
        return
    soft, most = limits.getrlimit(limits.RLIMIT_NOFILE)
    if soft in (most, limits.RLIM_INFINITY):
        return
    for wanted in (most, _MOST_FILES):
        with suppress(ValueError, OSError):
            limits.setrlimit(limits.RLIMIT_NOFILE, (wanted, most))
            return


def _of_too_many(scene: Scene) -> str:
    """The message for more files than may be open at once."""
    dates = [date for layer in scene.layers.values() for date in layer.acquisitions]
    count = sum(len(date.files) for date in dates)
    return (
        f"the scene has {count} files of {len(dates)} dates, more than may be open at once: take "
        f"fewer dates with `--dates`, or raise the limit, for example with `ulimit -n "
        f"{2 * count + 256}`"
    )


class SceneReader:
    """Open files of a scene; use it in the thread that opened it, and close it."""

    def __init__(self, scene: Scene, mask_clouds: bool = True) -> None:
        """Open every file once.

        Args:
            scene: what to read.
            mask_clouds: drop cloud, shadow and cirrus where a classification or mask is there.

        Raises:
            ValueError: a file cannot be opened, or there are more than may be open at once.
        """
        self._scene = scene
        self._stack = ExitStack()
        self._series: dict[str, list[_AcquisitionReader]] = {}
        self._stack.enter_context(rasterio.Env(**_ENVIRONMENT))
        _allow_many_files()
        try:
            for key, layer in scene.layers.items():
                grid = scene.grid.rescaled(scene.ratios[key])
                self._series[key] = []
                for acquisition in layer.acquisitions:
                    reader = _AcquisitionReader(layer.card, acquisition, grid, mask_clouds)
                    self._stack.callback(reader.close)
                    self._series[key].append(reader)
            every = (reader for readers in self._series.values() for reader in readers)
            opened = (source for reader in every for source in reader.opened())
            self._stack.enter_context(block_cache(opened))
        except BaseException as error:
            self.close()
            if isinstance(error, ValueError) and _TOO_MANY in str(error):
                raise ValueError(_of_too_many(scene)) from None
            raise

    def close(self) -> None:
        """Close all files."""
        self._stack.close()

    def __enter__(self) -> "SceneReader":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def read(self, window: Window) -> Sample:
        """Read one window of the reference grid in all layers.

        Args:
            window: in reference pixels, on multiples of every ratio.

        Raises:
            ValueError: a file is damaged.
        """
        series = {}
        for key, readers in self._series.items():
            own = window.scaled(1, self._scene.ratios[key])
            parts = [reader.read(own) for reader in readers]
            pixels = np.stack([values for values, _ in parts])
            mask = np.stack([valid for _, valid in parts])
            layer = self._scene.layers[key]
            series[key] = Series(
                torch.from_numpy(pixels), torch.from_numpy(mask), layer.dates, layer.card.name
            )
        centre = (window.row + window.height / 2, window.col + window.width / 2)
        lon, lat = lon_lat(self._scene.grid, *centre)
        place = (lon, lat) if abs(lon) <= 180 and abs(lat) <= 90 else None
        return Sample(series, place, self._scene.grid.window(window))

    def check_scale(self) -> None:
        """Look at a few windows of each acquisition and refuse values that its card cannot mean.

        Windows without a valid pixel say nothing; an acquisition that has none in any passes.

        Raises:
            ValueError: the median of an acquisition is outside its card's plausible range.
        """
        for key, readers in self._series.items():
            height, width = self._scene.grid.rescaled(self._scene.ratios[key]).shape
            side = 32
            places = [
                Window(
                    max(0, int((height - side) * r)), max(0, int((width - side) * c)), side, side
                )
                for r in np.linspace(0, 1, 4)
                for c in np.linspace(0, 1, 4)
            ]
            for reader in readers:
                reader.check_scale(places)


class _AcquisitionReader:
    """The open files of one date."""

    def __init__(
        self, card: SensorCard, acquisition: Acquisition, grid: Grid, mask_clouds: bool
    ) -> None:
        self._card = card
        self._files: list[tuple[GridReader, list[int], list[int]]] = []
        self._masks: list[tuple[str, GridReader, int]] = []
        self._stack = ExitStack()
        wanted: dict[str, list[str]] = {}
        for name, (file, _) in acquisition.sources.items():
            wanted.setdefault(file.key, []).append(name)
        order = [band.name for band in card.bands]
        try:
            for names in wanted.values():
                file = acquisition.sources[names[0]][0]
                reader = self._open(file, grid, card.nodata)
                indexes = [acquisition.sources[name][1] for name in names]
                self._files.append((reader, indexes, [order.index(name) for name in names]))
            for kind, (file, index) in acquisition.masks.items() if mask_clouds else ():
                missing = 0.0 if kind == "scl" else None
                self._masks.append((kind, self._open(file, grid, missing, nearest=True), index))
        except BaseException:
            self.close()
            raise

    def _open(
        self, file: Source, grid: Grid, nodata: float | None, nearest: bool = False
    ) -> GridReader:
        """Open a file and see to its closing."""
        reader = GridReader(file, grid, nodata, nearest)
        self._stack.callback(reader.close)
        return reader

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def opened(self) -> Iterator[DatasetReader | WarpedVRT]:
        """What GDAL holds open."""
        for reader in (*(reader for reader, *_ in self._files), *(m[1] for m in self._masks)):
            yield from reader.opened()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """`(C, H, W)` physical values, zero where missing, and `(H, W)` bool."""
        shape = (window.height, window.width)
        channels = len(self._card.inputs)
        pixels = np.zeros((channels, *shape), np.float32)
        if not all(reader.touches(window) for reader, *_ in self._files):
            return pixels, np.zeros(shape, bool)
        stored = np.zeros((len(self._card.bands), *shape), np.float32)
        valid = np.ones(shape, bool)
        for reader, indexes, places in self._files:
            values, measured = reader.read(indexes, window)
            stored[places] = values
            valid &= measured
        for kind, reader, index in self._masks:
            values, measured = reader.read([index], window)
            valid &= is_clear(kind, values[0], measured)
        physical = self._card.to_physical(stored)
        valid &= np.isfinite(physical).all(0)
        pixels[list(self._card.channels)] = np.where(valid, physical, 0)
        return pixels, valid

    def check_scale(self, places: Sequence[Window]) -> None:
        """See `SceneReader.check_scale`."""
        seen = []
        for window in places:
            pixels, valid = self.read(window)
            seen.append(pixels[list(self._card.channels)][:, valid].ravel())
        where = ", ".join(Path(reader.file.label).name for reader, _, _ in self._files[:2])
        self._card.check_scale(np.concatenate(seen), where)
