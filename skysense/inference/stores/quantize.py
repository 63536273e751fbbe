"""Bring the numbers of a map to the type they are stored in, and measure what int8 loses.

int8 is symmetric: `code = round(value / scale)` in -127...127 with one scale for each dimension,
and -128 for nothing. The scale is the largest magnitude of the dimension divided by 127, or a
quantile of its magnitudes where that at least halves the worst cosine loss on a sample of the
cells: where outliers stretch the scale for all. Else clipping hardly helps, and harms a few cells.
Mean and worst loss on a v2_nano map of a synthetic Sentinel-2 scene (192 dimensions, 4096 cells):

    largest magnitude   8.6e-6   1.6e-5
    quantile 0.9999     8.5e-6   3.2e-5
    quantile 0.999      9.0e-6   6.3e-4
    quantile 0.99       2.2e-5   2.5e-3

Source: ours. Legend: D dimensions, N cells.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from skysense.inference.stores.source import (
    FloatArray,
    MapSource,
    StoreType,
    cells,
)

INT8_NODATA = -128
_LARGEST = 127
_QUANTILES = (1.0, 0.9999, 0.999)
"""What is tried; 1 is the largest magnitude."""

_LEAST = 1e-12
"""Magnitudes below count as this, so that a dimension of zeros has a scale."""

_SAMPLE_CELLS = 1 << 16
_SAMPLE_BYTES = 16 << 20


@dataclass(frozen=True)
class Trial:
    """One way to choose the scales, and its loss on the sample."""

    quantile: float
    """Of the magnitudes of a dimension; 1 is the largest of all cells."""
    mean_loss: float
    """Mean of `1 - cosine` over the sample."""
    worst_loss: float
    """Largest of it."""


@dataclass(frozen=True)
class Quantization:
    """Scales of an int8 store, and what it loses."""

    scale: FloatArray
    """`(D,)`: a vector is `code * scale`."""
    quantile: float
    """What the scales were made from; 1 is the largest magnitude."""
    mean_loss: float
    """Mean of `1 - cosine` between a cell's vector and what is stored of it, over all cells."""
    worst_loss: float
    """Largest of it."""
    cells: int
    """Cells that were measured: all that hold a vector."""
    trials: tuple[Trial, ...]
    """What was compared, on a sample."""

    def encode(self, values: FloatArray) -> npt.NDArray[np.int8]:
        """`(D, ...)` to codes, -128 where the value is not finite."""
        return _encode(values, self.scale)

    def decode(self, codes: npt.NDArray[np.int8]) -> FloatArray:
        """Codes `(D, ...)` to values, NaN for -128."""
        return decode(codes, self.scale)

    def as_dict(self) -> dict[str, Any]:
        """What stores say of it, without the scales."""
        return {
            "quantile": self.quantile,
            "cosine_loss": {
                "mean": self.mean_loss,
                "worst": self.worst_loss,
                "cells": self.cells,
            },
            "compared": [
                {"quantile": t.quantile, "mean": t.mean_loss, "worst": t.worst_loss}
                for t in self.trials
            ],
        }


@dataclass(frozen=True)
class Coding:
    """How numbers are stored."""

    dtype: StoreType
    """Type of a number."""
    quantization: Quantization | None
    """For int8."""

    def encode(self, values: FloatArray) -> npt.NDArray[Any]:
        """`(D, ...)` in the stored type; NaN, or -128 for int8, where there is nothing.

        Raises:
            ValueError: a number is too large for half precision.
        """
        if self.quantization is not None:
            return self.quantization.encode(values)
        if self.dtype == "float32":
            return values.astype(np.float32, copy=False)
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16)
        if bool((np.isinf(stored) & np.isfinite(values)).any()):
            largest = float(np.nanmax(np.abs(values)))
            raise ValueError(
                f"the map reaches {largest:.4g}, half precision only 65504; store it as float32"
            )
        return stored

    def storage(self) -> dict[str, Any]:
        """What the provenance says of it; the scales as a list where there are some."""
        if self.quantization is None:
            return {"dtype": self.dtype}
        scale = [float(s) for s in self.quantization.scale]
        return {"dtype": self.dtype, "scale": scale, **self.quantization.as_dict()}


def make_coding(source: MapSource, dtype: StoreType) -> Coding:
    """Decide how a map is stored; int8 reads all of it twice, a band at a time.

    Raises:
        ValueError: an unknown type, or int8 of a map without a valid cell.
    """
    if dtype not in ("float16", "float32", "int8"):
        raise ValueError(f"a store holds float16, float32 or int8, not {dtype!r}")
    return Coding(dtype, quantize(source) if dtype == "int8" else None)


def quantize(source: MapSource) -> Quantization:
    """Choose scales for a map and measure their loss on all its cells.

    Raises:
        ValueError: no cell holds a vector.
    """
    largest, sample = _survey(source)
    scales = {quantile: _scale(largest, sample, quantile) for quantile in _QUANTILES}
    trials = tuple(_trial(sample, scale, quantile) for quantile, scale in scales.items())
    quantile = min(trials, key=lambda t: t.worst_loss * (1 if t.quantile == 1 else 2)).quantile
    scale = scales[quantile]
    total, worst, count = 0.0, 0.0, 0
    for band in cells(source):
        if band.rows.size:
            losses = cosine_loss(band.vectors, scale)
            total, count = total + float(losses.sum(dtype=np.float64)), count + losses.size
            worst = max(worst, float(losses.max()))
    return Quantization(scale, quantile, total / count, worst, count, trials)


def _trial(sample: FloatArray, scale: FloatArray, quantile: float) -> Trial:
    """What some scales lose on the sample."""
    losses = cosine_loss(sample, scale)
    return Trial(quantile, float(losses.mean(dtype=np.float64)), float(losses.max()))


def decode(codes: npt.NDArray[np.int8], scale: FloatArray) -> FloatArray:
    """Codes `(D, ...)` and scales `(D,)` to values, NaN for -128."""
    shaped = scale.reshape(-1, *[1] * (codes.ndim - 1))
    values = codes.astype(np.float32) * shaped
    return np.where(codes == INT8_NODATA, np.float32(np.nan), values).astype(np.float32)


def cosine_loss(vectors: FloatArray, scale: FloatArray) -> FloatArray:
    """`1 - cosine` between `(D, N)` and what is stored of it, `(N,)`.

    Of a vector of zeros nothing is lost; one that is stored as zeros loses 1. It is half the
    squared distance of the two unit vectors, which single precision holds where it is small.
    """
    stored = decode(_encode(vectors, scale), scale)
    first, some = _unit(vectors)
    second, kept = _unit(stored)
    loss: FloatArray = np.square(first - second).sum(axis=0) / np.float32(2)
    loss = np.where(some & kept, loss, some != kept).astype(np.float32)
    return loss


def _encode(values: FloatArray, scale: FloatArray) -> npt.NDArray[np.int8]:
    """`(D, ...)` to codes."""
    scaled = np.round(values / scale.reshape(-1, *[1] * (values.ndim - 1)))
    codes = np.clip(scaled, -_LARGEST, _LARGEST)
    return np.where(np.isfinite(values), codes, INT8_NODATA).astype(np.int8)


def _unit(vectors: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """`(D, N)` scaled to length 1, and which `(N,)` are not zero; squares do not overflow."""
    largest = np.asarray(np.abs(vectors).max(axis=0), np.float32)
    some: npt.NDArray[np.bool_] = np.asarray(largest > 0)
    scaled = vectors / np.where(some, largest, np.float32(1))
    lengths = np.where(some, np.sqrt(np.square(scaled).sum(axis=0)), np.float32(1))
    return (scaled / lengths).astype(np.float32, copy=False), some


def _survey(source: MapSource) -> tuple[FloatArray, FloatArray]:
    """Largest magnitude of each dimension `(D,)`, and evenly spread cells `(D, N)`.

    Raises:
        ValueError: no cell holds a vector.
    """
    height, width = source.grid.shape
    most = max(1, min(_SAMPLE_CELLS, _SAMPLE_BYTES // (4 * source.channels)))
    step = int(np.ceil(np.sqrt(height * width / most)))
    largest = np.full(source.channels, _LEAST, np.float32)
    spread, seen = [], None
    for band in cells(source):
        if not band.rows.size:
            continue
        largest = np.maximum(largest, np.abs(band.vectors).max(axis=1))
        spread.append(band.vectors[:, (band.rows % step == 0) & (band.cols % step == 0)])
        seen = band.vectors[:, :1] if seen is None else seen
    if seen is None:
        raise ValueError("no cell of the map holds a vector; there is nothing to store")
    sample = np.concatenate(spread, axis=1)
    return largest, sample if sample.size else seen


def _scale(largest: FloatArray, sample: FloatArray, quantile: float) -> FloatArray:
    """Scales `(D,)` of one trial."""
    reach = largest
    if quantile < 1:
        reach = np.maximum(np.quantile(np.abs(sample), quantile, axis=1), _LEAST)
    return (reach / _LARGEST).astype(np.float32)
