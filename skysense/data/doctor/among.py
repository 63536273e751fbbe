"""Checks across files, and the commands that embed them."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from skysense.data.doctor.advice import Inputs, command_for, inputs_of, try_layer
from skysense.data.doctor.findings import Finding
from skysense.data.doctor.forms import forms_of
from skysense.data.doctor.series import (
    Case,
    dates,
    duplicates_among,
    grids,
    is_scaled,
    missing,
    paths,
    products,
)
from skysense.sensors import SENSORS, SensorCard


def across(cases: Sequence[Case], told: SensorCard | None) -> Iterator[Finding]:
    """Findings about several files; those that turn out to be about one are added to its case.

    Args:
        cases: all files.
        told: the card that the user named.
    """
    yield from _strangers(cases) if told is None else _misfits(cases, told)
    today = np.datetime64("today", "D")
    for group in _groups(cases):
        is_dated = any(not np.isnat(case.look.date) for case in group)
        for case in group:
            case.findings += dates(case, is_dated, today)
        _excuse_empty(group)
        yield from missing(group, told is not None)
        yield from duplicates_among(group)
        yield from grids(group)
        yield from products(group)
    lone: dict[int, Case] = {}
    for case in cases:
        if case.place is not None and case.found:
            lone.setdefault(case.place, case)
    if len(lone) > 1:
        text = f"the files lie in {len(lone)} places that share no ground: a map for each"
        firsts = [lone[place] for place in sorted(lone)]
        yield Finding("warning", "no-overlap", text, "embed them separately", paths(firsts))


def _strangers(cases: Sequence[Case]) -> Iterator[Finding]:
    """Files of no sensor card, where none was told."""
    unknown = [c for c in cases if c.card is None and not c.is_classes and not _has_error(c)]
    for case in unknown:
        if case.look.path == case.look.found.given:
            case.findings.append(_stranger(case))
    ignored = [case for case in unknown if case.look.path != case.look.found.given]
    if ignored:
        text = f"of no sensor card, {len(ignored)} of the folder's files, and left out"
        yield Finding("note", "not-used", text, None, paths(ignored))


def _stranger(case: Case) -> Finding:
    """What to say of a file that was named and is of no sensor card."""
    tags = case.look.header.tags if case.look.header else {}
    if "SKYSENSE_MODEL" in tags:
        text = f"features of model {tags['SKYSENSE_MODEL']}, no imagery"
        return Finding("warning", "own-output", text, "make a map of it with `skysense map`")
    fix = "say what it is with --sensor and --bands"
    return Finding("warning", "unknown-sensor", _what(case), fix)


def _misfits(cases: Sequence[Case], told: SensorCard) -> Iterator[Finding]:
    """Files that have no band of the card that was told."""
    strange = [c for c in cases if not c.found and not c.is_classes and not _has_error(c)]
    for case in strange:
        text = f"no band of sensor `{told.name}` is there by name ({_names(case)})"
        if case.is_of_another_product and case.look.found.product is not None:
            text = f"sensor `{told.name}` does not read the product {case.look.found.product.name}"
        fix = f"--sensor {case.guess.card}" if case.guess else "give another file"
        refused = case.look.path == case.look.found.given or len(strange) == len(cases)
        severity, code = ("error", "missing-bands") if refused else ("note", "not-used")
        finding = Finding(severity, code, text, fix)  # type: ignore[arg-type]
        case.findings.append(finding)
    yield from ()


_WHY = ("missing-bands", "mixed-baselines", "no-overlap")
"""Codes across files that say why the reader refuses them."""


def _excuse_empty(group: Sequence[Case]) -> None:
    """A date without a valid pixel is masked and no error, where others have some."""
    if not any(case.look.sample.valid for case in group):
        return
    for case in group:
        case.findings = [
            replace(finding, severity="warning") if finding.code == "nothing-valid" else finding
            for finding in case.findings
        ]


def _has_error(case: Case) -> bool:
    """Something worse is said already."""
    return any(finding.severity == "error" for finding in case.findings)


def _names(case: Case) -> str:
    """A file's band names, the first few."""
    names = [str(name or "(no name)") for name in case.look.names]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _what(case: Case) -> str:
    """A file's names and numbers, where no card takes them."""
    kinds = " or ".join(forms_of(case.look)) or "values of no known unit"
    return f"no sensor card has its bands ({_names(case)}) in {kinds}"


def _groups(cases: Sequence[Case]) -> list[list[Case]]:
    """Files of one place and modality."""
    groups: dict[tuple[int | None, str], list[Case]] = {}
    for case in cases:
        if case.card is not None and case.found:
            groups.setdefault((case.place, case.card.modality), []).append(case)
    return list(groups.values())


def commands_for(
    cases: Sequence[Case], known: Sequence[Finding]
) -> tuple[tuple[str, ...], list[Finding]]:
    """A command for each place, and what trying it says.

    Args:
        cases: all files.
        known: what was found across files; what explains a refusal is not said twice.
    """
    inputs = inputs_of(cases)
    explained = {file for finding in known if finding.code in _WHY for file in finding.files}
    findings: list[Finding] = []
    places: dict[int, dict[str, tuple[str, list[Case]]]] = {}
    for (place, key), layer in _guessed(cases):
        card, files, tried = _tried(layer, inputs)
        if card is not None:
            places.setdefault(place, {})[key] = (card, files)
        findings += [f for f in tried if card is not None or not _explained(layer, explained)]
    several = len(places) > 1
    made = []
    for i, layers in enumerate(places.values()):
        output = f"features_{i + 1}.tif" if several else "features.tif"
        made.append(command_for(layers, inputs, output))
    return tuple(made), findings


def _guessed(cases: Sequence[Case]) -> Iterator[tuple[tuple[int, str], list[Case]]]:
    """Usable files by place and modality, scene classifications with the Sentinel-2 files."""
    groups: dict[tuple[int, str], list[Case]] = {}
    classes: dict[int | None, list[Case]] = {}
    for case in cases:
        if case.is_classes and case.guess is None:
            classes.setdefault(case.place, []).append(case)
        if case.place is not None and not case.is_out and case.guess is not None:
            key: str = SENSORS[case.guess.card].modality
            groups.setdefault((case.place, key), []).append(case)
    for (place, key), layer in groups.items():
        yield (place, key), [*layer, *(classes.get(place, []) if key == "s2" else [])]


def _tried(layer: Sequence[Case], inputs: Inputs) -> tuple[str | None, list[Case], list[Finding]]:
    """The card that most files are of, those files, and what the reader says of them.

    Pictures of several cards go together where one of the cards takes them all.
    """
    telling = [c for c in layer if c.look.sample.valid] or layer  # the values say nothing of others
    counts = Counter(case.guess.card for case in telling if case.guess)
    mixed = len({name.removesuffix("_n0400") for name in counts}) < len(counts)
    if mixed and not is_scaled([case for case in layer if case.guess]):
        return None, [], []  # digital numbers that differ by 1000
    picture = mixed or all(SENSORS[name].modality == "hr" for name in counts)
    tried: list[Finding] = []
    for card, _ in counts.most_common():
        others = {c for c in telling if c.guess and c.guess.card != card and not picture}
        files = [c for c in layer if c not in others]
        tried = try_layer(files, card, inputs)
        if not any(finding.severity == "error" for finding in tried):
            return card, files, tried
    return None, [], [finding for finding in tried if finding.severity == "error"]


def _explained(layer: Sequence[Case], known: Collection[str]) -> bool:
    """Whether something that was found is why files are refused."""
    told = any(path in known for path in paths(layer))
    return told or any(finding.severity == "error" for case in layer for finding in case.findings)
