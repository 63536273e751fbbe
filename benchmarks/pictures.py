"""The pictures of docs/results.md, of imagery that may be passed on: the demo's Landsat 7 scene.

Curves of one or several runs, nearest neighbors of twelve chips of the scene, and its feature map
with random and with trained weights; where the queries of QSACL look in four parts of it, of a run
that has them; which experts of a run with experts see which modality of a synthetic place. Needs
the extra `plots`, and fetches the scene once, as `make demo` does. Run:
python benchmarks/pictures.py [--run FOLDER ...] [--queries RUN] [--experts RUN] [--model v2_nano]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import rasterio
import torch
from rasterio.windows import Window

from skysense.config import read_recipe
from skysense.data.scene import SceneReader, open_scene
from skysense.data.synthetic import make_scene, write_scene
from skysense.engine import checkpoint
from skysense.engine.distributed import start
from skysense.engine.log import read_metrics
from skysense.geo import Window as Cells
from skysense.hub import load, pack
from skysense.hub.catalog import Model
from skysense.models.embedding import to_series
from skysense.models.encoder import UntrainedModelWarning
from skysense.pretrain.network import FUSED
from skysense.pretrain.preparation import Run, prepare
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.run import CHECKPOINTS
from skysense.sample import Sample, collate
from skysense.sensors import get_sensor
from skysense.tasks.probe import random_twin

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
SCENE = ROOT / ".cache/demo/landsat7.tif"
CHIP, QUERIES, NEIGHBORS = 64, 12, 6
PART = Window(960, 520, 512, 512)  # type: ignore[call-arg]
LOOKED_AT = [
    Window(column, row, 256, 256)  # type: ignore[call-arg]
    for column, row in ((960, 520), (1216, 776), (600, 900), (400, 400))
]
LOOKING = 6

Bytes = npt.NDArray[np.uint8]


def fetch() -> None:
    """The scene, where the demo keeps it."""
    if SCENE.exists():
        return
    code = "import demo, os; os.chdir(demo.HERE); demo.real_scene()"
    path = {**os.environ, "PYTHONPATH": str(ROOT / "examples")}
    subprocess.run([sys.executable, "-c", code], env=path, check=True)
    if not SCENE.exists():
        raise SystemExit("the scene could not be fetched")


def save(figure: plt.Figure, path: Path) -> None:
    """Write a picture, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(figure)
    print(f"{path} ({path.stat().st_size // 1000} kB)")


def curves(runs: Sequence[Path], path: Path) -> None:
    """The loss of each run, and its running kNN below; three runs side by side."""
    columns, bands = min(3, len(runs)), -(-len(runs) // 3)
    size = (5 * columns, 6 * bands)
    figure, rows = plt.subplots(2 * bands, columns, figsize=size, squeeze=False)
    for number, run in enumerate(runs):
        band, column = divmod(number, 3)
        lines = read_metrics(run / "metrics.jsonl")
        for row, key, title in ((0, "loss", "loss"), (1, "knn", "kNN-20 of the fused vector")):
            told = [(line["step"], line[key]) for line in lines if key in line]
            axes = rows[2 * band + row][column]
            axes.plot(*zip(*told, strict=True), marker="o" if key == "knn" else None)
            axes.set_title(f"{run.name}: {title}")
            axes.set_xlabel("step")
            axes.grid(alpha=0.3)
    for axes in rows.flat:
        axes.set_visible(axes.has_data())
    figure.tight_layout()
    save(figure, path)


def chips() -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Chips `(N, 3, 64, 64)` of the scene without missing pixels, and their rows and columns."""
    with rasterio.open(SCENE) as source:
        pixels, valid = source.read([1, 2, 3]), source.dataset_mask() > 0
    valid &= (pixels > 0).any(0)
    found, places = [], []
    for row in range(pixels.shape[1] // CHIP):
        for column in range(pixels.shape[2] // CHIP):
            own = np.s_[row * CHIP : (row + 1) * CHIP, column * CHIP : (column + 1) * CHIP]
            if valid[own].all():
                found.append(pixels[:, own[0], own[1]])
                places.append((row, column))
    return np.stack(found), np.array(places)


def farthest(vectors: npt.NDArray[np.float32], count: int) -> list[int]:
    """Chips that differ: each the farthest from those before it."""
    chosen = [int(np.linalg.norm(vectors - vectors.mean(0), axis=1).argmin())]
    while len(chosen) < count:
        distance = np.linalg.norm(vectors[:, None] - vectors[chosen], axis=2).min(1)
        chosen.append(int(distance.argmax()))
    return chosen


def neighbors(model: Model, path: Path) -> None:
    """Twelve chips, and the six nearest of each that do not touch it."""
    images, places = chips()
    vectors = model.embed(images, "rgb8", batch_size=64)
    vectors = (vectors - vectors.mean(0)) / vectors.std(0).clip(1e-9)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    size = (2 * (NEIGHBORS + 1), QUERIES * 0.65)
    figure, rows = plt.subplots(QUERIES // 2, 2 * (NEIGHBORS + 1), figsize=size)
    for number, query in enumerate(farthest(vectors, QUERIES)):
        similar = vectors @ vectors[query]
        similar[np.abs(places - places[query]).max(1) <= 1] = -np.inf
        shown = [query, *np.argsort(-similar)[:NEIGHBORS]]
        for place, chip in enumerate(shown):
            axes = rows[number // 2][(number % 2) * (NEIGHBORS + 1) + place]
            axes.imshow(images[chip].transpose(1, 2, 0))
            axes.set_title("query" if not place else f"{similar[chip]:.2f}", fontsize=9)
            axes.axis("off")
    figure.suptitle(f"{model.name}: {QUERIES} chips of {len(images)}, and their nearest")
    save(figure, path)


def feature_maps(model: Model, path: Path) -> None:
    """A part of the scene, and its feature maps before and after training."""
    twin = random_twin(model)
    work = path.parent / ".work"
    work.mkdir(parents=True, exist_ok=True)
    cut = work / "part.tif"
    with rasterio.open(SCENE) as source:
        profile = {**source.profile, "width": PART.width, "height": PART.height}
        profile |= {"transform": source.window_transform(PART), "driver": "GTiff"}
        with rasterio.open(cut, "w", **profile) as target:
            target.write(source.read(window=PART))
    pictures = {}
    for name, own in (("random weights", twin), ("trained", model)):
        folder, look = own.save(work / name.split()[0]), work / f"{name.split()[0]}.png"
        command = ["embed", str(cut), "--model", str(folder), "--quicklook", str(look), "--quiet"]
        command += ["-o", str(work / "map.tif"), "--merge-schedule", "hr=merge,keep,keep"]
        subprocess.run([sys.executable, "-W", "ignore", "-m", "skysense", *command], check=True)
        pictures[name] = plt.imread(look)
    figure, rows = plt.subplots(1, 2, figsize=(18, 5))
    for axes, (name, picture) in zip(rows, pictures.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(f"scene and feature map, {name}")
        axes.axis("off")
    save(figure, path)
    shutil.rmtree(work)


def restored(folder: Path) -> Run:
    """A run as its last checkpoint left it."""
    changes = {"knn": None, "report": False, "device": "cpu"}
    recipe = read_recipe(Recipe, folder / "recipe.yaml", [])
    run = prepare(recipe.model_copy(update=changes), start("cpu"))
    found = checkpoint.latest(folder / CHECKPOINTS)
    if found is None:
        raise SystemExit(f"{folder} holds no checkpoint")
    checkpoint.restore(found, run.state, run.recipe.model_facts())
    return run


@torch.no_grad()
def queries(folder: Path, path: Path) -> None:
    """Where the first queries look in parts of the scene, in multiples of an even look."""
    network = restored(folder).objective.teacher
    if network.queries is None:
        raise SystemExit(f"{folder}: the recipe has no QSACL")
    with rasterio.open(SCENE) as source:
        parts = [source.read([1, 2, 3], window=window) for window in LOOKED_AT]
    batch = collate([Sample({"hr": to_series(part, get_sensor("rgb8"))}) for part in parts])
    fused = network(batch).maps[FUSED]
    _, attention = network.queries(*fused.tokens(), with_attention=True)  # (n, m, h w)
    over_even = attention.unflatten(-1, fused.shape) * attention.shape[-1]
    figure, rows = plt.subplots(
        len(parts), LOOKING + 1, figsize=(2 * (LOOKING + 1), 2 * len(parts))
    )
    for part, maps, row in zip(parts, over_even, rows, strict=True):
        row[0].imshow(part.transpose(1, 2, 0))
        for number, axes in enumerate(row[1:]):
            axes.imshow(maps[number], cmap="magma", vmin=0, vmax=float(over_even.max()))
            axes.set_title(f"query {number + 1}: up to {float(maps[number].max()):.1f}", fontsize=8)
        for axes in row:
            axes.axis("off")
    figure.suptitle("attention of six queries, in multiples of an even look")
    print(
        f"attention of a query to a place: {over_even.min():.2f} to {over_even.max():.2f} of even"
    )
    save(figure, path)


@torch.no_grad()
def experts(folder: Path, path: Path) -> None:
    """The share of each modality's tokens that each expert gets, block by block."""
    model = load(str(folder / "model"))
    with tempfile.TemporaryDirectory() as work:
        write_scene(Path(work), make_scene(size=32))
        cards = {"hr": "rgb8", "s2": "s2_l2a", "s1": "s1"}
        scene = open_scene({key: [Path(work)] for key in cards}, cards)
        with SceneReader(scene) as reader:
            features = model(collate([reader.read(Cells(0, 0, *scene.grid.shape))]))
    shares: dict[str, list[npt.NDArray[np.floating]]] = {}
    for name, found in features.routing.items():
        shares.setdefault(name.partition(".")[0], []).append(found.fraction.numpy())
    figure, row = plt.subplots(1, len(shares), figsize=(5 * len(shares), 3.5), squeeze=False)
    for axes, (key, blocks) in zip(row[0], shares.items(), strict=True):
        axes.imshow(np.stack(blocks), cmap="viridis", vmin=0, vmax=1)
        for (block, expert), value in np.ndenumerate(np.stack(blocks)):
            axes.text(expert, block, f"{value:.2f}", ha="center", va="center", color="white")
        axes.set_title(f"{key}: share of tokens")
        axes.set_xlabel("expert")
        axes.set_ylabel("block with experts")
    save(figure, path)


def main() -> None:
    """All pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, action="append", default=[], dest="runs")
    parser.add_argument("--queries", type=Path, help="run with QSACL")
    parser.add_argument("--experts", type=Path, help="run of a model with experts")
    parser.add_argument("--model", default="v2_nano")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/pictures")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UntrainedModelWarning)
    fetch()
    if options.runs:
        curves(options.runs, options.output / "curves.png")
    if options.queries:
        queries(options.queries, options.output / "queries.png")
    if options.experts:
        experts(options.experts, options.output / "experts.png")
    feature_maps(load(options.model), options.output / "feature_maps.png")
    neighbors(pack(load(options.model)), options.output / "neighbors.png")


if __name__ == "__main__":
    main()
