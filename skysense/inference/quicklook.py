"""A picture of a map: its first three principal components as colours, beside the scene.

Legend: D bands, h w cells, H W pixels of a picture.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from skysense.data.rasters import IO_ERRORS, reason
from skysense.data.writing import temporary_beside
from skysense.geo import Window
from skysense.inference.rows import StoredRows
from skysense.sample import Sample
from skysense.sensors import SensorCard

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

SIDE = 1024
"""Longest side of each of the two panels, in pixels."""
_GAP = 16
_EMPTY = 255

_COLOURS: Mapping[str, tuple[int, int, int]] = {"hr": (0, 1, 2), "s2": (2, 1, 0), "s1": (0, 1, 0)}
"""Tokenizer channels shown as red, green, blue."""


class Moments:
    """Running mean and covariance of the valid cells, for principal components."""

    def __init__(self, channels: int) -> None:
        """Start empty."""
        self._count = 0
        self._shift = np.zeros(channels)
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))

    def add(self, values: FloatArray) -> None:
        """Add cells `(D, rows, w)`; NaN cells are left out."""
        flat = values.reshape(values.shape[0], -1)
        flat = flat[:, np.isfinite(flat[0])].astype(np.float64)
        if not flat.shape[1]:
            return
        if not self._count:
            self._shift = flat.mean(1)  # about the mean, so that products do not cancel
        flat -= self._shift[:, None]
        self._count += flat.shape[1]
        self._sum += flat.sum(1)
        self._products += flat @ flat.T

    def components(self, count: int = 3) -> tuple[npt.NDArray[np.float64], FloatArray]:
        """The mean `(D,)` and the first principal directions `(count, D)`.

        Their signs are fixed (the largest entry is positive), so that a picture is repeatable.
        """
        mean = self._sum / max(self._count, 1)
        covariance = self._products / max(self._count, 1) - np.outer(mean, mean)
        _, vectors = np.linalg.eigh(covariance)
        directions = vectors[:, ::-1][:, :count].T
        largest = np.abs(directions).argmax(1)
        signs = np.sign(np.take_along_axis(directions, largest[:, None], 1))
        return self._shift + mean, (directions * signs).astype(np.float32)


class Thumbnail:
    """The scene in little, put together from the tiles as they pass."""

    def __init__(self, shape: tuple[int, int], modality: str, card: SensorCard) -> None:
        """Prepare for a scene of `shape` reference pixels, seen by the sensor `card`."""
        colours = _COLOURS[modality]
        have = set(card.channels)
        self._colours = [c if c in have else card.channels[0] for c in colours]
        self._step = max(1, -(-max(shape) // SIDE))
        self._modality = modality
        height, width = (-(-side // self._step) for side in shape)
        self._pixels = np.full((3, height, width), np.nan, np.float32)

    def cut(self, window: Window, sample: Sample) -> FloatArray:
        """What the picture takes of one tile: at each place the first date that saw it.

        Returns:
            `(3, rows, columns)`, NaN where nothing was seen.
        """
        series = sample.series[self._modality]
        step = self._step
        row, col = -window.row % step, -window.col % step
        pixels = series.pixels[:, :, row::step, col::step].numpy()
        mask = series.mask[:, row::step, col::step].numpy()
        if not mask.size:
            return np.zeros((3, 0, 0), np.float32)
        first = mask.argmax(0)[None, None]  # (1, 1, rows, columns)
        seen = np.take_along_axis(pixels, first, 0)[0][self._colours]
        return np.where(mask.any(0), seen, np.float32(np.nan))

    def paste(self, window: Window, seen: FloatArray) -> None:
        """Take what was cut from a tile."""
        step = self._step
        top, left = -(-window.row // step), -(-window.col // step)
        target = self._pixels[:, top : top + seen.shape[1], left : left + seen.shape[2]]
        seen = seen[:, : target.shape[1], : target.shape[2]]
        np.copyto(target, seen, where=np.isfinite(seen))

    def picture(self) -> ByteArray:
        """`(3, H, W)` stretched to 8 bit."""
        return stretch(self._pixels, together=self._modality != "s1")


def stretch(values: FloatArray, together: bool = False) -> ByteArray:
    """Percentiles 2 to 98 to 0...255; NaN becomes white.

    Args:
        values: `(3, H, W)`.
        together: one stretch for all three channels, which keeps their hue.
    """
    axes = None if together else (1, 2)
    if not np.isfinite(values).any():
        return np.full(values.shape, _EMPTY, np.uint8)
    low, high = np.nanpercentile(values, [2, 98], axis=axes, keepdims=True)
    scaled = (values - low) / np.maximum(high - low, 1e-9)
    shown = np.clip(scaled * 255, 0, 255)
    return np.where(np.isfinite(values), shown, _EMPTY).astype(np.uint8)


def features_picture(rows: StoredRows, moments: Moments) -> ByteArray:
    """The map's first three principal components.

    Args:
        rows: of the map.
        moments: of all its cells.

    Returns:
        `(3, H, W)` uint8.
    """
    step = max(1, -(-max(rows.shape[0], rows.shape[2]) // SIDE))
    mean, directions = moments.components()
    offset = directions @ mean.astype(np.float32)
    picked = [
        directions @ row[:, ::step] - offset[:, None]
        for row in map(rows.__getitem__, range(0, len(rows), step))
    ]
    return stretch(np.stack(picked, 1))


def enlarge(picture: ByteArray, shape: tuple[int, int]) -> ByteArray:
    """Nearest cell, to `shape`: cells stay visible as cells."""
    rows = np.arange(shape[0]) * picture.shape[1] // shape[0]
    cols = np.arange(shape[1]) * picture.shape[2] // shape[1]
    return picture[:, rows][:, :, cols]


def write_quicklook(path: Path, scene: ByteArray, features: ByteArray) -> None:
    """Write scene and features side by side as a PNG, all or nothing.

    Args:
        path: where to.
        scene: `(3, H, W)`.
        features: `(3, h, w)`, enlarged to the same height.

    Raises:
        ValueError: it cannot be written there.
    """
    side = max(scene.shape[1:])
    scale = max(1, round(SIDE / 2 / side)) if side < SIDE / 2 else 1
    shape = (scene.shape[1] * scale, scene.shape[2] * scale)
    gap = np.full((3, shape[0], _GAP), _EMPTY, np.uint8)
    image = np.concatenate([enlarge(scene, shape), gap, enlarge(features, shape)], 2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            _write_png(temporary, image)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except IO_ERRORS as error:
        raise ValueError(
            f"cannot write the picture {path} ({reason(error)}); the map itself is complete"
        ) from None


def _write_png(path: Path, image: ByteArray) -> None:
    """Write `(3, H, W)` without georeference, which is right for a picture."""
    size = {"height": image.shape[1], "width": image.shape[2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="PNG", count=3, dtype="uint8", **size) as dataset:
            dataset.write(image)
