"""Everything a run needs, made from its recipe."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from skysense._optional import require
from skysense.config import parse
from skysense.data.shards import ShardLoader
from skysense.data.shards.library import Library
from skysense.engine.distributed import Ranks
from skysense.engine.optim import build_adamw, parameter_groups
from skysense.engine.parallel import parallelize
from skysense.engine.precision import Precision
from skysense.engine.random import seed_everything
from skysense.hub import load
from skysense.hub.catalog import Model, build
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1, SkySenseV1Config
from skysense.models.skysense_v2 import V2_CONFIGS, SkySenseV2, SkySenseV2Config
from skysense.pretrain.knn import RunningKnn
from skysense.pretrain.network import Network, blocks_of
from skysense.pretrain.objective import Objective
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.text import embed_class_names

FITTED = ("readout.", "fused_mean", "fused_scale")
"""Keys of what is fitted after training, and anew after each."""


@dataclass(frozen=True)
class Run:
    """What is trained, and with what."""

    recipe: Recipe
    """The recipe."""
    ranks: Ranks
    """This process among all."""
    loader: ShardLoader
    """Samples."""
    module: nn.Module
    """The objective, wrapped where several processes train."""
    objective: Objective
    """The objective itself; its `student` and `teacher`."""
    optimizer: Optimizer
    """AdamW over the objective's parameters."""
    precision: Precision
    """Autocast and loss scaling."""
    knn: RunningKnn | None
    """Running score."""

    @property
    def state(self) -> dict[str, object]:
        """What a checkpoint holds."""
        return {
            "objective": self.objective,
            "teacher": self.objective.teacher,
            "optimizer": self.optimizer,
            "precision": self.precision.state_dict(),
        }


def prepare(recipe: Recipe, ranks: Ranks) -> Run:
    """Build everything.

    Raises:
        ValueError: the data, the model or the options do not fit together.
    """
    if recipe.report:
        require("matplotlib", "plots")  # rather now than at the end
    loader = open_data(recipe, ranks)
    encoder = build_encoder(recipe)
    if recipe.readout is not None:
        if not isinstance(encoder, SkySenseV2):
            raise ValueError("`readout`: models of SkySense V1 have none; set it to null")
        _check_read_out(recipe.readout.modalities, recipe, loader)
    text = None
    if recipe.losses.text:
        text = _embed_names(recipe, loader.class_names)
    student = Network(
        encoder, recipe.heads, recipe.losses, {str(k): v for k, v in recipe.schedule.items()}
    )
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    teacher.encoder.trained = True  # it is about to be, and need not warn at each step
    objective = Objective(student, teacher, recipe.losses, text).to(ranks.device)
    teacher.to(ranks.device)
    blocks = blocks_of(student)
    if recipe.activation_checkpointing:
        _forget_activations(blocks)
    if recipe.compile:
        for block in [*blocks, *blocks_of(teacher)]:
            block.compile()
    module = _share(objective, teacher, recipe, ranks)
    module.train()
    groups = parameter_groups(objective, recipe.optimizer.weight_decay[0])
    return Run(
        recipe,
        ranks,
        loader,
        module,
        objective,
        build_adamw(groups, recipe.optimizer.lr, recipe.optimizer.betas),
        Precision(recipe.precision, ranks.device, recipe.parallel == "fsdp" and ranks.world > 1),
        None if recipe.knn is None else RunningKnn(recipe.knn, recipe.seed),
    )


def open_data(recipe: Recipe, ranks: Ranks) -> ShardLoader:
    """The shards.

    Raises:
        ValueError: no samples, a modality that none of them has, or a batch size that the number
            of processes does not divide.
    """
    data = recipe.data
    part = data.batch_size // data.accumulate
    if part % ranks.world:
        raise ValueError(
            f"{ranks.world} processes do not divide `data.batch_size` / `data.accumulate` = "
            f"{part}; choose a multiple of {ranks.world}"
        )
    loader = ShardLoader(
        data.shards,
        part,
        seed=recipe.seed,
        rank=ranks.rank,
        world=ranks.world,
        workers=data.workers,
        max_dates={str(key): count for key, count in data.max_dates.items()},
        modalities=data.modalities,
    )
    missing = [key for key in data.modalities if key not in loader.modalities]
    if missing:
        raise ValueError(
            f"no sample has {', '.join(missing)}: take it out of `data.modalities` "
            f"(found: {', '.join(loader.modalities)})"
        )
    return loader


def _check_read_out(keys: Sequence[str], recipe: Recipe, loader: ShardLoader) -> None:
    """See now that the read-out can be fitted at the end.

    Raises:
        ValueError: no sample has one of its modalities.
    """
    if set(keys) <= set(loader.modalities):
        return
    try:
        Library(recipe.data.shards, keys)
    except ValueError as error:
        raise ValueError(f"`readout.modalities`: {error}") from None


def build_encoder(recipe: Recipe) -> Model:
    """The model, with fresh weights or those to start from.

    Raises:
        ValueError: unknown model or field, or saved weights of another configuration.
    """
    seed_everything(recipe.seed)
    known: dict[str, SkySenseV1Config | SkySenseV2Config] = {**V1_CONFIGS, **V2_CONFIGS}
    if recipe.model not in known:
        return build(recipe.model)  # which says what there is
    values = {**known[recipe.model].model_dump(), **recipe.model_changes}
    config = parse(type(known[recipe.model]), values, "`model_changes`")
    model: Model
    if isinstance(config, SkySenseV1Config):
        model = SkySenseV1(config, recipe.model)
    else:
        model = SkySenseV2(config, recipe.model)
    if recipe.start_from is not None:
        start = load(recipe.start_from)
        own = start.config
        if isinstance(own, SkySenseV2Config):
            own = own.model_copy(update={"readout": None, "centered": False})
        if own != config:
            raise ValueError(
                f"`start_from` {recipe.start_from} is a `{start.name}` of another configuration "
                f"than `{recipe.model}` with `model_changes`"
            )
        state = start.state_dict()
        model.load_state_dict({k: v for k, v in state.items() if not k.startswith(FITTED)})
    return model


def _embed_names(recipe: Recipe, names: Sequence[str]) -> Tensor:
    """Text embeddings of the class names of the shards.

    Raises:
        ValueError: the shards have no classes.
    """
    if not names:
        raise ValueError("`losses.text` has a weight, but the shards have no class names")
    return embed_class_names(names, recipe.losses.text_embeddings)


def _forget_activations(blocks: Sequence[nn.Module]) -> None:
    """Let each block compute again in the backward pass what it would have kept."""
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def _sharded_blocks(network: Network) -> list[nn.Module]:
    """What FSDP2 gathers and frees by itself: blocks that every rank runs in every step.

    The backbones of V1 are not: a rank whose batch lacks a modality passes over its blocks.
    """
    encoder = network.encoder
    return blocks_of(encoder.fusion if isinstance(encoder, SkySenseV1) else network)


def _share(objective: Objective, teacher: Network, recipe: Recipe, ranks: Ranks) -> nn.Module:
    """Student and teacher over all processes: both whole (DDP), or both in shards (FSDP2)."""
    compute = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.precision)
    if recipe.parallel == "fsdp" and ranks.world > 1:
        parallelize(teacher, "fsdp", ranks, blocks=_sharded_blocks(teacher), compute=compute)
    blocks = _sharded_blocks(objective.student)
    return parallelize(objective, recipe.parallel, ranks, blocks=blocks, compute=compute)
