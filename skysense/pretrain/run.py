"""A pre-training run, from its recipe to the trained model."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import torch
import yaml
from torch import Tensor

from skysense.data.shards import Loaded
from skysense.engine import checkpoint
from skysense.engine.clock import Clock
from skysense.engine.distributed import start, stop
from skysense.engine.log import Log
from skysense.engine.optim import set_lr_and_decay
from skysense.engine.parallel import accumulating, clip_gradients, complete_gradients, ema_update
from skysense.engine.precision import NotFiniteError, check_finite
from skysense.engine.schedules import cosine, linear, warmup_cosine
from skysense.pretrain.finish import finish, save_batch
from skysense.pretrain.labels import Labels
from skysense.pretrain.objective import Terms
from skysense.pretrain.observation import effective_rank, feature_std
from skysense.pretrain.preparation import Run, prepare
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.stopping import Stopped, stop_requests
from skysense.pretrain.views import make_views
from skysense.pretrain.views.randomness import Draws

Resume = Literal["auto", "never"]

CHECKPOINTS = "checkpoints"
RECIPE_NAME = "recipe.yaml"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    folder: Path
    """The run's folder."""
    model: Path
    """The trained model, for `skysense.load`."""
    report: Path | None
    """The report, where one was asked for."""
    knn: float | None
    """The last kNN score."""


def pretrain(recipe: Recipe, resume: Resume = "never") -> Outcome:
    """Train a model, going on from the last checkpoint if there is one and that is wanted.

    Args:
        recipe: everything about the run.
        resume: `auto` goes on from the run's last checkpoint, or starts where there is none;
            `never` refuses a folder in which there is one.

    Raises:
        ValueError: what the recipe asks for cannot be, or a loss is not a number.
        Stopped: a signal came; the state is saved.
    """
    ranks = start(recipe.device)
    try:
        found = checkpoint.latest(recipe.output / CHECKPOINTS)
        if found is not None and resume == "never":
            raise ValueError(
                f"{recipe.output} already holds a run, up to {found.name}: give `--resume auto` "
                "to go on, or another `output`"
            )
        run = prepare(recipe, ranks)
        step = 0
        if found is not None:
            step = _restore(run, found)
        _write_recipe(run)
        with Log(
            recipe.output,
            recipe.steps,
            start=step,
            every=recipe.log_every,
            tensorboard=recipe.tensorboard,
        ) as log:
            log.say(_describe(run, step))
            knn = _fit(run, log, step)
        model, report = finish(run)
        return Outcome(recipe.output, model, report, knn)
    finally:
        stop()


def _fit(run: Run, log: Log, first: int) -> float | None:
    """All steps from `first` on; returns the last kNN score."""
    recipe, knn = run.recipe, run.recipe.knn
    batches = run.loader.batches(first * recipe.data.accumulate)
    score = _score(run, log, 0) if first == 0 else None
    clock, logged = run.objective.clock, first
    with stop_requests() as request, closing(batches):
        for step in range(first, recipe.steps):
            done, last = step + 1, step + 1 == recipe.steps
            told = done % recipe.log_every == 0 or last
            values = take_step(run, step, batches, told)
            if told:
                values |= clock.means(done - logged)
                log.write(done, values, recipe.data.batch_size * (done - logged))
                logged = done
            stopped = request.agreed(run.ranks)
            if last or stopped or done % recipe.save_every == 0:
                with clock.part("checkpoint"):
                    _save(run, done)
            if stopped and not last:
                assert request.number is not None
                raise Stopped(request.number, f"{recipe.output} is saved up to step {done}")
            if knn is not None and (last or done % knn.every == 0):
                with clock.part("knn"):
                    score = _score(run, log, done)
    return score


def take_step(run: Run, step: int, batches: Iterator[Loaded], told: bool) -> dict[str, float]:
    """One optimizer step.

    Args:
        run: what is trained.
        step: its number, from 0.
        batches: from the step's first part on.
        told: also look whether the features spread.

    Returns:
        What the log says of it.

    Raises:
        NotFiniteError: a loss is not a number; the batch is saved.
    """
    recipe, optimizer, clock = run.recipe, run.optimizer, run.objective.clock
    now = settings(recipe, step)
    set_lr_and_decay(optimizer, now["lr"], now["weight_decay"])
    optimizer.zero_grad(set_to_none=True)
    found: list[Terms] = []
    for part in range(recipe.data.accumulate):
        with clock.part("data"):
            loaded = next(batches)
        last = part + 1 == recipe.data.accumulate
        found.append(_part(run, loaded, now["teacher_temperature"], last, clock))
    with clock.part("optimizer"):
        parameters = list(run.objective.parameters())
        complete_gradients(parameters)
        run.precision.unscale(optimizer)
        norm = clip_gradients(parameters, recipe.optimizer.clip or None)
        means = _means(run, loaded, found, norm)  # before a NaN reaches the weights
        run.precision.step(optimizer)
    with clock.part("ema"):
        ema_update(run.objective.teacher, run.objective.student, now["momentum"])
    return {**means, **now, **(_observed(found) if told else {})}


def _part(run: Run, loaded: Loaded, temperature: float, last: bool, clock: Clock) -> Terms:
    """Forward and backward pass of one part of a step's batch."""
    recipe, device = run.recipe, run.ranks.device
    positions = loaded.positions.to(device)
    with clock.part("views"):
        batch = loaded.batch.to(device)
        views = make_views(batch, recipe.drawn_views, recipe.seed, loaded.number, positions)
    labels = None
    if recipe.losses.text and loaded.classes is not None and loaded.class_sizes is not None:
        labels = Labels(loaded.classes.to(device), loaded.class_sizes.to(device))
    draws = [
        Draws(recipe.seed, loaded.number, view, positions)
        for view in range(recipe.drawn_views.global_count)
    ]

    def choose(count: int, purpose: str = "places") -> Tensor:
        return torch.cat([draw.uniform(purpose, count) for draw in draws])

    with accumulating(run.module, last):
        with run.precision.autocast():
            terms: Terms = run.module(views, choose, temperature, labels)
        with clock.part("backward"):
            run.precision.backward(terms.total / recipe.data.accumulate)
    return terms


def settings(recipe: Recipe, step: int) -> dict[str, float]:
    """What the schedules say of a step, from 0."""
    optimizer, losses = recipe.optimizer, recipe.losses
    return {
        "lr": warmup_cosine(
            step, recipe.steps, optimizer.warmup_steps, optimizer.lr, optimizer.min_lr
        ),
        "weight_decay": cosine(step, recipe.steps, *optimizer.weight_decay),
        "momentum": cosine(step, recipe.steps, *recipe.teacher.momentum),
        "teacher_temperature": linear(
            step, losses.teacher_temperature_steps + 1, *losses.teacher_temperature
        ),
    }


def _means(run: Run, loaded: Loaded, found: list[Terms], norm: Tensor) -> dict[str, float]:
    """The losses, averaged over parts and ranks.

    Raises:
        NotFiniteError: one is not a number; the batch is saved.
    """
    values = {"loss": torch.stack([terms.total for terms in found]).mean()}
    for name in found[0].losses:
        values[f"losses.{name}"] = torch.stack([terms.losses[name] for terms in found]).mean()
    values["target_entropy"] = torch.stack([terms.entropy for terms in found]).mean()
    if run.precision.scaler is None:  # in float16 gradients may overflow, and the step is skipped
        values["grad_norm"] = norm
    try:
        return check_finite(values)
    except NotFiniteError as error:
        try:
            kept = f"is in {save_batch(run.recipe.output, loaded, run.ranks.rank)}"
        except (ValueError, OSError) as trouble:
            kept = f"is lost: {trouble}"
        raise NotFiniteError(f"{error} (the last batch {kept})") from None


def _observed(found: list[Terms]) -> dict[str, float]:
    """Whether the features spread, of the last part on this rank."""
    vectors = found[-1].vectors
    return {"feature_std": feature_std(vectors), "effective_rank": effective_rank(vectors)}


def _score(run: Run, log: Log, step: int) -> float | None:
    """The kNN score after some steps, if it is asked for."""
    if run.knn is None:
        return None
    score = run.knn.score(run.objective.teacher.encoder)
    log.write(step, {"knn": score})
    return score


def _save(run: Run, step: int) -> None:
    """Write a checkpoint."""
    checkpoint.save(
        run.recipe.output / CHECKPOINTS,
        step,
        run.state,
        run.recipe.model_facts(),
        run.recipe.keep_checkpoints,
    )


def _restore(run: Run, path: Path) -> int:
    """Go on from a checkpoint; returns the steps that are done."""
    described = checkpoint.restore(path, run.state, run.recipe.model_facts())
    if described["step"] > run.recipe.steps:
        raise ValueError(
            f"{path} is past the {run.recipe.steps} `steps` of the recipe: there is nothing to do"
        )
    run.precision.load_state_dict(described["values"].get("precision", {}))
    return int(described["step"])


def _write_recipe(run: Run) -> None:
    """The whole recipe, beside what it makes."""
    if run.ranks.rank == 0:
        folder = run.recipe.output
        folder.mkdir(parents=True, exist_ok=True)
        values = run.recipe.model_dump(mode="json")
        temporary = folder / f".{RECIPE_NAME}.part"
        temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        os.replace(temporary, folder / RECIPE_NAME)


def _describe(run: Run, step: int) -> str:
    """What is about to be trained, in one line."""
    recipe = run.recipe
    count = sum(p.numel() for p in run.objective.student.encoder.parameters())
    where = f"from step {step} on" if step else "from the start"
    return (
        f"{recipe.model} ({count / 1e6:.2f}M parameters), {len(run.loader)} samples "
        f"({', '.join(run.loader.modalities)}), {recipe.steps} steps of "
        f"{recipe.data.batch_size}, {where}, on {run.ranks.world} x {run.ranks.device}"
    )
