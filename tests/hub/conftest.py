"""Tiny SkySense V1 models, and checkpoints as the released code would write them.

The names here are written down anew from docs/sources.md 2 to 6, and not taken from the package.
"""

import re

import pytest
import torch

from skysense.layers.windows import WindowAttention
from skysense.models.skysense_v1 import SkySenseV1, SkySenseV1Config, SwinConfig, VitConfig

ROOTS = {
    "hr": "backbone_gep.",
    "s2": "backbone_s2.",
    "s1": "backbone_s1.",
    "up_s2": "head_s2.",
    "up_s1": "head_s1.",
    "fusion": "fusion.",
}
LAYER = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv.weight": "attn.attn.in_proj_weight",
    "attn.qkv.bias": "attn.attn.in_proj_bias",
    "attn.proj": "attn.attn.out_proj",
    "mlp.fc1": "ffn.layers.0.0",
    "mlp.fc2": "ffn.layers.1",
}
BLOCK = {"mlp.fc1": "ffn.layers.0.0", "mlp.fc2": "ffn.layers.1"}
SIMPLE = {
    "class_token": "cls_token",
    "extra_token": "cls_token",
    "position": "pos_embed",
    "proj.weight": "porj_linear.weight",
    "proj.bias": "porj_linear.bias",
    "conv.weight": "decoder.0.weight",
    "conv.bias": "decoder.0.bias",
}


def swapped(rest, names):
    """A key's end with the first of the names that it begins with replaced."""
    for ours, theirs in names.items():
        if rest.startswith(ours):
            return theirs + rest.removeprefix(ours)
    return rest


def official(key):
    """The released code's name of one of our keys, without the part's prefix."""
    if match := re.match(r"stages\.(\d+)\.(\d+)\.(.+)", key):
        rest = swapped(match[3], BLOCK)
        rest = f"attn.w_msa.{rest[5:]}" if rest.startswith("attn.") else rest
        return f"stages.{match[1]}.blocks.{match[2]}.{rest}"
    if match := re.match(r"merges\.(\d+)\.(.+)", key):
        return f"stages.{int(match[1]) + 1}.downsample.{match[2]}"
    if match := re.match(r"layers\.(\d+)\.(.+)", key):
        return f"layers.{match[1]}.{swapped(match[2], LAYER)}"
    if match := re.match(r"norms\.(\d)\.(.+)", key):
        return f"norm{match[1]}.{match[2]}"
    return SIMPLE.get(key, key.replace("tokenizer.", "patch_embed."))


def tiny_config(**changes):
    """All of the released make, small: heads of 64 channels, a third norm on the sixth block."""
    vit = VitConfig(width=64, depth=4, heads=1, outputs=(0, 1, 2, 3), position_grid=(4, 4))
    facts = {
        "hr": SwinConfig(width=8, depths=(1, 2, 6, 1), heads=(1, 2, 2, 4)),
        "s2": vit,
        "s1": vit.model_copy(update={"bands": 2}),
        "fusion_width": 64,
        "fusion_depth": 2,
        "fusion_heads": 1,
    }
    return SkySenseV1Config(**{**facts, **changes})


@pytest.fixture(scope="session")
def tiny():
    """`tiny(hr=SwinConfig(...), ...) -> SkySenseV1` in which no weight is trivial.

    Output norms of the first stages are identity, and 31 December is the same in leap years: no
    released file can say otherwise.
    """

    def build(**changes):
        generator = torch.Generator().manual_seed(3)
        model = SkySenseV1(tiny_config(**changes)).eval()
        with torch.no_grad():
            for name, value in model.named_parameters():
                noise = 0.2 * torch.randn(value.shape, generator=generator)
                value.copy_(1 + noise if "norm" in name and value.ndim == 1 else noise)
            for norm in list(model.hr.norms.values())[:-1]:
                norm.reset_parameters()
            model.fusion.calendar[365] = model.fusion.calendar[364]
        model.trained = True
        return model

    return build


@pytest.fixture(scope="session")
def model(tiny):
    """The usual tiny model."""
    return tiny()


@pytest.fixture(scope="session")
def official_part():
    """`official_part(model, "s2") -> dict` of one part with the released names, no prefix.

    With `tables`, the buffers are there that the released code computes and saves.
    """

    def write(model, part, tables=False):
        module = getattr(model, part)
        state = {official(key): value.clone() for key, value in module.state_dict().items()}
        state.pop("calendar", None)
        for name, attn in module.named_modules() if tables else ():
            if isinstance(attn, WindowAttention):
                root = official(name + ".") if name else name
                side = 2 * attn.window - 1
                state[root + "relative_coords_table"] = attn.offsets.view(1, side, side, 2).clone()
                state[root + "relative_position_index"] = attn.index.clone()
        return {key: v for key, v in state.items() if not re.match(r"norm[012]\.", key)}

    return write


@pytest.fixture(scope="session")
def merged(official_part):
    """`merged(model) -> dict` of the merged checkpoint, with what pre-training leaves in it."""

    def write(model):
        state = {
            root + key: value
            for part, root in ROOTS.items()
            for key, value in official_part(model, part).items()
        }
        state["ctpe"] = model.fusion.calendar[None, :365].detach().clone()
        state["backbone_gep.mask_token"] = torch.zeros(1, 1, 8)
        state["head_gep.mlp.0.weight"] = torch.zeros(3)
        state["head_fusion.last.weight"] = torch.zeros(3)
        state["glbank.prototypes"] = torch.zeros(3)
        return state

    return write
