"""Does pre-training learn? `v2_nano` on the imagery at hand, scored on images it never saw.

Prepares the data (`--prepare` stops there), runs `recipes/pretrain/v2_nano.yaml`, and compares the
kNN of the trained model with that of its random twin on labelled images that were split off first:
a fifth of each class of EuroSAT RGB and of UC Merced. What is trained on, without labels: the other
four fifths, 800 Sentinel-2 patches, and four places with Sentinel-1 and Sentinel-2. `--prepare`
also writes `shards_multi`, for a phase on all modalities (`_nano_data.py` says what is in it).

Limits: kNN rises above the twin by at least 0.1 and never falls by more than 0.03 from one score to
the next; feature spread and effective rank end above the floors of the report. Run:
python benchmarks/pretrain_nano.py --data FOLDER [--set a.b=value ...], or with a process for each
core OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/pretrain_nano.py --data FOLDER
"""

import argparse
import itertools
import json
import os
from pathlib import Path

import numpy as np
from _common import finish
from _nano_data import shards, shards_multi

from skysense.config import read_recipe
from skysense.engine.log import read_metrics
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.report.summary import EFFECTIVE_RANK_FLOOR, FEATURE_STD_FLOOR
from skysense.pretrain.run import pretrain

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes/pretrain/v2_nano.yaml"
RISE, FALL = 0.1, 0.03


def main() -> None:
    """Prepare, train, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("SKYSENSE_DATA"))
    parser.add_argument("--work", type=Path, default=Path("runs/nano_data"))
    parser.add_argument("--prepare", action="store_true", help="write the data and stop")
    parser.add_argument("--resume", action="store_true", help="go on with the run")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the folder of imagery with --data or SKYSENSE_DATA")
    shards(Path(options.data), options.work)
    if options.prepare:
        shards_multi(Path(options.data), options.work)
        return
    recipe = read_recipe(Recipe, RECIPE, options.changes)
    outcome = pretrain(recipe, "auto" if options.resume else "never")
    if os.environ.get("RANK", "0") != "0":
        return
    lines = read_metrics(outcome.folder / "metrics.jsonl")
    scores = [(line["step"], line["knn"]) for line in lines if "knn" in line]
    told = [line for line in lines if "loss" in line]
    last = told[-max(1, len(told) // 10) :]
    spread, rank = (np.mean([line[k] for line in last]) for k in ("feature_std", "effective_rank"))
    falls = [before[1] - after[1] for before, after in itertools.pairwise(scores)]
    rise = scores[-1][1] - scores[0][1]
    passed = rise >= RISE and max(falls, default=0.0) <= FALL
    passed &= spread >= FEATURE_STD_FLOOR and rank >= EFFECTIVE_RANK_FLOOR
    facts = {
        "knn_random_twin": scores[0][1],
        "knn_trained": scores[-1][1],
        "rise": round(rise, 4),
        "limit": RISE,
        "knn_by_step": scores,
        "feature_std": round(float(spread), 3),
        "effective_rank": round(float(rank), 2),
        "steps": recipe.steps,
        "batch_size": recipe.data.batch_size,
        "minutes": round((told[-1]["time"] - lines[0]["time"]) / 60, 1),
        "samples_per_second": told[-1].get("samples_per_second"),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "changes": options.changes,
    }
    (outcome.folder / "facts.json").write_text(json.dumps(facts, indent=2))
    finish("pretrain_nano", facts, bool(passed), save=not options.changes)


if __name__ == "__main__":
    main()
