"""The released V1 modules: reference cases where they are at hand, recorded numbers everywhere.

The recorded numbers were made by these modules in the state in which they reproduced all reference
cases (worst error 8e-5 for Swin, 4e-6 for the rest).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from skysense.models.fusion import FusionTransformer
from skysense.models.skysense_v1 import (
    SwinBackbone,
    SwinConfig,
    UpHead,
    VisionTransformer,
    VitConfig,
)

ROOT = Path(__file__).parents[2]
CASES = Path(os.environ.get("SKYSENSE_PARITY", ROOT.parent / "shared" / "parity")) / "skysense"


@pytest.mark.skipif(not CASES.is_dir(), reason="the reference cases are not here")
def test_every_reference_case_is_reproduced():
    command = [sys.executable, str(ROOT / "benchmarks" / "parity.py"), str(CASES), "--no-save"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert len(result["cases"]) == len(list(CASES.glob("*.safetensors"))) > 0


def wave(shape, phase, scale=1.0):
    """Numbers that look random and are the same everywhere: no generator is involved."""
    count = torch.Size(shape).numel()
    steps = torch.arange(count, dtype=torch.float64) + phase
    return (scale * torch.sin(steps * 12.9898 + (steps % 7) * 78.233)).float().view(shape)


def filled(module):
    """Give every parameter non-trivial values that depend on its place alone."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(module.named_parameters()):
            value = wave(parameter.shape, 17 * i, 0.3)
            if name.endswith("logit_scale"):
                value = value + 2.0
                value.flatten()[0] = 6.0  # above the clamp
            elif "norm" in name and name.endswith("weight"):
                value = value + 1.0
            parameter.copy_(value)
    return module.eval()


def summary(x):
    """A handful of numbers that change with any change of arithmetic."""
    flat = x.flatten()
    picked = flat[:: max(1, len(flat) // 5)][:5]
    return [round(v, 4) for v in (*picked.tolist(), x.mean().item(), x.std().item())]


SWIN = {"bands": 3, "width": 8, "depths": (2, 2), "heads": (1, 2), "outputs": (0, 1)}
MODULES = {
    "swin_padded": lambda: filled(
        SwinBackbone(
            SwinConfig(
                **SWIN,
                windows=(4, 4),
                pretrained_windows=(0, 0),
                extra_norm_every=2,
                keep_shift=True,
            )
        )
    )(wave((1, 3, 37, 50), 1))[1][0],
    "swin_unshifted": lambda: filled(
        SwinBackbone(
            SwinConfig(**SWIN, windows=(4, 8), pretrained_windows=(0, 4), extra_norm_every=0)
        )
    )(wave((1, 3, 64, 48), 1))[1][0],
    "vit_resized": lambda: filled(
        VisionTransformer(
            VitConfig(bands=2, width=16, depth=2, heads=2, position_grid=(4, 4), outputs=(1,))
        )
    )(wave((1, 2, 21, 30), 2))[0][0],
    "fusion": lambda: filled(FusionTransformer(12, 16, 2, 2)).encode(
        wave((3, 5, 16), 3), torch.ones(3, 5, dtype=torch.bool)
    ),
    "up_head": lambda: filled(UpHead(6, 4))(wave((1, 6, 2, 3), 4)),
}
RECORDED = {
    "swin_padded": [-1.3958, -1.725, -1.12, -1.3873, -0.8268, -0.0044, 1.0502],
    "swin_unshifted": [-2.6201, 0.8911, -0.477, 0.8592, -2.4818, -0.0311, 1.1689],
    "vit_resized": [-2.9397, 4.7886, 1.3818, -3.2289, -2.6414, 0.0924, 2.5625],
    "fusion": [-1.6233, 5.5727, 0.9353, -1.946, -2.9968, 0.1133, 2.4157],
    "up_head": [-0.0575, -0.2024, 0.0718, 0.2612, 0.4601, -0.0101, 0.2483],
}


@pytest.mark.parametrize("name", MODULES)
@torch.no_grad()
def test_arithmetic_is_as_recorded(name):
    assert summary(MODULES[name]()) == pytest.approx(RECORDED[name], abs=5e-4)
