"""Embedding a set: order, sizes, errors by name, and the cache."""

import numpy as np
import pytest
import torch

from skysense.data.labelled import open_labelled
from skysense.tasks.probe.vectors import VectorCache, embed_set, fingerprint


def means(labelled):
    return np.stack([labelled.read(i).mean((1, 2)) for i in range(len(labelled))])


def test_sizes_are_grouped_and_the_order_kept(colored, color_model):
    labelled = colored("set", count=7, sizes=((8, 8), (12, 8), (8, 12)))
    done = []
    vectors = embed_set(color_model, labelled, "rgb8", batch_size=2, advance=done.append)
    np.testing.assert_allclose(vectors, means(labelled), rtol=1e-6)
    assert sum(done) == len(labelled) == 21
    assert max(len(batch) for batch in color_model.batches) == 2


def test_real_model_is_the_same_in_any_batch(colored, shared):
    labelled = colored("set", count=2, sizes=((16, 16), (32, 16)))
    model = shared()
    expected = np.concatenate([model.embed([labelled.read(i)], "rgb8") for i in range(6)])
    np.testing.assert_allclose(embed_set(model, labelled, "rgb8"), expected, atol=1e-5)


def test_errors_name_the_image(colored, shared, tmp_path):
    labelled = colored("set", count=2)
    for name, image, match in (
        ("1.npy", np.zeros((2, 8, 8), np.uint8), r"\(2, 8, 8\), expected \(3, H, W\)"),
        ("1.npy", np.full((3, 8, 8), np.nan, np.float32), "holds no valid pixel"),
    ):
        np.save(tmp_path / "set" / "sand" / name, image)
        with pytest.raises(ValueError, match=rf"sand/1\.npy.*{match}"):
            embed_set(shared(), labelled, "rgb8")
    with pytest.raises(ValueError, match="unknown sensor `rgb9`"):
        embed_set(shared(), labelled, "rgb9")


def test_cache(colored, color_model, tmp_path):
    labelled = colored("set")
    cache = VectorCache(tmp_path / "cache", "abc")
    first = embed_set(color_model, labelled, "rgb8", cache=cache)
    calls = len(color_model.batches)
    again = embed_set(color_model, labelled, "rgb8", cache=cache)
    np.testing.assert_array_equal(first, again)
    assert len(color_model.batches) == calls
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.name.startswith("set-")
    np.save(tmp_path / "set" / "sand" / "0.npy", np.zeros((3, 9, 9), np.uint8))
    changed = embed_set(color_model, open_labelled(tmp_path / "set"), "rgb8", cache=cache)
    assert not np.array_equal(changed, first)
    paths = {
        VectorCache(tmp_path, model).path(part, sensor, bands)
        for model in ("abc", "abd")
        for part in (labelled, labelled.subset([0, 1]))
        for sensor in ("rgb8", "hr")
        for bands in (None, ("R", "G", "B"))
    }
    assert len(paths) == 16


def test_fingerprint(fresh):
    model = fresh()
    before = fingerprint(model)
    assert fingerprint(fresh()) == before
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1
    assert fingerprint(model) != before
    assert fingerprint(fresh().half()) != before
