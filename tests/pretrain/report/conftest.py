"""A run's folder with made-up metrics, and small arrays to look at."""

import json

import numpy as np
import pytest

from skysense.pretrain.report import AttentionSheet, NeighborSheet


@pytest.fixture(scope="session")
def lines():
    """`lines(count=8, **changes)`: metrics of steps 10, 20, ..., kNN before the first and last."""

    def make(count=8, **changes):
        rng = np.random.default_rng(0)
        found = [{"step": 0, "time": 1000.0, "knn": 0.25}]
        for step in range(10, 10 * count + 1, 10):
            found.append(
                {
                    "step": step,
                    "time": 1000.0 + 2 * step,
                    "loss": 9 - step / 100,
                    "losses.image": 5 + float(rng.normal()),
                    "feature_std": 0.6,
                    "effective_rank": 20.0,
                    "lr": 1e-4,
                    "samples_per_second": 30.0,
                    "seconds.forward": 0.5,
                    "seconds.data": 0.1,
                    **changes,
                }
            )
        found.append({"step": 10 * count, "time": 1000.0 + 20 * count, "knn": 0.5})
        return found

    return make


@pytest.fixture
def write_metrics(tmp_path):
    """`write_metrics(lines, tail="") -> folder`."""

    def write(lines, tail=""):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture(scope="session")
def images():
    """`images(count, shape)`: uint8 noise."""

    def make(count, shape=(8, 8)):
        rng = np.random.default_rng(count)
        return [rng.integers(0, 256, (3, *shape), dtype=np.uint8) for _ in range(count)]

    return make


@pytest.fixture(scope="session")
def neighbors(images):
    """`neighbors(**changes)`: two queries, two neighbors each, three of which agree."""

    def make(**changes):
        given = {
            "images": images(4),
            "names": ["a.tif", "b.tif", "c.tif", "d.tif"],
            "order": np.array([[0, 1, 2], [3, 2, 0]]),
            "scores": np.array([[0.9, 0.8], [0.7, 0.6]]),
            "classes": ["field", "field", "field", "field & wood"],
        }
        return NeighborSheet(**(given | changes))

    return make


@pytest.fixture(scope="session")
def attention(images):
    """`attention(**changes)`: two scenes of unlike sizes, three queries, maps of 2 x 2."""

    def make(**changes):
        given = {
            "images": [*images(1), *images(1, (9, 6))],
            "attention": np.random.default_rng(0).uniform(size=(2, 3, 2, 2)),
        }
        return AttentionSheet(**(given | changes))

    return make
