"""Which parts of SkySense V1 a checkpoint holds, told by names and shapes alone.

Source: the files and prefixes of docs/sources.md 6 [code].
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from skysense.hub.checkpoint import Checkpoint
from skysense.hub.parts import KINDS
from skysense.hub.released import is_official

_ANCHOR = re.compile(
    r"^(?P<prefix>(?:.*?\.)??)(?:patch_embed|stages|layers|norm\d|cls_token|pos_embed|"
    r"absolute_pos_embed|mask_token|vocabulary_\w+|porj_linear|decoder|ln1)(?:\.|$)"
)
"""The first component that a part's own names begin with; what stands before it is the prefix."""

_HEAD = re.compile(r"^(?!head_s[12]\.)head")
_S2_OR_S1 = re.compile(r"(?<![a-z0-9])s([12])(?![a-z0-9])")
_BANDS = {10: "s2", 2: "s1"}


@dataclass
class Found:
    """One part as it stands in a file."""

    part: str
    """Key of `KINDS`."""
    source: str
    """Name of the file."""
    prefix: str
    """In front of its keys there."""
    tensors: dict[str, Tensor]
    """Keys without prefix."""


@dataclass
class Recognized:
    """All that is in the files."""

    parts: dict[str, Found] = field(default_factory=dict)
    """By key of `KINDS`."""
    calendar: Tensor | None = None
    """`(1, days, width)`, where there is one."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """What has no place in the model, and why."""
    unexpected: list[str] = field(default_factory=list)
    """Keys that belong to nothing."""


def recognize(checkpoints: Sequence[Checkpoint]) -> Recognized:
    """Sort the tensors of one or several files into parts.

    Raises:
        ValueError: a file without any part, a part that is there twice, or one that could be
            that of `s2` as well as that of `s1`.
    """
    all_found = Recognized()
    for checkpoint in checkpoints:
        groups = _groups(checkpoint, all_found)
        before = len(all_found.parts)
        for prefix, tensors in groups.items():
            part = _part_of(prefix, tensors, checkpoint.name)
            if part is None:
                all_found.unexpected += [prefix + key for key in tensors]
                continue
            if part in all_found.parts:
                other = all_found.parts[part]
                raise ValueError(
                    f"two of the {KINDS[part].title}: `{other.prefix}*` in {other.source} and "
                    f"`{prefix}*` in {checkpoint.name}; give one"
                )
            all_found.parts[part] = Found(part, checkpoint.name, prefix, tensors)
        if len(all_found.parts) == before:
            raise ValueError(_nothing_in(checkpoint, groups))
    return all_found


def _groups(checkpoint: Checkpoint, found: Recognized) -> dict[str, dict[str, Tensor]]:
    """Tensors by prefix; the calendar and what has no place go to `found`."""
    name = checkpoint.name
    groups: dict[str, dict[str, Tensor]] = {}
    found.left_out += [(key, f"not a weight (in {name})") for key in checkpoint.ignored]
    for key, value in checkpoint.tensors.items():
        anchor = _ANCHOR.match(key)
        if key == "ctpe":
            found.calendar = _same_calendar(found.calendar, value, name)
        elif _HEAD.match(key):
            found.left_out.append((key, "head of the pre-training"))
        elif key.startswith("glbank."):
            found.left_out.append((key, "geo-context bank of the pre-training"))
        else:
            prefix = anchor["prefix"] if anchor else ""
            groups.setdefault(prefix, {})[key.removeprefix(prefix)] = value
    return _with_strays(groups)


def _with_strays(groups: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Give `backbone_s2.foo`, which no name of a part begins, to the part at `backbone_s2.`."""
    for key in [key for key in groups.get("", {}) if not _ANCHOR.match(key)]:
        for prefix in groups:
            if prefix and key.startswith(prefix):
                groups[prefix][key.removeprefix(prefix)] = groups[""].pop(key)
                break
    return {prefix: tensors for prefix, tensors in groups.items() if tensors}


def _same_calendar(first: Tensor | None, second: Tensor, name: str) -> Tensor:
    """The calendar of several files, which must be one and the same."""
    if first is None or second.is_meta:
        return second
    if first.shape != second.shape or not bool((first == second).all()):
        raise ValueError(f"the calendar `ctpe` of {name} is another than that of the file before")
    return first


def _part_of(prefix: str, tensors: Mapping[str, Tensor], name: str) -> str | None:
    """The part that a group of tensors is; `None` where they are none."""
    if any(re.match(r"stages\.\d+\.blocks\.", key) for key in tensors):
        return "hr"
    if any(key.startswith("porj_linear.") for key in tensors):
        return "fusion"
    if any(key.startswith("decoder.0.") for key in tensors):
        return "up_" + _named(prefix, name, "up-sampling head", "head_s2.pth")
    layers = any(re.match(r"layers\.\d+\.(ln\d|attn\.attn|ffn)\.", key) for key in tensors)
    if layers and prefix.endswith("fusion."):
        return "fusion"
    if layers and any(key.startswith(("patch_embed.", "pos_embed")) for key in tensors):
        return _optical_or_radar(prefix, tensors, name)
    return None


def _optical_or_radar(prefix: str, tensors: Mapping[str, Tensor], name: str) -> str:
    """`s2` or `s1`: by bands, which must not contradict the prefix; else by names."""
    kernel = tensors.get("patch_embed.projection.weight")
    bands = kernel.shape[1] if kernel is not None and kernel.ndim > 1 else 0
    said = _S2_OR_S1.search(prefix.replace("_", "."))
    if bands in _BANDS and said and _BANDS[bands] != f"s{said[1]}":
        raise ValueError(
            f"{name}: `{prefix}*` has {bands} bands, which are those of {_BANDS[bands]}"
        )
    which = f"backbone of {bands} bands" if bands else "backbone"
    return _BANDS.get(bands) or _named(prefix, name, which, "backbone_s2.pth")


def _named(prefix: str, name: str, what: str, example: str) -> str:
    """`s2` or `s1`, by prefix or else by the file's name.

    Raises:
        ValueError: neither names one of the two.
    """
    for text in (prefix, name.lower()):
        said = {f"s{match}" for match in _S2_OR_S1.findall(text.replace("_", "."))}
        if len(said) == 1:
            return said.pop()
    raise ValueError(
        f"{name}: this {what} could be that of Sentinel-2 or of Sentinel-1; put `s2` or `s1` into "
        f"the file's name, such as {example}"
    )


def _nothing_in(checkpoint: Checkpoint, groups: Mapping[str, Mapping[str, Tensor]]) -> str:
    """What a file holds that is no SkySense checkpoint."""
    matched = {
        kind.title: sum(
            is_official(key, kind.rules, kind.back) for keys in groups.values() for key in keys
        )
        for part, kind in KINDS.items()
        if part not in ("s1", "up_s1")  # of the same names as those of s2
    }
    keys = list(checkpoint.tensors)
    roots = Counter(key.partition(".")[0] for key in keys).most_common(6)
    return (
        f"{checkpoint.name} holds no part of SkySense: of {len(keys)} keys, "
        + ", ".join(f"{count} could be of the {title}" for title, count in matched.items())
        + f"; they begin with {', '.join(f'{root} ({n})' for root, n in roots)}; for example "
        + ", ".join(keys[:4])
        + f"; expected prefixes such as {', '.join(kind.prefix for kind in KINDS.values())}"
    )
