"""The one place that words the error of a missing extra."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        module: dotted name to import, such as `"matplotlib.pyplot"`.
        extra: the extra of `pyproject.toml` that installs it.

    Raises:
        ValueError: it is not installed, or does not import.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # a broken torchvision raises RuntimeError
        raise ValueError(
            f"this needs `{module.split('.')[0]}`: run `pip install 'skysense[{extra}]'` ({error})"
        ) from error
