"""`embed` of a 4096 x 4096 scene against the bare model on the same tiles already in memory.

Limits: wall time at most 1.2 times the bare model; peak memory at 4096 x 4096 at most 1.2 times
that at 2048 x 2048 (each measured in a process of its own, the command as a user runs it).
Run: python benchmarks/embed_scene.py
"""

import argparse
import resource
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from _common import alternate, finish, measure, paired_ratio
from _scenes import write_large_scene

import skysense
from skysense.data.scene import SceneReader, open_scene
from skysense.inference.embed import EmbedOptions, embed_scene
from skysense.inference.plan import make_plan
from skysense.sample import collate

BATCH = 4


def main() -> None:
    """Time both in turn, then measure memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="v2_nano")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            side: write_large_scene(Path(folder) / f"scene{side}.tif", side)
            for side in (options.side // 2, options.side)
        }
        output = Path(folder) / "map.tif"
        model = skysense.load(options.model)
        scene = open_scene({"hr": [paths[options.side]]}, {"hr": "rgb8"})
        plan = make_plan(model, scene)
        with SceneReader(scene) as reader:
            batches = [
                collate([reader.read(tile) for tile in tiles])
                for tiles in (task.tiles for task in plan.tasks(BATCH))
            ]

        def bare() -> None:
            with torch.inference_mode():
                for batch in batches:
                    model(batch)

        def embed() -> None:
            embed_scene(model, scene, plan, output, EmbedOptions(batch_size=BATCH))

        embed_times, bare_times = alternate(embed, bare, options.rounds)
        ratio = paired_ratio(embed_times, bare_times)
        print(f"embed {embed_times} bare {bare_times}")
        command = [sys.executable, "-m", "skysense", "embed", "-q", "--model", options.model]
        memory = {
            side: measure([*command, path, "-o", output]).peak_mb for side, path in paths.items()
        }
    growth = memory[options.side] / memory[options.side // 2]
    megapixels = options.side**2 / 1e6
    embed_s, bare_s = statistics.median(embed_times), statistics.median(bare_times)
    finish(
        "embed_scene",
        {
            "model": options.model,
            "side": options.side,
            "tiles": plan.tiling.count,
            "embed_s": round(embed_s, 2),
            "bare_s": round(bare_s, 2),
            "ratio": round(ratio, 3),
            "limit": 1.2,
            "embed_megapixels_per_s": round(megapixels / embed_s, 2),
            "peak_mb": {side: round(mb) for side, mb in memory.items()},
            "memory_ratio": round(growth, 3),
            "memory_limit": 1.2,
            "own_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        },
        ratio <= 1.2 and growth <= 1.2,
    )


if __name__ == "__main__":
    main()
