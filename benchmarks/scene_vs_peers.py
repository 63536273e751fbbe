"""One large scene: `skysense embed`, a plain loop, terratorch's tiled inference; one model.

skysense    the command, as a user runs it: reads windows, blends rows, writes as it goes
plain       reads the whole image, predicts overlapping tiles, averages them in one array of
            float32, writes a GeoTIFF
terratorch  `terratorch.tasks.tiled_inference` with its own blending, in memory, as its tasks call
            it. Its result has the pixels of its input, which would be the map at full resolution
            (192 bands of 8192 x 8192: 52 GB), so it is handed the image with each cell's pixels
            folded into channels, and the model unfolds them. (From 1.2 on a user can write a
            source and a sink for it that stream; it comes with those in memory.) Left out, and
            said so, where it cannot be imported.

All load the same model and pack it, and take tiles of the same size, overlap and number at a time;
each runs in a process of its own, start-up and import included, in turn. Limits: faster than each
of the others; at most a quarter of their peak memory; the same map as the plain loop (cosine of the
cells 0.99 and more). The scene is 8-bit RGB, or with `--sensor s2_l2a` ten bands of Sentinel-2.
Run: python benchmarks/scene_vs_peers.py [--size 2048] [--sensor s2_l2a]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
import torch.nn.functional as F
from _common import Cost, finish, measure, paired_ratio
from _scenes import write_large_scene, write_raster, write_series
from rasterio.transform import Affine
from torch import Tensor, nn

from skysense.hub import load, pack
from skysense.inference.pipeline import side_by_side
from skysense.models.embedding import to_batch
from skysense.models.encoder import Encoder, Schedules
from skysense.sensors import get_sensor

TIME_LIMIT = 1.0
MEMORY_LIMIT = 0.25
COSINE_LIMIT = 0.99
TILES = {"rgb8": (512, 64), "s2_l2a": (128, 32)}
"""Pixels of a tile and of its overlap, by sensor: what `skysense embed` takes of itself."""

FloatArray = npt.NDArray[np.float32]


class Mapper(nn.Module):
    """A model of this package as others want one: images in, maps out."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Load it."""
        super().__init__()
        self.model: Encoder = pack(load(options.model))
        self.card = get_sensor(options.sensor)
        key, own = self.card.modality, options.merge_schedule.split(",")
        self.schedule: Schedules = {key: tuple(own)} if options.merge_schedule else None
        self.cell: int = self.model.fused_stride(key, self.schedule)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` of stored values, any type, to `(B, D, H / cell, W / cell)`."""
        fused = self.model(to_batch(list(images), self.card), self.schedule).fused
        assert fused is not None
        return fused


def write_map(path: Path, scene: Path, values: FloatArray, cell: int) -> None:
    """Write `(D, h, w)` where the scene lies."""
    with rasterio.open(scene) as dataset:
        crs, transform = dataset.crs, dataset.transform
    write_raster(path, values, (), crs, transform @ Affine.scale(cell))


@torch.inference_mode()
def plain(options: argparse.Namespace, scene: Path, output: Path) -> None:
    """The loop that one writes first."""
    model = Mapper(options)
    cell = model.cell
    with rasterio.open(scene) as dataset:
        image = dataset.read()  # (C, H, W), as stored
    height, width = image.shape[1:]
    sums = np.zeros((model.model.fused_width, height // cell, width // cell), np.float32)
    counts = np.zeros(sums.shape[1:], np.float32)
    tile, overlap = TILES[options.sensor]
    stride = tile - overlap
    for row in range(0, max(height - overlap, 1), stride):
        starts = range(0, max(width - overlap, 1), stride)
        crops = [(col, image[:, row : row + tile, col : col + tile]) for col in starts]
        for _, alike in groupby(crops, key=lambda crop: crop[1].shape):
            same = list(alike)
            for first in range(0, len(same), options.batch):
                part = same[first : first + options.batch]
                found = model(torch.from_numpy(np.stack([crop for _, crop in part]))).numpy()
                for (col, _), values in zip(part, found, strict=True):
                    top, left = row // cell, col // cell
                    place = (
                        slice(top, top + values.shape[1]),
                        slice(left, left + values.shape[2]),
                    )
                    sums[(slice(None), *place)] += values
                    counts[place] += 1
    sums /= counts
    write_map(output, scene, sums, cell)


@torch.inference_mode()
def terratorch(options: argparse.Namespace, scene: Path, output: Path) -> None:
    """The loop of terratorch."""
    from terratorch.tasks.tiled_inference import tiled_inference

    model = Mapper(options)
    cell = model.cell
    with rasterio.open(scene) as dataset:
        image = torch.from_numpy(dataset.read())[None]  # (1, C, H, W), as stored
    folded = F.pixel_unshuffle(image, cell).float()  # (1, 3 * cell * cell, h, w)
    del image
    tile, overlap = TILES[options.sensor]
    values = tiled_inference(
        lambda tiles: model(F.pixel_shuffle(tiles, cell)),
        folded,
        crop=tile // cell,
        stride=(tile - overlap) // cell,
        delta=0,
        batch_size=options.batch,
        padding=False,
    )
    write_map(output, scene, values[0].numpy(), cell)


PEERS = {"plain": plain, "terratorch": terratorch}


def why_not() -> str:
    """Why terratorch cannot be run, empty if it can; asked in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", "import terratorch.tasks.tiled_inference"]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)
    return asked.stderr.strip().rpartition("\n")[2] if asked.returncode else ""


def cosine(first: Path, second: Path) -> float:
    """Mean cosine similarity of the cells of two maps, without the mean feature."""
    maps = []
    for path in (first, second):
        with rasterio.open(path) as dataset:
            values = dataset.read().astype(np.float32)
        maps.append(values.reshape(values.shape[0], -1))
    a, b = (values - maps[1].mean(1, keepdims=True) for values in maps)
    return float(((a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)).mean())


def commands(options: argparse.Namespace, scene: Path, folder: Path) -> dict[str, list[str]]:
    """What is run, each into a map of its name."""
    shared = ["--model", options.model, "--sensor", options.sensor]
    tile, overlap = TILES[options.sensor]
    count, _ = side_by_side(torch.device("cpu"), 1)  # batches that it computes at the same time
    batch = max(1, options.batch // count)
    tiling = ["--tile", str(tile), "--overlap", str(overlap), "--batch-size", str(batch)]
    ours = ["-m", "skysense", "embed", "-q", *shared, *tiling]
    own = [__file__, *shared, "--batch", str(options.batch)]
    if options.merge_schedule:
        modality = get_sensor(options.sensor).modality
        ours += ["--merge-schedule", f"{modality}={options.merge_schedule}"]
        own += ["--merge-schedule", options.merge_schedule]
    arguments = {
        "skysense": [*ours, str(scene), "-o", str(folder / "skysense.tif")],
        **{peer: [*own, "--run", peer, str(scene), str(folder / f"{peer}.tif")] for peer in PEERS},
    }
    return {who: [sys.executable, "-W", "ignore", *rest] for who, rest in arguments.items()}


def compare(options: argparse.Namespace) -> None:
    """Run all in turn, compare, print."""
    missing = why_not()
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.sensor == "rgb8":
            scene = write_large_scene(folder / "scene.tif", options.size)
        else:
            (dated,) = write_series(folder, (options.size, options.size), (1, 0))["s2"]
            scene = dated.rename(folder / "scene.tif")  # undated, as in the plain loop
        every = commands(options, scene, folder)
        if missing:
            print(f"terratorch: NOT RUN, it cannot be imported: {missing}")
            del every["terratorch"]
        for _ in range(options.rounds):
            for who, command in every.items():
                cost = measure(command)
                costs.setdefault(who, []).append(cost)
                print(f"{who:10} {cost.seconds:7.1f} s  {cost.peak_mb:7.0f} MB", flush=True)
        alike = {who: cosine(folder / "skysense.tif", folder / f"{who}.tif") for who in every}
    seconds = {who: [cost.seconds for cost in found] for who, found in costs.items()}
    peaks = {who: max(cost.peak_mb for cost in found) for who, found in costs.items()}
    peers = [who for who in every if who != "skysense"]
    times = {who: paired_ratio(seconds["skysense"], seconds[who]) for who in peers}
    memory = {who: peaks["skysense"] / peaks[who] for who in peers}
    for who in peers:
        print(
            f"skysense against {who}: {times[who]:.3f} of its time, {memory[who]:.3f} of its "
            f"memory, centred cosine of the maps {alike[who]:.4f}"
        )
    finish(
        "scene_vs_peers" + (f"_{options.sensor}" if options.sensor != "rgb8" else ""),
        {
            "model": options.model,
            "sensor": options.sensor,
            "size": options.size,
            "merge_schedule": options.merge_schedule or "the model's",
            "batch": options.batch,
            "seconds": {who: round(statistics.median(s), 2) for who, s in seconds.items()},
            "peak_mb": {who: round(peak) for who, peak in peaks.items()},
            "time_ratio": {who: round(ratio, 3) for who, ratio in times.items()},
            "memory_ratio": {who: round(ratio, 3) for who, ratio in memory.items()},
            "centred_cosine": {who: round(alike[who], 4) for who in peers},
            "not_run": {"terratorch": missing} if missing else {},
            "limits": {"time": TIME_LIMIT, "memory": MEMORY_LIMIT, "cosine": COSINE_LIMIT},
        },
        max(times.values()) < TIME_LIMIT
        and max(memory.values()) <= MEMORY_LIMIT
        and alike["plain"] >= COSINE_LIMIT,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, or run one peer alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="v2_nano")
    parser.add_argument("--sensor", choices=list(TILES), default="rgb8")
    parser.add_argument("--merge-schedule", default="", help="merge,keep,keep: smaller cells")
    parser.add_argument("--size", type=int, default=8192, help="of a side, a multiple of 32")
    parser.add_argument("--batch", type=int, default=4, help="tiles at a time, of all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=3, metavar=("PEER", "SCENE", "MAP"), help="one peer alone")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if options.run:
        peer, scene, output = options.run
        PEERS[peer](options, Path(scene), Path(output))
    else:
        compare(options)


if __name__ == "__main__":
    main()
