"""Strict configuration: frozen models whose errors name the key and say what was meant."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

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


def _explain(cls: type[BaseModel], item: dict[str, Any]) -> str:
    """One validation error in words."""
    key = ".".join(str(part) for part in item["loc"]) or "the whole"
    if item["type"] != "extra_forbidden":
        return f"`{key}`: {item['msg']}"
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
