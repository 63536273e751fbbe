"""Draw the views of a batch.

Everything random about a view depends on the seed, the step, the sample's place in the global
batch and the number of the view alone.

Legend: B samples, T dates of the source, S dates of the view, C bands, H W pixels of the source,
h pixels along a side of the crop, M modalities.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from skysense.pretrain.views.boxes import draw_boxes, pull
from skysense.pretrain.views.config import ModalityConfig, OpticalConfig, S1Config, ViewConfig
from skysense.pretrain.views.dates import choose_dates, jitter_days, keep_modalities
from skysense.pretrain.views.geometry import View, Views
from skysense.pretrain.views.radiometry import change_echo, change_light, sensor_facts
from skysense.pretrain.views.randomness import Draws
from skysense.pretrain.views.resampling import axis_kernel, crop
from skysense.sample import UNKNOWN_DAY, Batch, ModalityBatch
from skysense.sensors import MODALITIES, get_sensor

_COVERAGE_CELLS = 16


@dataclass(frozen=True)
class _Source:
    """A modality of the batch, and what all its views need to know."""

    part: ModalityBatch
    dated: Tensor
    """`(B, T)` bool: anything was measured."""
    whole: bool
    """Each of those dates is valid all over its image; what an image is padded with has no weight
    in a view anyway."""
    facts: Tensor
    """Of `sensor_facts`."""
    lacking: bool
    """Some sensor lacks a channel."""


def make_views(batch: Batch, config: ViewConfig, seed: int, step: int, positions: Tensor) -> Views:
    """Draw the views of a batch, on the device it is on.

    Args:
        batch: the samples of this rank.
        config: which views.
        seed: of the run.
        step: of the run; other steps draw other views.
        positions: `(B,)` int64 place of each sample in the global batch.

    Returns:
        The views; row i of each is a view of sample i.
    """
    with torch.autocast(batch.device.type, enabled=False):  # half precision would blur values
        return _draw_views(batch, config, seed, step, positions.to(batch.device))


def _draw_views(batch: Batch, config: ViewConfig, seed: int, step: int, positions: Tensor) -> Views:
    """All views, one after the other."""
    sources = {key: _inspect(part) for key, part in batch.modalities.items()}
    footprint = _footprint(sources)
    coverage = None if all(s.whole for s in sources.values()) else _coverage(sources)
    views: list[View] = []
    for number in range(config.global_count + config.local_count):
        is_global = number < config.global_count
        draws = Draws(seed, step, number, positions)
        scale = config.global_scale if is_global else config.local_scale
        box = draw_boxes(draws, scale, config.aspect, footprint, coverage)
        if is_global and number and config.min_overlap:
            box = pull(box, views[0].box, config.min_overlap)
        views.append(_draw_view(batch, sources, config, draws, box, is_global))
    return Views(tuple(views[: config.global_count]), tuple(views[config.global_count :]))


def _inspect(part: ModalityBatch) -> _Source:
    """What all views of a modality need to know."""
    counts = part.mask.flatten(2).sum(2, dtype=torch.int32)  # (B, T)
    dated = counts > 0
    own = part.sizes.prod(1).to(counts.dtype).unsqueeze(1)  # (B, 1)
    whole = bool(((counts == own) | ~dated).all())
    facts = sensor_facts(part.sensors, part.pixels.device)
    lacking = any(get_sensor(name).absent for name in set(part.sensors))
    return _Source(part, dated, whole, facts, lacking)


def _footprint(sources: Mapping[str, _Source]) -> Tensor:
    """`(B,)` height over width of the ground, by the first modality that a sample has."""
    shapes = [source.part.sizes.float() for source in sources.values()]
    ratio = torch.ones_like(shapes[0][:, 0])
    for sizes in reversed(shapes):
        ratio = torch.where(sizes[:, 0] > 0, sizes[:, 0] / sizes[:, 1].clamp(min=1), ratio)
    return ratio


def _coverage(sources: Mapping[str, _Source]) -> Tensor:
    """`(B, n, n)` valid share of the ground: of the modality that knows most of each cell."""
    found = []
    for source in sources.values():
        seen = source.part.mask.any(1).float()  # (B, H, W)
        zero = torch.zeros(len(seen), device=seen.device)
        sizes = source.part.sizes.float()
        rows, cols = (
            axis_kernel(zero, zero + 1, sizes[:, i], _COVERAGE_CELLS, seen.shape[1 + i])
            for i in (0, 1)
        )
        found.append(rows @ seen @ cols.mT)
    return torch.stack(found).amax(0)


def _draw_view(
    batch: Batch,
    sources: Mapping[str, _Source],
    config: ViewConfig,
    draws: Draws,
    box: Tensor,
    is_global: bool,
) -> View:
    """One view of all samples on given ground."""
    turn = torch.zeros(len(box), dtype=torch.int64, device=box.device)
    if config.turns:
        turn = (draws.uniform("turn") * 8).long()
    none = torch.zeros(len(box), dtype=torch.bool, device=box.device)
    present = [sources[key].dated.any(1) if key in sources else none for key in MODALITIES]
    kept = keep_modalities(draws, torch.stack(present, 1), config.drop_modality)  # (B, M)
    parts = {}
    for key, source in sources.items():
        options = config.modality(key)
        own = kept[:, MODALITIES.index(key)]
        size = options.global_size if is_global else options.local_size
        parts[key] = _draw_modality(key, source, options, draws, own, (box, turn, size))
    return View(Batch(parts, batch.location), box, turn)


def _draw_modality(
    key: str,
    source: _Source,
    options: ModalityConfig,
    draws: Draws,
    kept: Tensor,
    place: tuple[Tensor, Tensor, int],
) -> ModalityBatch:
    """One modality of a view: dates, crop, radiometry.

    Args:
        key: modality.
        source: the whole images.
        options: of the modality.
        draws: of the view.
        kept: `(B,)` bool, which samples show it.
        place: box, turn and pixels along a side of the crop.
    """
    part, (box, turn, size) = source.part, place
    index, meant = choose_dates(draws, key, source.dated, *options.dates)  # (B, S)
    pixels, mask, days = _take_dates(source, index)
    blur = options.blur * draws.sometimes(f"{key} blur") if options.blur else None
    pixels, mask = crop(pixels, mask, part.sizes, box, turn, size, blur)
    if source.lacking:
        pixels.masked_fill_(source.facts[2, ..., None, None] == 0, 0)
    if isinstance(options, OpticalConfig):
        pixels = change_light(draws, key, pixels, mask, source.facts, options)
    elif isinstance(options, S1Config):
        pixels = change_echo(draws, key, pixels, source.facts, options)
    meant = meant & kept[:, None]
    pixels, mask = _blank(pixels, mask, meant)
    days = jitter_days(draws, key, days, options.day_jitter).where(meant, UNKNOWN_DAY)
    sizes = (kept[:, None] * size).expand(-1, 2).contiguous()
    return ModalityBatch(pixels, mask, days, sizes, part.sensors)


def _take_dates(source: _Source, index: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Pixels, mask (`None` where images are valid all over) and days of the dates `(B, S)`."""
    part = source.part
    mask = None if source.whole else part.mask
    if part.pixels.shape[1] == 1:
        return part.pixels, mask, part.days
    rows = torch.arange(len(index), device=index.device)[:, None]
    mask = None if mask is None else mask[rows, index]
    return part.pixels[rows, index], mask, part.days[rows, index]


def _blank(pixels: Tensor, mask: Tensor | None, meant: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels, zero where invalid, and their mask.

    Args:
        pixels: `(B, S, C, h, h)`; changed in place.
        mask: `(B, S, h, h)` bool; `None` where all is valid.
        meant: `(B, S)` bool, which images are.
    """
    whole = meant[..., None, None].expand(-1, -1, *pixels.shape[3:])
    if mask is None:
        if not bool(meant.all()):
            pixels.masked_fill_(~meant[..., None, None, None], 0)
        return pixels, whole.contiguous()
    mask = mask & whole
    return pixels.masked_fill_(~mask.unsqueeze(2), 0), mask
