"""The scene as GeoTIFFs, cut and named like the products a user has on disk.

Legend: C bands, H W pixels.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio import Affine

from skysense.data.synthetic.classes import S2_BANDS
from skysense.data.synthetic.scene import S2_GSD, SyntheticScene

AT_10M = ("B2", "B3", "B4", "B8")
AT_20M = ("B5", "B6", "B7", "B8A", "B11", "B12")


def write_scene(folder: str | Path, scene: SyntheticScene) -> dict[str, list[Path]]:
    """Writes a scene as tiled, deflated GeoTIFFs, each complete under its name or not there.

    `hr.tif` holds R, G, B (uint8). Each Sentinel-2 date has `s2_YYYYMMDD_10m.tif` (B02 B03 B04 B08)
    and `s2_YYYYMMDD_20m.tif` (B05 B06 B07 B8A B11 B12 as means of 2x2 pixels, SCL as the upper-left
    one), uint16 digital numbers, nodata 0. Each Sentinel-1 date has `s1_YYYYMMDD.tif` (VV, VH,
    float32 dB, nodata NaN). The bands carry these names as descriptions.

    Args:
        folder: Where to write; made if missing, files of the same names are replaced.
        scene: What to write.

    Returns:
        The files of each modality, keys `hr`, `s2`, `s1`, by date; 10 m before 20 m.

    Raises:
        ValueError: If the 10 m grid has an odd side, which has no 20 m pixels.

    Source: *ours*.
    """
    height, width = scene.classes.shape
    if height % 2 or width % 2:
        raise ValueError(
            f"the scene has {height} x {width} pixels of 10 m; expected even sides, since the 20 m "
            "bands take two pixels each way; make the scene with an even `size`"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[Path]] = {"hr": [folder / "hr.tif"], "s2": [], "s1": []}
    _write(files["hr"][0], scene.hr, "RGB", scene, scene.hr_gsd, photometric="RGB")
    for pixels, scl, date in zip(scene.s2, scene.s2_scl, scene.s2_dates, strict=True):
        stem = f"s2_{_compact(date)}"
        ten = pixels[[S2_BANDS.index(band) for band in AT_10M]]
        twenty = _halve(pixels[[S2_BANDS.index(band) for band in AT_20M]])
        twenty = np.concatenate([twenty, scl[None, ::2, ::2].astype(np.uint16)])
        files["s2"] += [folder / f"{stem}_10m.tif", folder / f"{stem}_20m.tif"]
        names = [_padded(band) for band in AT_20M] + ["SCL"]
        _write(files["s2"][-2], ten, [_padded(b) for b in AT_10M], scene, S2_GSD, nodata=0)
        _write(files["s2"][-1], twenty, names, scene, 2 * S2_GSD, nodata=0)
    for backscatter, date in zip(scene.s1, scene.s1_dates, strict=True):
        files["s1"].append(folder / f"s1_{_compact(date)}.tif")
        _write(files["s1"][-1], backscatter, ["VV", "VH"], scene, S2_GSD, nodata=float("nan"))
    return files


def _compact(date: np.datetime64) -> str:
    """2021-06-15 -> 20210615."""
    return str(date).replace("-", "")


def _padded(band: str) -> str:
    """B2 -> B02, as file names have it; B8A and B11 stay."""
    return band if len(band) == 3 else f"B0{band[1]}"


def _halve(numbers: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """(C, H, W) -> (C, H / 2, W / 2) means of the pixels that are not nodata (0)."""
    channels, height, width = numbers.shape
    blocks = numbers.reshape(channels, height // 2, 2, width // 2, 2)
    count = np.maximum((blocks > 0).sum(axis=(2, 4)), 1)
    means = (blocks.sum(axis=(2, 4)) / count).round()
    return np.asarray(means, np.uint16)


def _write(
    path: Path,
    pixels: npt.NDArray[Any],
    names: Sequence[str],
    scene: SyntheticScene,
    gsd: float,
    **options: object,
) -> None:
    """Writes (C, H, W) pixels under a temporary name, then renames."""
    channels, height, width = pixels.shape
    unfinished = path.with_name(f".{path.name}.part")
    with rasterio.open(
        unfinished,
        "w",
        driver="GTiff",
        dtype=pixels.dtype,
        count=channels,
        height=height,
        width=width,
        crs=scene.crs,
        transform=Affine(gsd, 0, scene.origin[0], 0, -gsd, scene.origin[1]),
        compress="deflate",
        tiled=True,
        blockysize=_block(height),
        blockxsize=_block(width),
        **options,
    ) as file:
        file.write(pixels)
        file.descriptions = tuple(names)
    os.replace(unfinished, path)


def _block(side: int) -> int:
    """Tile side for an image side: 256, or what fits in multiples of 16."""
    return min(256, max(16, side // 16 * 16))
