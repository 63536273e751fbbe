"""From the files of a run's folder, and pictures, to `report.html`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from skysense.pretrain.report.curves import (
    learning_section,
    losses_section,
    schedules_section,
    speed_section,
    spread_section,
)
from skysense.pretrain.report.metrics import load_metrics
from skysense.pretrain.report.page import Section, build_page, preformatted
from skysense.pretrain.report.pictures import Pictures
from skysense.pretrain.report.sheets import (
    attention_section,
    experts_section,
    neighbors_section,
)
from skysense.pretrain.report.summary import summary_section

REPORT_NAME = "report.html"
_RECIPE_NAME = "recipe.yaml"
_FACTS_NAME = "facts.json"


def write_report(folder: Path, pictures: Pictures) -> Path:
    """Write `report.html`: one page with everything inside, all or nothing.

    Args:
        folder: of the run; has `metrics.jsonl`, and perhaps `recipe.yaml`, which is shown, and
            `facts.json`, an object whose values become rows of the summary.
        pictures: what the metrics do not tell.

    Returns:
        The page.

    Raises:
        ValueError: there are no metrics, the facts are no object, matplotlib is not installed,
            or the page cannot be written.
        OSError: a file is missing or cannot be read.
    """
    metrics = load_metrics(folder)
    recipe = _read_text(folder / _RECIPE_NAME)
    values = _parse_recipe(recipe)
    sections = [
        summary_section(metrics, values, _read_facts(folder / _FACTS_NAME)),
        learning_section(metrics),
        losses_section(metrics),
        spread_section(metrics),
        neighbors_section(pictures.neighbors) if pictures.neighbors else None,
        attention_section(pictures.attention) if pictures.attention else None,
        experts_section(pictures.experts) if pictures.experts else None,
        schedules_section(metrics),
        speed_section(metrics, pictures.profile),
        Section("Recipe", preformatted(recipe)) if recipe else None,
    ]
    model = values.get("model")
    title = f"Pre-training of {model}" if isinstance(model, str) else "Pre-training"
    path = folder / REPORT_NAME
    _replace(path, build_page(title, [section for section in sections if section]))
    return path


def _read_text(path: Path) -> str:
    """A text file, empty where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _parse_recipe(text: str) -> Mapping[str, Any]:
    """Plain values, as far as it is YAML; it is shown as it stands in any case."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, Mapping) else {}


def _read_facts(path: Path) -> Mapping[str, Any]:
    """An object, empty where there is no file.

    Raises:
        ValueError: it is something else.
    """
    try:
        facts = json.loads(_read_text(path) or "{}")
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); mend or remove it") from None
    if not isinstance(facts, Mapping):
        raise ValueError(f"{path} holds no object; expected names and values")
    return facts


def _replace(path: Path, text: str) -> None:
    """Write under a temporary name, then move.

    Raises:
        ValueError: it cannot be written there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            temporary.write_text(text, encoding="utf-8", errors="replace")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"{path} could not be written ({error.strerror}); the run itself is complete"
        ) from None
