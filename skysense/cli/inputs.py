"""What commands that take imagery share: which file is of which modality, what options say."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skysense.cli.options import progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from skysense.data.scene import Scene
    from skysense.models.encoder import Schedule


class Stage(StrEnum):
    """What is mapped."""

    fused = "fused"
    one = "1"
    two = "2"
    three = "3"
    four = "4"


class Budget(StrEnum):
    """What a feature map of `hr` may cost."""

    fast = "fast"
    balanced = "balanced"
    fine = "fine"


def gather_inputs(
    positional: list[Path],
    named: dict[str, list[Path] | None],
    sensors: list[str],
    more: bool = False,
) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Files of each modality, and the sensor cards that were named; `more` comes from a catalog."""
    from skysense.sensors import get_sensor

    chosen = {get_sensor(name).modality: name for name in sensors}
    if len(chosen) != len(sensors):
        raise ValueError("two `--sensor` cards are of the same modality")
    given = {key: list(paths) for key, paths in named.items() if paths}
    if positional:
        if len(sensors) > 1 or len(given) > 0:
            raise ValueError(
                "files without an option go with one `--sensor`; name modalities with --hr, "
                "--s2, --s1"
            )
        given[next(iter(chosen), "hr")] = positional
    if not given and not more:
        raise ValueError("no input: give GeoTIFFs with --sensor, or --hr, --s2, --s1, or --stac")
    for key in chosen:
        if key not in given and not more:
            raise ValueError(f"`--sensor {chosen[key]}` is {key}, but no {key} input is given")
    return given, {str(key): name for key, name in chosen.items()}


def check_not_among(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to overwrite an input."""
    if output.resolve() in {path.resolve() for path in inputs}:
        raise ValueError(f"{output} is an input; choose another output")


def parse_box(text: str | None) -> list[float] | None:
    """`west,south,east,north` to numbers."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--bbox {text}: expected west,south,east,north in degrees") from None


def parse_bands(texts: list[str], modalities: list[str]) -> dict[str, list[str]]:
    """`VV,VH` or `s1=VV,VH` to band names of a modality."""
    names: dict[str, list[str]] = {}
    for text in texts:
        key, equals, listed = text.rpartition("=")
        if not equals and len(modalities) > 1:
            raise ValueError(f"--bands {text}: say whose bands, e.g. {modalities[0]}={text}")
        key = key.strip() if equals else next(iter(modalities), "")
        check_key("--bands", text, key, modalities, names)
        names[key] = [name.strip() for name in listed.split(",")]
    return names


def check_key(
    option: str, text: str, key: str, modalities: list[str], have: dict[str, Any]
) -> None:
    """Refuse a setting of a modality that is not given, or set twice."""
    if key not in modalities:
        raise ValueError(
            f"{option} {text}: {key or 'nothing'} is not among the inputs ({', '.join(modalities)})"
        )
    if key in have:
        raise ValueError(f"{option} is given twice for {key}")


def parse_schedules(
    texts: list[str], budget: Budget | None, modalities: list[str]
) -> "dict[str, Schedule] | None":
    """`hr=merge,merge,keep`, or the budget of `hr`, to schedules."""
    from skysense.models.encoder import BUDGETS

    schedules: dict[str, Any] = {}
    if budget is not None:
        check_key("--budget", budget.value, "hr", modalities, schedules)
        schedules["hr"] = BUDGETS[budget.value]
    for text in texts:
        key, _, listed = (part.strip() for part in text.partition("="))
        modes = tuple(mode.strip() for mode in listed.split(","))
        if len(modes) != 3 or not set(modes) <= {"merge", "keep"}:
            raise ValueError(
                f"--merge-schedule {text}: expected a modality and three of merge and keep, such "
                f"as {modalities[0]}=merge,merge,keep"
            )
        if key == "hr" and budget is not None:
            raise ValueError("--budget and --merge-schedule of hr say the same: give one of them")
        check_key("--merge-schedule", text, key, modalities, schedules)
        schedules[key] = modes
    return schedules or None


def check_sound(
    given: "Mapping[str, list[Path]]",
    cards: "Mapping[str, str]",
    names: "Mapping[str, list[str]]",
    scene: "Scene",
    dates: str | None,
    bbox: list[float] | None,
    quiet: bool,
) -> None:
    """Refuse rasters of a scene that the doctor finds an error in.

    Args:
        given: modality to files, folders and archives.
        cards: modality to sensor card, where one was named.
        names: modality to band names, where they were given.
        scene: as it was opened with all that; files that it leaves out cannot stop it.
        dates: days that were asked for.
        bbox: ground that was asked for: west, south, east, north in degrees.
        quiet: without a bar.

    Raises:
        ValueError: the first error with what mends it; it says how many there are.
    """
    from skysense.data.doctor import Chosen, count_files, first_errors
    from skysense.data.products.choice import check_bbox, parse_dates

    if not given:
        return
    days = None if dates is None else parse_dates(dates)
    box = None if bbox is None else check_bbox(bbox)
    chosen = {key: Chosen(scene.layers[key], names.get(key), days, box) for key in given}
    count = sum(count_files(paths) for paths in given.values())
    with progress_bar("checking", "files", count, quiet) as advance:
        found = [
            error
            for key, paths in given.items()
            for error in first_errors(
                paths, cards.get(key), names.get(key), key, advance, chosen[key]
            )
        ]
    if not found:
        return
    first = found[0]
    files = ", ".join(str(path) for path in first.files[:3])
    more = f" ({len(found) - 1} more: see `skysense doctor`)" if len(found) > 1 else ""
    fix = f"; fix: {first.fix}" if first.fix else ""
    raise ValueError(f"{files}: {first.message}{fix}{more} (--unchecked leaves this check out)")
