"""The house rules that a machine can read from the source: layers, bans, sizes, docstrings.

A module imports only from a strictly lower level, or from its own sub-package; an import inside a
function counts like any other, and so does a string that names a module of ours.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "skysense"

LEVELS: dict[str, int] = {
    # 0 vocabulary: plain data and arithmetic
    "sensors": 0,
    "config": 0,
    "_optional": 0,
    "geo": 0,
    # 1 types and bricks
    "sample": 1,
    "layers": 1,
    # 2 siblings: what is computed, what is read, how it is trained
    "models": 2,
    "data": 2,
    "engine": 2,
    # 3 weights
    "hub": 3,
    # 4 the uses, and the public face, which offers levels 0 to 3
    "pretrain": 4,
    "tasks": 4,
    "inference": 4,
    "search": 4,
    "serve": 4,
    "export": 4,
    "__init__": 4,
    # 5 surface
    "cli": 5,
    # 6 `python -m skysense`, which starts cli
    "__main__": 6,
}
"""The layer of every module and sub-package directly under `skysense`."""

BANNED = {
    "lightning",
    "mmcv",
    "mmengine",
    "open_clip",
    "pytorch_lightning",
    "timm",
    "torchvision",
}
"""Never imported anywhere: they break installs, or break whoever looks for them."""

KEPT_OUT: dict[str, set[str]] = {
    "geo": {"torch"},
    "sensors": {"torch"},
    "layers": {"rasterio"},
    "models": {"rasterio"},
}
"""What one part in particular must do without: vocabulary knows no torch, models see no files."""

MAX_LINES = 600
MAX_PUBLIC_NAMES = 20

IMPORTING_CALLS = {"__import__", "import_module", "require"}
OWN_MODULE = re.compile(r"skysense(\.\w+)+(:\w+)?")

FILES = sorted(PACKAGE.rglob("*.py"))


def own_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported by `tree`, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in IMPORTING_CALLS:
                yield node.lineno, str(node.args[0].value)
        elif isinstance(node, ast.Constant) and OWN_MODULE.fullmatch(str(node.value)):
            yield node.lineno, str(node.value).partition(":")[0]


def part_of(module: str) -> str:
    """The layer-table name of a dotted module: `skysense.geo.grid` belongs to `geo`.

    A name straight from the root, such as `from skysense import load`, belongs to `__init__`.
    """
    name = [*module.split("."), "__init__"][1]
    is_part = name in LEVELS or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()
    return name if is_part else "__init__"


def violations(source: str, part: str) -> list[str]:
    """Each rule of imports that `source`, a file of `part`, breaks, with its line."""
    if part not in LEVELS:
        return [f"`{part}` has no layer: give it one in LEVELS of tests/test_layering.py"]
    found = []
    for line, module in own_imports(ast.parse(source)):
        top = module.split(".")[0]
        if module.startswith("."):
            found.append(f"line {line}: relative import of `{module}`: write `skysense...`")
        elif top in BANNED:
            found.append(f"line {line}: `{top}` is banned from the package")
        elif top in KEPT_OUT.get(part, ()):
            found.append(f"line {line}: `{part}` does without `{top}`")
        elif top == "skysense" and (other := part_of(module)) != part:
            if other not in LEVELS:
                found.append(f"line {line}: `{other}` has no layer: give it one in LEVELS")
            elif LEVELS[other] >= LEVELS[part]:
                found.append(
                    f"line {line}: `{part}` (level {LEVELS[part]}) imports `{module}` "
                    f"(level {LEVELS[other]}): only lower levels may be imported"
                )
    return list(dict.fromkeys(found))


def part_of_file(path: Path) -> str:
    """The layer-table name of a file of the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def in_package(path: Path) -> str:
    """A short test name for a file of the package."""
    return str(path.relative_to(PACKAGE))


def test_the_package_is_found():
    assert PACKAGE / "__init__.py" in FILES, f"no package at {PACKAGE}"


@pytest.mark.parametrize("path", FILES, ids=in_package)
def test_imports_only_from_lower_levels(path):
    broken = violations(path.read_text(encoding="utf-8"), part_of_file(path))

    assert not broken, "\n".join([str(path), *broken])


@pytest.mark.parametrize("path", FILES, ids=in_package)
def test_file_is_short_documented_and_in_a_package(path):
    text = path.read_text(encoding="utf-8")

    assert text.count("\n") <= MAX_LINES, f"{path}: over {MAX_LINES} lines, cut it in two"
    assert ast.get_docstring(ast.parse(text)), f"{path}: say in a docstring what the file is for"
    assert (path.parent / "__init__.py").is_file(), f"{path.parent}: without __init__.py"


def test_public_face_is_small():
    import skysense

    names = skysense.__all__

    assert len(names) <= MAX_PUBLIC_NAMES, f"{len(names)} public names: {', '.join(names)}"
    missing = [name for name in names if not hasattr(skysense, name)]
    assert not missing, f"in skysense.__all__, but cannot be had: {', '.join(missing)}"


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("models", "import numpy\nfrom skysense.layers.mlp import Mlp"),
        ("models", "from skysense.models.heads import Head"),
        ("inference", "from skysense import geo, models"),
        ("cli", "import skysense"),
        ("cli", "COMMANDS = {'embed': 'skysense.inference.embed:command'}"),
        ("__main__", "from skysense.cli import main"),
        ("__init__", "def __getattr__(name):\n    from skysense.hub import load"),
        ("data", "import timmy, torch"),
    ],
)
def test_checker_allows(part, source):
    assert violations(source, part) == []


@pytest.mark.parametrize(
    ("part", "source", "message"),
    [
        ("models", "from skysense.data import read", "line 1: `models`"),
        ("models", "from skysense import data", "imports `skysense.data`"),
        ("geo", "def f():\n    import skysense.sample", "line 2: `geo`"),
        ("sample", "import skysense.layers", "only lower levels"),
        ("tasks", "from skysense import load", "imports `skysense.load`"),
        ("__init__", "_LAZY = {'embed': 'skysense.inference'}", "imports `skysense.inference`"),
        ("engine", "importlib.import_module('skysense.hub.load')", "`skysense.hub.load`"),
        ("data", "from . import readers", "relative import"),
        ("data", "from .readers import read", "relative import"),
        ("tasks", "from torchvision.ops import nms", "`torchvision` is banned"),
        ("tasks", "require('timm.models', 'extra')", "`timm` is banned"),
        ("sensors", "import torch.nn as nn", "`sensors` does without `torch`"),
        ("plots", "import numpy", "`plots` has no layer: give it one in LEVELS"),
    ],
)
def test_checker_refuses(part, source, message):
    assert message in "\n".join(violations(source, part))
