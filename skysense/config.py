"""Strict configuration: frozen models whose errors name the key and say what was meant."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown keys, documented fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def parse(cls: type[ConfigT], values: Mapping[str, Any], where: str) -> ConfigT:
    """Build a configuration from plain values.

    Args:
        cls: the configuration class.
        values: field names to values, as read from JSON or YAML.
        where: the file or option they came from, for messages.

    Raises:
        ValueError: an unknown key (with the closest known one), a missing one, or a bad value.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected keys with values, got `{values}`")
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(cls, dict(item)) for item in error.errors()]
        raise ValueError(f"{where}: " + "; ".join(lines)) from None


def read_recipe(cls: type[ConfigT], path: str | Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read a recipe: one complete YAML file, with some values replaced.

    Args:
        cls: the configuration class.
        path: the file.
        overrides: `a.b=value` each, the value in YAML.

    Raises:
        ValueError: not YAML, an override that is none, or values that `cls` refuses.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {_flat(error)}") from None
    if not isinstance(values, Mapping):
        raise ValueError(f"{path} holds no recipe: expected keys with values")
    changed = dict(values)
    for override in overrides:
        changed = _override(changed, override)
    return parse(cls, changed, str(path))


def _override(values: Mapping[str, Any], override: str) -> dict[str, Any]:
    """A copy with the value of one dotted key replaced.

    Raises:
        ValueError: not `a.b=value`, or the key leads through something that has no keys.
    """
    name, equals, text = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(f"`{override}` is not of the form a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"`{override}`: the value is not YAML: {_flat(error)}") from None
    changed = dict(values)
    inner = changed
    for key in keys[:-1]:
        below = inner.get(key)
        if below is not None and not isinstance(below, Mapping):
            raise ValueError(f"`{override}`: `{key}` is a value and has no keys below it")
        inner[key] = dict(below or {})
        inner = inner[key]
    inner[keys[-1]] = value
    return changed


def _flat(error: Exception) -> str:
    """The text of an error on one line."""
    return " ".join(str(error).split())


def _explain(cls: type[BaseModel], item: dict[str, Any]) -> str:
    """One validation error in words."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        said = item["msg"].removeprefix("Value error, ")
        return f"`{key}`: {said}" if key else said
    owner: type[BaseModel] | None = cls
    for part in item["loc"][:-1]:  # a position in a list is no field, and stays with its model
        if owner is not None and part in owner.model_fields:
            owner = _model_in(owner.model_fields[part].annotation)
    known = list(owner.model_fields) if owner else []
    close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
    hint = f", did you mean `{close[0]}`?" if close else f" (known: {', '.join(known)})"
    return f"unknown key `{key}`{hint}"


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    """The first model in a field's annotation, such as that of `tuple[Part, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = (_model_in(part) for part in get_args(annotation))
    return next((part for part in parts if part is not None), None)
