"""The mean of the weights of several trained models, which went apart from one start.

Their losses lie in one basin, and the mean of the weights is often better than each: model soups
(arXiv 2203.05482) [paper]. The read-out, which was fitted to one of them, is fitted anew [ours].

python -m skysense.pretrain.averaging RUN/model OTHER/model --recipe RECIPE.yaml --output FOLDER
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from skysense.config import read_recipe
from skysense.hub.loading import load
from skysense.models.saving import save_model
from skysense.models.skysense_v2 import SkySenseV2
from skysense.pretrain.finish import add_readout
from skysense.pretrain.preparation import FITTED
from skysense.pretrain.recipe import Recipe


def mean_of(models: Sequence[SkySenseV2]) -> SkySenseV2:
    """The model whose weights are the mean of those of some, without a read-out.

    Raises:
        ValueError: none, or models of different configurations.
    """
    plain = [
        model.config.model_copy(update={"readout": None, "centered": False}) for model in models
    ]
    if not models:
        raise ValueError("no model has no mean")
    facts = [config.model_dump() for config in plain]
    differing = [key for key in facts[0] if any(own[key] != facts[0][key] for own in facts)]
    if differing:
        raise ValueError(
            f"only models of one configuration have a mean; {', '.join(m.name for m in models)} "
            f"differ in {', '.join(differing)}"
        )
    mean = SkySenseV2(plain[0], models[0].name)
    states = [model.state_dict() for model in models]
    weights = {
        key: torch.stack([state[key].double() for state in states]).mean(0)
        for key in states[0]
        if not key.startswith(FITTED)
    }
    mean.load_state_dict(weights)
    mean.trained = all(model.trained for model in models)
    return mean


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="folders of trained models")
    parser.add_argument("--recipe", type=Path, required=True, help="what the read-out is fitted by")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        recipe = read_recipe(Recipe, options.recipe)
        models = [load(path) for path in options.models]
        different = [m.name for m in models if not isinstance(m, SkySenseV2)]
        if different:
            raise ValueError(f"{different[0]} is no model of SkySense V2")
        mean = mean_of([model for model in models if isinstance(model, SkySenseV2)])
        save_model(mean if recipe.readout is None else add_readout(mean, recipe), options.output)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
