"""Large synthetic scenes for the benchmarks."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from skysense.data.synthetic import make_scene


def write_large_scene(path: Path, side: int) -> Path:
    """An 8-bit RGB scene of `side x side` pixels at 1.25 m: a synthetic place, mirrored on."""
    block = make_scene(size=128, hr_per_s2=8, s2_dates=1, s1_dates=1).hr  # (3, 1024, 1024)
    pair = np.concatenate([block, block[:, :, ::-1]], 2)
    four = np.concatenate([pair, pair[:, ::-1]], 1)
    times = -(-side // four.shape[1])
    image = np.tile(four, (1, times, times))[:, :side, :side]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=Affine(1.25, 0, 500000, 0, -1.25, 5400000),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="deflate",
    ) as dataset:
        dataset.write(image)
        for i, name in enumerate("RGB"):
            dataset.set_band_description(i + 1, name)
    return path
