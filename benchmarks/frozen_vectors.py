"""What an image's vector is worth: poolings, scores on unseen images, few labels.

Uses the split of `pretrain_nano.py`: a fifth of EuroSAT RGB and UC Merced was held out of training.

1. Which pooling: kNN-20 and linear probe of each, validated on a fifth of the TRAINING images, with
   the rest as neighbours. The choice is made here, never on held-out images.
2. What small images are enlarged to first: `LEAST`, with a read-out like the model's own fitted on
   the four fifths at each; validated in the same way.
3. The chosen vector on held-out images, with 95% intervals, beside an untrained model of the same
   configuration and the mean and spread of each band.
4. The linear probe with 1, 5, 10, 50 labels a class, five draws each, beside band statistics.

Limits: kNN and linear of the targets that `TARGETS` names; it fails where one is missed. Run:
python benchmarks/frozen_vectors.py --data FOLDER [--model v2_nano]
"""

import argparse
import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from _common import finish
from _nano_data import labelled as split_labelled

from skysense.data.labelled import LabelledSet, open_labelled, split
from skysense.hub import load, pack
from skysense.hub.catalog import Model
from skysense.models.embedding import own_least_size, to_batch
from skysense.models.encoder import UntrainedModelWarning
from skysense.models.enlarging import enlarge
from skysense.models.pooling import POOLINGS, part_widths, pool_features
from skysense.models.readout import Readout
from skysense.models.skysense_v2 import SkySenseV2
from skysense.sensors import get_sensor
from skysense.tasks.probe import few_shot, probe_vectors, random_twin
from skysense.tasks.probe.evaluation import Protocol

Vectors = npt.NDArray[np.float32]

OWN = "read-out"
PROTOCOLS: tuple[Protocol, ...] = ("knn", "linear")
TARGETS = {
    ("eurosat", "knn"): 0.92,
    ("eurosat", "linear"): 0.95,
    ("ucmerced", "knn"): 0.85,
}
CARD = get_sensor("rgb8")
LEAST = {"eurosat": (0, 96, 128), "ucmerced": ()}  # the latter are all larger
"""Pixels that small images are enlarged to, by set."""


@torch.inference_mode()
def vectors_of(
    model: Model, labelled: LabelledSet, least: int, batch: int = 32
) -> dict[str, Vectors]:
    """Pooling to vectors `(N, D)`; the model's own read-out among them, if it has one."""
    images = [labelled.read(i) for i in range(len(labelled))]
    order = sorted(range(len(images)), key=lambda i: images[i].shape)
    found: dict[str, list[Vectors]] = {}
    while order:
        shape = images[order[0]].shape
        chosen = [i for i in order[:batch] if images[i].shape == shape]
        order = order[len(chosen) :]
        made_of = to_batch([images[i] for i in chosen], CARD)
        part = enlarge(made_of.modalities[CARD.modality], least)
        made_of = replace(made_of, modalities={CARD.modality: part})
        features = model(made_of)
        made = {how: pool_features(features, how, CARD.modality) for how in POOLINGS}
        if getattr(model, "readout", None) is not None:
            made[OWN] = model.readout(features, CARD.modality)
        for how, values in made.items():
            found.setdefault(how, []).append(values.float().numpy())
    back = np.argsort(sorted(range(len(images)), key=lambda i: images[i].shape))
    return {how: np.concatenate(parts)[back] for how, parts in found.items()}


def read_out(model: SkySenseV2, fitted: Vectors, others: Vectors) -> tuple[Vectors, Vectors]:
    """Both through a read-out like the model's own, fitted on the first; of its pooling."""
    assert model.config.readout is not None
    config = model.config.readout.model_copy(update={"modalities": (CARD.modality,)})
    widths = part_widths(config.pooling, model.config.widths, model.config.fused_width)
    fresh = Readout(config, {CARD.modality: widths})
    fresh.fit(CARD.modality, torch.from_numpy(fitted).split(widths, 1))
    mean, projection = (fresh.get_buffer(f"{CARD.modality}_{x}").numpy() for x in ("mean", "map"))
    first, second = ((vectors - mean) @ projection.T for vectors in (fitted, others))
    return first, second


def band_statistics(labelled: LabelledSet) -> Vectors:
    """Mean and standard deviation of each band, `(N, 2 C)`."""
    images = (labelled.read(i).astype(np.float32) for i in range(len(labelled)))
    return np.stack([np.concatenate([i.mean((1, 2)), i.std((1, 2))]) for i in images])


def scores(
    train: Vectors, test: Vectors, sets: tuple[LabelledSet, LabelledSet]
) -> dict[str, dict[str, object]]:
    """Accuracy and interval by protocol."""
    found: dict[str, dict[str, object]] = {}
    labels, test_labels = (side.labels for side in sets)
    for protocol in PROTOCOLS:
        own = probe_vectors(train, labels, test, test_labels, protocol, len(sets[0].classes))
        found[protocol] = {
            "accuracy": round(own.accuracy, 4),
            "interval": [round(x, 4) for x in own.accuracy_interval],
        }
    return found


def shown(own: Mapping[str, Mapping[str, object]]) -> str:
    """Both protocols in a row of a table."""
    cells = []
    for protocol in PROTOCOLS:
        low, high = own[protocol]["interval"]  # type: ignore[misc]
        cells.append(f"{own[protocol]['accuracy']:.3f} ({low:.3f}-{high:.3f})")
    return " | ".join(cells)


def study(name: str, model: Model, twin: Model, work: Path) -> dict[str, object]:
    """All tables of one labelled set, printed as Markdown."""
    train = open_labelled(work / name / "train.csv")
    held_out = open_labelled(work / name / "held_out.csv").with_classes(train.classes)
    fitted, validation = split(train, 0.2, 1)
    least = own_least_size(model, CARD.modality)
    known, unseen = (vectors_of(model, side, least) for side in (train, held_out))
    place = {str(file): i for i, file in enumerate(train.files)}
    rows = [[place[str(file)] for file in side.files] for side in (fitted, validation)]

    print(f"\n### {name}: poolings, {len(validation)} of the training images validated")
    print(f"\nEnlarged to {least} pixels where they are smaller.\n")
    print("| vector | width | kNN-20 | linear |\n|---|---|---|---|")
    poolings: dict[str, object] = {}
    for how, vectors in known.items():
        own = scores(vectors[rows[0]], vectors[rows[1]], (fitted, validation))
        poolings[how] = {"width": vectors.shape[1], **own}
        print(f"| {how} | {vectors.shape[1]} | {shown(own)} |", flush=True)

    print(f"\n### {name}: what small images are enlarged to, the same images validated\n")
    print("| longer side at least | kNN-20 | linear |\n|---|---|---|")
    sizes: dict[str, object] = {}
    for other in LEAST[name]:
        pooled = known if other == least else vectors_of(model, train, other)
        sides = read_out(model, *(pooled[model.config.readout.pooling][chosen] for chosen in rows))
        sizes[str(other)] = own = scores(*sides, (fitted, validation))
        print(f"| {other} | {shown(own)} |", flush=True)

    how = OWN if OWN in known else "fused"
    statistics = [band_statistics(side) for side in (train, held_out)]
    twins = [vectors_of(twin, side, least) for side in (train, held_out)]
    pooling = model.config.readout.pooling
    print(f"\n### {name}: {len(held_out)} held-out images, {len(train)} known\n")
    print("| vector | kNN-20 | linear |\n|---|---|---|")
    compared = {
        f"{model.name}, {how}": (known[how], unseen[how]),
        f"{twin.name}, {OWN}": read_out(model, *(side[pooling] for side in twins)),
        f"{twin.name}, fused": tuple(side["fused"] for side in twins),
        "band statistics": tuple(statistics),
    }
    frozen: dict[str, object] = {}
    for title, (ours, theirs) in compared.items():
        frozen[title] = own = scores(ours, theirs, (train, held_out))
        print(f"| {title} | {shown(own)} |", flush=True)

    print(f"\n### {name}: linear probe with few labels a class, five draws\n")
    print("| vector | 1 | 5 | 10 | 50 |\n|---|---|---|---|---|")
    curves: dict[str, object] = {}
    for title, (ours, theirs) in compared.items():
        found = few_shot(ours, train.labels, theirs, held_out.labels)
        curves[title] = {str(x.shots): [round(x.mean, 4), round(x.spread, 4)] for x in found}
        cells = [f"{x.mean:.3f} ± {x.spread:.3f}" for x in found]
        print(f"| {title} | {' | '.join(cells)} |", flush=True)
    return {"poolings": poolings, "sizes": sizes, "held_out": frozen, "few_shot": curves}


def main() -> None:
    """Prepare the split, study both sets, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("SKYSENSE_DATA"))
    parser.add_argument("--work", type=Path, default=Path("runs/nano_data"))
    parser.add_argument("--model", default="v2_nano")
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the folder of imagery with --data or SKYSENSE_DATA")
    if not (options.work / "eurosat/held_out.csv").exists():
        split_labelled(Path(options.data), options.work)
    warnings.simplefilter("ignore", UntrainedModelWarning)
    model = load(options.model)
    twin = random_twin(model)
    models = pack(model), pack(twin)
    found = {name: study(name, *models, options.work) for name in ("eurosat", "ucmerced")}
    missed = []
    for (name, protocol), target in TARGETS.items():
        own = next(iter(found[name]["held_out"].values()))  # type: ignore[attr-defined]
        if own[protocol]["accuracy"] < target:
            missed.append(f"{name} {protocol} {own[protocol]['accuracy']} < {target}")
    print("\n" + ("all targets met" if not missed else "missed: " + "; ".join(missed)))
    finish(
        "frozen_vectors",
        {"model": options.model, "missed": missed, **found},
        not missed,
        save=options.model == "v2_nano",
    )


if __name__ == "__main__":
    main()
