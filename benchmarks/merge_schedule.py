"""What do finer maps cost, and what are they worth? Every merging schedule of `hr`, in turn.

Time and memory: `skysense embed` of a synthetic scene in a process of its own, after a small run
that is not counted. Score: land cover from the fused map, brought to cells of 4 pixels, by logistic
regression on four folds of blocks of ground (a block is tested whole; the image around it is seen,
as in use), intervals over blocks. The ground: a synthetic aerial scene with its own land cover;
and with `--data`, DFC2020 and TerraMesh as images of three 8-bit bands at 10 m.
Limit: a finer schedule takes no less time.
Run: python benchmarks/merge_schedule.py [--data FOLDER]

Legend: H W pixels, h w cells of 4 pixels, N cells with a label, D width.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import torch
import torch.nn.functional as F
from _common import Cost, finish, measure
from _scenes import write_large_scene

import skysense
from skysense.data.synthetic import make_scene
from skysense.hub.catalog import Model
from skysense.models.encoder import BUDGETS, Schedule
from skysense.sample import Sample, Series, collate
from skysense.sensors import get_sensor
from skysense.tasks.probe.pixels import (
    BlockScores,
    Labels,
    block_folds,
    blocks_of,
    cell_labels,
    predict_folds,
    score_blocks,
)

CELL = 4
WHITE = 3000
"""Reflectance times 10,000 that is shown as 255."""
Bytes = npt.NDArray[np.uint8]
SCHEDULES: dict[str, Schedule] = {**BUDGETS, "finest": ("keep", "keep", "keep")}


def synthetic(count: int = 4) -> Iterator[tuple[Bytes, Labels]]:
    """Aerial images `(3, H, W)` of a synthetic ground, and its land cover `(H, W)`."""
    for seed in range(count):
        scene = make_scene(size=32, seed=seed)
        scale = scene.hr.shape[1] // len(scene.classes)
        cover = scene.classes.astype(np.int64)
        yield scene.hr, cover.repeat(scale, 0).repeat(scale, 1)


def satellite(data: Path) -> Iterator[tuple[Bytes, Labels]]:
    """Red, green and blue of Sentinel-2 in 8 bits, and land cover; below 0 where not known."""
    dfc, mesh = data / "dfc2020_samples", data / "terramesh_multimodal"
    pairs = [(path, dfc / path.name.replace("_s2_", "_dfc_")) for path in dfc.glob("*_s2_*.tif")]
    pairs += [(path, mesh / "LULC" / path.name) for path in (mesh / "S2L2A").glob("*.tif")]
    for path, labels in sorted(pairs):
        with rasterio.open(path) as file, rasterio.open(labels) as cover:
            seen = np.clip(file.read([4, 3, 2]) * (255 / WHITE), 0, 255).astype(np.uint8)
            known = cover.read(1).astype(np.int64)
        # The two sets number their classes differently.
        known[known > 0] += 100 * (labels.parent.name == "LULC")
        yield seen, np.where(known > 0, known, -1)


@torch.inference_mode()
def cells_of(model: Model, image: Bytes, schedule: Schedule) -> npt.NDArray[np.float32]:
    """The fused map in cells of 4 pixels, `(h, w, D)`."""
    card = get_sensor("rgb8")
    pixels = torch.from_numpy(image.astype(np.float32))[None]
    present = torch.ones(1, *pixels.shape[2:], dtype=torch.bool)
    day = np.array(["NaT"], "datetime64[D]")
    batch = collate([Sample({"hr": Series(pixels, present, day, card.name)})])
    fused = model(batch, {"hr": schedule}).fused
    assert fused is not None
    shape = [side // CELL for side in pixels.shape[2:]]
    return F.interpolate(fused, shape, mode="bilinear")[0].permute(1, 2, 0).numpy()


def score(model: Model, ground: list[tuple[Bytes, Labels]], schedule: Schedule) -> BlockScores:
    """Probe the cells of all images together."""
    vectors, labels, blocks = [], [], []
    for number, (image, cover) in enumerate(ground):
        cells = cell_labels(cover, CELL)
        chosen = cells >= 0
        vectors.append(cells_of(model, image, schedule)[chosen])
        labels.append(cells[chosen])
        blocks.append(blocks_of(cells.shape)[chosen] + 16 * number)
    label, block = np.concatenate(labels), np.concatenate(blocks)
    spread = {c: len(np.unique(block[label == c])) for c in np.unique(label)}
    kept = np.isin(label, [c for c, count in spread.items() if count >= 4])
    names, label = np.unique(label[kept], return_inverse=True)
    block = block[kept]
    folds = block_folds(label, block)
    found = predict_folds(np.concatenate(vectors)[kept], label, folds, len(names), most=4000)
    return score_blocks(label, found, block, len(names))


def cost_of(scene: Path, output: Path, model: str, schedule: Schedule) -> Cost:
    """Wall time and peak memory of `skysense embed`, start included."""
    command = [sys.executable, "-m", "skysense", "embed", "-q", "--model", model, scene]
    chosen = ["--merge-schedule", f"hr={','.join(schedule)}"]
    return measure([*command, *chosen, "-o", output])


def main() -> None:
    """Time, weigh and score every schedule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="v2_nano")
    parser.add_argument("--side", type=int, default=1024, help="of the scene that is timed")
    parser.add_argument("--data", type=Path, help="folder of dfc2020_samples and the others")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    model = skysense.load(options.model)
    grounds = {"synthetic aerial": list(synthetic())}
    if options.data:
        grounds["satellite, 8 bit"] = list(satellite(options.data))
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        scene = write_large_scene(Path(folder) / "scene.tif", options.side)
        small = write_large_scene(Path(folder) / "small.tif", 256)
        output = Path(folder) / "map.tif"
        for name, schedule in SCHEDULES.items():
            cost_of(small, output, options.model, schedule)
            cost = cost_of(scene, output, options.model, schedule)
            row = {
                "schedule": list(schedule),
                "cell_pixels": model.fused_stride("hr", {"hr": schedule}),
                "seconds": round(cost.seconds, 2),
                "peak_mb": round(cost.peak_mb),
            }
            told = [f"{name:<9} {','.join(schedule):<18} {row['cell_pixels']:>2} px"]
            told.append(f"{row['seconds']:>7.2f} s {row['peak_mb']:>5} MB")
            for title, ground in grounds.items():
                own = score(model, ground, schedule)
                low, high = own.interval()
                row[title] = {
                    "accuracy": round(own.value(), 4),
                    "interval": [round(low, 4), round(high, 4)],
                    "macro_f1": round(own.value("macro_f1"), 4),
                }
                told.append(f"{title} {own.value():.3f} ({low:.3f}-{high:.3f})")
                told.append(f"F1 {own.value('macro_f1'):.3f}")
            rows[name] = row
            print("  ".join(told), flush=True)
    times = [row["seconds"] for row in rows.values()]
    finish(
        "merge_schedule",
        {"model": options.model, "side": options.side, "schedules": rows},
        times == sorted(times),
    )


if __name__ == "__main__":
    main()
