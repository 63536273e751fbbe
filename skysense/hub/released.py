"""Keys of the released SkySense code to ours and back: pure functions on names.

Nothing but names changes here, and derived buffers go. Source: docs/sources.md 6 [code].
"""

import re
from collections.abc import Mapping

from torch import Tensor

Rules = tuple[tuple[str, str], ...]

_LAYER = (
    (r"(layers\.\d+)\.ln1\.", r"\1.norm1."),
    (r"(layers\.\d+)\.ln2\.", r"\1.norm2."),
    (r"(layers\.\d+)\.attn\.attn\.in_proj_(weight|bias)", r"\1.attn.qkv.\2"),
    (r"(layers\.\d+)\.attn\.attn\.Wqkv\.(weight|bias)", r"\1.attn.qkv.\2"),
    (r"(layers\.\d+)\.attn\.attn\.out_proj\.", r"\1.attn.proj."),
    (r"(layers\.\d+)\.ffn\.layers\.0\.0\.", r"\1.mlp.fc1."),
    (r"(layers\.\d+)\.ffn\.layers\.1\.", r"\1.mlp.fc2."),
)

_LAYER_BACK = (
    (r"(layers\.\d+)\.norm1\.", r"\1.ln1."),
    (r"(layers\.\d+)\.norm2\.", r"\1.ln2."),
    (r"(layers\.\d+)\.attn\.qkv\.(weight|bias)", r"\1.attn.attn.in_proj_\2"),
    (r"(layers\.\d+)\.attn\.proj\.", r"\1.attn.attn.out_proj."),
    (r"(layers\.\d+)\.mlp\.fc1\.", r"\1.ffn.layers.0.0."),
    (r"(layers\.\d+)\.mlp\.fc2\.", r"\1.ffn.layers.1."),
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

SWIN_BACK = (
    (r"^tokenizer\.", r"patch_embed."),
    (r"^position$", r"absolute_pos_embed"),
    (r"^stages\.(\d+)\.(\d+)\.attn\.", r"stages.\1.blocks.\2.attn.w_msa."),
    (r"^stages\.(\d+)\.(\d+)\.mlp\.fc1\.", r"stages.\1.blocks.\2.ffn.layers.0.0."),
    (r"^stages\.(\d+)\.(\d+)\.mlp\.fc2\.", r"stages.\1.blocks.\2.ffn.layers.1."),
    (r"^stages\.(\d+)\.(\d+)\.(norm\d)\.", r"stages.\1.blocks.\2.\3."),
    (r"^norms\.(\d)\.", r"norm\1."),
)
"""From our names of the `hr` backbone to the official ones."""

VIT = (
    (r"^cls_token$", r"class_token"),
    (r"^pos_embed$", r"position"),
    (r"^patch_embed\.", r"tokenizer."),
    (r"^ln1\.", r"norm."),
    *_LAYER,
)
"""Renaming rules of the `s2` and `s1` backbones."""

VIT_BACK = (
    (r"^class_token$", r"cls_token"),
    (r"^position$", r"pos_embed"),
    (r"^tokenizer\.", r"patch_embed."),
    (r"^norm\.", r"ln1."),
    *_LAYER_BACK,
)
"""From our names of the `s2` and `s1` backbones to the official ones."""

FUSION = ((r"^cls_token$", r"extra_token"), (r"^porj_linear\.", r"proj."), *_LAYER)
"""Renaming rules of the fusion transformer."""

FUSION_BACK = ((r"^extra_token$", r"cls_token"), (r"^proj\.", r"porj_linear."), *_LAYER_BACK)
"""From our names of the fusion transformer to the official ones."""

UP_HEAD = ((r"^decoder\.0\.", r"conv."),)
"""Renaming rules of an up-sampling head."""

UP_HEAD_BACK = ((r"^conv\.", r"decoder.0."),)
"""From our names of an up-sampling head to the official ones."""

DERIVED = re.compile(r"(^|\.)(relative_coords_table|relative_position_index)$")
"""Buffers that are computed from the configuration."""


def rename(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Rename keys by the first rule that fits each; derived buffers are dropped.

    Args:
        state: official keys, without prefix.
        rules: one of `SWIN`, `VIT`, `FUSION`, `UP_HEAD`.
    """
    return {
        rename_key(key, rules): value for key, value in state.items() if not DERIVED.search(key)
    }


def rename_key(key: str, rules: Rules) -> str:
    """One key by the first rule that fits it, or as it was.

    Args:
        key: without prefix: official, or ours with rules that end in `_BACK`.
        rules: any of those above.
    """
    merging = re.match(r"^stages\.(\d+)\.downsample\.(.+)$", key)
    if merging and rules is SWIN:
        return f"merges.{int(merging[1]) - 1}.{merging[2]}"
    merging = re.match(r"^merges\.(\d+)\.(.+)$", key)
    if merging and rules is SWIN_BACK:
        return f"stages.{int(merging[1]) + 1}.downsample.{merging[2]}"
    for pattern, replacement in rules:
        changed, count = re.subn(pattern, replacement, key)
        if count:
            return changed
    return key


def is_official(key: str, rules: Rules, back: Rules) -> bool:
    """Whether a key is an official name that the rules know, and not ours or another's."""
    canonical = key.replace(".attn.attn.Wqkv.", ".attn.attn.in_proj_")
    renamed = rename_key(key, rules)
    return renamed != key and rename_key(renamed, back) == canonical
