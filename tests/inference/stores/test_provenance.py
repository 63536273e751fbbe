import hashlib
import json
import os

import numpy as np
import pytest
import torch
from torch import nn

from skysense.inference.stores import (
    Provenance,
    describe_inputs,
    make_provenance,
    package_version,
    weights_hash,
)


def test_weights_hash_is_the_same_for_the_same_weights(fresh):
    first, second = fresh("v2_tiny"), fresh("v2_tiny")

    assert weights_hash(first) == weights_hash(second)
    assert len(weights_hash(first)) == 64


def test_weights_hash_notices_one_changed_number(fresh):
    model = fresh("v2_tiny")
    before = weights_hash(model)

    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3

    assert weights_hash(model) != before


def test_weights_hash_is_over_names_shapes_types_and_bytes():
    def module(name="a", shape=(2, 3), dtype=torch.float32, value=1.0):
        parent = nn.Module()
        parent.register_parameter(name, nn.Parameter(torch.full(shape, value, dtype=dtype)))
        return parent

    variants = [
        module(),
        module(name="b"),
        module(shape=(3, 2)),
        module(dtype=torch.bfloat16),
        module(dtype=torch.float16),
        module(value=2.0),
        module(shape=()),
    ]

    assert len({weights_hash(variant) for variant in variants}) == len(variants)


def test_weights_hash_does_not_depend_on_the_order_of_parts_or_of_memory():
    first, second = nn.Module(), nn.Module()
    matrix = torch.arange(6.0).reshape(2, 3)
    for parent, names in ((first, "ab"), (second, "ba")):
        for name in names:
            parent.register_buffer(name, matrix if name == "a" else matrix + 1)
    second.a = matrix.t().contiguous().t()  # the same numbers, laid out column by column

    assert weights_hash(first) == weights_hash(second)


def test_weights_hash_is_what_it_says():
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        linear.bias.zero_()

    spelled = (
        b'["bias", "float32", [1]]'
        + np.zeros(1, "<f4").tobytes()
        + b'["weight", "float32", [1, 2]]'
    )
    spelled += np.array([1, 2], "<f4").tobytes()
    assert weights_hash(linear) == hashlib.sha256(spelled).hexdigest()


def test_inputs_have_size_and_time(tmp_path):
    file, folder = tmp_path / "a.tif", tmp_path / "scene.SAFE"
    folder.mkdir()
    file.write_bytes(b"123")
    for i, name in enumerate(("b.jp2", "c.jp2")):
        (folder / name).write_bytes(b"12")
        os.utime(folder / name, (1_700_000_000 + i,) * 2)
    os.utime(file, (1_600_000_000,) * 2)

    first, second = describe_inputs([file, folder, file])

    assert (first.path, first.bytes) == (str(file), 3)
    assert first.modified == "2020-09-13T12:26:40+00:00"
    assert (second.bytes, second.modified) == (4, "2023-11-14T22:13:21+00:00")


def test_provenance_of_a_model_is_json(shared, tmp_path):
    (tmp_path / "a.tif").write_bytes(b"1")
    dates = {"s2": np.array(["2024-01-01", "NaT"], "datetime64[D]")}

    made = make_provenance(shared("v2_tiny"), [tmp_path / "a.tif"], dates, {"tile": 64})
    facts = json.loads(made.text({"dtype": "float16"}))

    assert facts["model"] == "v2_tiny"
    assert facts["weights"] == weights_hash(shared("v2_tiny"))
    assert facts["package"] == package_version() == "0.1.0"
    assert facts["dates"] == {"s2": ["2024-01-01", None]}
    assert facts["storage"] == {"dtype": "float16"}
    assert "\n" not in made.text()


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(ValueError, match="must be JSON"):
        Provenance("m", True, "0", "0", (), {}, {"option": value})
