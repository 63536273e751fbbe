"""`skysense info`: for people a table, for programs the documented JSON."""

import json

import torch

from skysense.models.skysense_v1 import V1_CONFIGS
from skysense.models.skysense_v2 import V2_CONFIGS, SkySenseV2
from skysense.sensors import SENSORS


def test_json(skysense):
    result = skysense("info", "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert set(facts) == {"models", "sensors"}
    assert facts["sensors"] == list(SENSORS)
    assert set(facts["models"]) == {*V2_CONFIGS, *V1_CONFIGS}
    for model in facts["models"].values():
        counts = dict(model["parameters"])
        assert set(model) == {"parameters", "trained"}
        assert list(counts) == [
            "tokenizers", "backbone", "prompts", "fusion", "geo_context", "total",
        ]  # fmt: skip
        assert counts.pop("total") == sum(counts.values())
        assert model["trained"] in (True, False)


def test_counts_are_those_of_the_model(skysense):
    facts = json.loads(skysense("info", "--json").stdout)
    with torch.device("meta"):
        model = SkySenseV2(V2_CONFIGS["v2_tiny_moe"])
    total = sum(parameter.numel() for parameter in model.parameters())
    assert facts["models"]["v2_tiny_moe"]["parameters"]["total"] == total


def test_table(skysense, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = skysense("info")
    assert result.exit_code == 0
    for name in (*V2_CONFIGS, *V1_CONFIGS, *SENSORS):
        assert name in result.stdout


def test_no_arguments_are_taken(skysense):
    result = skysense("info", "v2_tiny")
    assert result.exit_code == 2
    assert "unexpected extra argument" in result.stderr
