"""The command that embeds what was examined, tried with the reader that `embed` uses."""

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from skysense.data.acquisitions import open_layer
from skysense.data.doctor.findings import Finding
from skysense.data.doctor.series import Case, paths
from skysense.sensors import DEFAULT_SENSORS, MODALITIES

Inputs = Mapping[Path, Sequence[Case]]
"""Each path that was given, to what was found under it."""


def inputs_of(cases: Sequence[Case]) -> Inputs:
    """Sort files by the path under which they were found."""
    inputs: dict[Path, list[Case]] = {}
    for case in cases:
        inputs.setdefault(case.look.found.given, []).append(case)
    return inputs


def try_layer(layer: Sequence[Case], card: str, inputs: Inputs) -> list[Finding]:
    """Open files of one modality as `embed` would: what it refuses, what it leaves out."""
    names, files = _names(layer), paths(layer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            open_layer(_shortest(layer, inputs), card, names)
        except ValueError as error:
            fix = "embed them separately, or leave one out"
            return [Finding("error", "refused", str(error), fix, files)]
    return [
        Finding("note", "not-used", _said(caution.message, path), "leave it out", (path,))
        for caution in caught
        for path in files
        if str(caution.message).startswith(path)
    ]


def _said(message: Warning | str, path: str) -> str:
    """A warning of the reader without the path that it begins with."""
    return str(message).removeprefix(path).strip()


def _names(cases: Sequence[Case]) -> tuple[str, ...] | None:
    """Band names to give, the same for all files."""
    return next((case.guess.bands for case in cases if case.guess and case.guess.bands), None)


def command_for(
    layers: Mapping[str, tuple[str, Sequence[Case]]], inputs: Inputs, output: str
) -> str:
    """`skysense embed ...` for the layers of one place.

    Args:
        layers: modality to its card and files.
        inputs: where all files were found.
        output: the map to write.
    """
    words = ["skysense", "embed"]
    for key in MODALITIES:
        if key not in layers:
            continue
        card, layer = layers[key]
        words += [f"--{key}", *_shortest(layer, inputs)]
        if card != DEFAULT_SENSORS[key]:
            words += ["--sensor", card]
        names = _names(layer)
        if names:
            words += ["--bands", f"{key}={','.join(names)}"]
    return shlex.join([*words, "-o", output])


def _shortest(layer: Sequence[Case], inputs: Inputs) -> list[str]:
    """A folder or an archive in place of its files, where the reader takes those and no others."""
    wanted = set(paths(layer))
    harmless = {
        given: all(str(c.look.path) in wanted or _is_passed_over(c) for c in inputs[given])
        for given in {case.look.found.given for case in layer}
    }
    looks = [case.look for case in layer]
    words = [look.found.given if harmless[look.found.given] else look.path for look in looks]
    return list(dict.fromkeys(map(str, words)))


def _is_passed_over(case: Case) -> bool:
    """A sound raster without a band of any sensor, which the reader skips in a folder."""
    return case.look.file is not None and case.card is None and not case.findings
