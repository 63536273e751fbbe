"""Which form of read-out: five-fold validation on labelled TRAINING images alone.

Read-outs of several poolings and lengths are fitted, without labels, on all training images of
EuroSAT RGB and UC Merced that `pretrain_nano.py --prepare` wrote, as a run fits one on its shards;
then a fold of each class is told by the other four, kNN-20 and linear probe. Held-out images are
not looked at. Run:
python benchmarks/choose_readout.py [--model v2_nano] [--work runs/nano_data]
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from _common import finish
from choose_weights import PROTOCOLS, SETS, validate
from frozen_vectors import CARD, vectors_of

from skysense.data.labelled import open_labelled
from skysense.hub import load, pack
from skysense.models.embedding import own_least_size
from skysense.models.pooling import Pooling, part_widths
from skysense.models.readout import Readout, ReadoutConfig
from skysense.models.skysense_v2 import SkySenseV2

POOLED: tuple[Pooling, ...] = ("spread", "texture")
KEPT = (64, 96, 128)
WHITENING = 0.5
CROPS = {"eurosat": 1, "ucmerced": 4}
"""How many samples of the shards an image makes, so often it counts in the fit."""


def main() -> None:
    """Pool, fit, score, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="v2_nano", help="name or folder")
    parser.add_argument("--work", type=Path, default=Path("runs/nano_data"))
    options = parser.parse_args()
    model = pack(load(options.model))
    assert isinstance(model, SkySenseV2)
    key, config = CARD.modality, model.config
    least = own_least_size(model, key)
    sets = {name: open_labelled(options.work / name / "train.csv") for name in SETS}
    pooled = {name: vectors_of(model, own, least) for name, own in sets.items()}
    print("| vector | numbers | EuroSAT kNN-20 | linear | UC Merced kNN-20 | linear |")
    print("|---|---|---|---|---|---|", flush=True)
    found: dict[str, dict[str, float]] = {}
    for pooling, kept in itertools.product(POOLED, KEPT):
        own = ReadoutConfig(pooling=pooling, kept=kept, whitening=WHITENING, modalities=(key,))
        widths = part_widths(pooling, config.widths, config.fused_width)
        readout = Readout(own, {key: widths})
        seen = np.concatenate([np.repeat(pooled[x][pooling], CROPS[x], 0) for x in SETS])
        readout.fit(key, torch.from_numpy(seen).split(widths, 1))
        mean, projection = (readout.get_buffer(f"{key}_{x}").numpy() for x in ("mean", "map"))
        scores = {
            f"{name} {protocol}": round(
                validate((pooled[name][pooling] - mean) @ projection.T, sets[name], protocol), 4
            )
            for name in SETS
            for protocol in PROTOCOLS
        }
        found[f"{pooling} {kept}"] = {"numbers": len(projection), **scores}
        cells = " | ".join(f"{score:.3f}" for score in scores.values())
        print(f"| {pooling}, {kept} a level | {len(projection)} | {cells} |", flush=True)
    finish(
        "choose_readout",
        {"model": options.model, "whitening": WHITENING, "read_outs": found},
        True,
        save=options.model == "v2_nano",
    )


if __name__ == "__main__":
    main()
