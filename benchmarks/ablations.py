"""What is each part of the method worth at small scale? One command, one table.

Every variant is `recipes/pretrain/v2_nano_all.yaml`, from fresh weights and with the paper's
losses, with a change; trained with the same steps and seeds on the data of `pretrain_nano.py
--prepare`, and scored by kNN-20 and linear probe on labelled images that were split off first
(EuroSAT RGB, UC Merced). With one seed the intervals are over images, with several the spread is
over seeds; differences from the full method are paired image by image and seed by seed. `mean` is
that of the four accuracies. Feature spread and effective rank are those of the vectors of the
held-out EuroSAT images.

For equal wall time the steps of both are timed in turn before the first run, so that a busy machine
does no harm; minutes and samples a second are those of the run itself.

Limit: the full method beats image level only of equal wall time in `mean`, outside the interval.

A study goes on where it was stopped: send the same command again. Finished runs are passed over,
so that seeds and variants can be added. About ten minutes a run of 200 steps on two CPU cores. Run:
python benchmarks/ablations.py --data FOLDER [--seeds 0 1 2] [--variants NAME ...] [--markdown]
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from _ablation_table import MEAN, PROTOCOLS, SETS, Outcome, summarize, tables
from _common import alternate, finish, paired_ratio
from _nano_data import shards
from pretrain_speed import whole_step

import skysense
from skysense.config import read_recipe
from skysense.data.labelled import LabelledSet, split
from skysense.engine.distributed import start
from skysense.engine.log import read_metrics
from skysense.hub.catalog import Model
from skysense.pretrain.finish import finish as finish_run
from skysense.pretrain.observation import effective_rank, feature_std
from skysense.pretrain.preparation import prepare
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.run import CHECKPOINTS, RECIPE_NAME, pretrain
from skysense.tasks.probe import embed_set, probe_vectors, train_and_test

TIMED_STEPS = 25


@dataclass(frozen=True)
class Variant:
    """One line of the table."""

    what: str
    """What it is, in words."""
    changes: tuple[str, ...] = ()
    """Of the recipe; `{model}` stands for its model."""
    as_long_as_full: bool = False
    """Whether it is trained for as long as the full method takes, and not for as many steps."""
    trained: bool = True
    """Whether it is trained at all."""


def off(*losses: str) -> tuple[str, ...]:
    """Switch losses off."""
    return tuple(f"losses.{name}=0" for name in losses)


RECIPE = Path(__file__).parents[1] / "recipes/pretrain/v2_nano_all.yaml"

FULL = (
    "start_from=null",
    "losses={image: 1, pixel: 0.5, object: 0.5, alignment: 0.5, qsacl: 0.5, koleo: 0.1, "
    "teacher_temperature: [0.04, 0.04], pixels: 8}",
    "readout={kept: 32, modalities: [hr], samples: 1000}",
)
"""What the recipe is changed to in all variants: the paper's losses, without the instance level."""

_IMAGE_ONLY = off("pixel", "object", "alignment", "qsacl")
_INSTANCE_ONLY = (*_IMAGE_ONLY, *off("image", "koleo"), "losses.instance=1")
_MASKED = (*_IMAGE_ONLY, *off("image", "koleo"), "losses.masked=1")

VARIANTS = {
    "full": Variant("full method of the paper"),
    "with_instance": Variant("full method and instance level", ("losses.instance=1",)),
    "instance_only": Variant("instance level only", _INSTANCE_ONLY),
    "without_qsacl": Variant("without QSACL", off("qsacl")),
    "without_dense": Variant("without pixel and object level", off("pixel", "object")),
    "without_alignment": Variant("without cross-modal alignment", off("alignment")),
    "without_prompts": Variant("without prompts", ("model_changes.prompts=0",)),
    "experts": Variant("experts (MoE) in place of dense blocks", ("model={model}_moe",)),
    "image_only": Variant("image level only (DINO-like)", _IMAGE_ONLY),
    "image_only_equal_time": Variant("image level only, equal wall time", _IMAGE_ONLY, True),
    "masked": Variant("masked autoencoder", _MASKED),
    "masked_equal_time": Variant("masked autoencoder, equal wall time", _MASKED, True),
    "random": Variant("random initialization", trained=False),
}
"""In the order of the table and of the runs."""


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    work: Path
    """Where they are."""
    prepared: Path
    """What `pretrain_nano.py --prepare` made."""
    steps: int
    """Of each run that is not timed."""
    changes: tuple[str, ...] = ()
    """Of the recipe, in all variants."""
    images: int | None = None
    """Labelled images on either side of a score; `None` for all."""

    def recipe(self, name: str, seed: int) -> Recipe:
        """Of one run.

        Raises:
            ValueError: a change that the recipe refuses.
        """
        folders = [str(self.prepared.resolve() / part) for part in ("shards", "shards_multi")]
        shared = [
            *FULL,
            f"data.shards={folders}",
            f"steps={self.steps}",
            f"log_every={min(10, max(1, self.steps // 10))}",
            "save_every=50",
            "keep_checkpoints=1",
            "knn=null",
            "report=false",
            *self.changes,
            f"output={self.work / f'{name}-{seed}'}",
            f"seed={seed}",
        ]
        variant, base = VARIANTS[name], read_recipe(Recipe, RECIPE, shared)
        own = [change.format(model=base.model) for change in variant.changes]
        if variant.as_long_as_full:
            ratio = self.steps_a_step(base, read_recipe(Recipe, RECIPE, [*shared, *own]))
            own.append(f"steps={max(1, round(base.steps * ratio))}")
        return read_recipe(Recipe, RECIPE, [*shared, *own])

    def steps_a_step(self, full: Recipe, other: Recipe) -> float:
        """How many steps of another recipe take as long as one of the full method.

        Both are timed in turn, since a busy machine is not equally busy during two runs. That is
        done once and kept, so that all seeds have as many steps.
        """
        path = self.work / "steps_a_step.json"
        known: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        key = ", ".join(name for name, weight in other.losses.weights().items() if weight)
        if key not in known:
            calls = [whole_step(prepare(recipe, start(recipe.device))) for recipe in (full, other)]
            known[key] = paired_ratio(*alternate(calls[0], calls[1], TIMED_STEPS))
            write(path, known)
        return known[key]

    def kept(self, name: str, seed: int) -> Path:
        """The outcome of a run, beside its folder."""
        return self.work / f"{name}-{seed}.json"


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(values) + "\n")
    os.replace(temporary, path)


def refuse_another(recipe: Recipe) -> None:
    """A folder belongs to one recipe.

    Raises:
        ValueError: it holds a run with another one; the message says what differs.
    """
    path = recipe.output / RECIPE_NAME
    if not path.is_file():
        return
    aside: Any = {"output": True, "data": {"shards": True}}
    now, before = (r.model_dump(exclude=aside) for r in (recipe, read_recipe(Recipe, path)))
    differing = [key for key in now if now[key] != before[key]]
    if differing:
        raise ValueError(
            f"{recipe.output} holds a run with other {', '.join(differing)}: give another --work"
        )


def train(variant: Variant, recipe: Recipe) -> Path:
    """The model of a run, which goes on from where it was stopped; a random one has no steps."""
    model = recipe.output / "model"
    if model.is_dir():
        return model
    if variant.trained:
        pretrain(recipe, "auto")
        shutil.rmtree(recipe.output / CHECKPOINTS)
    else:
        recipe.output.mkdir(parents=True, exist_ok=True)
        values = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
        (recipe.output / RECIPE_NAME).write_text(values, encoding="utf-8")
        finish_run(prepare(recipe, start(recipe.device)))
    return model


def cost(variant: Variant, recipe: Recipe) -> dict[str, float]:
    """Steps, and what they take at the median speed, which interruptions do not touch."""
    if not variant.trained:
        return {"steps": 0, "minutes": 0.0, "samples_per_second": 0.0}
    told = [line for line in read_metrics(recipe.output / "metrics.jsonl") if "loss" in line]
    seconds = statistics.median(
        (b["time"] - a["time"]) / (b["step"] - a["step"]) for a, b in itertools.pairwise(told)
    )
    return {
        "steps": recipe.steps,
        "minutes": recipe.steps * seconds / 60,
        "samples_per_second": recipe.data.batch_size / seconds,
    }


def score(model: Model, study: Study) -> dict[str, Any]:
    """Probes on each labelled set, and how the features spread."""
    found: dict[str, Any] = {"scores": {}}
    for name in SETS:
        folder = study.prepared / name
        parts = train_and_test(folder / "train.csv", folder / "held_out.csv")
        kept, asked = (some(part, study.images) for part in parts)
        vectors, test = (embed_set(model, part, "rgb8", batch_size=64) for part in (kept, asked))
        for protocol in PROTOCOLS:
            scores = probe_vectors(
                vectors, kept.labels, test, asked.labels, protocol, len(kept.classes)
            )
            found["scores"][f"{name} {protocol}"] = {
                "accuracy": scores.accuracy,
                "interval": scores.accuracy_interval,
                "settings": dict(scores.settings),
                "train_images": len(kept),
                "width": vectors.shape[1],
                "labels": scores.labels.tolist(),
                "predictions": scores.predictions.tolist(),
            }
        if name == "eurosat":
            found["feature_std"] = feature_std(torch.from_numpy(test))
            found["effective_rank"] = effective_rank(torch.from_numpy(test))
    return found


def some(labelled: LabelledSet, count: int | None) -> LabelledSet:
    """About so many images, the same share of each class."""
    if count is None or count >= len(labelled):
        return labelled
    return split(labelled, count / len(labelled), seed=0)[1]


def run_one(study: Study, name: str, seed: int) -> tuple[Outcome, bool]:
    """One run, trained and scored; whether anything was left to do."""
    variant, recipe = VARIANTS[name], study.recipe(name, seed)
    refuse_another(recipe)
    path, kept = train(variant, recipe), study.kept(name, seed)
    if kept.is_file():
        outcome = json.loads(kept.read_text())
        if outcome["images"] == study.images:
            return outcome, False
    device = "cuda" if recipe.device != "cpu" and torch.cuda.is_available() else "cpu"
    outcome = {
        "variant": name,
        "what": variant.what,
        "changes": list(variant.changes),
        "seed": seed,
        "images": study.images,
        **cost(variant, recipe),
        **score(skysense.load(path, device), study),
    }
    write(kept, outcome)
    return outcome, True


def run_all(study: Study, names: Sequence[str], seeds: Sequence[int]) -> list[Outcome]:
    """All runs, a seed after the other, so that a first table is there early."""
    plan = [(name, seed) for seed in seeds for name in VARIANTS if name in names]
    for name, seed in plan:  # so that a mistake shows now and not after hours
        refuse_another(study.recipe(name, seed))
    outcomes = []
    for number, (name, seed) in enumerate(plan, 1):
        began = time.monotonic()
        outcome, new = run_one(study, name, seed)
        outcomes.append(outcome)
        took = f"{(time.monotonic() - began) / 60:.1f} min" if new else "there already"
        told = ", ".join(f"{key} {s['accuracy']:.3f}" for key, s in outcome["scores"].items())
        print(f"[{number} of {len(plan)}] {name}, seed {seed}: {took}; {told}", flush=True)
    return outcomes


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("SKYSENSE_DATA"))
    parser.add_argument("--prepared", type=Path, default=Path("runs/nano_data"))
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="their numbers")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--images", type=int, help="labelled images a side; default: all")
    parser.add_argument("--set", action="append", default=[], dest="changes", help="a.b=value")
    parser.add_argument("--markdown", action="store_true", help="print the table for a page")
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    options = parser.parse_args(arguments)
    if options.steps < 3:
        parser.error("--steps must be at least 3: the speed is measured between them")
    if options.data is None and not (options.prepared / "shards/index.json").is_file():
        parser.error(f"{options.prepared} holds no data: name the imagery with --data")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left to run, tell, judge."""
    options = options_of(arguments)
    if not (options.prepared / "shards/index.json").is_file():
        shards(Path(options.data), options.prepared)
    study = Study(
        options.work, options.prepared, options.steps, tuple(options.changes), options.images
    )
    try:
        outcomes = run_all(study, options.variants, list(dict.fromkeys(options.seeds)))
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
    rows = summarize(outcomes)
    print(f"\n{tables(rows, options.markdown)}\n")
    found = {row["variant"]: row["against_full"].get(MEAN) for row in rows}
    judged = found.get("image_only_equal_time")
    better = None if judged is None else judged["interval"][1] < 0
    facts = {
        "full_beats_image_only_of_equal_time": better,
        "variants": rows,
        "steps": options.steps,
        "seeds": options.seeds,
        "images": options.images,
        "changes": options.changes,
    }
    finish("ablations", facts, better is not False, save=not (options.no_save or options.changes))


if __name__ == "__main__":
    main()
