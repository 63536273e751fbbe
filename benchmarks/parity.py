"""Replay reference cases of the released SkySense modules and print the worst error of each.

A case is `NAME.safetensors` with `state.<official key>`, `input.<name>` and `output[.i[.j]]`, and
`NAME.json` with the official constructor's arguments. Tolerances: 2e-4 for Swin, 2e-5 for the rest.
Run: python benchmarks/parity.py FOLDER
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import finish
from safetensors.torch import load_file
from torch import Tensor, nn

from skysense.hub.loading import load_strictly
from skysense.hub.released import FUSION, SWIN, UP_HEAD, VIT, rename
from skysense.models.fusion import FusionTransformer
from skysense.models.skysense_v1.config import SwinConfig, VitConfig
from skysense.models.skysense_v1.swin import SwinBackbone
from skysense.models.skysense_v1.vit import UpHead, VisionTransformer

Outputs = dict[str, Tensor]
SWIN_HUGE = {
    "embed_dims": 352,
    "depths": [2, 2, 18, 2],
    "num_heads": [8, 16, 32, 64],
    "extra_norm_every_n_blocks": 6,
}


def pair(value: int | list[int]) -> tuple[int, int]:
    """A number or a pair as a pair."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def per_stage(value: int | list[int], stages: int) -> tuple[int, ...]:
    """A number or a list as one number a stage."""
    return (value,) * stages if isinstance(value, int) else tuple(value)


def swin(facts: dict[str, Any], state: dict[str, Tensor], inputs: Outputs) -> Outputs:
    """The `hr` backbone."""
    given = facts["config"]
    arch = given["arch"] if isinstance(given.get("arch"), dict) else SWIN_HUGE
    stages = len(arch["depths"])
    patch = given.get("patch_size", 4)
    merging = (given.get("stage_cfgs") or {}).get("downsample_cfg", {})
    side = pair(given.get("img_size", 224))
    config = SwinConfig(
        bands=given.get("in_channels", 3),
        width=arch["embed_dims"],
        depths=tuple(arch["depths"]),
        heads=tuple(arch["num_heads"]),
        windows=per_stage(given.get("window_size", 8), stages),
        pretrained_windows=per_stage(given.get("pretrained_window_sizes", 0), stages),
        extra_norm_every=arch.get("extra_norm_every_n_blocks", 0),
        outputs=tuple(given.get("out_indices", (stages - 1,))),
        keep_shift=given.get("pad_small_map", False),
        norm_before_merging=not merging.get("is_post_norm", True),
        position_grid=(side[0] // patch, side[1] // patch)
        if given.get("use_abs_pos_embed")
        else None,
        patch=patch,
    )
    model = loaded(SwinBackbone(config), rename(state, SWIN))
    maps = model(inputs["image"])
    return {str(i): x.permute(0, 3, 1, 2) for i, (x, _) in enumerate(maps)}


def vit(facts: dict[str, Any], state: dict[str, Tensor], inputs: Outputs) -> Outputs:
    """An `s2` or `s1` backbone."""
    given = facts["config"]
    depth, patch = given.get("num_layers", 24), given.get("patch_size", 4)
    outputs = given.get("out_indices", -1)
    outputs = (outputs,) if isinstance(outputs, int) else tuple(outputs)
    side = pair(given.get("img_size", 64))
    grid = (side[0] // patch, side[1] // patch)
    config = VitConfig(
        bands=given.get("in_channels", 10),
        width=given.get("embed_dims", 1024),
        depth=depth,
        heads=given.get("num_heads", 16),
        ratio=given.get("mlp_ratio", 4),
        patch=patch,
        position_grid=grid,
        class_position=state["pos_embed"].shape[1] != grid[0] * grid[1],
        class_token=given.get("with_cls_token", True),
        eps=given.get("norm_cfg", {}).get("eps", 1e-5),
        final_norm=given.get("final_norm", False),
        resize=given.get("interpolate_mode", "bicubic"),
        outputs=tuple(i % depth for i in outputs),
    )
    model = loaded(VisionTransformer(config, resize_by_count=True), rename(state, VIT))
    found: Outputs = {}
    for i, (x, vector, _) in enumerate(model(inputs["image"])):
        if given.get("output_cls_token"):
            found[f"{i}.0"], found[f"{i}.1"] = x.permute(0, 3, 1, 2), vector
        else:
            found[str(i)] = x.permute(0, 3, 1, 2)
    return found


def fusion(facts: dict[str, Any], state: dict[str, Tensor], inputs: Outputs) -> Outputs:
    """The fusion transformer, with the released code's choices of what to return."""
    given, call = facts["config"], facts.get("call_kwargs", {})
    dims = given.get("input_dims", 2816), given.get("embed_dims", 1024)
    model = FusionTransformer(
        *dims,
        given.get("num_layers", 24),
        given.get("num_heads", 16),
        ratio=given.get("mlp_ratio", 4),
        eps=given.get("norm_cfg", {}).get("eps", 1e-5),
    )
    renamed = rename(state, FUSION)
    loaded(model, {**renamed, "calendar": torch.zeros(366, dims[0])})
    x = model.proj(inputs["tokens"])
    with_class = given.get("with_cls_token", True)
    class_out = given.get("output_cls_token", True)
    if with_class and class_out and not call.get("require_two") and not call.get("require_feat"):
        everywhere = torch.ones(x.shape[:2], dtype=torch.bool)
        return {"final": model.encode(x, everywhere)}
    if with_class:
        x = torch.cat([model.extra_token.expand(x.shape[0], -1, -1), x], 1)
    found: Outputs = {}
    for i, layer in enumerate(model.layers):
        x = layer(x)
        if call.get("require_feat"):
            found[f"block.{i}"] = x
    if with_class:
        x = x[:, :2] if call.get("require_two") else x[:, 0] if class_out else x[:, 1:]
    return {**found, "final": x}


def up_head(facts: dict[str, Any], state: dict[str, Tensor], inputs: Outputs) -> Outputs:
    """An up-sampling head."""
    given = facts["config"]
    model = UpHead(given["in_dim"], given["out_dim"], given.get("up_scale", 4))
    return {"": loaded(model, rename(state, UP_HEAD))(inputs["x"])}


def loaded(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load strictly and switch to evaluation."""
    load_strictly(model, state, "the case")
    return model.eval()


MODULES: dict[str, tuple[Callable[..., Outputs], float]] = {
    "SwinTransformerV2": (swin, 2e-4),
    "VisionTransformer": (vit, 2e-5),
    "TransformerEncoder": (fusion, 2e-5),
    "UPHead": (up_head, 2e-5),
}
"""What replays each official module, and its tolerance."""


@torch.inference_mode()
def replay(path: Path) -> tuple[float, float]:
    """Worst absolute error of a case, and its tolerance.

    Raises:
        ValueError: an unknown module, or outputs that do not match the case's.
    """
    facts = json.loads(path.with_suffix(".json").read_text())
    if facts["module"] not in MODULES:
        raise ValueError(f"{path.name}: unknown module {facts['module']}")
    build, tolerance = MODULES[facts["module"]]
    tensors = load_file(path)
    parts: dict[str, Outputs] = {"state": {}, "input": {}, "output": {}}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        parts[kind][name] = value
    found = build(facts, parts["state"], parts["input"])
    if found.keys() != parts["output"].keys():
        raise ValueError(
            f"{path.name}: outputs {sorted(found)}, expected {sorted(parts['output'])}"
        )
    errors = []
    for name, expected in parts["output"].items():
        if found[name].shape != expected.shape:
            raise ValueError(f"{path.name}: {name} is {found[name].shape}, not {expected.shape}")
        errors.append(float((found[name] - expected).abs().max()))
    return max(errors), tolerance


def main() -> None:
    """Replay every case of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("SKYSENSE_PARITY")
    parser.add_argument("folder", type=Path, nargs="?", default=default and Path(default))
    parser.add_argument("--no-save", action="store_true", help="do not keep the result")
    options = parser.parse_args()
    if options.folder is None or not options.folder.is_dir():
        parser.error("give the folder of reference cases (or name it in SKYSENSE_PARITY)")
    results: dict[str, Any] = {}
    for path in sorted(options.folder.glob("*.safetensors")):
        try:
            error, tolerance = replay(path)
            results[path.stem] = {"error": error, "tolerance": tolerance}
            print(f"{'ok  ' if error <= tolerance else 'FAIL'} {path.stem:28} {error:.2e}")
        except (ValueError, KeyError, RuntimeError) as error:
            results[path.stem] = {"problem": str(error)}
            print(f"FAIL {path.stem:28} {error}")
    passed = bool(results) and all(
        "error" in case and case["error"] <= case["tolerance"] for case in results.values()
    )
    finish("parity", {"cases": results}, passed, save=not options.no_save)


if __name__ == "__main__":
    main()
