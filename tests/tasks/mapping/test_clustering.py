"""Clusters without labels: they find what is there, in an order that does not depend on chance."""

import json

import numpy as np
import pytest
import rasterio

from skysense.tasks.mapping import FeatureMap, map_clusters
from skysense.tasks.mapping.clustering import fit_clusters, sample_cells


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def purity(found, truth):
    """Share of cells in the majority class of their cluster."""
    counts = [np.bincount(truth[found == own]).max() for own in np.unique(found)]
    return sum(counts) / len(truth)


def test_clusters_are_the_classes(features, truth, values, tmp_path):
    result = map_clusters(features, 3, tmp_path / "c.tif")
    found, valid = read(result.path), np.isfinite(values[0])
    assert set(np.unique(found[valid])) == {1, 2, 3}
    assert (found[~valid] == 255).all()
    assert purity(found[valid], truth[valid]) > 0.85
    assert result.confidence is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "c.tif", "c.tif.aux.xml"]
    facts = json.loads(result.metrics_path.read_text())
    assert facts["task"] == "clusters"
    assert facts["sampled_cells"] == valid.sum()
    assert [own["cells"] for own in facts["classes"].values()] == [
        (found == i).sum() for i in (1, 2, 3)
    ]


def test_the_same_bytes_for_a_seed_and_the_same_numbers_for_another(features, tmp_path):
    first, again, other = (
        map_clusters(features, 3, tmp_path / name / "c.tif", seed=seed)
        for name, seed in (("a", 0), ("b", 0), ("c", 7))
    )
    assert first.path.read_bytes() == again.path.read_bytes()
    assert first.metrics_path.read_bytes() == again.metrics_path.read_bytes()
    assert (read(first.path) == read(other.path)).mean() > 0.99


def test_the_best_of_all_splits_of_a_few_points():
    """Against every assignment of seven points to two clusters."""
    x = np.random.default_rng(1).normal(size=(7, 2)).astype(np.float32)
    best = np.inf
    for code in range(1, 2**7 - 1):
        side = (code >> np.arange(7)) & 1
        spread = sum(((x[side == k] - x[side == k].mean(0)) ** 2).sum() for k in (0, 1))
        best = min(best, spread / 7)
    assert fit_clusters(x, 2).inertia == pytest.approx(best, rel=1e-4)


def test_a_sample_is_drawn_from_the_whole_map(features, values, monkeypatch):
    monkeypatch.setattr("skysense.tasks.mapping.sources.WINDOW_BYTES", 4 * 6 * 32 * 40)
    with FeatureMap(features) as source:
        steps = []
        drawn = sample_cells(source, 0, steps.append, most=500)
        np.testing.assert_array_equal(drawn, sample_cells(source, 0, steps.append, most=500))
        assert (sample_cells(source, 1, steps.append, most=500) != drawn).any()
        assert len(steps) == 3 * len(source.windows())
    assert drawn.shape == (500, 6)
    cells = values[:, np.isfinite(values[0])].T
    order = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(cells))}
    places = np.array([order[row.tobytes()] for row in drawn])
    assert len(set(places)) == 500
    quarters = np.bincount(places * 4 // len(cells), minlength=4)
    assert quarters.min() > 95


def test_numbers_that_cannot_be(features, world, tmp_path):
    for count in (1, 255):
        with pytest.raises(ValueError, match=f"{count} clusters: expected a number from 2 to 254"):
            map_clusters(features, count, tmp_path / "c.tif")
    empty = np.full((6, 4, 4), np.nan, np.float32)
    empty[:, 0, 0] = 1
    path = world.features(tmp_path / "e.tif", empty, block=None)
    with pytest.raises(ValueError, match="1 valid cells make no 3 clusters"):
        map_clusters(path, 3, tmp_path / "c.tif")
    flat = world.features(tmp_path / "f.tif", np.ones((6, 4, 4), np.float32), block=None)
    with pytest.raises(ValueError, match="2 clusters of 1 different cells cannot be made"):
        map_clusters(flat, 2, tmp_path / "c.tif")
