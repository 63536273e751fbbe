"""The package imports without any extra, and its light parts without the heavy libraries.

Each test looks at a fresh interpreter, because this one has imported half the world already.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

NEVER = {"lightning", "mmcv", "mmengine", "open_clip", "pytorch_lightning", "timm", "torchvision"}
"""Libraries that no extra brings and that no file may need."""

COMMON = {"cv2", "scipy", "skimage", "sklearn", "torchaudio", "transformers"}
"""Libraries that are often lying around, so that an undeclared import would go unseen."""

IMPORT_NAMES = {"odc-stac": "odc", "pytest-xdist": "xdist"}
"""Distributions whose module is not their name with underscores."""

IMPORT_ALL = """
import importlib, pkgutil, sys

for name in {blocked!r}:
    sys.modules[name] = None  # makes `import name` raise ModuleNotFoundError

def fail(name):
    raise

import skysense

count = 0
for module in pkgutil.walk_packages(skysense.__path__, "skysense.", onerror=fail):
    if module.name != "skysense.__main__":  # importing it is running it
        importlib.import_module(module.name)
        count += 1
assert count > 0, "no module found"
"""

PRINT_LOADED = "import sys, {modules}; print(*{{name.split('.')[0] for name in sys.modules}})"


def optional_modules() -> set[str]:
    """Top-level modules of all extras of pyproject.toml, those for developers too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    names = {re.match(r"[\w.-]+", line)[0].lower() for extra in extras for line in extra}
    return {
        IMPORT_NAMES.get(name, name.replace("-", "_"))
        for name in names
        if not name.startswith("types-")
    }


def run(code: str) -> str:
    """What a fresh interpreter prints for `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(modules: str) -> set[str]:
    """Top-level names in `sys.modules` after importing `modules`."""
    return set(run(PRINT_LOADED.format(modules=modules)).split())


def test_extras_are_known():
    assert {"matplotlib", "odc", "pystac_client", "ray", "lancedb", "fastapi", "onnx"} < (
        optional_modules()
    )


def test_every_module_imports_without_extras():
    run(IMPORT_ALL.format(blocked=sorted(optional_modules() | NEVER | COMMON)))


def test_import_skysense_is_light():
    heavy = {"rasterio", "pyproj", "typer"} | optional_modules() | NEVER | COMMON

    assert not heavy & loaded_by("skysense")


def test_vocabulary_does_without_torch():
    assert not {"torch", "rasterio"} & loaded_by("skysense.sensors, skysense.geo")
