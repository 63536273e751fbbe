"""Pictures of a model: neighbors without themselves, where queries look, what is shown of bands."""

import dataclasses

import numpy as np
import pytest

from skysense.engine.distributed import Ranks
from skysense.pretrain import gallery
from skysense.pretrain.gallery import show, take_pictures
from skysense.pretrain.knn import RunningKnn, Side
from skysense.pretrain.preparation import prepare
from skysense.pretrain.recipe import KnnConfig
from skysense.sensors import get_sensor


@pytest.fixture(scope="module")
def knn():
    """A score on images in memory, 9 of 3 classes."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (3, 32, 32)).astype(np.uint8) for _ in range(9)]
    made = RunningKnn.__new__(RunningKnn)
    made.config = KnnConfig(data="nowhere")
    made.classes = ("field", "lake", "town")
    made.train = made.test = Side(images, np.array([0, 0, 0, 0, 0, 1, 1, 2, 2]))
    return made


def run_of(recipe, tmp_path, knn, *changes):
    return dataclasses.replace(prepare(recipe(tmp_path, *changes), Ranks()), knn=knn)


def test_what_is_shown_of_a_model(recipe, tmp_path, knn):
    run = run_of(recipe, tmp_path, knn)
    pictures = take_pictures(run)

    sheet = pictures.neighbors
    assert sheet.order.shape == (9, 1 + gallery.NEIGHBORS)
    vectors = run.objective.teacher.encoder.embed(knn.test.images, sensor="rgb8")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row, scores in zip(sheet.order, sheet.scores, strict=True):
        query, *others = (int(sheet.names[place].split()[-1]) for place in row)
        assert query not in others
        likeness = unit @ unit[query]
        likeness[query] = -np.inf
        np.testing.assert_allclose(scores, np.sort(likeness)[::-1][: len(scores)], atol=1e-5)
        np.testing.assert_allclose(likeness[others], scores, atol=1e-5)
    first = [sheet.classes[place] for place in sheet.order[:3, 0]]
    assert first == ["field", "lake", "town"]

    attention = pictures.attention.attention
    assert attention.shape[:2] == (gallery.SCENES, 4)  # the recipe has 4 queries
    np.testing.assert_allclose(np.nansum(attention, (2, 3)), 1, atol=1e-5)
    assert pictures.experts is None


def test_experts_are_shown_where_there_are_any(recipe, tmp_path):
    changes = "{depths: [1, 1, 1, 1], moe_blocks: 2, experts: 3, fusion_depth: 1}"
    run = run_of(recipe, tmp_path, None, f"model_changes={changes}", "losses.qsacl=0")
    pictures = take_pictures(run)

    assert pictures.neighbors is None
    assert pictures.attention is None
    assert set(pictures.experts) == {"hr", "s2", "s1"}
    for shares in pictures.experts.values():
        assert shares.shape == (2, 3)
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)


def test_a_dense_model_is_not_run_for_its_experts(recipe, tmp_path, monkeypatch):
    run = run_of(recipe, tmp_path, None)
    monkeypatch.setattr(run.loader, "batches", None)

    assert take_pictures(run).experts is None


@pytest.mark.parametrize(
    ("sensor", "shown"), [("rgb8", (0, 1, 2)), ("s2", (2, 1, 0)), ("s1", None)]
)
def test_bands_are_shown_as_colors(sensor, shown):
    card = get_sensor(sensor)
    image = np.random.default_rng(0).random((len(card.bands), 8, 8)).astype(np.float32)
    if sensor == "rgb8":
        image = (255 * image).astype(np.uint8)
    picture = show(image, card)

    assert picture.shape == (3, 8, 8)
    assert picture.dtype == np.uint8
    if sensor == "rgb8":
        assert np.array_equal(picture, image)
    elif shown is None:
        assert np.array_equal(picture[0], picture[2])
        assert not np.array_equal(picture[0], picture[1])
    else:
        names = [band.name for band in card.bands]
        assert [names[i] for i in shown] == ["B4", "B3", "B2"]
        for own, band in zip(picture, shown, strict=True):
            assert np.corrcoef(own.ravel(), image[band].ravel())[0, 1] > 0.95


def test_holes_and_constants_are_shown():
    card = get_sensor("s2")
    image = np.full((10, 4, 4), np.nan, np.float32)
    assert not show(image, card).any()
    image[:, 0] = 0.3
    assert show(image, card).dtype == np.uint8


def test_queries_are_spread_over_classes():
    labels = np.array([2, 0, 0, 1, 0, 2])
    assert gallery._spread_over_classes(labels, 4).tolist() == [1, 3, 0, 2]
