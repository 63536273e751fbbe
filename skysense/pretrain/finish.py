"""What a run leaves: the trained model, and on trouble the batch that made it."""

import dataclasses
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from skysense.data.shards import Loaded
from skysense.engine.parallel import whole_state
from skysense.hub.catalog import Model
from skysense.models.readout import ReadoutConfig
from skysense.models.saving import save_model
from skysense.models.skysense_v2 import SkySenseV2
from skysense.pretrain.gallery import take_pictures
from skysense.pretrain.preparation import FITTED, Run, build_encoder
from skysense.pretrain.reading import fit_readout
from skysense.pretrain.recipe import Recipe
from skysense.pretrain.report import write_report

MODEL = "model"


def finish(run: Run) -> tuple[Path, Path | None]:
    """Export the model and, if asked for, write the report; the paths of both."""
    model = export_model(run)
    if not run.recipe.report:
        return model, None
    pictures = take_pictures(run)
    report = write_report(run.recipe.output, pictures) if run.ranks.rank == 0 else None
    return model, report


def add_readout(model: Model, recipe: Recipe) -> Model:
    """The same model with a read-out fitted on the recipe's samples; in evaluation mode.

    Raises:
        ValueError: too few samples.
    """
    assert isinstance(model, SkySenseV2)  # as the preparation saw to
    assert recipe.readout is not None
    wanted = {name: getattr(recipe.readout, name) for name in ReadoutConfig.model_fields}
    config = model.config.model_copy(update={"readout": ReadoutConfig(**wanted), "centered": True})
    read = SkySenseV2(config, model.name).eval()
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith(FITTED)}
    own = {k: v for k, v in read.state_dict().items() if k.startswith(FITTED)}
    read.load_state_dict({**own, **weights})
    read.trained = model.trained
    fit_readout(read, recipe)
    return read


def export_model(run: Run) -> Path:
    """Write the teacher's encoder as a model that `skysense.load` takes.

    In FSDP all ranks gather it, and rank 0 writes.
    """
    target = run.recipe.output / MODEL
    whole = whole_state(run.objective.teacher)
    if run.ranks.rank == 0:
        prefix = "encoder."
        state = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
        model = build_encoder(run.recipe)
        model.load_state_dict(state)
        model.trained = True
        if run.recipe.readout is not None:
            model = add_readout(model, run.recipe)
        save_model(model, target)
    return target


def save_batch(folder: Path, loaded: Loaded, rank: int) -> Path:
    """Write a batch for inspection: `MODALITY.FIELD` tensors, and its keys as metadata."""
    path = folder / f"stopped_batch_{loaded.number}_rank{rank}.safetensors"
    tensors = {
        f"{key}.{field.name}": getattr(part, field.name).contiguous()
        for key, part in loaded.batch.modalities.items()
        for field in dataclasses.fields(part)
        if isinstance(getattr(part, field.name), torch.Tensor)
    }
    tensors["positions"] = loaded.positions
    facts = {"number": str(loaded.number), "keys": "\n".join(loaded.keys)}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, path, metadata=facts)
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        raise ValueError(f"{path} could not be written ({error})") from None
    return path
