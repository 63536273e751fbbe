"""A scene: layers of several modalities brought onto nested grids, read by windows.

The layer with the finest pixels is the reference and is never resampled. Every other layer is
read on a grid that shares its origin and has pixels 2, 4, 8, ... times as wide, the power of two
nearest to its own pixel size: so a tile, a window and a token of one modality always cover whole
pixels of the others (as the paper's 0.3 m and 10 m, 32 to 1).

Legend: T acquisitions, C tokenizer channels, H W pixels.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch

from skysense.data.acquisitions import Acquisition, Layer, open_layer
from skysense.data.ground import bounds_in, footprint, lon_lat, metres
from skysense.data.rasters import RasterFile
from skysense.data.warping import GridReader
from skysense.geo import Grid, Window
from skysense.sample import Sample, Series
from skysense.sensors import MODALITIES, SensorCard

CACHE_MB = 64
"""Memory for decoded blocks of all open files: GDAL's own default grows with the machine."""

CLOUDY = (0, 1, 3, 8, 9, 10)
"""Scene classes that are not ground: no data, saturated, shadow, clouds, cirrus. Source: ESA
Sentinel-2 L2A product specification."""


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
    def files(self) -> list[Path]:
        """The files that are read."""
        dates = [date for layer in self.layers.values() for date in layer.acquisitions]
        return [file.path for date in dates for file in date.files]


def open_scene(
    inputs: Mapping[str, Sequence[str | Path]],
    sensors: Mapping[str, str],
    names: Mapping[str, Sequence[str]] | None = None,
) -> Scene:
    """Open the files of a scene and lay them over each other.

    Args:
        inputs: modality to files or folders.
        sensors: modality to sensor card.
        names: modality to band names, where the files have none.

    Raises:
        ValueError: a file is unusable, a band is missing, or the layers share no ground.
    """
    if not inputs:
        raise ValueError("no input: give GeoTIFFs, or --hr, --s2, --s1")
    layers = {
        key: open_layer(paths, sensors[key], (names or {}).get(key))
        for key, paths in inputs.items()
    }
    sizes = {key: metres(layer.grid) for key, layer in layers.items()}
    least = 1.05 * min(sizes.values())
    reference = next(key for key in MODALITIES if sizes.get(key, math.inf) <= least)
    ratios = {
        key: 2 ** max(0, round(math.log2(size / sizes[reference]))) for key, size in sizes.items()
    }
    ratios[reference] = 1
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
    step = max(ratios.values())
    whole = Window(top, left, -(-(bottom - top) // step) * step, -(-(right - left) // step) * step)
    return Scene(layers, grid.window(whole), ratios, sizes[reference], reference)


def _box(bounds: tuple[float, float, float, float]) -> str:
    """Bounds in words."""
    return "[" + ", ".join(f"{value:.6g}" for value in bounds) + "]"


class SceneReader:
    """Open files of a scene; use it in the thread that opened it, and close it."""

    def __init__(self, scene: Scene, mask_clouds: bool = True) -> None:
        """Open every file once.

        Args:
            scene: what to read.
            mask_clouds: drop cloud, shadow and cirrus where a scene classification is there.
        """
        self._scene = scene
        self._stack = ExitStack()
        self._series: dict[str, list[_AcquisitionReader]] = {}
        self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_MB))
        try:
            for key, layer in scene.layers.items():
                grid = scene.grid.rescaled(scene.ratios[key])
                self._series[key] = []
                for acquisition in layer.acquisitions:
                    reader = _AcquisitionReader(layer.card, acquisition, grid, mask_clouds)
                    self._stack.callback(reader.close)
                    self._series[key].append(reader)
        except BaseException:
            self.close()
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
        self._classes: tuple[GridReader, int] | None = None
        self._stack = ExitStack()
        wanted: dict[Path, list[str]] = {}
        for name, (file, _) in acquisition.sources.items():
            wanted.setdefault(file.path, []).append(name)
        order = [band.name for band in card.bands]
        try:
            for names in wanted.values():
                file = acquisition.sources[names[0]][0]
                reader = self._open(file, grid, card.nodata)
                indexes = [acquisition.sources[name][1] for name in names]
                self._files.append((reader, indexes, [order.index(name) for name in names]))
            if acquisition.classes is not None and mask_clouds:
                file, index = acquisition.classes
                self._classes = (self._open(file, grid, 0.0, nearest=True), index)
        except BaseException:
            self.close()
            raise

    def _open(
        self, file: RasterFile, grid: Grid, nodata: float | None, nearest: bool = False
    ) -> GridReader:
        """Open a file and see to its closing."""
        reader = GridReader(file, grid, nodata, nearest)
        self._stack.callback(reader.close)
        return reader

    def close(self) -> None:
        """Close the files."""
        self._stack.close()

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """`(C, H, W)` physical values, zero where missing, and `(H, W)` bool."""
        shape = (window.height, window.width)
        stored = np.zeros((len(self._card.bands), *shape), np.float32)
        valid = np.ones(shape, bool)
        for reader, indexes, places in self._files:
            values, measured = reader.read(indexes, window)
            stored[places] = values
            valid &= measured
        if self._classes is not None:
            values, measured = self._classes[0].read([self._classes[1]], window)
            valid &= measured & ~np.isin(values[0].astype(np.int16), CLOUDY)
        physical = self._card.to_physical(stored)
        valid &= np.isfinite(physical).all(0)
        channels = len(self._card.inputs)
        pixels = np.zeros((channels, *shape), np.float32)
        pixels[list(self._card.channels)] = np.where(valid, physical, 0)
        return pixels, valid

    def check_scale(self, places: Sequence[Window]) -> None:
        """See `SceneReader.check_scale`."""
        seen = []
        for window in places:
            pixels, valid = self.read(window)
            seen.append(pixels[list(self._card.channels)][:, valid].ravel())
        where = ", ".join(reader.file.path.name for reader, _, _ in self._files[:2])
        self._card.check_scale(np.concatenate(seen), where)
