"""What `model.embed` costs over the bare model: 1,000 images of 64 x 64, arrays in, vectors out.

Both compute the same features; `embed` also checks the arrays, brings them to physical units and a
batch, and pools. Limit: its time over the bare model's, 1.1. Here images stay as small as they
are; what it takes where they are enlarged as the model's own vectors want it, is told too. Run:
python benchmarks/embed_images.py
"""

import argparse
import warnings

import numpy as np
import torch
from _common import alternate, finish, paired_ratio

from skysense.hub import load, pack
from skysense.models.embedding import own_least_size, to_series
from skysense.models.encoder import UntrainedModelWarning
from skysense.sample import Sample, collate
from skysense.sensors import get_sensor

LIMIT = 1.1
BATCH = 50


def main() -> None:
    """Time both in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="v2_nano")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore", UntrainedModelWarning)
    model = pack(load(options.model))
    card = get_sensor("rgb8")
    shape = (options.images, len(card.bands), 64, 64)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    samples = [Sample({"hr": to_series(image, card)}) for image in images]
    batches = [collate(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)]

    def bare() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    def embed() -> None:
        model.embed(images, "rgb8", batch_size=BATCH, least_size=0)

    def own() -> None:
        model.embed(images, "rgb8", batch_size=BATCH)

    ours, plain = alternate(embed, bare, options.rounds)
    ratio = paired_ratio(ours, plain)
    least = own_least_size(model, card.modality)
    enlarged, stored = alternate(own, embed, 3 if least else 1)
    facts = {
        "model": options.model,
        "images": options.images,
        "embed_seconds": round(float(np.median(ours)), 3),
        "bare_seconds": round(float(np.median(plain)), 3),
        "ratio": round(ratio, 3),
        "limit": LIMIT,
        "least_size": least,
        "enlarged_seconds": round(float(np.median(enlarged)), 3),
        "enlarged_over_stored": round(paired_ratio(enlarged, stored), 2),
    }
    finish("embed_images", facts, ratio <= LIMIT)


if __name__ == "__main__":
    main()
