"""Our V1 modules against the released code's cost, full size, on the same weights.

Ours are timed in both forms: packed for inference, as `skysense embed` runs them, and plain, as
they are loaded. The limits are on the packed form.

Without the official modules at hand, the other side is `_reference_v1.py`, a plain transcription of
what they compute. With them on the Python path, name them and they are timed instead, for example
`--official-swin skysense.models.swin_transformer_v2:SwinTransformerV2`. Limits: `hr` at 256 x 256
and the `s2` transformer at 64 x 64 at most 0.75 of the reference's time, fusion with 31 tokens a
place at most 0.6; peak memory of `hr` at 512 x 512 in either form at most the weights plus a
quarter. The outputs of all sides are compared first. Run: python benchmarks/v1_vs_reference.py
"""

import argparse
import copy
import importlib
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import _reference_v1 as reference_v1
import torch
from _common import alternate, finish, paired_ratio
from torch import Tensor

from skysense.hub import pack
from skysense.hub.loading import load_strictly
from skysense.hub.released import SWIN, VIT, rename
from skysense.models.fusion import FusionTransformer
from skysense.models.skysense_v1 import (
    V1_CONFIGS,
    SkySenseV1,
    SwinBackbone,
    SwinConfig,
    UpHead,
    VisionTransformer,
    VitConfig,
)

LIMITS = {"hr": 0.75, "s2": 0.75, "fusion": 0.6}


def official(name: str, **arguments: Any) -> torch.nn.Module:  # noqa: ANN401
    """Build an official module, `package.module:Class`."""
    module, _, cls = name.partition(":")
    built: torch.nn.Module = getattr(importlib.import_module(module), cls)(**arguments)
    built.train(False)  # its own `.eval()` returns None
    return built


def compare(
    name: str,
    packed: Callable[[], Tensor],
    plain: Callable[[], Tensor],
    theirs: Callable[[], Tensor],
) -> dict[str, Any]:
    """Check that all agree, then time each of our forms in turn with theirs."""
    expected = theirs()
    errors = [float((ours() - expected).abs().max()) for ours in (packed, plain)]
    if not max(errors) <= TOLERANCE:
        raise SystemExit(f"{name}: the outputs differ by {errors}, at most {TOLERANCE} is expected")
    fast, reference = alternate(packed, theirs, ROUNDS[name])
    slow, again = alternate(plain, theirs, ROUNDS[name])
    ratio, plain_ratio = paired_ratio(fast, reference), paired_ratio(slow, again)
    print(f"{name}: packed {ratio:.3f} {fast}, plain {plain_ratio:.3f} {slow}")
    print(f"{name}: error {max(errors):.1e}, reference {reference} {again}")
    return {
        "packed_s": round(statistics.median(fast), 3),
        "plain_s": round(statistics.median(slow), 3),
        "reference_s": round(statistics.median([*reference, *again]), 3),
        "ratio": round(ratio, 3),
        "plain_ratio": round(plain_ratio, 3),
        "limit": LIMITS[name],
        "error": max(errors),
    }


TOLERANCE = 2e-4
ROUNDS = {"hr": 5, "s2": 5, "fusion": 3}


def hr(name: str | None) -> dict[str, Any]:
    """Swin V2 Huge at 256 x 256."""
    model = SwinBackbone(SwinConfig(outputs=(3,))).eval()
    x = torch.randn(1, 3, 256, 256)

    def theirs() -> Tensor:
        return reference_v1.swin(model, x)

    if name is not None:
        other = official(name, arch="huge", out_indices=(3,))
        load_strictly(model, rename(other.state_dict(), SWIN), "official")

        def theirs() -> Tensor:
            return other(x)[-1].permute(0, 2, 3, 1)

    packed = pack(copy.deepcopy(model))
    return compare("hr", lambda: packed(x)[0][0], lambda: model(x)[0][0], theirs)


def s2(name: str | None) -> dict[str, Any]:
    """ViT-L at 64 x 64."""
    model = VisionTransformer(VitConfig(outputs=(23,))).eval()
    torch.nn.init.normal_(model.position, std=0.02)
    x = torch.randn(1, 10, 64, 64)

    def theirs() -> Tensor:
        return reference_v1.vit(model, x)

    if name is not None:
        other = official(name, img_size=64, patch_size=4, in_channels=10, embed_dims=1024)
        load_strictly(model, rename(other.state_dict(), VIT), "official")

        def theirs() -> Tensor:
            return other(x)[-1].permute(0, 2, 3, 1)

    packed = pack(copy.deepcopy(model))
    return compare("s2", lambda: packed(x)[0][0], lambda: model(x)[0][0], theirs)


def fusion(places: int = 64) -> dict[str, Any]:
    """Up-sampling head of thirty acquisitions and 24 layers over 31 tokens a place."""
    config = V1_CONFIGS["v1_huge"]
    with torch.device("meta"):  # only its folding and projection are used
        whole = SkySenseV1(config)
    whole.fusion = FusionTransformer(2816, 1024, 24, 16).eval()
    whole.up_s2 = UpHead(1024, 2816).eval()
    side = int(places**0.5)
    hr_tokens = torch.randn(1, side, side, 1, 2816)
    maps = torch.randn(30, 1024, side // 4, side // 4)
    everywhere = torch.ones(places, 31, dtype=torch.bool)

    packed = pack(copy.deepcopy(whole.fusion))

    def ours(fusion: FusionTransformer) -> Tensor:
        weight, bias = whole._fold("s2", whole.up_s2)
        up = torch.nn.functional.pixel_shuffle(
            torch.nn.functional.conv2d(maps, weight, bias), whole.up_s2.scale
        )
        x = torch.cat([fusion.proj(hr_tokens), up.permute(2, 3, 0, 1)[None]], 3)
        return fusion.encode(x.flatten(0, 2), everywhere)

    def theirs() -> Tensor:
        up = whole.up_s2(maps).permute(2, 3, 0, 1)[None]  # (1, h, w, 30, 2816)
        tokens = torch.cat([hr_tokens, up], 3).flatten(0, 2)
        return reference_v1.fusion(whole.fusion, tokens)

    return compare("fusion", lambda: ours(packed), lambda: ours(whole.fusion), theirs)


def peak(packed: bool) -> dict[str, Any]:
    """Peak memory of `hr` at 512 x 512, in a process of its own."""
    packing = "from skysense.hub import pack\npack(model)\n" if packed else ""
    code = (
        "import torch, resource\n"
        "from skysense.models.skysense_v1 import SwinBackbone, SwinConfig\n"
        "model = SwinBackbone(SwinConfig(outputs=(3,))).eval()\n"
        "weights = sum(p.numel() * 4 for p in model.parameters())\n"
        f"{packing}"
        "with torch.inference_mode():\n"
        "    model(torch.randn(1, 3, 512, 512))\n"
        "print(weights, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    weights, most = map(int, done.stdout.split())
    return {
        "weights_mb": weights >> 20,
        "peak_mb": most >> 20,
        "ratio": round(most / weights, 3),
        "limit": 1.25,
    }


@torch.no_grad()  # not inference mode: what is made there cannot keep its folded weights
def main() -> None:
    """Measure memory, then time each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official-swin")
    parser.add_argument("--official-vit")
    options = parser.parse_args()
    if options.official_swin is None or options.official_vit is None:
        print("where no official module is named, the reference is our transcription of its code")
    torch.manual_seed(0)
    # A child counts what its parent held when it began, so memory comes first.
    memory = {"packed": peak(True), "plain": peak(False)}
    parts = {"hr": hr(options.official_swin), "s2": s2(options.official_vit), "fusion": fusion()}
    named = {"hr": options.official_swin, "s2": options.official_vit, "fusion": None}
    facts = {
        "reference": {key: value or "transcription" for key, value in named.items()},
        **parts,
        "memory": memory,
        "own_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
    passed = all(form["ratio"] <= form["limit"] for form in memory.values())
    passed &= all(part["ratio"] <= part["limit"] for part in parts.values())
    finish("v1_vs_reference", facts, passed)


if __name__ == "__main__":
    main()
