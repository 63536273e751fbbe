"""The command that embeds what was examined, tried with the reader that `embed` uses."""

import shlex
import warnings
from collections.abc import Mapping, Sequence

from skysense.data.acquisitions import open_layer
from skysense.data.doctor.findings import Finding
from skysense.data.doctor.series import Case, paths
from skysense.sensors import DEFAULT_SENSORS, MODALITIES


def try_layer(layer: Sequence[Case], card: str, cases: Sequence[Case]) -> list[Finding]:
    """Open files of one modality as `embed` would: what it refuses, what it leaves out."""
    names = _names(layer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            open_layer(_shortest(layer, cases), card, names)
        except ValueError as error:
            fix = "embed them separately, or leave one out"
            return [Finding("error", "refused", str(error), fix, paths(layer))]
    return [
        Finding("note", "not-used", _said(caution.message, path), "leave it out", (path,))
        for caution in caught
        for path in paths(layer)
        if str(caution.message).startswith(path)
    ]


def _said(message: Warning | str, path: str) -> str:
    """A warning of the reader without the path that it begins with."""
    return str(message).removeprefix(path).strip()


def _names(cases: Sequence[Case]) -> tuple[str, ...] | None:
    """Band names to give, the same for all files."""
    return next((case.guess.bands for case in cases if case.guess and case.guess.bands), None)


def command_for(
    layers: Mapping[str, tuple[str, Sequence[Case]]], cases: Sequence[Case], output: str
) -> str:
    """`skysense embed ...` for the layers of one place.

    Args:
        layers: modality to its card and files.
        cases: all files that were examined.
        output: the map to write.
    """
    words = ["skysense", "embed"]
    for key in MODALITIES:
        if key not in layers:
            continue
        card, layer = layers[key]
        words += [f"--{key}", *_shortest(layer, cases)]
        if card != DEFAULT_SENSORS[key]:
            words += ["--sensor", card]
        names = _names(layer)
        if names:
            words += ["--bands", f"{key}={','.join(names)}"]
    return shlex.join([*words, "-o", output])


def _shortest(layer: Sequence[Case], cases: Sequence[Case]) -> list[str]:
    """A folder or an archive in place of its files, where the reader takes those and no others."""
    wanted = set(paths(layer))
    words: list[str] = []
    for case in layer:
        given = case.look.found.given
        inside = [other for other in cases if other.look.found.given == given]
        harmless = all(str(c.look.path) in wanted or _is_passed_over(c) for c in inside)
        words.append(str(given if harmless else case.look.path))
    return list(dict.fromkeys(words))


def _is_passed_over(case: Case) -> bool:
    """A sound raster without a band of any sensor, which the reader skips in a folder."""
    return case.look.file is not None and case.card is None and not case.findings
