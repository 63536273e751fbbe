"""Randomness in space: smooth fields, and numbers that depend on integer coordinates alone.

Legend: H W pixels.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.data.synthetic.classes import FloatArray


def smooth_noise(
    shape: tuple[int, int], cell: float, rng: np.random.Generator, octaves: int = 1
) -> FloatArray:
    """A smooth random field of mean 0 and standard deviation 1.

    Args:
        shape: (H, W) in pixels.
        cell: Size of the coarsest structure in pixels.
        rng: Where the random numbers come from.
        octaves: How many times structure of half the size and half the height is added.

    Returns:
        (H, W) float32: a cubic B-spline through random nodes, so without visible grid lines.

    Source: *ours*.
    """
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        nodes = rng.standard_normal([int(n / step) + 4 for n in shape], dtype=np.float32)
        rows = _spline(nodes, shape[0], step)  # (H, nodes across)
        total += 0.5**octave * _spline(rows.T, shape[1], step).T
    total -= total.mean()
    total /= max(float(total.std()), 1e-6)
    return total


def _spline(nodes: FloatArray, length: int, step: float) -> FloatArray:
    """(n, m) nodes `step` pixels apart -> (length, m) values of the uniform cubic B-spline."""
    position = np.arange(length) / step
    first = position.astype(np.intp)
    t = (position - first).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    values = np.zeros((length, nodes.shape[1]), np.float32)
    for k, weight in enumerate(weights):
        values += (weight / 6)[:, None] * nodes[first + k]
    return values


def hash_unit(salt: int, *keys: npt.NDArray[Any]) -> FloatArray:
    """A random number in [0, 1) for every combination of integer keys.

    Args:
        salt: Which of the many independent tables of numbers to use.
        keys: Arrays of whole numbers (of any type) that broadcast together.

    Returns:
        float32 of the broadcast shape; equal keys give equal numbers.

    Source: *ours*; the mixing steps are those of integer hashes such as `lowbias32`.
    """
    value: npt.NDArray[np.uint32] = np.full(1, salt, np.uint32)
    for key in keys:
        value = value ^ key.astype(np.int32).view(np.uint32)
        for multiplier in (0x7FEB352D, 0x846CA68B):
            value = (value ^ (value >> np.uint32(16))) * np.uint32(multiplier)
        value = value ^ (value >> np.uint32(16))
    return (value >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
