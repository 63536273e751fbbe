"""The vectors of a labelled set, computed once.

Legend: N images, C bands, H W pixels, D width.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from skysense.data.image_files import Image
from skysense.data.labelled import LabelledSet
from skysense.models.embedding import to_series
from skysense.sensors import get_sensor

Vectors = npt.NDArray[np.float32]

_BATCHES_READ = 8


class Embedder(Protocol):
    """Anything that turns images into vectors, such as a model of either family."""

    def embed(
        self,
        images: Sequence[Image],
        sensor: str,
        bands: Sequence[str] | None = None,
        batch_size: int = 16,
        *,
        least_size: int | None = None,
    ) -> Vectors:
        """`(C, H, W)` each to `(N, D)`."""
        ...


def fingerprint(model: nn.Module) -> str:
    """A hash of configuration and weights; ask before the model is packed."""
    digest = hashlib.sha256(f"{type(model).__name__} {getattr(model, 'config', None)}".encode())
    for key, value in model.state_dict().items():
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True)
class VectorCache:
    """A folder of vectors computed before, found by model, images, sensor, bands and size."""

    folder: Path
    """Made if need be."""
    model: str
    """`fingerprint` of the model."""

    def path(
        self,
        labelled: LabelledSet,
        sensor: str,
        bands: Sequence[str] | None,
        least_size: int | None = None,
    ) -> Path:
        """Where the vectors of a set are; other files, or newer ones, are elsewhere."""
        digest = hashlib.sha256(f"{self.model} {sensor} {bands} {least_size}".encode())
        states = {path: path.stat() for path in {file.path for file in labelled.files}}
        for file in labelled.files:
            state = states[file.path]
            digest.update(f"{file} {state.st_size} {state.st_mtime_ns}".encode())
        return self.folder / f"{labelled.name}-{digest.hexdigest()[:20]}.npy"


def embed_set(
    model: Embedder,
    labelled: LabelledSet,
    sensor: str,
    bands: Sequence[str] | None = None,
    batch_size: int = 32,
    cache: VectorCache | None = None,
    advance: Callable[[int], None] | None = None,
    least_size: int | None = None,
) -> Vectors:
    """One vector for each image of a set.

    Args:
        model: anything with `embed`.
        labelled: the images.
        sensor: name of the sensor card.
        bands: names of their bands; default: those the files give, else the card's in its order.
        batch_size: images computed at a time, all of one size.
        cache: where to look first, and to keep the result.
        advance: told how many images were done.
        least_size: what small images are enlarged to; default: the model's own choice.

    Returns:
        `(N, D)` float32.

    Raises:
        ValueError: an image cannot be read or does not fit the card; the message names it.
    """
    bands = labelled.bands if bands is None else tuple(bands)
    kept = cache and cache.path(labelled, sensor, bands, least_size)
    if kept and kept.is_file():
        stored: Vectors = np.load(kept, allow_pickle=False)
        if advance:
            advance(len(labelled))
        return stored
    parts = []
    for start in range(0, len(labelled), _BATCHES_READ * batch_size):
        indices = range(start, min(start + _BATCHES_READ * batch_size, len(labelled)))
        parts.append(
            _embed_some(model, labelled, indices, sensor, bands, batch_size, advance, least_size)
        )
    vectors = np.concatenate(parts)
    if kept:
        _save(vectors, kept)
    return vectors


def _embed_some(
    model: Embedder,
    labelled: LabelledSet,
    indices: Sequence[int],
    sensor: str,
    bands: Sequence[str] | None,
    batch_size: int,
    advance: Callable[[int], None] | None,
    least_size: int | None,
) -> Vectors:
    """Images of one size together, so that none is padded; vectors in the order of `indices`."""
    images = [labelled.read(i) for i in indices]
    asked = {} if least_size is None else {"least_size": least_size}  # of those that know of one
    sizes: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(position)
    order, vectors = [], []
    for positions in sizes.values():
        for start in range(0, len(positions), batch_size):
            chosen = positions[start : start + batch_size]
            batch = [images[i] for i in chosen]
            try:
                vectors.append(model.embed(batch, sensor, bands, batch_size, **asked))
            except ValueError as error:
                files = [labelled.files[indices[i]] for i in chosen]
                raise _named(error, batch, files, sensor, bands) from None
            order.extend(chosen)
            if advance:
                advance(len(chosen))
    return np.concatenate(vectors)[np.argsort(order)]


def _named(
    error: ValueError,
    images: Sequence[Image],
    files: Sequence[object],
    sensor: str,
    bands: Sequence[str] | None,
) -> ValueError:
    """The same error with the file that it is about."""
    card = get_sensor(sensor)
    for image, file in zip(images, files, strict=True):
        try:
            if not bool(to_series(image, card, bands).mask.any()):
                return ValueError(f"{file} holds no valid pixel")
        except ValueError as own:
            return ValueError(f"{file}: {own}")
    return error


def _save(vectors: Vectors, path: Path) -> None:
    """Write under a temporary name and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
