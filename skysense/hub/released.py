"""Keys of the released SkySense code to ours: pure functions on dictionaries of tensors.

Nothing but names changes here, and derived buffers go. Source: SPEC-V1 section 6 [code].
"""

import re
from collections.abc import Mapping

from torch import Tensor

_LAYER = (
    (r"(layers\.\d+)\.ln1\.", r"\1.norm1."),
    (r"(layers\.\d+)\.ln2\.", r"\1.norm2."),
    (r"(layers\.\d+)\.attn\.attn\.in_proj_(weight|bias)", r"\1.attn.qkv.\2"),
    (r"(layers\.\d+)\.attn\.attn\.Wqkv\.(weight|bias)", r"\1.attn.qkv.\2"),
    (r"(layers\.\d+)\.attn\.attn\.out_proj\.", r"\1.attn.proj."),
    (r"(layers\.\d+)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
    (r"(layers\.\d+)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
)

SWIN = (
    (r"^patch_embed\.", r"tokenizer."),
    (r"^absolute_pos_embed$", r"position"),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.", r"stages.\1.\2.attn."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.", r"stages.\1.\2.mlp.fc1."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.", r"stages.\1.\2.mlp.fc2."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.(norm\d)\.", r"stages.\1.\2.\3."),
    (r"^norm(\d)\.", r"norms.\1."),
)
"""Renaming rules of the `hr` backbone; merging is renamed with its stage, below."""

VIT = (
    (r"^cls_token$", r"class_token"),
    (r"^pos_embed$", r"position"),
    (r"^patch_embed\.", r"tokenizer."),
    (r"^ln1\.", r"norm."),
    *_LAYER,
)
"""Renaming rules of the `s2` and `s1` backbones."""

FUSION = ((r"^cls_token$", r"extra_token"), (r"^porj_linear\.", r"proj."), *_LAYER)
"""Renaming rules of the fusion transformer."""

UP_HEAD = ((r"^decoder\.0\.", r"conv."),)
"""Renaming rules of an up-sampling head."""

DERIVED = re.compile(r"(^|\.)(relative_coords_table|relative_position_index)$")
"""Buffers that are computed from the configuration."""


def rename(state: Mapping[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Rename keys by the first rule that fits each; derived buffers are dropped.

    Args:
        state: official keys, without prefix.
        rules: one of `SWIN`, `VIT`, `FUSION`, `UP_HEAD`.
    """
    return {_renamed(key, rules): value for key, value in state.items() if not DERIVED.search(key)}


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    """One key."""
    merging = re.match(r"^stages\.(\d+)\.downsample\.(.+)$", key)
    if merging and rules is SWIN:
        return f"merges.{int(merging[1]) - 1}.{merging[2]}"
    for pattern, replacement in rules:
        changed, count = re.subn(pattern, replacement, key)
        if count:
            return changed
    return key
