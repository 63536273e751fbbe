"""A sample as it is kept: the numbers that the sensors delivered, and what is known about them.

Legend: T acquisitions, C bands, H W pixels, h w cells of the class map.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from skysense.sample import Dates, Series
from skysense.sensors import (
    MODALITIES,
    SensorCard,
    find_bands,
    get_sensor,
    missing_bands,
)

AnyArray = npt.NDArray[np.generic]
BoolArray = npt.NDArray[np.bool_]

STORED_TYPES = ("uint8", "uint16", "int16", "float32")
"""Types of kept pixels."""

_LOOKED_AT = 64
"""Rows and columns of an image, at least, that a check of its scaling looks at."""

UNKNOWN_CLASS = -1
"""Code of cells of a class map whose class is not known."""


@dataclass(frozen=True)
class StoredSeries:
    """The acquisitions of one modality, in stored numbers."""

    pixels: AnyArray
    """`(T, C, H, W)` of one of `STORED_TYPES`, as the sensor card has them before its scaling."""
    dates: Dates
    """`(T,)` datetime64[D]; NaT where unknown."""
    sensor: str
    """Name of the sensor card."""
    bands: tuple[str, ...]
    """C names, by which the card finds its bands."""
    mask: BoolArray | None = None
    """`(T, H, W)`, true where something was measured; `None` where the card's nodata value says it.
    What is not a finite number is missing either way."""

    def __post_init__(self) -> None:
        """Check shapes, type and bands.

        Raises:
            ValueError: something does not fit; the message says what came and what is expected.
        """
        shape = self.pixels.shape
        if self.pixels.dtype.name not in STORED_TYPES:
            raise ValueError(
                f"`{self.sensor}` pixels are {self.pixels.dtype}, expected one of "
                f"{', '.join(STORED_TYPES)}"
            )
        if self.pixels.ndim != 4 or shape[1] != len(self.bands) or not all(shape):
            raise ValueError(
                f"`{self.sensor}` pixels have shape {shape}, expected (T, {len(self.bands)}, H, W) "
                f"with bands {', '.join(self.bands)}"
            )
        if self.dates.shape != shape[:1] or self.dates.dtype.kind != "M":
            raise ValueError(f"`{self.sensor}` has {shape[0]} images, but dates {self.dates!r}")
        if self.mask is not None and (self.mask.shape != (shape[0], *shape[2:])):
            raise ValueError(f"`{self.sensor}` mask is {self.mask.shape} for pixels {shape}")
        _band_order(self.sensor, self.bands)

    @property
    def card(self) -> SensorCard:
        """The sensor."""
        return get_sensor(self.sensor)

    def measured(self) -> BoolArray:
        """`(T, H, W)`, true where all bands of the card hold a number that means something."""
        card, stored = self.card, self._ordered()
        if self.mask is not None:
            mask = self.mask.astype(bool)
        elif card.nodata is not None:  # as in a file: missing where all bands are
            mask = (stored != card.nodata).any(1)
        else:
            mask = np.ones((stored.shape[0], *stored.shape[2:]), bool)
        if stored.dtype.kind == "f":
            mask &= np.isfinite(stored).all(1)
        if card.power_to_decibel:
            mask &= (stored.astype(np.float32) > 0).all(1)
        return mask

    def to_series(self) -> Series:
        """Physical values on the tokenizer's channels, masked where nothing was measured."""
        card, mask = self.card, self.measured()
        physical = card.to_physical(self._ordered().astype(np.float32))
        if not mask.all():
            physical = np.where(mask[:, None], physical, np.float32(0))
        channels = len(card.inputs)
        if physical.shape[1] < channels:
            pixels = np.zeros((len(mask), channels, *mask.shape[1:]), np.float32)
            pixels[:, list(card.channels)] = physical
            physical = pixels
        dates = self.dates.astype("datetime64[D]")
        return Series(
            torch.from_numpy(np.ascontiguousarray(physical)),
            torch.from_numpy(mask),
            dates,
            card.name,
        )

    def check_scale(self, where: str) -> None:
        """Refuse numbers that the card cannot mean.

        Args:
            where: what is being read, for the message.

        Raises:
            ValueError: the median is outside the card's plausible range.
        """
        step = max(1, max(self.pixels.shape[2:]) // _LOOKED_AT)
        thin = (slice(None), slice(None, None, step), slice(None, None, step))
        mask, stored = self.measured()[thin], np.moveaxis(self._ordered(), 1, -1)[thin]
        self.card.check_scale(self.card.to_physical(stored[mask].astype(np.float32)), where)

    def _ordered(self) -> AnyArray:
        """`(T, C, H, W)` stored numbers of the card's bands, in its order."""
        order = _band_order(self.sensor, self.bands)
        return self.pixels if order == [*range(len(self.bands))] else self.pixels[:, order]

    def at(self, chosen: Sequence[int] | npt.NDArray[np.int64]) -> "StoredSeries":
        """Some of the acquisitions, by index."""
        mask = None if self.mask is None else self.mask[chosen]
        return StoredSeries(self.pixels[chosen], self.dates[chosen], self.sensor, self.bands, mask)


@functools.lru_cache(maxsize=256)
def _band_order(sensor: str, bands: tuple[str, ...]) -> list[int]:
    """Where each band of a card stands among the bands of that name.

    Raises:
        ValueError: one is missing.
    """
    card = get_sensor(sensor)
    found = find_bands(card, bands)
    missing = missing_bands(card, list(found))
    if missing:
        raise ValueError(f"sensor `{sensor}` needs {', '.join(missing)}; found {', '.join(bands)}")
    return [found[band.name] for band in card.bands]


@dataclass(frozen=True)
class StoredSample:
    """One place: what each sensor delivered, all of the same ground."""

    series: Mapping[str, StoredSeries]
    """Modality to series; any non-empty subset of `hr`, `s2`, `s1`."""
    location: tuple[float, float] | None = None
    """`(lon, lat)` of the centre in degrees."""
    source: str = ""
    """Where it came from, for people."""
    classes: npt.NDArray[np.int16] | None = None
    """`(h, w)` codes of `class_names` over the whole ground; `UNKNOWN_CLASS` where not known."""
    class_names: tuple[str, ...] = field(default=())
    """Name of each code."""

    def __post_init__(self) -> None:
        """Check modalities and classes.

        Raises:
            ValueError: nothing at all, a sensor of another modality, or codes without a name.
        """
        if not self.series:
            raise ValueError("a sample needs at least one of the modalities hr, s2, s1")
        for key, series in self.series.items():
            if key not in MODALITIES or series.card.modality != key:
                raise ValueError(f"sensor `{series.sensor}` is {series.card.modality}, not {key}")
        if self.classes is None:
            return
        if self.classes.ndim != 2 or not self.classes.size:
            raise ValueError(f"a class map has shape {self.classes.shape}, expected (h, w)")
        low, high = int(self.classes.min()), int(self.classes.max())
        if low < UNKNOWN_CLASS or high >= len(self.class_names):
            raise ValueError(
                f"a class map holds codes {low} to {high}, expected -1 (unknown) to "
                f"{len(self.class_names) - 1}: there are {len(self.class_names)} class names"
            )


def storable(array: AnyArray) -> AnyArray:
    """The same numbers in one of `STORED_TYPES`: the smallest integers that hold them, or float32.

    Raises:
        ValueError: not real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(f"pixels are {array.dtype}, expected real numbers")
    if array.dtype.name in STORED_TYPES:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind in "biu" and array.size:
        low, high = int(array.min()), int(array.max())
        for name in ("uint8", "uint16", "int16"):
            if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
                return array.astype(name)
    with np.errstate(over="ignore"):  # what overflows is missing
        return array.astype(np.float32)
