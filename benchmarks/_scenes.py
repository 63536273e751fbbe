"""Large synthetic scenes for the benchmarks: a small place, mirrored on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from skysense.data.synthetic import S2_BANDS, make_scene

S2_CRS, S1_CRS = "EPSG:32632", "EPSG:32633"
"""Neighbouring zones of UTM: seen from one, the other's grid is turned by some degrees."""
_LEFT, _TOP = 600_000, 5_340_000
_METRES = 10


def write_large_scene(path: Path, side: int) -> Path:
    """An 8-bit RGB scene of `side x side` pixels at 1.25 m: a synthetic place, mirrored on."""
    block = make_scene(size=128, hr_per_s2=8, s2_dates=1, s1_dates=1).hr  # (3, 1024, 1024)
    transform = Affine(1.25, 0, 500000, 0, -1.25, 5400000)
    write_raster(path, _mirrored(block, (side, side)), "RGB", "EPSG:32632", transform)
    return path


def write_series(
    folder: Path, shape: tuple[int, int], dates: tuple[int, int]
) -> dict[str, list[Path]]:
    """A Sentinel-2 series, and a Sentinel-1 series on a grid of another zone that covers it.

    Args:
        folder: where to write; made if missing.
        shape: Sentinel-2 pixels of 10 m, `(H, W)`.
        dates: acquisitions of Sentinel-2 (ten bands at 10 m in a file) and Sentinel-1 (VV, VH),
            of which there may be none.

    Returns:
        Modality to files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"s2_dates": dates[0], "s1_dates": max(1, dates[1])}
    scene = make_scene(size=256, hr_per_s2=1, cloud_cover=0, **drawn)
    rows, cols = shape
    bounds = (_LEFT, _TOP - rows * _METRES, _LEFT + cols * _METRES, _TOP)
    left, bottom, right, top = transform_bounds(S2_CRS, S1_CRS, *bounds)
    s1_shape = (int((top - bottom) // _METRES) + 2, int((right - left) // _METRES) + 2)
    s1_names = ("VV", "VH")
    laid: dict[str, tuple[Any, ...]] = {
        "s2": (scene.s2, scene.s2_dates, shape, S2_BANDS, S2_CRS, (_LEFT, _TOP), 0),
        "s1": (scene.s1, scene.s1_dates, s1_shape, s1_names, S1_CRS, (left, top), float("nan")),
    }
    files: dict[str, list[Path]] = {}
    for count, (key, laid_out) in zip(dates, laid.items(), strict=True):
        pixels, days, size, names, crs, (x, y), nodata = laid_out
        days = days[:count]
        files[key] = [folder / f"{key}_{str(day).replace('-', '')}.tif" for day in days]
        transform = Affine(_METRES, 0, x, 0, -_METRES, y)
        for path, block in zip(files[key], pixels[:count], strict=True):
            image = _mirrored(block, size)
            write_raster(path, image, names, crs, transform, nodata=nodata, zlevel=1)
    return files


def _mirrored(block: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """`(C, h, w)` to `(C, *shape)` without a seam."""
    pair = np.concatenate([block, block[:, :, ::-1]], 2)
    four = np.concatenate([pair, pair[:, ::-1]], 1)
    times = [-(-wanted // have) for wanted, have in zip(shape, four.shape[1:], strict=True)]
    return np.tile(four, (1, *times))[:, : shape[0], : shape[1]]


def write_raster(
    path: Path,
    image: npt.NDArray[Any],
    names: Sequence[str],
    crs: object,
    transform: Affine,
    **options: object,
) -> None:
    """Write `(C, H, W)` as a tiled, deflated GeoTIFF."""
    channels, height, width = image.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=channels,
        dtype=image.dtype,
        crs=crs,
        transform=transform,
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
        **options,
    ) as dataset:
        dataset.write(image)
        for i, name in enumerate(names):
            dataset.set_band_description(i + 1, name)
