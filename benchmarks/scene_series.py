"""`embed` of a Sentinel-2 and Sentinel-1 time series: what reading, warping and writing cost.

Twelve Sentinel-2 dates (ten bands at 10 m) and eight Sentinel-1 dates whose grid lies in another
zone, turned and shifted: every window of it is warped. Limits: wall time at most 1.15 times the
bare model on the same windows' batches already in memory (their reading is not timed; part by
part, so that any number of them fits); peak memory over 8192 rows at most 1.1 times that over
2048 rows, at equal width, each measured in a process of its own, the command as a user runs it.
Both sides of the first compute with the model as the command does: packed.
Run: python benchmarks/scene_series.py [--size 2048]
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from _common import finish, measure, paired_ratio
from _scenes import write_series

from skysense.data.scene import Scene, SceneReader, open_scene
from skysense.hub import load, pack
from skysense.inference.embed import EmbedOptions, embed_scene
from skysense.inference.plan import Plan, make_plan
from skysense.models.encoder import Encoder
from skysense.sample import collate

TIME_LIMIT = 1.15
MEMORY_LIMIT = 1.1
CARDS = {"s2": "s2_l2a", "s1": "s1"}
PART = 32
"""Tiles that lie in memory at a time for the bare model."""


def bare_seconds(model: Encoder, scene: Scene, plan: Plan) -> float:
    """Seconds of the model alone over all tiles of a plan, read before the clock starts."""
    seconds = 0.0
    with SceneReader(scene) as reader, torch.inference_mode():
        tasks = plan.tasks(1)
        for first in range(0, len(tasks), PART):
            part = tasks[first : first + PART]
            batches = [collate([reader.read(tile) for tile in task.tiles]) for task in part]
            start = time.perf_counter()
            for batch in batches:
                model(batch)
            seconds += time.perf_counter() - start
    return seconds


def time_both(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Facts of the wall time, in alternating rounds."""
    files = write_series(folder / "ground", (options.size, options.size), options.dates)
    scene = open_scene(files, CARDS)
    model = pack(load(options.model))
    plan = make_plan(model, scene)
    started = time.monotonic()
    embed_times: list[float] = []
    bare_times: list[float] = []
    while len(bare_times) < options.rounds:
        start = time.perf_counter()
        embed_scene(model, scene, plan, folder / "map.tif", EmbedOptions())
        embed_times.append(time.perf_counter() - start)
        bare_times.append(bare_seconds(model, scene, plan))
        print(f"embed {embed_times[-1]:.1f} s, bare model {bare_times[-1]:.1f} s", flush=True)
        spent = (time.monotonic() - started) / 60
        if spent * (1 + 1 / len(bare_times)) > options.minutes:
            break
    return {
        "size": options.size,
        "tiles": plan.tiling.count,
        "rounds": len(bare_times),
        "embed_s": round(statistics.median(embed_times), 2),
        "bare_s": round(statistics.median(bare_times), 2),
        "ratio": round(paired_ratio(embed_times, bare_times), 3),
        "limit": TIME_LIMIT,
    }


def memory_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Facts of the peak memory, with rows."""
    peaks: dict[int, float] = {}
    for rows in options.rows:
        files = write_series(folder / f"rows{rows}", (rows, options.width), options.dates)
        command = [sys.executable, "-m", "skysense", "embed", "-q", "--model", options.model]
        inputs = [part for key, paths in files.items() for p in paths for part in (f"--{key}", p)]
        cost = measure([*command, *inputs, "-o", folder / f"rows{rows}.tif"])
        peaks[rows] = cost.peak_mb
        print(f"{rows} x {options.width}: {cost.peak_mb:.0f} MB, {cost.seconds:.1f} s", flush=True)
    return {
        "width": options.width,
        "peak_mb": {rows: round(peak) for rows, peak in peaks.items()},
        "memory_ratio": round(peaks[max(peaks)] / peaks[min(peaks)], 3),
        "memory_limit": MEMORY_LIMIT,
    }


def main() -> None:
    """Time, then measure memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="v2_nano")
    parser.add_argument("--size", type=int, default=608, help="of a side, for the wall time")
    parser.add_argument("--dates", type=int, nargs=2, default=(12, 8), metavar=("S2", "S1"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10, help="no round is begun that passes")
    parser.add_argument("--rows", type=int, nargs=2, default=(2048, 8192), help="for the memory")
    parser.add_argument("--width", type=int, default=256, help="for the memory")
    parser.add_argument("--only", choices=("time", "memory"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    facts: dict[str, Any] = {"model": options.model, "dates": list(options.dates)}
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "memory":
            facts |= time_both(options, Path(folder))
        if options.only != "time":
            facts |= memory_of(options, Path(folder))
    finish(
        "scene_series" if options.only is None else f"scene_series_{options.only}",
        facts,
        facts.get("ratio", 0) <= TIME_LIMIT and facts.get("memory_ratio", 0) <= MEMORY_LIMIT,
    )


if __name__ == "__main__":
    main()
