"""What both families do around their backbones: pick what was seen, spread it back, meet on a grid.

Legend: B samples, T acquisitions, N = T of all modalities, C bands, H W pixels, h w cells, D width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from skysense.models.alignment import align
from skysense.models.features import Level
from skysense.models.normalize import normalize
from skysense.sample import Batch, ModalityBatch
from skysense.sensors import SENSORS


def check_valid(batch: Batch) -> None:
    """Refuse a batch without a single valid pixel.

    Raises:
        ValueError: there is none.
    """
    if not any(bool(part.mask.any()) for part in batch.modalities.values()):
        raise ValueError("the batch holds no valid pixel")


def check_bands(model: str, key: str, bands: int, part: ModalityBatch) -> None:
    """Refuse pixels of another number of bands than a backbone takes.

    Args:
        model: its name, for the message.
        key: the modality.
        bands: what the backbone takes.
        part: the modality of a batch.

    Raises:
        ValueError: they differ; it names the sensor cards that fit.
    """
    found = part.pixels.shape[2]
    if found == bands:
        return
    cards = [c.name for c in SENSORS.values() if c.modality == key and len(c.inputs) == bands]
    advice = f"choose the sensor card {' or '.join(cards)}" if cards else "use the backbone alone"
    raise ValueError(
        f"the `{key}` backbone of `{model}` takes {bands} bands, sensor "
        f"`{part.sensors[0]}` gives {found}: {advice}"
    )


def select_seen(part: ModalityBatch) -> tuple[Tensor, Tensor | None, Tensor]:
    """The acquisitions of a modality that hold anything at all, normalized.

    Returns:
        Pixels `(seen, C, H, W)`, their mask `(seen, H, W)` or `None` where all is valid, and which
        `(B T,)` were seen. Where none was, one empty image stands in for the shapes.
    """
    pixels = normalize(part).flatten(0, 1)  # (B T, C, H, W)
    mask = part.mask.flatten(0, 1)  # (B T, H, W)
    seen = mask.flatten(1).any(1)  # (B T,)
    if not bool(seen.all()):
        pixels, mask = pixels[seen], mask[seen]
    if not len(pixels):
        pixels = torch.zeros_like(part.pixels[0, :1])
        mask = torch.ones_like(part.mask[0, :1])
    return pixels, None if bool(mask.all()) else mask, seen


def spread(x: Tensor, valid: Tensor | None, seen: Tensor, shape: tuple[int, int]) -> Level:
    """Put maps back to their samples and dates; what was not seen is invalid.

    Args:
        x: `(seen, h, w, D)`.
        valid: `(seen, h, w)` bool or `None` for all.
        seen: `(B T,)` bool of `select_seen`.
        shape: `(B, T)`.
    """
    if valid is None:
        valid = x.new_ones(x.shape[:3], dtype=torch.bool)
    else:
        x = x * valid.unsqueeze(-1)
    if not bool(seen.all()):
        full = x.new_zeros(len(seen), *x.shape[1:])
        mask = valid.new_zeros(len(seen), *valid.shape[1:])
        places = seen.nonzero().squeeze(1)
        x = full.index_copy(0, places, x[: len(places)])
        valid = mask.index_copy(0, places, valid[: len(places)])
    return Level(x.unflatten(0, shape).permute(0, 1, 4, 2, 3), valid.unflatten(0, shape))


def finest_cells(cells: Mapping[str, Tensor]) -> Tensor:
    """`(B, 2)` cells of each sample's finest modality, of those of all modalities."""
    stacked = torch.stack(list(cells.values()))  # (modalities, B, 2)
    finest = stacked.prod(-1).argmax(0)  # (B,)
    return stacked.gather(0, finest[None, :, None].expand(1, -1, 2)).squeeze(0)


def meet(
    maps: Mapping[str, tuple[Tensor, Tensor]], cells: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Bring the maps of all modalities onto the finest of their grids, sample by sample.

    Args:
        maps: modality to values `(B, T, h, w, D)` and mask `(B, T, h, w)`; h and w differ.
        cells: modality to the cells `(B, 2)` that a sample's footprint spans, not rounded.

    Returns:
        `(B, N, h, w, D)` and `(B, N, h, w)` bool, modalities one after the other.
    """
    common = finest_cells(cells)
    height, width = common.ceil().max(0).values.long().tolist()
    aligned = [
        align(values, valid, cells[key], common, (height, width))
        for key, (values, valid) in maps.items()
    ]
    values, valid = zip(*aligned, strict=True)
    return torch.cat(values, 1), torch.cat(valid, 1)


def pool(fused: Tensor, valid: Tensor) -> Tensor:
    """Mean of `fused (B, h, w, D)` over its valid places `(B, h, w)`: `(B, D)`."""
    weight = valid.unsqueeze(-1).to(fused.dtype)
    return (fused * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
