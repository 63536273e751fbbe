"""Configurations of the released parts, told from the shapes of their tensors.

Each number is what most of the tensors that show it agree on, so that one that is missing or
misshapen is found out by the strict comparison that follows, and named alone.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from skysense.config import Config
from skysense.hub.parts import FusionConfig, UpHeadConfig
from skysense.layers.positions import window_offsets
from skysense.models.skysense_v1 import SwinConfig, VitConfig

State = Mapping[str, Tensor]

HEAD_WIDTH = 64
"""Channels of an attention head of the `s2`, `s1` and fusion layers. Source: docs/sources.md 3."""
EXTRA_NORM_EVERY = 6
"""Where no block shows it. Source: docs/sources.md 2 [code]."""
MOST_BLOCKS = 256
"""A higher number in a key is no block's."""


def vote(state: State, pattern: str, axis: int, default: int) -> int:
    """The length that most tensors have along an axis.

    Args:
        state: official keys, without prefix, to tensors.
        pattern: of the keys, from their beginning.
        axis: which one; tensors that lack it do not count.
        default: where no tensor shows it.
    """
    sizes = Counter(
        value.shape[axis]
        for key, value in state.items()
        if re.match(pattern, key) and value.ndim > axis and value.shape[axis] > 0
    )
    return sizes.most_common(1)[0][0] if sizes else default


def count(state: State, pattern: str) -> int:
    """One more than the highest number that the pattern's group finds in a key; 0 without any."""
    found = (re.match(pattern, key) for key in state)
    numbers = [int(match[1]) for match in found if match and len(match[1]) < 9]
    return max((number for number in numbers if number < MOST_BLOCKS), default=-1) + 1


def last_of_quarters(depth: int) -> tuple[int, ...]:
    """The layers that end each quarter: 5, 11, 17, 23 of 24 [code]."""
    return tuple(sorted({max((i + 1) * depth // 4 - 1, 0) for i in range(4)}))


def swin_config(state: State, name: str) -> SwinConfig:
    """Sizes of an `hr` backbone.

    All stages are put out, whether or not their norms are there.

    Raises:
        ValueError: the position tables are of no window size.
    """
    stages = count(state, r"stages\.(\d+)\.")
    depths = tuple(max(count(state, rf"stages\.{i}\.blocks\.(\d+)\."), 1) for i in range(stages))
    width = vote(state, r"stages\.0\.blocks\.\d+\.norm[12]\.", 0, 352)
    own = [rf"stages\.{i}\.blocks\.\d+\.attn\.w_msa\." for i in range(stages)]
    windows = [_windows(state, prefix, name) for prefix in own]
    merged = vote(state, r"stages\.1\.downsample\.norm\.", 0, 2 * width)
    position = state.get("absolute_pos_embed")
    return SwinConfig(
        bands=vote(state, r"patch_embed\.projection\.weight$", 1, 3),
        width=width,
        depths=depths,
        heads=tuple(_heads(state, prefix, width * 2**i) for i, prefix in enumerate(own)),
        windows=tuple(window for window, _ in windows),
        pretrained_windows=tuple(before for _, before in windows),
        extra_norm_every=_extra_norm_every(state),
        outputs=tuple(range(stages)),
        norm_before_merging=merged == 4 * width,
        position_grid=None if position is None else _square(position, name, "absolute_pos_embed"),
        patch=vote(state, r"patch_embed\.projection\.weight$", 2, 4),
    )


def _heads(state: State, prefix: str, width: int) -> int:
    """Attention heads of a stage; shapes that make no heads of its width do not count."""
    shown = {
        key: value
        for key, value in state.items()
        if value.ndim and value.shape[0] and width % value.shape[0] == 0
    }
    pattern = prefix + r"(logit_scale|cpb_mlp\.2\.weight)$"
    return vote(shown, pattern, 0, max(width // 44, 1))


def _extra_norm_every(state: State) -> int:
    """The period of the blocks that have a third norm; 0 where every stage is shorter than 6.

    Where a stage is long enough and none has one, they are taken to be missing: every released
    backbone has them.
    """
    numbers = {
        int(match[1]) + 1
        for key in state
        if (match := re.match(r"stages\.\d+\.blocks\.(\d{1,3})\.norm3\.", key))
    }
    return math.gcd(*numbers) if numbers else EXTRA_NORM_EVERY


def _windows(state: State, prefix: str, name: str) -> tuple[int, int]:
    """Side of a stage's window and of that of its pre-training (0: the same), by its buffers.

    Raises:
        ValueError: the buffers are not what windows have.
    """
    side = vote(state, prefix + "relative_coords_table$", 1, 15)
    window = (side + 1) // 2
    table = next((v for k, v in state.items() if re.match(prefix + "relative_coords", k)), None)
    if table is None or table.is_meta:
        return window, 0
    found = table.float().reshape(-1, 2) if table.shape[-1:] == (2,) else table.new_zeros(0, 2)
    for before in (0, *range(2, 65)):
        expected = _offsets(window, before)
        if found.shape == expected.shape and torch.allclose(found, expected, atol=1e-3):
            return window, before
    raise ValueError(f"{name}: a `relative_coords_table` is that of no attention window")


@functools.lru_cache(maxsize=128)
def _offsets(window: int, before: int) -> Tensor:
    """Our table, which the official one must equal."""
    return window_offsets(window, before)


def _square(table: Tensor, name: str, key: str, extra: int = 0) -> tuple[int, int]:
    """Side of the square grid that a position table `(1, extra + side^2, width)` is of.

    Raises:
        ValueError: the number of entries is no square.
    """
    entries = table.shape[1] - extra if table.ndim == 3 else 0
    side = math.isqrt(max(entries, 0))
    if side < 1 or side * side != entries:
        raise ValueError(f"{name}: `{key}` of shape {tuple(table.shape)} is of no square grid")
    return side, side


def _layers(state: State, width: int, name: str) -> tuple[int, int, float]:
    """Depth, heads and MLP ratio of plain layers.

    Raises:
        ValueError: the width is no multiple of a head's.
    """
    if width % HEAD_WIDTH:
        raise ValueError(
            f"{name}: {width} channels are not made of heads of {HEAD_WIDTH}, as all released are"
        )
    hidden = vote(state, r"layers\.\d+\.ffn\.layers\.0\.0\.", 0, 4 * width)
    ratio = hidden / width
    if int(width * ratio) < hidden:  # rounded down
        ratio = math.nextafter(ratio, math.inf)
    return max(count(state, r"layers\.(\d+)\."), 1), width // HEAD_WIDTH, ratio


def vit_config(state: State, name: str, bands: int) -> VitConfig:
    """Sizes of an `s2` or `s1` backbone; `bands` where the kernel is missing.

    Raises:
        ValueError: a position table that is of no square grid, or widths without heads.
    """
    width = vote(state, r"layers\.\d+\.ln[12]\.", 0, 1024)
    depth, heads, ratio = _layers(state, width, name)
    table = state.get("pos_embed")
    entries = 257 if table is None or table.ndim != 3 else table.shape[1]
    with_class = math.isqrt(entries) ** 2 != entries or entries == 0
    grid = (16, 16) if table is None else _square(table, name, "pos_embed", int(with_class))
    return VitConfig(
        bands=vote(state, r"patch_embed\.projection\.weight$", 1, bands),
        width=width,
        depth=depth,
        heads=heads,
        ratio=ratio,
        patch=vote(state, r"patch_embed\.projection\.weight$", 2, 4),
        position_grid=grid,
        class_position=with_class,
        final_norm=any(key.startswith("ln1.") for key in state),
        outputs=last_of_quarters(depth),
    )


def fusion_config(state: State, name: str) -> FusionConfig:
    """Sizes of the fusion transformer.

    Raises:
        ValueError: widths without heads.
    """
    width = vote(state, r"layers\.\d+\.ln[12]\.", 0, 1024)
    depth, heads, ratio = _layers(state, width, name)
    in_width = vote(state, r"porj_linear\.weight$", 1, 2816)
    return FusionConfig(in_width=in_width, width=width, depth=depth, heads=heads, ratio=ratio)


def up_head_config(state: State, _: str) -> UpHeadConfig:
    """Sizes of an up-sampling head, whose scale is the released one."""
    out = vote(state, r"decoder\.0\.", 0, 45056)
    scale = UpHeadConfig().scale
    in_width = vote(state, r"decoder\.0\.weight$", 1, 1024)
    return UpHeadConfig(in_width=in_width, out_width=max(out // scale**2, 1))


SIZES: Mapping[str, Callable[[State, str], Config]] = {
    "hr": swin_config,
    "s2": lambda state, name: vit_config(state, name, 10),
    "s1": lambda state, name: vit_config(state, name, 2),
    "fusion": fusion_config,
    "up_s2": up_head_config,
    "up_s1": up_head_config,
}
"""What tells each part's sizes."""
