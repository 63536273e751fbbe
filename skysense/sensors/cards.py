"""What a sensor card is: the facts of one product that a reader and a model must agree on.

A card says which bands a file must have, by which names they may go, how stored numbers become
physical values, and what those values look like. Cards are plain frozen data; the table of them
is `skysense.sensors.catalog`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Modality = Literal["hr", "s2", "s1"]

MODALITIES: tuple[Modality, ...] = ("hr", "s2", "s1")
"""The three tokenizers, in the order the fusion transformer sees them."""

TOKENIZER_BANDS: Mapping[Modality, tuple[str, ...]] = {
    "hr": ("R", "G", "B"),
    "s2": ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"),
    "s1": ("VV", "VH"),
}
"""Band order of each tokenizer's input. Source: docs/sources.md 12 [code]."""

EXTRA_BANDS: Mapping[Modality, tuple[str, ...]] = {"hr": ("NIR",)}
"""Bands behind those, for backbones that were made with them: `hr` with near infrared [code]. A
card that has one gives pixels of that many channels; all others are as without."""


EIGHT_BIT = "8-bit brightness"
"""The unit of pictures: 0 to 255."""


@dataclass(frozen=True)
class Band:
    """One band of a sensor, tied to the tokenizer channel it feeds."""

    name: str
    """The tokenizer channel that this band feeds, of `TOKENIZER_BANDS` or `EXTRA_BANDS`."""
    mean: float
    """Mean in the card's physical unit."""
    std: float
    """Standard deviation in the card's physical unit."""
    gsd: float
    """Ground sampling distance in metres as the product delivers it."""
    wavelength: float | None = None
    """Centre wavelength in nanometres; `None` for radar."""
    aliases: tuple[str, ...] = ()
    """Names under which a file may describe the band, besides `name`; case and zeros are free."""


@dataclass(frozen=True)
class SensorCard:
    """Everything needed to read one product into physical values and to normalize them."""

    name: str
    """Key in `SENSORS`."""
    title: str
    """The product in words."""
    modality: Modality
    """Which tokenizer the product feeds."""
    bands: tuple[Band, ...]
    """The bands it has, in tokenizer order; a tokenizer channel that no band feeds is absent."""
    unit: str
    """Physical unit after `to_physical`."""
    source: str
    """Where units, scaling and statistics come from."""
    scale: float = 1.0
    """physical = stored * scale + offset."""
    offset: float = 0.0
    """physical = stored * scale + offset."""
    nodata: float | None = None
    """Stored value that means "nothing measured", where the file does not declare one."""
    power_to_decibel: bool = False
    """Stored values are linear power; they become 10 log10(power)."""
    plausible: tuple[float, float] = (-np.inf, np.inf)
    """Range in which the median of an image lies, in the physical unit; outside, the scaling or
    the card is wrong."""

    def __post_init__(self) -> None:
        """Check that the bands are channels of the tokenizer, in its order."""
        positions = list(self.channels)
        assert positions == sorted(set(positions)), f"bands of {self.name} are not in order"

    @property
    def gsd(self) -> float:
        """Finest ground sampling distance of the bands, in metres."""
        return min(band.gsd for band in self.bands)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Channels of the pixels: the tokenizer's, and those extra bands that the card has."""
        have = {band.name for band in self.bands}
        extra = (name for name in EXTRA_BANDS.get(self.modality, ()) if name in have)
        return (*TOKENIZER_BANDS[self.modality], *extra)

    @property
    def channels(self) -> tuple[int, ...]:
        """Tokenizer channel of each band."""
        order = self.inputs
        return tuple(order.index(band.name) for band in self.bands)

    @property
    def absent(self) -> tuple[str, ...]:
        """Tokenizer channels that this sensor does not measure."""
        have = {band.name for band in self.bands}
        return tuple(name for name in self.inputs if name not in have)

    def to_physical(self, stored: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn stored numbers into the card's physical unit.

        Args:
            stored: any shape, as the file holds them.

        Returns:
            Same shape, float32; linear power of zero or less becomes NaN.
        """
        values = stored.astype(np.float32, copy=False)
        if self.power_to_decibel:
            positive = np.where(values > 0, values, np.float32(np.nan))
            return (10.0 * np.log10(positive)).astype(np.float32, copy=False)
        if self.scale == 1.0 and self.offset == 0.0:
            return values
        return values * np.float32(self.scale) + np.float32(self.offset)

    def check_scale(self, physical: npt.NDArray[np.float32], where: str) -> None:
        """Refuse values whose median says that unit or scaling is wrong.

        Args:
            physical: valid values only, any shape, in the card's unit.
            where: what is being read, for the message.

        Raises:
            ValueError: the median is outside `plausible`.
        """
        if physical.size == 0:
            return
        median = float(np.median(physical))
        low, high = self.plausible
        if low <= median <= high:
            return
        raise ValueError(
            f"{where}: the median value is {median:.4g} {self.unit} read as sensor `{self.name}` "
            f"({self.title}), expected between {low:g} and {high:g}: the scaling does not fit; "
            f"choose another `--sensor` (see `skysense info`)"
        )
