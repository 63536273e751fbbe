"""The random twin: what a model's structure alone is worth."""

from collections.abc import Sequence

import numpy as np
import torch

from skysense.data.labelled import LabelledSet
from skysense.hub.catalog import Model
from skysense.models.pooling import part_widths
from skysense.models.readout import Readout
from skysense.models.skysense_v2 import SkySenseV2, SkySenseV2Config
from skysense.sensors import get_sensor

FITTED = 2000
"""Images that a twin's read-out is fitted to, at most."""


def random_twin(model: Model, seed: int = 1) -> Model:
    """An untrained model of the same configuration, without a read-out.

    Args:
        model: of either family.
        seed: of the twin's weights; 0 gives those that `skysense.load` gives a name without any.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        config = model.config
        if isinstance(config, SkySenseV2Config):
            config = config.model_copy(update={"readout": None, "centered": False})
        twin = type(model)(config, model.name)  # type: ignore[arg-type]
    twin.name = f"random twin of {model.name}"
    return twin.eval().to(next(model.parameters()).device)


def fit_read_out(
    twin: Model,
    model: Model,
    images: LabelledSet,
    sensor: str,
    bands: Sequence[str] | None = None,
    least_size: int | None = None,
    batch_size: int = 32,
) -> None:
    """Give a twin a read-out like the model's, so that the weights alone are compared.

    It is fitted without labels; where the model has none for the sensor, nothing is done.

    Args:
        twin: of `random_twin`, not yet packed.
        model: whose twin it is.
        images: training images, of which `FITTED` are taken, evenly.
        sensor: name of their sensor card.
        bands: as of `embed_set`.
        least_size: likewise.
        batch_size: images computed at a time.
    """
    key, own = get_sensor(sensor).modality, getattr(model, "readout", None)
    if not isinstance(own, Readout) or key not in own.config.modalities:
        return
    assert isinstance(twin, SkySenseV2)
    config = own.config.model_copy(update={"modalities": (key,)})
    widths = part_widths(config.pooling, twin.config.widths, twin.config.fused_width)
    chosen = np.unique(np.linspace(0, len(images) - 1, FITTED).round().astype(int))
    names = images.bands if bands is None else tuple(bands)
    pooled = [
        twin.embed(
            [images.read(i) for i in chosen[start : start + batch_size]],
            sensor,
            names,
            batch_size,
            pooling=config.pooling,
            least_size=least_size,
        )
        for start in range(0, len(chosen), batch_size)
    ]
    read_out = Readout(config, {key: widths})
    read_out.fit(key, torch.from_numpy(np.concatenate(pooled)).split(widths, 1))
    twin.readout = read_out.to(next(twin.parameters()).device)
