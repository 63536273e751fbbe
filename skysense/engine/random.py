"""The state of every random generator of this process, as tensors."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_WORDS = 624  # of a Mersenne twister
_POSITION = _WORDS
_HAS_GAUSS = _WORDS + 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, the GPU's too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (the global one, which libraries may use)
    torch.manual_seed(seed)


def random_state() -> dict[str, Tensor]:
    """Where the generators of Python, NumPy, PyTorch and, if used, the current GPU stand."""
    _, words, gauss = random.getstate()
    legacy: Any = np.random.get_state()  # noqa: NPY002
    _, keys, position, has_gauss, cached = legacy
    state = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.tensor([*keys.tolist(), position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor(cached, dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Continue the generators where `random_state` found them."""
    gauss = state["python_gauss"].item()
    words = tuple(state["python"].tolist())
    random.setstate((3, words, None if np.isnan(gauss) else gauss))
    numbers = state["numpy"].numpy()
    np.random.set_state(  # noqa: NPY002
        (
            "MT19937",
            numbers[:_WORDS].astype(np.uint32),
            int(numbers[_POSITION]),
            int(numbers[_HAS_GAUSS]),
            float(state["numpy_gauss"]),
        )
    )
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
