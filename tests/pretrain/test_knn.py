"""The running score: which images, and that it is the weighted kNN of the model's vectors."""

import numpy as np
import pytest
import rasterio

from skysense.data.labelled import open_labelled
from skysense.engine.neighbors import knn_accuracy
from skysense.pretrain.knn import RunningKnn, read_side
from skysense.pretrain.recipe import KnnConfig

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
COUNTS = {"field": 12, "lake": 4, "town": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures in a folder for each class; each class is brighter than the one before."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for number, (name, count) in enumerate(COUNTS.items()):
        (folder / name).mkdir()
        for i in range(count):
            pixels = rng.integers(60 * number + 20, 60 * number + 80, (3, 32, 32)).astype(np.uint8)
            facts = {"driver": "PNG", "count": 3, "height": 32, "width": 32, "dtype": "uint8"}
            with rasterio.open(folder / name / f"{i}.png", "w", **facts) as file:
                file.write(pixels)
    return folder


def test_images_are_drawn_evenly_from_the_classes(folder):
    labelled = open_labelled(folder)
    for count, expected in ((9, [3, 3, 3]), (13, [5, 4, 4]), (18, [8, 4, 6]), (99, [12, 4, 6])):
        counts = np.bincount(read_side(labelled, count, 0).labels)
        assert counts.sum() == sum(expected)
        assert (counts == expected).all() or count == 13  # there two classes share what is left
    a, b, c = (read_side(labelled, 6, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(a.images, c.images, strict=True))


def test_no_image_is_on_both_sides(folder):
    knn = RunningKnn(KnnConfig(data=folder, images=99), 0)
    sides = [{image.tobytes() for image in side.images} for side in (knn.train, knn.test)]

    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == sum(COUNTS.values())


def test_the_score_is_the_weighted_knn_of_standardized_vectors(folder, shared):
    knn = RunningKnn(KnnConfig(data=folder, test=folder, images=99, neighbors=3), 0)
    model = shared("v2_tiny", depths=(1, 1, 1, 1), fusion_depth=1)
    train, test = (model.embed(x.images, sensor="rgb8") for x in (knn.train, knn.test))
    mean, std = train.mean(0), train.std(0)
    train, test = ((x - mean) / std for x in (train, test))

    expected = knn_accuracy(train, knn.train.labels, test, knn.test.labels, k=3)
    assert knn.score(model) == pytest.approx(expected)


def test_a_set_that_cannot_be_read(folder, tmp_path):
    with pytest.raises(ValueError, match="there is no such"):
        RunningKnn(KnnConfig(data=tmp_path / "none"), 0)
    (tmp_path / "strange" / "moon").mkdir(parents=True)
    picture = next((folder / "lake").iterdir())
    (tmp_path / "strange" / "moon" / "0.png").write_bytes(picture.read_bytes())
    with pytest.raises(ValueError, match="moon"):
        RunningKnn(KnnConfig(data=folder, test=tmp_path / "strange"), 0)
