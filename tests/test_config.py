"""Strict configuration: every mistake names its key, and unknown keys say what was meant."""

import pytest
from pydantic import ValidationError

from skysense.config import Config, parse


class Inner(Config):
    """A part."""

    depth: int = 2
    """How deep."""


class Outer(Config):
    """A whole."""

    width: int
    """How wide."""
    inner: Inner = Inner()
    """The part."""
    maybe: Inner | None = None
    """Perhaps a part."""
    many: tuple[Inner, ...] = ()
    """Parts."""


def test_good_values():
    config = parse(Outer, {"width": 3, "inner": {"depth": 4}}, "a.yaml")

    assert config.width == 3
    assert config.inner.depth == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 3, "widht": 4}, "^a.yaml: unknown key `widht`, did you mean `width`\\?$"),
        (
            {"width": 3, "zzz": 4},
            r"^a.yaml: unknown key `zzz` \(known: width, inner, maybe, many\)$",
        ),
        (
            {"width": 3, "inner": {"dept": 1}},
            r"^a.yaml: unknown key `inner.dept`, did you mean `depth`\?$",
        ),
        (
            {"width": 3, "maybe": {"dept": 1}},
            r"^a.yaml: unknown key `maybe.dept`, did you mean `depth`\?$",
        ),
        (
            {"width": 3, "many": [{"depth": 1}, {"dept": 1}]},
            r"^a.yaml: unknown key `many.1.dept`, did you mean `depth`\?$",
        ),
        ({}, "^a.yaml: `width`: Field required$"),
        ({"width": "wide"}, "^a.yaml: `width`: Input should be a valid integer"),
        ({"width": 1, "inner": 5}, "^a.yaml: `inner`: Input should be a valid dictionary"),
        ({"width": "x", "inner": {"depth": "y"}}, "`width`: .*; `inner.depth`: "),
        (None, "^a.yaml: expected keys with values, got `None`$"),
        ([1, 2], "^a.yaml: expected keys with values"),
        ("text", "^a.yaml: expected keys with values"),
    ],
)
def test_bad_values_name_the_key(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse(Outer, values, "a.yaml")

    assert not isinstance(caught.value, ValidationError)
    assert caught.value.__cause__ is None


def test_a_configuration_is_immutable():
    config = Outer(width=3)

    with pytest.raises(ValidationError, match="frozen"):
        config.width = 4


def test_docstrings_are_descriptions():
    assert Outer.model_fields["width"].description == "How wide."
