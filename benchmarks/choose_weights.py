"""Which of several trained weights: five-fold validation on labelled TRAINING images alone.

For each model the vectors of `model.embed`, as it makes them by default, of all training images of
EuroSAT RGB and UC Merced that `pretrain_nano.py --prepare` wrote: a fold of each class is told by
the other four, kNN-20 and linear probe. Held-out images are not looked at. Run:
python benchmarks/choose_weights.py MODEL [MODEL ...] [--work runs/nano_data]
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _common import finish

from skysense.data.labelled import LabelledSet, open_labelled
from skysense.hub import load, pack
from skysense.tasks.probe import embed_set, probe_vectors
from skysense.tasks.probe.evaluation import Protocol

FOLDS = 5
PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear")
SETS = ("eurosat", "ucmerced")


def folds_of(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`(N,)` folds with an equal part of each class; the same each time."""
    rng, folds = np.random.default_rng(0), np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        folds[own] = np.arange(len(own)) % FOLDS
    return folds


def validate(vectors: npt.NDArray[np.float32], labelled: LabelledSet, protocol: Protocol) -> float:
    """Accuracy over all images, each classified by the other folds."""
    labels, folds, right = labelled.labels, folds_of(labelled.labels), 0.0
    for fold in range(FOLDS):
        known, asked = folds != fold, folds == fold
        sides = (vectors[known], labels[known], vectors[asked], labels[asked])
        right += probe_vectors(*sides, protocol, len(labelled.classes)).accuracy * asked.sum()
    return right / len(labels)


def main() -> None:
    """Score, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names or folders")
    parser.add_argument("--work", type=Path, default=Path("runs/nano_data"))
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    for name in options.models:
        model = pack(load(name))
        for chosen in SETS:
            labelled = open_labelled(options.work / chosen / "train.csv")
            vectors = embed_set(model, labelled, "rgb8")
            for protocol in PROTOCOLS:
                score = round(validate(vectors, labelled, protocol), 4)
                found.setdefault(name, {})[f"{chosen} {protocol}"] = score
                print(f"{name}: {chosen}, {len(labelled)} images, {protocol} {score}", flush=True)
    finish("choose_weights", {"folds": FOLDS, "accuracy": found}, passed=True)


if __name__ == "__main__":
    main()
