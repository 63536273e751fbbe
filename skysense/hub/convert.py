"""Released SkySense checkpoints to folders that `skysense.load` and `load_part` take.

Everything is told from names and shapes, and nothing goes missing in silence: what has no place is
reported, and any other difference is an error that names every key. Source: docs/sources.md 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from skysense.config import Config
from skysense.hub.checkpoint import Checkpoint, read_checkpoint
from skysense.hub.fitting import Fitted, fit
from skysense.hub.loading import load_strictly
from skysense.hub.parts import KINDS, FusionConfig, UpHeadConfig, build_empty, parameter_count
from skysense.hub.recognition import Recognized, recognize
from skysense.models.fusion import DAYS
from skysense.models.saving import check_replaceable, save_files
from skysense.models.skysense_v1 import SkySenseV1, SkySenseV1Config, SwinConfig, VitConfig

EPS = 1e-5
"""Of the norms of the `s2` and `s1` backbones. Source: docs/sources.md 3 [code]."""


@dataclass(frozen=True)
class ConvertedPart:
    """One part as it was recognized."""

    part: str
    """Name in `SkySenseV1`: `hr`, `s2`, `s1`, `up_s2`, `up_s1` or `fusion`."""
    title: str
    """What it is."""
    source: str
    """Name of the file."""
    prefix: str
    """In front of its keys there."""
    tensors: int
    """How many were taken over."""
    parameters: int
    """How many numbers they have."""


@dataclass(frozen=True)
class ConversionReport:
    """What came out of a conversion."""

    family: str
    """`skysense_v1`, or that of a single part."""
    name: str
    """What the model calls itself."""
    parts: tuple[ConvertedPart, ...]
    """What was recognized."""
    left_out: tuple[tuple[str, str], ...]
    """Keys that have no place in the model, and why."""
    filled: tuple[tuple[str, str], ...]
    """Keys that no file has, and how they were filled in."""
    parameters: int
    """Of the model that was written."""


@dataclass(frozen=True)
class Converted:
    """A model or a part, ready to be written."""

    report: ConversionReport
    """What it was made of."""
    config: Config
    """Its sizes."""
    state: Mapping[str, Tensor]
    """Its weights, under our names."""


def convert(
    source: Path | str | Sequence[Path | str], folder: Path | str, eps: float = EPS
) -> ConversionReport:
    """Convert one released file, or several that make up a whole model.

    Args:
        source: the merged checkpoint, one part, or all six parts, each `.pth`, `.pt`, `.ckpt` or
            `.safetensors`.
        folder: where to write `config.json` and `model.safetensors`, all or nothing.
        eps: of the norms of the `s2` and `s1` backbones; 1e-6 for weights of SkySense++.

    Returns:
        What was recognized, left out and filled in.

    Raises:
        ValueError: a file that is damaged, would have to run code, or holds no part of SkySense;
            missing, unexpected or misshapen keys, all of them listed; parts that do not make up a
            model; a folder that holds something else.
        OSError: a file that cannot be read, or a folder that cannot be written.
    """
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(path) for path in source]
    target = Path(folder)
    check_replaceable(target)
    for path in paths:
        if path.resolve().parent == target.resolve():
            raise ValueError(f"{path} lies in the folder to be written; choose another folder")
    converted = convert_tensors([read_checkpoint(path) for path in paths], eps)
    facts = {
        "family": converted.report.family,
        "name": converted.report.name,
        "trained": True,
        "config": converted.config.model_dump(mode="json"),
    }
    save_files(target, facts, owned(converted.state))
    return converted.report


def convert_tensors(checkpoints: Sequence[Checkpoint], eps: float = EPS) -> Converted:
    """Convert what files hold; tensors on the meta device will do.

    Args:
        checkpoints: as `read_checkpoint` gives them.
        eps: as of `convert`.

    Raises:
        ValueError: as of `convert`.
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps must be between 0 and 1, got {eps}")
    if not checkpoints:
        raise ValueError("no checkpoint is given")
    found = recognize(checkpoints)
    where = ", ".join(checkpoint.name for checkpoint in checkpoints)
    alone = len(found.parts) == 1
    if not alone and (
        absent := [kind.title for key, kind in KINDS.items() if key not in found.parts]
    ):
        have = ", ".join(KINDS[key].title for key in found.parts)
        raise ValueError(
            f"{where}: a whole model needs the {', the '.join(absent)} as well; recognized {have}"
        )
    fitted = {key: fit(part, eps) for key, part in found.parts.items()}
    _check_problems(where, fitted, found)
    states = {key: dict(part.state) for key, part in fitted.items()}
    filled = [item for part in fitted.values() for item in part.filled]
    if "fusion" in fitted:
        states["fusion"]["calendar"] = _calendar(found.calendar, fitted["fusion"], filled)
    elif found.calendar is not None:
        found.left_out.append(("ctpe", "calendar, which belongs to the fusion transformer"))
    left_out = [*found.left_out, *(item for part in fitted.values() for item in part.left_out)]
    return _assembled(where, fitted, states, left_out, filled, alone)


def _assembled(
    where: str,
    fitted: Mapping[str, Fitted],
    states: Mapping[str, Mapping[str, Tensor]],
    left_out: Sequence[tuple[str, str]],
    filled: Sequence[tuple[str, str]],
    alone: bool,
) -> Converted:
    """One part as it is, or six as a model, checked strictly."""
    if alone:
        (key,) = fitted
        family, config, state = KINDS[key].family, fitted[key].config, states[key]
        model: torch.nn.Module = build_empty(KINDS[key], config, where)
        name = f"v1_{key}"
    else:
        family, config, name = SkySenseV1.family, _whole_config(where, fitted), "v1_released"
        with torch.device("meta"):
            model = SkySenseV1(config)
        state = {f"{key}.{name}": value for key in states for name, value in states[key].items()}
    _check_strictly(model, state, where)
    parts = tuple(_told(part) for part in fitted.values())
    total = parameter_count(model)
    report = ConversionReport(family, name, parts, tuple(left_out), tuple(filled), total)
    return Converted(report, config, state)


def _told(part: Fitted) -> ConvertedPart:
    """One part for the report."""
    key, source, prefix = part.found.part, part.found.source, part.found.prefix
    return ConvertedPart(key, KINDS[key].title, source, prefix, part.taken, part.parameters)


def _check_strictly(model: torch.nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """The last word is that of the loader that will read the folder."""
    load_strictly(model, {key: value.to("meta") for key, value in state.items()}, where)


def _check_problems(where: str, fitted: Mapping[str, Fitted], found: Recognized) -> None:
    """Name every key that does not fit.

    Raises:
        ValueError: there are any.
    """
    problems = [problem for part in fitted.values() for problem in part.problems]
    problems += [f"unexpected {key}" for key in found.unexpected]
    if not problems:
        return
    later = any("vocabulary_" in problem for problem in problems)
    hint = "; annotation tokens are those of SkySense++, which is not supported" if later else ""
    listed = "\n  ".join(problems)
    raise ValueError(f"{where}: {len(problems)} weights do not fit{hint}:\n  {listed}")


def _calendar(table: Tensor | None, fusion: Fitted, filled: list[tuple[str, str]]) -> Tensor:
    """The calendar `(366, width)`: a leap year's last day is another 31 December.

    Raises:
        ValueError: a table of other days or of another width.
    """
    assert isinstance(fusion.config, FusionConfig)
    width = fusion.config.in_width
    if table is None:
        filled.append(("ctpe", "zeros: no file has a calendar, so dates change nothing"))
        return torch.zeros(DAYS, width, device=next(iter(fusion.state.values())).device)
    days = table.shape[1] if table.ndim == 3 else 0
    if table.shape != (1, days, width) or days not in (DAYS - 1, DAYS):
        raise ValueError(
            f"`ctpe` has shape {tuple(table.shape)}, expected (1, {DAYS - 1}, {width})"
        )
    rows = table[0].float()
    if days == DAYS:
        return rows
    filled.append(("ctpe, day 366", "as day 365"))
    return torch.cat([rows, rows[-1:]])


def _whole_config(where: str, fitted: Mapping[str, Fitted]) -> SkySenseV1Config:
    """The sizes of a whole model.

    Raises:
        ValueError: parts that do not go together.
    """
    configs = {key: part.config for key, part in fitted.items()}
    hr, s2, s1, fusion = (configs[key] for key in ("hr", "s2", "s1", "fusion"))
    assert isinstance(hr, SwinConfig)
    assert isinstance(s2, VitConfig)
    assert isinstance(s1, VitConfig)
    assert isinstance(fusion, FusionConfig)
    width = hr.width * 2 ** (len(hr.depths) - 1)
    problems = []
    if fusion.in_width != width:
        problems.append(f"the fusion transformer takes {fusion.in_width} channels, not {width}")
    for key, backbone in (("up_s2", s2), ("up_s1", s1)):
        head = configs[key]
        assert isinstance(head, UpHeadConfig)
        if (head.in_width, head.out_width) != (backbone.width, width):
            problems.append(
                f"the {KINDS[key].title} maps {head.in_width} to {head.out_width} channels, not "
                f"{backbone.width} to {width}"
            )
    if problems:
        raise ValueError(f"{where}: these parts are not of one model: {'; '.join(problems)}")
    return SkySenseV1Config(
        hr=hr,
        s2=s2,
        s1=s1,
        fusion_width=fusion.width,
        fusion_depth=fusion.depth,
        fusion_heads=fusion.heads,
    )


def owned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them; most are passed on as they are."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for key, value in state.items():
        storage = value.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != value.nbytes
        seen.add(storage.data_ptr())
        own[key] = value.clone() if shared else value
    return own
