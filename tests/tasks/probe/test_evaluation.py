"""Evaluation from images to scores: what can be told apart is, what cannot is not."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from skysense.hub import load
from skysense.models.encoder import UntrainedModelWarning
from skysense.models.readout import ReadoutConfig
from skysense.tasks.probe import (
    embed_set,
    evaluate,
    few_shot,
    fit_read_out,
    probe_vectors,
    random_twin,
    train_and_test,
)

PROTOCOLS = ("knn", "linear")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["v2_tiny", "v1_tiny"])
def test_both_families_tell_colors_apart(colored, protocol, name):
    train, test = colored("train"), colored("test", seed=1)
    with pytest.warns(UntrainedModelWarning):
        result = evaluate(load(name), train, test, protocol, "rgb8", neighbors=3)
    assert result.scores.accuracy > 0.9
    assert result.classes == ("field", "sand", "water")
    assert (result.model, result.trained, result.train_images) == (name, False, 18)
    facts = json.loads(json.dumps(result.facts()))
    assert facts["accuracy"] == result.scores.accuracy
    assert facts["test"] == {"name": "test", "images": 18}
    assert np.sum(facts["confusion"]) == 18


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_labels_without_meaning_are_guessed(protocol):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(300, 8)), rng.normal(size=(200, 8))
    labels, truth = rng.integers(0, 4, 300), rng.integers(0, 4, 200)
    low, high = probe_vectors(train, labels, test, truth, protocol).accuracy_interval
    assert low < 0.25 < high


def test_a_test_set_may_lack_classes(colored, color_model):
    train = colored("train")
    test = colored("test", seed=1, colors={"sand": (200, 180, 120), "water": (20, 40, 110)})
    result = evaluate(color_model, train, test)
    assert result.scores.accuracy == 1
    assert np.isnan(result.scores.recall[0])
    assert result.facts()["recall"] == {"field": None, "sand": 1.0, "water": 1.0}


def test_sets_that_do_not_go_together(colored, color_model, tmp_path):
    train = colored("train")
    snow = colored("snow", colors={"snow": (250, 250, 250), "water": (20, 40, 110)})
    with pytest.raises(ValueError, match="snow has classes that the training images lack: `snow`"):
        evaluate(color_model, train, snow)
    with pytest.raises(ValueError, match="18 of the 18 test images are training images"):
        evaluate(color_model, train, tmp_path / "train")


def test_without_a_test_set(colored, tmp_path):
    train, test = train_and_test(colored("set", count=10), seed=4)
    assert train.counts().tolist() == [8, 8, 8]
    assert test.counts().tolist() == [2, 2, 2]
    assert not set(train.files) & set(test.files)
    rows = [
        f"set/{name}/0.npy,{name},test\nset/{name}/1.npy,{name},train" for name in train.classes
    ]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    train, test = train_and_test(tmp_path)
    assert {file.name for file in train.files} == {"1.npy"}
    assert {file.name for file in test.files} == {"0.npy"}


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        (("Train", "TEST"), (8, 8)),
        (("train", "train"), (12, 4)),
        (("train", "val", "test"), (6, 5)),
    ],
)
def test_words_of_the_split(colored, words, counts):
    labelled = colored("set", colors={"a": (9, 9, 9), "b": (99, 99, 99)}, count=8)
    parts = tuple(words[i % len(words)] for i in range(16))
    train, test = train_and_test(replace(labelled, parts=parts))
    assert (len(train), len(test)) == counts


@pytest.mark.parametrize("words", [("train", "val"), ("test", "test"), ("a", "b")])
def test_other_words_of_the_split_are_refused(colored, words):
    labelled = colored("set")
    parts = tuple(words[i % 2] for i in range(len(labelled)))
    with pytest.raises(ValueError, match=r"says `.*`: expected `train` and `test`"):
        train_and_test(replace(labelled, parts=parts))


def test_more_neighbors_than_images(colored, color_model):
    scores = evaluate(color_model, colored("train"), colored("test", seed=1), neighbors=500).scores
    assert scores.settings["neighbors"] == 18


def test_the_same_call_gives_the_same_scores(colored, color_model):
    labelled = colored("set", colors={"a": (100, 100, 100), "b": (101, 101, 101)}, count=20)
    first, second = (evaluate(color_model, labelled, protocol="linear") for _ in range(2))
    assert first.scores.settings == second.scores.settings
    np.testing.assert_array_equal(first.scores.predictions, second.scores.predictions)
    assert first.scores.accuracy_interval == second.scores.accuracy_interval


def test_random_twin():
    model = load("v2_tiny")
    twin, other = random_twin(model), random_twin(model, 2)
    assert twin.config == model.config
    assert not twin.training
    ours, first, second = (m.state_dict() for m in (model, twin, other))
    assert ours.keys() == first.keys()
    different = [key for key in ours if not torch.equal(ours[key], first[key])]
    assert different
    assert any(not torch.equal(first[key], second[key]) for key in different)


@pytest.mark.filterwarnings("ignore::skysense.models.encoder.UntrainedModelWarning")
def test_a_twin_has_a_read_out_like_the_models(colored, fresh):
    labelled = colored("set", sizes=((16, 16), (24, 8)))
    own = ReadoutConfig(pooling="texture", kept=3, modalities=("hr",))
    model = fresh("v2_tiny", readout=own)
    twin = random_twin(model)
    assert twin.readout is None
    fit_read_out(twin, model, labelled, "rgb8")
    vectors = embed_set(twin, labelled, "rgb8")
    assert vectors.shape == (18, 12)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-4)
    assert len({tuple(v) for v in vectors.round(3)}) == 18
    bare = random_twin(model)
    fit_read_out(bare, fresh("v2_tiny"), labelled, "rgb8")
    assert bare.readout is None, "as the model has none"
    fit_read_out(
        bare, fresh("v2_tiny", readout=ReadoutConfig(modalities=("s2",))), labelled, "rgb8"
    )
    assert bare.readout is None, "nor one for this sensor"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_more_labels_help(protocol):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 6))
    labels, truth = np.arange(240) % 4, np.arange(100) % 4
    train = centers[labels] + rng.normal(size=(240, 6))
    test = centers[truth] + rng.normal(size=(100, 6))
    one, fifty = few_shot(train, labels, test, truth, protocol, shots=(1, 50), draws=4)
    assert (one.shots, len(one.accuracies)) == (1, 4)
    assert 0.25 < one.mean < fifty.mean
    assert fifty.spread < one.spread
    assert few_shot(train, labels, test, truth, protocol, shots=(1,), draws=4) == (one,)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"protocol": "svm"}, "unknown protocol `svm`"),
        ({"train": np.full((4, 2), np.nan)}, "training vectors hold NaN"),
        ({"test": np.ones(2)}, r"test vectors \(2,\) and labels"),
        ({"labels": np.zeros(3)}, "training vectors .* and labels"),
        ({"test_labels": np.array([-1, 0])}, "test labels must lie in"),
    ],
)
def test_bad_vectors(changes, match):
    usual = {
        "train": np.eye(4)[:, :2],
        "labels": np.array([0, 1, 0, 1]),
        "test": np.eye(2),
        "test_labels": np.array([0, 1]),
        "protocol": "knn",
    }
    with pytest.raises(ValueError, match=match):
        probe_vectors(**(usual | changes))
