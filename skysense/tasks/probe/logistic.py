"""The linear probe: multinomial logistic regression, its regularization chosen on held-out images.

The held-out images are part of the training set; test images are looked at once, at the end.

Legend: N images, D width, K classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skysense.data.labelled import stratified
from skysense.engine.neighbors import standardized

Vectors = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(0, -13, -1))
"""Regularizations tried, from strong to weak: 1, 0.32, 0.1, ..., 1e-6. [ours]"""
HELD_OUT = 0.2
"""Share of the training images on which the regularization is chosen. [ours]"""
OVERFIT = 1.1
"""No weaker one is tried once the held-out cross-entropy is so many times its minimum. [ours]"""


@dataclass(frozen=True)
class Linear:
    """A linear map from vectors to the logits of classes."""

    weight: Tensor
    """`(D, K)`."""
    bias: Tensor
    """`(K,)`."""

    def logits(self, vectors: Vectors) -> Tensor:
        """`(N, D)` to `(N, K)`."""
        return _tensor(vectors) @ self.weight + self.bias


def fit(vectors: Vectors, labels: Labels, classes: int, strength: float) -> Linear:
    """Minimize mean cross-entropy + strength / 2 |weight|^2; see `fit_path`."""
    return next(fit_path(vectors, labels, classes, (strength,)))


def fit_path(
    vectors: Vectors, labels: Labels, classes: int, strengths: Iterable[float]
) -> Iterator[Linear]:
    """Minimize mean cross-entropy + strength / 2 |weight|^2 for one strength after the other.

    L-BFGS on all images at once, each fit from where the last one ended. It walks in the principal
    axes of the vectors, each scaled by the bound of the curvature along it, 1/2 variance +
    strength (Boehning, 1992): the minimum is the same, and correlated columns cost no more steps.

    Args:
        vectors: `(N, D)`.
        labels: `(N,)`.
        classes: K.
        strengths: of the regularization, above 0; the bias has none.

    Yields:
        The minimum for each strength.
    """
    x, y = _tensor(vectors), torch.from_numpy(labels)
    mean = x.mean(0)
    variance, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))  # (D,), (D, D)
    rotated = (x - mean) @ axes
    weight, bias = x.new_zeros(x.shape[1], classes), x.new_zeros(classes)  # in principal axes
    for strength in strengths:
        scale = (0.5 * variance.clamp(min=0) + strength).rsqrt()[:, None]  # (D, 1)
        start = (weight / scale, bias)
        scaled, bias = _minimize(rotated * scale.T, y, strength * scale.square(), *start)
        weight = scaled * scale
        yield Linear(axes @ weight, bias - mean @ axes @ weight)


def _minimize(
    x: Tensor, y: Tensor, penalty: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight `(D, K)` and bias `(K,)` at the minimum, from a start; `penalty (D, 1)`."""
    weight, bias = (t.clone().requires_grad_() for t in (weight, bias))
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=300,
        tolerance_grad=1e-6,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        fitted = torch.nn.functional.cross_entropy(x @ weight + bias, y)
        value = fitted + 0.5 * (penalty * weight.square()).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()


def held_out_path(
    vectors: Vectors,
    labels: Labels,
    held: Vectors,
    held_labels: Labels,
    classes: int,
    strengths: Sequence[float],
) -> Iterator[tuple[float, float, float]]:
    """How fits of one strength after the other do on what was held out.

    Args:
        vectors: `(N, D)` to fit on, on any scale.
        labels: `(N,)`.
        held: `(Q, D)`.
        held_labels: `(Q,)`.
        classes: K.
        strengths: of the regularization.

    Yields:
        The strength, and the cross-entropy and accuracy of what was held out.
    """
    x, held_x = standardized(vectors, held)
    target = torch.from_numpy(held_labels)
    for strength, linear in zip(strengths, fit_path(x, labels, classes, strengths), strict=True):
        logits = linear.logits(held_x)
        loss = float(torch.nn.functional.cross_entropy(logits, target))
        yield strength, loss, float((logits.argmax(1) == target).double().mean())


def choose_strength(
    vectors: Vectors,
    labels: Labels,
    classes: int,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[float, float]:
    """The regularization that does best on held-out images of a training set.

    Args:
        vectors: `(N, D)` training images, on any scale.
        labels: `(N,)`.
        classes: K.
        seed: of the draw of held-out images, `HELD_OUT` of each class that has two.
        strengths: what to try, from strong to weak.

    Returns:
        The strength and its accuracy on the held-out images; of equally accurate ones that of the
        smaller cross-entropy. Those that overfit are passed over, see `OVERFIT`.

    Raises:
        ValueError: every class has one image, so that none can be held out.
    """
    kept, held = stratified(labels, HELD_OUT, seed)
    if len(held) == 0:
        raise ValueError("a linear probe needs a class with at least two training images")
    sides = (vectors[kept], labels[kept], vectors[held], labels[held])
    results: list[tuple[float, float, float]] = []  # accuracy, -cross-entropy, strength
    for strength, loss, accuracy in held_out_path(*sides, classes, strengths):
        if results and loss > OVERFIT * min(-negative for _, negative, _ in results):
            break
        results.append((accuracy, -loss, strength))
    best, _, chosen = max(results)
    return chosen, best


def predict_linear(
    train: Vectors, labels: Labels, test: Vectors, classes: int, seed: int = 0
) -> tuple[Labels, dict[str, float]]:
    """Choose the regularization, fit on all training images, classify the test images.

    Args:
        train: `(N, D)` on any scale.
        labels: `(N,)`.
        test: `(Q, D)`.
        classes: K.
        seed: of the held-out images.

    Returns:
        Predictions `(Q,)`, and what was chosen.
    """
    strength, accuracy = choose_strength(train, labels, classes, seed)
    x, test_x = standardized(train, test)
    predictions = fit(x, labels, classes, strength).logits(test_x).argmax(1).numpy()
    return predictions, {"strength": strength, "held_out_accuracy": accuracy}


def _tensor(vectors: Vectors) -> Tensor:
    """Float64: the curvature of weakly regularized fits is beyond float32."""
    return torch.from_numpy(np.asarray(vectors, np.float64))
