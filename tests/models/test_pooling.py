"""Pooled vectors: parity with loops, masks, and the choices of `embed`."""

import numpy as np
import pytest
import torch

from skysense.hub import load
from skysense.models.features import Features, Level
from skysense.models.pooling import POOLINGS, part_widths, pool_features, pool_parts


def level(width, valid, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*valid.shape[:2], width, *valid.shape[2:], generator=generator)
    return Level(values * valid.unsqueeze(2), valid)


@pytest.fixture
def features():
    """Two samples, two dates, four levels; some places are not valid."""
    valid = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    valid[0, 1] = False
    valid[1, :, 2:] = False
    levels = tuple(level(2**i, valid, i) for i in range(1, 5))
    fused = level(3, valid[:, :1], 9)
    pooled = torch.randn(2, 3)
    return Features({"s2": levels}, fused.values[:, 0], fused.valid[:, 0], pooled)


def literal(own, row):
    """Mean and standard deviation of one sample, place by place."""
    dates, rows, columns = own.valid[row].nonzero().T
    chosen = own.values[row][dates, :, rows, columns].numpy()
    return np.concatenate([chosen.mean(0), chosen.std(0)])


def test_spread_is_parity_with_a_loop(features):
    fused = Level(features.fused.unsqueeze(1), features.fused_valid.unsqueeze(1))
    parts = pool_parts(features, "all", "s2")
    spread = pool_parts(features, "spread", "s2")

    assert all(torch.equal(a, b) for a, b in zip(parts, spread, strict=False))
    assert len(spread) == 4
    for own, part in zip((*features.pyramid["s2"], fused), parts, strict=True):
        for row in range(2):
            np.testing.assert_allclose(part[row], literal(own, row), atol=1e-3)


def literal_variogram(own, row, lag):
    """Root mean squared difference of valid places of a row or column, pair by pair."""
    squares = []
    dates, rows, columns = own.valid[row].shape
    for t, i, j in np.ndindex(dates, rows, columns):
        for k, m in ((i + lag, j), (i, j + lag)):
            if k < rows and m < columns and own.valid[row, t, i, j] and own.valid[row, t, k, m]:
                difference = own.values[row, t, :, k, m] - own.values[row, t, :, i, j]
                squares.append(difference.numpy() ** 2)
    return np.sqrt(np.mean(squares, 0))


def test_texture_is_parity_with_a_loop(features):
    holes = features.pyramid["s2"]
    generator = torch.Generator().manual_seed(3)
    for own in holes:  # places without neighbours, and dates of other places
        own.valid[1] &= torch.rand(own.valid[1].shape, generator=generator) < 0.7
    texture = pool_parts(features, "texture", "s2")

    for own, part in zip(holes, texture, strict=True):
        for row in range(2):
            expected = [literal(own, row), *(literal_variogram(own, row, lag) for lag in (1, 2))]
            np.testing.assert_allclose(part[row], np.concatenate(expected), atol=1e-3)


def test_the_choices_are_parts_of_each_other(features):
    vectors = {name: pool_features(features, name, "s2") for name in POOLINGS}
    spread = pool_parts(features, "spread", "s2")

    torch.testing.assert_close(vectors["fused"], features.pooled)
    torch.testing.assert_close(vectors["last"], spread[3][:, :16])
    means = [part[:, : part.shape[1] // 2] for part in spread[:4]]
    torch.testing.assert_close(vectors["stages"], torch.cat(means, 1))
    for name, vector in vectors.items():
        assert vector.shape[1] == sum(part_widths(name, (2, 4, 8, 16), 3)), name


def test_one_place_has_no_spread_and_a_finite_gradient():
    values = torch.randn(1, 1, 2, 1, 1, requires_grad=True)
    own = Level(values, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    features = Features({"hr": (own,) * 4}, values[:, 0], own.valid[:, 0], values[:, 0, :, 0, 0])

    vector = pool_features(features, "texture", "hr")
    vector.sum().backward()

    assert vector[0, 2:8].abs().max() < 1e-3
    assert values.grad.isfinite().all()


def test_a_sample_without_anything_is_zero():
    valid = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    own = Level(torch.zeros(1, 1, 3, 2, 2), valid)
    features = Features({"s1": (own,) * 4}, own.values[:, 0], valid[:, 0], torch.zeros(1, 3))

    for name in POOLINGS:
        assert pool_features(features, name, "s1").abs().max() < 1e-3


@pytest.mark.parametrize("name", ["v2_tiny", "v1_tiny"])
def test_embed_takes_each(shared, name):
    model = load(name) if name == "v1_tiny" else shared(name)
    model.trained = True
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), np.uint8)
    widths = [model.level_width("hr", i) for i in (1, 2, 3, 4)]

    vectors = {how: model.embed(images, "rgb8", pooling=how) for how in POOLINGS}

    np.testing.assert_array_equal(model.embed(images, "rgb8"), vectors["fused"])
    for how, vector in vectors.items():
        assert vector.shape == (3, sum(part_widths(how, widths, model.fused_width)))


def test_an_unknown_pooling_lists_the_known_ones(shared):
    known = "fused, last, stages, spread, texture, all"
    with pytest.raises(ValueError, match=rf"unknown pooling `mean` \(known: {known}\)"):
        shared("v2_tiny").embed(np.zeros((1, 3, 32, 32), np.uint8), "rgb8", pooling="mean")
