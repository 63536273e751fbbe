"""Sample and Batch: physical values, masks, dates, place; what every reader makes and model takes.

Both check themselves on construction and are never changed in place.

Legend: B samples, T acquisitions, C tokenizer channels, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from skysense.geo import Grid
from skysense.sensors import MODALITIES, get_sensor

Dates = npt.NDArray[np.datetime64]

UNKNOWN_DAY = 0
"""Day of year of an acquisition whose date is not known."""


def day_of_year(dates: Dates) -> npt.NDArray[np.int64]:
    """`datetime64` of any shape to 1...366; NaT becomes `UNKNOWN_DAY`."""
    days = dates.astype("datetime64[D]")
    since = (days - days.astype("datetime64[Y]")).astype(np.int64) + 1
    return np.where(np.isnat(days), UNKNOWN_DAY, since)


@dataclass(frozen=True)
class Series:
    """The acquisitions of one modality over one place."""

    pixels: Tensor
    """`(T, C, H, W)` float32 in the sensor card's physical unit; all channels of `card.inputs`.
    What stands at masked pixels and absent channels is never looked at."""
    mask: Tensor
    """`(T, H, W)` bool, true where something was measured."""
    dates: Dates
    """`(T,)` datetime64[D]; NaT where unknown."""
    sensor: str
    """Name of the sensor card."""

    def __post_init__(self) -> None:
        """Check shapes and types.

        Raises:
            ValueError: something does not fit; the message says what came and what is expected.
        """
        card = get_sensor(self.sensor)
        bands = card.inputs
        if self.pixels.ndim != 4 or self.pixels.shape[1] != len(bands):
            raise ValueError(
                f"`{self.sensor}` pixels have shape {tuple(self.pixels.shape)}, expected "
                f"(T, {len(bands)}, H, W) with channels {', '.join(bands)}"
            )
        t, _, h, w = self.pixels.shape
        if min(t, h, w) < 1:
            raise ValueError(f"`{self.sensor}` pixels are empty: {tuple(self.pixels.shape)}")
        if self.pixels.dtype != torch.float32:
            raise ValueError(f"`{self.sensor}` pixels are {self.pixels.dtype}, expected float32")
        if self.mask.shape != (t, h, w) or self.mask.dtype != torch.bool:
            raise ValueError(
                f"`{self.sensor}` mask is {self.mask.dtype} {tuple(self.mask.shape)}, "
                f"expected bool {(t, h, w)}"
            )
        if self.dates.shape != (t,) or self.dates.dtype.kind != "M":
            raise ValueError(
                f"`{self.sensor}` dates are {self.dates.dtype} {self.dates.shape}, "
                f"expected datetime64 ({t},)"
            )
        if not self._finite(card.channels):
            raise ValueError(
                f"`{self.sensor}` has NaN or infinite pixels that the mask calls valid; "
                f"mask them out"
            )

    def _finite(self, channels: tuple[int, ...]) -> bool:
        """Whether every valid pixel is a finite number in the channels that are measured."""
        if self.pixels.device.type == "cpu" and not self.pixels.requires_grad:
            with np.errstate(over="ignore", invalid="ignore"):
                if np.isfinite(self.pixels.numpy().sum()):  # then all are, and the sum is quick
                    return True
        present = self.pixels[:, list(channels)]
        return bool(torch.isfinite(present).all(1)[self.mask].all())

    @property
    def modality(self) -> str:
        """Which tokenizer this feeds."""
        return get_sensor(self.sensor).modality


def undated(count: int) -> Dates:
    """`(count,)` unknown dates."""
    return np.full(count, np.datetime64("NaT"), "datetime64[D]")


@dataclass(frozen=True)
class Sample:
    """One place: a series for each modality that was measured there, all of the same ground."""

    series: Mapping[str, Series]
    """Modality to series; any non-empty subset of `hr`, `s2`, `s1`."""
    location: tuple[float, float] | None = None
    """`(lon, lat)` of the centre in degrees, EPSG:4326."""
    grid: Grid | None = None
    """Pixel grid of the finest modality."""

    def __post_init__(self) -> None:
        """Check the modalities and the location.

        Raises:
            ValueError: unknown or mismatched modality, nothing at all, or no such place on Earth.
        """
        if not self.series:
            raise ValueError("a sample needs at least one of the modalities hr, s2, s1")
        for key, series in self.series.items():
            if key not in MODALITIES:
                raise ValueError(f"unknown modality `{key}`; known: {', '.join(MODALITIES)}")
            if series.modality != key:
                raise ValueError(f"sensor `{series.sensor}` is {series.modality}, not {key}")
        if self.location is not None:
            lon, lat = self.location
            if not (-180 <= lon <= 180 and -90 <= lat <= 90):
                raise ValueError(f"location {self.location} is not (lon, lat) in degrees")
        object.__setattr__(self, "series", MappingProxyType(dict(self.series)))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle through a plain dictionary (read-only mappings do not pickle)."""
        return Sample, (dict(self.series), self.location, self.grid)


@dataclass(frozen=True)
class ModalityBatch:
    """One modality of a batch; what is padded, absent or not measured is masked."""

    pixels: Tensor
    """`(B, T, C, H, W)` float32, physical values."""
    mask: Tensor
    """`(B, T, H, W)` bool."""
    days: Tensor
    """`(B, T)` int64 day of year, 1...366; `UNKNOWN_DAY` where unknown or padded."""
    sizes: Tensor
    """`(B, 2)` int64, `(H, W)` before padding; 0 where the sample lacks the modality."""
    sensors: tuple[str, ...]
    """B sensor card names (the modality's own where the sample lacks it)."""

    def __post_init__(self) -> None:
        """Check shapes and types.

        Raises:
            ValueError: shapes or types do not fit together.
        """
        if self.pixels.ndim != 5:
            raise ValueError(f"pixels are {tuple(self.pixels.shape)}, expected (B, T, C, H, W)")
        b, t, _, h, w = self.pixels.shape
        expected = {"mask": (b, t, h, w), "days": (b, t), "sizes": (b, 2)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} is {tuple(getattr(self, name).shape)}, expected {shape}")
        if self.mask.dtype != torch.bool or len(self.sensors) != b:
            raise ValueError(f"mask must be bool and sensors {b} names")
        if self.days.numel() and not 0 <= int(self.days.min()) <= int(self.days.max()) <= 366:
            raise ValueError("days must lie in 0 (unknown), 1...366")

    def to(self, device: torch.device | str) -> "ModalityBatch":
        """A copy whose tensors live on `device`."""
        tensors = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("pixels", "mask", "days", "sizes")
        }
        return replace(self, **tensors)


@dataclass(frozen=True)
class Batch:
    """Samples side by side. Any subset of modalities; each sample may lack some of them."""

    modalities: Mapping[str, ModalityBatch]
    """In the order `hr`, `s2`, `s1`."""
    location: Tensor
    """`(B, 2)` float32 `(lon, lat)` in degrees; NaN where unknown."""
    grids: tuple[Grid | None, ...] = field(default=())
    """B pixel grids of the finest modality, where known."""

    def __post_init__(self) -> None:
        """Check that all modalities have the same B.

        Raises:
            ValueError: they do not, or there is none.
        """
        if not self.modalities:
            raise ValueError("a batch needs at least one of the modalities hr, s2, s1")
        unknown = set(self.modalities) - set(MODALITIES)
        if unknown:
            raise ValueError(f"unknown modalities {sorted(unknown)}")
        counts = {key: part.pixels.shape[0] for key, part in self.modalities.items()}
        if set(counts.values()) != {self.location.shape[0]} or self.location.shape[1:] != (2,):
            raise ValueError(f"batch sizes differ: {counts}, location {self.location.shape}")
        for key, part in self.modalities.items():
            cards = [get_sensor(name) for name in (key, *part.sensors)]
            channels = max(len(card.inputs) for card in cards if card.modality == key)
            if part.pixels.shape[2] != channels:
                raise ValueError(f"{key} has {part.pixels.shape[2]} channels, expected {channels}")
            strange = {s for s in part.sensors if get_sensor(s).modality != key}
            if strange:
                raise ValueError(f"{key} has sensors of another modality: {sorted(strange)}")
        ordered = {key: self.modalities[key] for key in MODALITIES if key in self.modalities}
        object.__setattr__(self, "modalities", MappingProxyType(ordered))

    def __len__(self) -> int:
        """B."""
        return int(self.location.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.location.device

    def to(self, device: torch.device | str) -> "Batch":
        """A copy whose tensors live on `device`."""
        parts = {key: part.to(device) for key, part in self.modalities.items()}
        return replace(self, modalities=parts, location=self.location.to(device))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle through a plain dictionary (read-only mappings do not pickle)."""
        return Batch, (dict(self.modalities), self.location, self.grids)


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples side by side, padding what is ragged or absent with masks.

    Args:
        samples: at least one; T, H, W and the set of modalities may differ.

    Returns:
        A batch whose T, H, W are the largest of each modality; nothing padded is valid.

    Raises:
        ValueError: no samples, or sensors of one modality with other channels than each other.
    """
    if not samples:
        raise ValueError("cannot collate zero samples")
    parts: dict[str, ModalityBatch] = {}
    for key in MODALITIES:
        present = [sample.series.get(key) for sample in samples]
        if any(series is not None for series in present):
            parts[key] = _collate_modality(key, present)
    unknown = (float("nan"), float("nan"))
    location = torch.tensor([s.location or unknown for s in samples], dtype=torch.float32)
    return Batch(parts, location, tuple(sample.grid for sample in samples))


def _collate_modality(key: str, present: Sequence[Series | None]) -> ModalityBatch:
    """Pad the series of one modality to their common size."""
    own = [series for series in present if series is not None]
    shapes = [series.pixels.shape for series in own]
    if len({shape[1] for shape in shapes}) > 1:
        names = sorted({series.sensor for series in own})
        raise ValueError(
            f"{key} sensors {', '.join(names)} have different channels: batch them apart"
        )
    t, c, h, w = (max(sizes) for sizes in zip(*shapes, strict=True))
    device = own[0].pixels.device
    no_pixels = torch.zeros(0, c, 0, 0, device=device)
    no_mask = torch.zeros(0, 0, 0, dtype=torch.bool, device=device)
    pixels = [no_pixels if series is None else series.pixels for series in present]
    masks = [no_mask if series is None else series.mask for series in present]
    days = np.full((len(present), t), UNKNOWN_DAY, np.int64)
    for row, series in zip(days, present, strict=True):
        if series is not None:
            row[: len(series.dates)] = day_of_year(series.dates)
    return ModalityBatch(
        pixels=_side_by_side(pixels, (t, c, h, w)),
        mask=_side_by_side(masks, (t, h, w)),
        days=torch.from_numpy(days),
        sizes=torch.tensor([tuple(x.shape[2:]) for x in pixels]),
        sensors=tuple(key if series is None else series.sensor for series in present),
    )


def _side_by_side(tensors: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Stack what is padded at its ends with zeros to `shape`, through NumPy where that can be.

    Readers collate in threads of their own, and a second team of torch's threads beside the one
    that computes would cost both dearly.
    """
    if all(t.device.type == "cpu" and not t.requires_grad for t in tensors):
        stacked = np.zeros((len(tensors), *shape), tensors[0].numpy().dtype)
        for row, tensor in zip(stacked, tensors, strict=True):
            row[tuple(slice(n) for n in tensor.shape)] = tensor.numpy()
        return torch.from_numpy(stacked)
    return torch.stack([_pad_ends(tensor, shape) for tensor in tensors])


def _pad_ends(x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x` with zeros at the end of each dimension, to `shape`."""
    missing = [total - n for total, n in zip(shape, x.shape, strict=True)]
    return F.pad(x, [n for count in reversed(missing) for n in (0, count)]) if any(missing) else x


def concatenate(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches, one batch after the other, as one.

    Args:
        batches: at least one; T, H, W and the set of modalities may differ.

    Returns:
        A batch of all rows, padded with masks to the largest T, H, W of each modality.

    Raises:
        ValueError: no batches.
    """
    if not batches:
        raise ValueError("cannot concatenate zero batches")
    parts: dict[str, ModalityBatch] = {}
    for key in MODALITIES:
        present = [batch.modalities[key] for batch in batches if key in batch.modalities]
        if present:
            shapes = [part.pixels.shape[1:] for part in present]
            t, c, h, w = (max(sizes) for sizes in zip(*shapes, strict=True))
            own = [_padded(batch, key, (t, c, h, w)) for batch in batches]
            parts[key] = ModalityBatch(
                pixels=torch.cat([part.pixels for part in own]),
                mask=torch.cat([part.mask for part in own]),
                days=torch.cat([part.days for part in own]),
                sizes=torch.cat([part.sizes for part in own]),
                sensors=tuple(sensor for part in own for sensor in part.sensors),
            )
    grids = [grid for batch in batches for grid in batch.grids]
    location = torch.cat([batch.location for batch in batches])
    return Batch(parts, location, tuple(grids) if len(grids) == len(location) else ())


def _padded(batch: Batch, key: str, shape: tuple[int, int, int, int]) -> ModalityBatch:
    """A modality of a batch with `(T, C, H, W)` of `shape`; all masked where it lacks it."""
    t, c, h, w = shape
    part = batch.modalities.get(key)
    if part is None:
        b, device = len(batch), batch.device
        return ModalityBatch(
            pixels=torch.zeros(b, t, c, h, w, device=device),
            mask=torch.zeros(b, t, h, w, dtype=torch.bool, device=device),
            days=torch.full((b, t), UNKNOWN_DAY, device=device),
            sizes=torch.zeros(b, 2, dtype=torch.int64, device=device),
            sensors=(key,) * b,
        )
    dates, _, height, width = part.pixels.shape[1:]
    if (dates, height, width) == (t, h, w):
        return part
    b = len(part.days)
    return replace(
        part,
        pixels=_pad_ends(part.pixels, (b, t, c, h, w)),
        mask=_pad_ends(part.mask, (b, t, h, w)),
        days=_pad_ends(part.days, (b, t)),
    )
