"""The running kNN score: does the teacher tell classes apart that it was never told?"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skysense.data.labelled import LabelledSet, open_labelled, split
from skysense.engine.neighbors import knn_accuracy, standardized
from skysense.hub.catalog import Model
from skysense.pretrain.recipe import KnnConfig

Image = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Side:
    """Labelled images in memory."""

    images: list[Image]
    """`(C, H, W)` each, stored values."""
    labels: npt.NDArray[np.int64]
    """`(N,)`."""


def read_side(labelled: LabelledSet, count: int, seed: int) -> Side:
    """At most `count` images, drawn evenly from the classes."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labelled.labels))
    rank = np.zeros(len(order), np.int64)  # the place of an image among those of its class
    for label in range(len(labelled.classes)):
        own = order[labelled.labels[order] == label]
        rank[own] = np.arange(len(own))
    chosen = np.sort(order[np.argsort(rank[order], kind="stable")][:count])
    return Side([labelled.read(int(i)) for i in chosen], labelled.labels[chosen])


class RunningKnn:
    """Scores a model on a fixed subset of labelled images, read once."""

    def __init__(self, config: KnnConfig, seed: int) -> None:
        """Read both sides.

        Raises:
            ValueError: the sets cannot be read, or the second has classes that the first lacks.
        """
        self.config = config
        train = open_labelled(config.data)
        if config.test is None:
            train, test = split(train, 0.5, seed)
        else:
            test = open_labelled(config.test).with_classes(train.classes)
        self.classes = train.classes
        self.train = read_side(train, config.images, seed)
        self.test = read_side(test, config.images, seed + 1)

    def vectors(self, model: Model, side: Side) -> npt.NDArray[np.float32]:
        """`(N, D)` of `model.embed`."""
        return model.embed(side.images, sensor=self.config.sensor, batch_size=64)

    def score(self, model: Model) -> float:
        """Accuracy of the weighted kNN, 0...1."""
        train, test = standardized(*(self.vectors(model, s) for s in (self.train, self.test)))
        return knn_accuracy(
            train, self.train.labels, test, self.test.labels, k=self.config.neighbors
        )
