"""Heads, cross-validation, scores and confidence, against values by hand and written-out loops."""

import numpy as np
import pytest
import torch

from skysense.tasks.mapping.calibration import (
    calibration_error,
    fit_temperature,
    probabilities,
)
from skysense.tasks.mapping.heads import HEADS, Head, Scale
from skysense.tasks.mapping.scores import balanced_accuracy, class_f1, kappa, score
from skysense.tasks.mapping.validation import out_of_fold, validate


def clouds(count=60, width=5, classes=3, spread=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, width))
    vectors = centres[labels] + spread * rng.normal(size=(count, width))
    return (vectors * 10.0 ** np.arange(width)).astype(np.float32), labels


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_what_is_separate(name):
    vectors, labels = clouds(spread=0.1)
    head, scale = HEADS[name], Scale.of(vectors)
    fitted = list(head.fit(scale(vectors), labels, 3, head.choices, 0))
    assert len(fitted) == len(head.choices)
    new, new_labels = clouds(spread=0.1)
    for classifier in fitted[1:]:
        logits = classifier.logits(scale(new))
        assert torch.isfinite(logits).all()
        assert (logits.argmax(1).numpy() == new_labels).mean() > 0.95


def test_the_network_is_the_same_for_the_same_seed_and_leaves_the_generator_alone():
    vectors, labels = clouds()
    before = torch.random.get_rng_state()
    first, second, other = (
        next(HEADS["mlp"].fit(vectors, labels, 3, (5,), seed)).logits(vectors) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_scale_of_constant_columns():
    vectors = np.array([[1, 7, 1e6], [3, 7, 1e6]], np.float32)
    np.testing.assert_allclose(Scale.of(vectors)(vectors), [[-1, 0, 0], [1, 0, 0]])


class Spy:
    """A head that remembers what it was fitted on."""

    def __init__(self):
        self.seen = []

    def fit(self, vectors, labels, classes, settings, seed):
        self.seen.append(labels.copy())
        for _ in settings:
            yield self

    def logits(self, vectors):
        return torch.zeros(len(vectors), 3, dtype=torch.float64)


def test_a_fold_is_judged_by_heads_that_never_saw_it():
    spy, vectors = Spy(), np.arange(12, dtype=np.float32)[:, None]
    folds = np.repeat([0, 1, 2], 4)
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2, 2])
    head = Head("nothing", (1.0, 2.0), 1.0, spy.fit)
    logits, known = out_of_fold(head, head.choices, vectors, labels, folds, 3, 0)
    assert logits.shape == (2, 12, 3)
    for fold, seen in enumerate(spy.seen):
        np.testing.assert_array_equal(seen, labels[folds != fold])
    assert known.tolist() == [True] * 10 + [False] * 2, "class 2 is in the last fold alone"


def test_validation_recovers_separate_classes_and_not_noise():
    vectors, labels = clouds(90, spread=0.2)
    folds = np.arange(90) // 3 % 5
    found = validate(HEADS["logistic"], vectors, labels, folds, 3, 0)
    assert (found.predictions == labels).mean() > 0.95
    assert found.setting in HEADS["logistic"].choices
    noise = np.random.default_rng(0).normal(size=vectors.shape).astype(np.float32)
    found = validate(HEADS["knn"], noise, labels, folds, 3, 0)
    assert (found.predictions == labels).mean() < 0.55


def test_the_fold_that_is_scored_has_no_say_in_the_setting():
    """Predictions of a fold are those of the setting that is best on the other one."""
    vectors, labels = clouds(60, spread=1.0)
    folds = np.arange(60) // 3 % 2
    before = validate(HEADS["knn"], vectors, labels, folds, 3, 0).predictions
    other, known = out_of_fold(HEADS["knn"], HEADS["knn"].choices, vectors, labels, folds, 3, 0)
    losses = [
        fit_temperature(own[torch.from_numpy(folds == 1)], labels[folds == 1])[1] for own in other
    ]
    best = other[int(np.argmin(losses))].argmax(1).numpy()
    assert known.all()
    np.testing.assert_array_equal(before[folds == 0], best[folds == 0])


def test_temperature_undoes_a_known_one():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(4000, 3)) * 1.5)
    share = probabilities(logits)
    labels = (share.cumsum(1) > rng.random((4000, 1))).argmax(1)
    temperature, _ = fit_temperature(logits * 4, labels)
    assert temperature == pytest.approx(4, rel=0.08)
    before = calibration_error(probabilities(logits * 4), labels)
    after = calibration_error(probabilities(logits * 4, temperature), labels)
    assert before > 0.15
    assert after < 0.04


def test_a_handful_of_right_cells_does_not_make_certain():
    logits = torch.eye(3, dtype=torch.float64).repeat(4, 1) * 3
    labels = np.tile([0, 1, 2], 4)
    temperature, _ = fit_temperature(logits, labels)
    confidence = probabilities(logits, temperature).max(1)
    np.testing.assert_allclose(confidence, 13 / 15, rtol=1e-3)  # (N + 1) / (N + K)


def test_calibration_error_by_hand():
    share = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.45, 0.55]])
    labels = np.array([0, 1, 0, 1])
    # bin 0.9...1: |1 - 1.9| = 0.9; bin 0.5...0.6: |2 - 1.1| = 0.9; of 4 cells
    assert calibration_error(share, labels) == pytest.approx(1.8 / 4)


CONFUSION = np.array([[20, 5], [10, 15]])


def test_scores_by_hand():
    assert float(kappa(CONFUSION)) == pytest.approx(0.4)  # the usual example
    assert float(balanced_accuracy(CONFUSION)) == pytest.approx((0.8 + 0.6) / 2)
    np.testing.assert_allclose(class_f1(CONFUSION), [40 / 55, 30 / 45])
    assert np.isnan(kappa(np.array([[5, 0], [0, 0]])))


def test_scores_of_blocks_are_ready_for_json():
    labels = np.array([0, 0, 1, 1, 2, 2])
    predictions = np.array([0, 1, 1, 1, 2, 2])
    found = score(labels, predictions, np.array([0, 0, 1, 1, 2, 2]), "abcd", seed=0)
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["f1"]["a"] == pytest.approx(2 / 3)
    assert found["f1"]["d"] is None, "neither there nor predicted"
    assert found["f1_interval"]["d"] is None
    assert found["confusion"][0] == [1, 1, 0, 0]
    low, high = found["accuracy_interval"]
    assert (low, high) == (0.5, 1.0), "only block 0 errs: three of it are one half"
    lonely = score(labels, labels, np.arange(6), "abc", seed=0)
    assert lonely["accuracy_interval"] == [1.0, 1.0]
