"""Plain arrays in, one vector an image out: the short way through any model.

Legend: N images, C bands, H W pixels, D width.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from skysense.models.enlarging import enlarge
from skysense.models.pooling import POOLINGS, Pooling, pool_features
from skysense.models.readout import Readout
from skysense.sample import (
    UNKNOWN_DAY,
    Batch,
    ModalityBatch,
    Sample,
    Series,
    collate,
    undated,
)
from skysense.sensors import EIGHT_BIT, Modality, SensorCard, find_bands, get_sensor, missing_bands

ImageLike = npt.NDArray[np.generic] | Tensor


def to_series(image: ImageLike, card: SensorCard, bands: Sequence[str] | None = None) -> Series:
    """Stored values of one image to a series of one undated acquisition.

    Args:
        image: `(C, H, W)`; NaN and the card's nodata value are missing.
        card: the sensor.
        bands: names of the C bands; default: the card's, in its order.

    Raises:
        ValueError: shape, bands or scaling do not fit the card.
    """
    pixels, mask = _to_physical(_as_array(image)[None], card, bands)
    return Series(torch.from_numpy(pixels), torch.from_numpy(mask), undated(1), card.name)


def to_batch(
    images: Sequence[ImageLike], card: SensorCard, bands: Sequence[str] | None = None
) -> Batch:
    """Stored values of N images to a batch: `to_series` and `collate`, at once where sizes agree.

    Raises:
        ValueError: as `to_series`.
    """
    arrays = [_as_array(image) for image in images]
    if len({(array.shape, array.dtype) for array in arrays}) > 1:
        return collate([Sample({card.modality: to_series(a, card, bands)}) for a in arrays])
    pixels, mask = _to_physical(np.stack(arrays), card, bands)
    count = len(arrays)
    part = ModalityBatch(
        pixels=torch.from_numpy(pixels).unsqueeze(1),
        mask=torch.from_numpy(mask).unsqueeze(1),
        days=torch.full((count, 1), UNKNOWN_DAY),
        sizes=torch.tensor(mask.shape[1:]).repeat(count, 1),
        sensors=(card.name,) * count,
    )
    return Batch({card.modality: part}, torch.full((count, 2), torch.nan), (None,) * count)


def _as_array(image: ImageLike) -> npt.NDArray[np.generic]:
    """NumPy's view of an image."""
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = image.float() if image.dtype == torch.bfloat16 else image  # unknown to NumPy
    if isinstance(image, np.ma.MaskedArray):
        return np.ma.filled(image.astype(np.float32), np.nan)
    return np.asarray(image)


def _to_physical(
    images: npt.NDArray[np.generic], card: SensorCard, bands: Sequence[str] | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Pixels `(N, K, H, W)` of the K channels of a card's modality, and mask `(N, H, W)`.

    Raises:
        ValueError: shape, bands or scaling do not fit the card.
    """
    if isinstance(bands, str):
        raise ValueError(f"`bands` is {bands!r}: give a list of names, one for each band")
    names = [band.name for band in card.bands] if bands is None else list(bands)
    if images.ndim != 4:
        raise ValueError(
            f"an image is an array (C, H, W) of numbers, here {len(names)} bands "
            f"({', '.join(names)}); got one of shape {images.shape[1:]}"
        )
    if images.shape[1] != len(names):
        last = images.shape[3] == len(names) != images.shape[1]
        hint = "bands come first: image.transpose(2, 0, 1)" if last else "name them with `bands`"
        raise ValueError(
            f"an image has shape {images.shape[1:]}, expected ({len(names)}, H, W) with bands "
            f"{', '.join(names)}; {hint}"
        )
    found = find_bands(card, names)
    missing = missing_bands(card, list(found))
    if missing:
        raise ValueError(
            f"sensor `{card.name}` needs {', '.join(missing)}; found {', '.join(names)}"
        )
    if 0 in images.shape[2:]:
        raise ValueError(f"an image is empty: it has shape {images.shape[1:]}")
    if np.iscomplexobj(images):
        raise ValueError(f"sensor `{card.name}` expects real numbers, got {images.dtype}")
    with np.errstate(over="ignore"):  # too large becomes infinite, and so missing
        stored = images[:, [found[band.name] for band in card.bands]].astype(np.float32)
    physical = card.to_physical(stored)
    mask = np.asarray((np.isfinite(stored) & np.isfinite(physical)).all(1))  # (N, H, W)
    if card.nodata is not None:  # as in a file: missing where all bands are
        mask &= (stored != card.nodata).any(1)
    if card.unit == EIGHT_BIT and not np.issubdtype(images.dtype, np.integer):
        _refuse_fractions(stored, card)
    low, high = card.plausible
    if not (mask.all() and low <= physical.min(initial=high) <= physical.max(initial=low) <= high):
        for image, valid in zip(physical, mask, strict=True):
            card.check_scale(image[:, valid], "an image")
    pixels = np.zeros((len(images), len(card.inputs), *mask.shape[1:]), np.float32)
    pixels[:, list(card.channels)] = np.where(mask[:, None], physical, 0)
    return pixels, mask


def _refuse_fractions(stored: npt.NDArray[np.float32], card: SensorCard) -> None:
    """Refuse images `(N, C, H, W)` of 8-bit brightness one of which was divided by 255.

    Raises:
        ValueError: so it is.
    """
    known = np.where(np.isfinite(stored), stored, 0)
    largest = known.max((1, 2, 3))
    fractions = (largest > 0) & (largest <= 1)
    if fractions.any() and (known[fractions] % 1).any():
        raise ValueError(
            f"the images hold numbers of 0 to 1, but sensor `{card.name}` expects {EIGHT_BIT} "
            f"of 0 to 255: give them times 255"
        )


@torch.no_grad()
def embed_images(
    model: torch.nn.Module,
    images: ImageLike | Sequence[ImageLike],
    sensor: str,
    bands: Sequence[str] | None = None,
    batch_size: int = 16,
    pooling: Pooling | None = None,
    least_size: int | None = None,
) -> npt.NDArray[np.float32]:
    """One pooled vector an image.

    Args:
        model: a model of either family; used in evaluation mode, on the device it is on.
        images: `(N, C, H, W)` or a list of `(C, H, W)`, stored values.
        sensor: name of the sensor card.
        bands: names of the C bands; default: the card's bands in its order.
        batch_size: images computed at a time; a batch of mixed sizes is padded and masked.
        pooling: how the features become a vector; default: by the model's read-out if it has one,
            else `fused`.
        least_size: pixels that images are enlarged to first where their longer side is shorter
            (bilinear), 0 for none; default: what the model's read-out was fitted with, else 0. Of
            four times the pixels they take four times as long.

    Returns:
        `(N, D)` float32.

    Raises:
        ValueError: images do not fit the card, one holds no valid pixel, or there is no such
            pooling or size.
    """
    card = get_sensor(sensor)
    if pooling is not None and pooling not in POOLINGS:
        raise ValueError(f"unknown pooling `{pooling}` (known: {', '.join(POOLINGS)})")
    readout = getattr(model, "readout", None) if pooling is None else None
    if readout is not None and card.modality not in readout.config.modalities:
        readout = None
    if least_size is None:
        least_size = own_least_size(model, card.modality)
    if getattr(images, "ndim", 4) == 3:
        raise ValueError("`images` is one image; pass a list, or (N, C, H, W)")
    if batch_size < 1:
        raise ValueError(f"`batch_size` is {batch_size}: give 1 or more")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    vectors = []
    try:
        for start in range(0, len(images), batch_size):
            chunk = [images[i] for i in _span(start, batch_size, images)]
            batch = to_batch(chunk, card, bands)
            seen = batch.modalities[card.modality].mask.flatten(1).any(1)
            if not bool(seen.all()):
                empty = (start + torch.nonzero(~seen).flatten()).tolist()
                raise ValueError(f"images {empty} hold no valid pixel")
            part = enlarge(batch.modalities[card.modality], least_size)
            batch = replace(batch, modalities={card.modality: part})
            features = model(batch.to(device))
            if isinstance(readout, Readout):
                vector = readout(features, card.modality)
            else:
                vector = pool_features(features, pooling or "fused", card.modality)
            vectors.append(vector.float().cpu().numpy())
    finally:
        model.train(was_training)
    if not vectors:
        raise ValueError("`images` is empty")
    return np.concatenate(vectors)


def own_least_size(model: torch.nn.Module, modality: Modality) -> int:
    """What a model enlarges a modality's small images to, where nothing else is asked for."""
    readout = getattr(model, "readout", None)
    return readout.config.least_sizes.get(modality, 0) if isinstance(readout, Readout) else 0


def _span(start: int, size: int, images: ImageLike | Sequence[ImageLike]) -> range:
    """Indices of one batch."""
    return range(start, min(start + size, len(images)))
