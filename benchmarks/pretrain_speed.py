"""What a pre-training step costs: the whole method against image level only, and the loop's share.

On noise of the size of EuroSAT (64 x 64 RGB), `recipes/pretrain/v2_nano_all.yaml`, batches of 64.
Limits: the whole method at most 1.5 times image level only; a whole step, with data, views,
optimizer and EMA, at most 1.1 times forward and backward pass of the same objective on views that
are there. What a loss costs is a whole step against one without it (alignment needs two
modalities, and has nothing to do here). Run: python benchmarks/pretrain_speed.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from _common import finish, paired_ratio
from torch import Tensor

from skysense.config import read_recipe
from skysense.data.shards import Reading, build_shards, drafts_of
from skysense.engine.distributed import Ranks
from skysense.pretrain.preparation import Run, prepare
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.run import take_step
from skysense.pretrain.views import make_views
from skysense.pretrain.views.randomness import Draws

RECIPE = Path(__file__).parents[1] / "recipes/pretrain/v2_nano_all.yaml"
DENSE = ("pixel", "object", "qsacl", "koleo")
ROUNDS = 5
LIMIT_WHOLE, LIMIT_LOOP = 1.5, 1.1


def build(folder: Path, *off: str) -> Run:
    """A run of the recipe with some losses switched off."""
    changes = [f"losses.{name}=0" for name in off]
    settings = [f"data.shards=[{folder / 'shards'}]", "data.modalities=[hr]", "knn=null"]
    settings += [
        "start_from=null",
        "losses.koleo=0.1",
        "losses.instance=0",
        "report=false",
        f"output={folder / 'run'}",
        "device=cpu",
    ]
    return prepare(read_recipe(Recipe, RECIPE, [*settings, *changes]), Ranks())


def whole_step(run: Run) -> Callable[[], object]:
    """One step after the other, as a run takes them."""
    batches, count = run.loader.batches(), iter(range(10**6))
    return lambda: take_step(run, next(count), batches, False)


def bare_step(run: Run) -> Callable[[], object]:
    """Forward and backward pass on the same views again and again."""
    loaded = next(run.loader.batches())
    views = make_views(loaded.batch, run.recipe.views, 0, 0, loaded.positions)
    draws = [Draws(0, 0, view, loaded.positions) for view in range(2)]

    def choose(count: int) -> Tensor:
        return torch.cat([draw.uniform("places", count) for draw in draws])

    def step() -> None:
        run.optimizer.zero_grad(set_to_none=True)
        run.module(views, choose, 0.04).total.backward()

    return step


def time_in_turn(calls: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Seconds of each call in each of some rounds, after one uncounted."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(ROUNDS + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if number:
                taken.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Time all variants in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = np.random.default_rng(0).integers(0, 256, (256, 3, 64, 64), np.uint8)
        np.savez(folder / "noise.npz", images=noise)
        build_shards(
            drafts_of(folder / "noise.npz", Reading(sensors={"hr": "rgb8"})), folder / "shards"
        )
        whole = build(folder)
        variants = {
            "whole": whole_step(whole),
            "bare": bare_step(build(folder)),
            "image only": whole_step(build(folder, *DENSE, "alignment")),
            **{f"without {term}": whole_step(build(folder, term)) for term in DENSE},
        }
        times = dict(zip(variants, time_in_turn(list(variants.values())), strict=True))
    size = whole.recipe.data.batch_size
    speed = {name: round(size / statistics.median(t), 1) for name, t in times.items()}
    for name, value in speed.items():
        print(f"{name:16} {value:6.1f} samples/s")
    parts = whole.objective.clock.means(ROUNDS + 1)
    print({key: round(value, 3) for key, value in parts.items()})
    ratio = paired_ratio(times["whole"], times["image only"])
    loop = paired_ratio(times["whole"], times["bare"])
    cost = {term: paired_ratio(times["whole"], times[f"without {term}"]) - 1 for term in DENSE}
    facts = {
        "samples_per_second": speed,
        "whole_over_image_only": round(ratio, 3),
        "limit_whole": LIMIT_WHOLE,
        "step_over_bare": round(loop, 3),
        "limit_loop": LIMIT_LOOP,
        "cost_of_each_loss": {term: round(value, 3) for term, value in cost.items()},
        "seconds_of_a_step": {key: round(value, 4) for key, value in parts.items()},
        "parameters_m": round(sum(p.numel() for p in whole.objective.parameters()) / 1e6, 2),
    }
    finish("pretrain_speed", facts, ratio <= LIMIT_WHOLE and loop <= LIMIT_LOOP)


if __name__ == "__main__":
    main()
