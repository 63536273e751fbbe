"""Do two tile sizes give the same map, and does a constant scene give a constant one?

Embeds one scene with tiles of 256 and 512 pixels and compares the maps away from the border, as
cosine similarity of the features, plain and after removing the mean feature (which is the harder
one: the plain one is dominated by what all places share). Then compares the map's step across
tile edges with its step elsewhere. Limits: plain similarity 0.95; step ratio 1.25; constant maps
constant to 1e-5. Run: python benchmarks/tile_agreement.py [SCENE.tif]
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
from _common import finish
from _scenes import write_large_scene

import skysense
from skysense.data.scene import open_scene
from skysense.inference.embed import EmbedOptions, embed_scene
from skysense.inference.plan import Plan, make_plan


def embedded(model_name: str, path: Path, tile: int, output: Path) -> tuple[np.ndarray, Plan]:
    """The map of a scene `(D, h, w)` with one tile size."""
    model = skysense.load(model_name)
    scene = open_scene({"hr": [path]}, {"hr": "rgb8"})
    plan = make_plan(model, scene, tile=tile, overlap=64)
    embed_scene(model, scene, plan, output, EmbedOptions(dtype="float32"))
    with rasterio.open(output) as dataset:
        return dataset.read(), plan


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Mean cosine similarity of the cells of two maps."""
    a, b = (x.reshape(x.shape[0], -1) for x in (first, second))
    return float(((a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)).mean())


def seam_ratio(values: np.ndarray, plan: Plan) -> float:
    """Mean step of the map across the middle of tile overlaps, over its mean step elsewhere."""
    step = np.linalg.norm(np.diff(values, axis=2), axis=0).mean(0)  # (w - 1,)
    middle = plan.tiling.overlap // 2
    edges = [(start + middle) // plan.cell - 1 for start in plan.tiling.starts(1)[1:]]
    elsewhere = np.delete(step, edges)
    return float(step[edges].mean() / elsewhere.mean())


def main() -> None:
    """Embed, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="?", type=Path)
    parser.add_argument("--model", default="v2_nano")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = options.scene or write_large_scene(Path(folder) / "scene.tif", 2048)
        output = Path(folder) / "map.tif"
        (small, small_plan), (large, _) = (
            embedded(options.model, path, tile, output) for tile in (256, 512)
        )
        with rasterio.open(path) as dataset:
            profile = {**dataset.profile, "height": 700, "width": 611}
        with rasterio.open(Path(folder) / "constant.tif", "w", **profile) as dataset:
            dataset.write(np.full((dataset.count, 700, 611), 120, np.uint8))
        constant, _ = embedded(options.model, Path(folder) / "constant.tif", 256, output)
    seams = seam_ratio(np.nan_to_num(small), small_plan)
    inner = (slice(None), slice(4, -4), slice(4, -4))
    small, large = small[inner], large[inner]
    seen = np.isfinite(small[0]) & np.isfinite(large[0])
    pair = small[:, seen], large[:, seen]
    mean = (pair[0].mean(1) + pair[1].mean(1))[:, None] / 2
    plain, centred = cosine(*pair), cosine(pair[0] - mean, pair[1] - mean)
    spread = float(np.nanmax(constant.reshape(constant.shape[0], -1).std(1)))
    print(f"cosine {plain:.4f}, centred {centred:.4f}, seam ratio {seams:.3f}, constant {spread:g}")
    finish(
        "tile_agreement",
        {
            "model": options.model,
            "cosine": round(plain, 5),
            "centred_cosine": round(centred, 4),
            "seam_step": round(seams, 3),
            "constant_map_std": spread,
            "limits": {"cosine": 0.95, "seam_step": 1.25, "constant_map_std": 1e-5},
        },
        plain >= 0.95 and seams <= 1.25 and spread <= 1e-5,
    )


if __name__ == "__main__":
    main()
