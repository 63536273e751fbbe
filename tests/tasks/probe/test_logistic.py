"""Logistic regression against plain gradient descent, and how its regularization is chosen."""

import numpy as np
import pytest
import torch

from skysense.tasks.probe import logistic
from skysense.tasks.probe.logistic import (
    STRENGTHS,
    choose_strength,
    fit,
    fit_path,
    predict_linear,
)


def blobs(count, width=5, classes=3, spread=1.0, seed=0):
    """Overlapping clusters with correlated columns of unlike scale."""
    centers = np.random.default_rng(0).normal(size=(classes, width))
    mixing = np.random.default_rng(1).normal(size=(width, width)) * np.logspace(-1, 1, width)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return (centers[labels] + spread * rng.normal(size=(count, width))) @ mixing, labels


def descend(x, y, classes, strength, steps=40_000):
    """Gradient descent in NumPy, nothing clever."""
    x = np.hstack([x, np.ones((len(x), 1))])
    wanted, weight = np.eye(classes)[y], np.zeros((x.shape[1], classes))
    rate = 1 / (0.5 * np.linalg.eigvalsh(x.T @ x / len(x)).max() + strength)
    for _ in range(steps):
        logits = x @ weight
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        gradient = x.T @ (shares - wanted) / len(x)
        gradient[:-1] += strength * weight[:-1]
        weight -= rate * gradient
    return weight[:-1], weight[-1]


def objective(linear, x, y, strength):
    loss = torch.nn.functional.cross_entropy(linear.logits(x), torch.from_numpy(y))
    return float(loss + 0.5 * strength * linear.weight.square().sum())


@pytest.mark.parametrize("strength", [1.0, 0.03])
def test_fit_against_gradient_descent(strength):
    x, y = blobs(120)
    x = (x - x.mean(0)) / x.std(0)
    weight, bias = descend(x, y, 3, strength, 4000)
    linear = fit(x, y, 3, strength)
    np.testing.assert_allclose(linear.weight, weight, atol=1e-4)
    np.testing.assert_allclose(linear.bias - linear.bias.mean(), bias - bias.mean(), atol=1e-4)


def test_columns_that_repeat_or_say_nothing():
    x, y = blobs(60)
    x = np.hstack([x, x[:, :2], np.zeros((60, 1))])
    linear = fit(x, y, 3, 1e-3)
    np.testing.assert_allclose(linear.weight[5:7], linear.weight[:2], rtol=1e-3)
    assert linear.weight[7].abs().max() == 0


def test_a_path_is_a_fit_after_the_other():
    x, y = blobs(90)
    strengths = (0.1, 1e-3)
    for strength, linear in zip(strengths, fit_path(x, y, 3, strengths), strict=True):
        alone = objective(fit(x, y, 3, strength), x, y, strength)
        assert objective(linear, x, y, strength) == pytest.approx(alone, abs=1e-6)


def test_scale_of_the_vectors_does_not_matter():
    (x, y), (test, _) = blobs(150), blobs(80, seed=5)
    first, _ = predict_linear(x, y, test, 3)
    second, _ = predict_linear(x * 1e3 + 7, y, test * 1e3 + 7, 3)
    np.testing.assert_array_equal(first, second)


def test_noise_columns_are_regularized_away():
    """Thirty columns of noise to two that tell: the choice is not the weakest."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = np.hstack([y[:, None] + 0.7 * rng.normal(size=(60, 1)), rng.normal(size=(60, 30))])
    strength, accuracy = choose_strength(x, y, 2)
    assert strength > 1e-3
    assert accuracy > 0.5
    assert choose_strength(x, y, 2) == (strength, accuracy)


def test_test_images_are_not_looked_at(monkeypatch):
    """The choice is made before the test vectors are touched, from training vectors alone."""
    (x, y), (test, _) = blobs(60), blobs(30, seed=1)
    seen = []
    choose = logistic.choose_strength
    monkeypatch.setattr(
        logistic, "choose_strength", lambda *given: seen.append(len(given[0])) or choose(*given)
    )
    predict_linear(x, y, test, 3)
    assert seen == [60]


def test_grid():
    assert len(STRENGTHS) == 13
    assert STRENGTHS[0] == 1
    assert STRENGTHS[-1] == pytest.approx(1e-6)
    assert list(STRENGTHS) == sorted(STRENGTHS, reverse=True)


def test_single_images():
    with pytest.raises(ValueError, match="at least two training images"):
        choose_strength(np.eye(3), np.arange(3), 3)
