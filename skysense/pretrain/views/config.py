"""How views are made. Every strength of 0 switches its augmentation off, which then costs nothing.

Source: crops of DINO (global and local scales, aspect) [paper]; everything radiometric is [ours],
in physical units and in standard deviations of the sensor card instead of 8-bit colour.
"""

from typing import Annotated

from pydantic import Field, model_validator

from skysense.config import Config

Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


class ModalityConfig(Config):
    """Crops of one modality, and what is done to them whatever the sensor."""

    global_size: int = Field(ge=1)
    """Pixels along a side of its global crops."""
    local_size: int = Field(ge=1)
    """Pixels along a side of its local crops."""
    dates: tuple[int, int] = (1, 1)
    """Fewest and most dates of a view; all that are valid where a sample has fewer."""
    day_jitter: int = Field(default=0, ge=0, le=182)
    """Days at most that an acquisition is moved in the year."""
    blur: Strength = 0.0
    """Largest standard deviation of the blur, in pixels of the crop; half of them have none."""

    @model_validator(mode="after")
    def _check_dates(self) -> "ModalityConfig":
        if not 1 <= self.dates[0] <= self.dates[1]:
            raise ValueError(f"`dates` is {self.dates}, expected fewest and most, at least 1")
        return self


class OpticalConfig(ModalityConfig):
    """Radiometry of reflected light; drawn for each date of a view by itself."""

    gain: Strength = 0.0
    """Illumination: all bands times exp(-gain) to exp(gain)."""
    band_gain: Strength = 0.0
    """Calibration: each band times exp(-band_gain) to exp(band_gain)."""
    brightness: Strength = 0.0
    """Offset of all bands, at most so many standard deviations either way."""
    band_brightness: Strength = 0.0
    """Offset of each band, at most so many standard deviations either way."""
    contrast: Strength = 0.0
    """Spread about the crop's own mean times exp(-contrast) to exp(contrast)."""
    gray: Share = 0.0
    """Share of the crops whose bands are drawn towards the mean of all, wholly at most."""
    haze: Strength = 0.0
    """Most light added to the bluest band, in standard deviations, and less the longer the wave;
    half of the crops have none."""


class HrConfig(OpticalConfig):
    """High-resolution optical images."""

    global_size: int = Field(default=64, ge=1)
    """Pixels along a side of its global crops."""
    local_size: int = Field(default=32, ge=1)
    """Pixels along a side of its local crops."""
    blur: Strength = 1.0
    """Largest standard deviation of the blur, in pixels of the crop; half of them have none."""
    gain: Strength = 0.2
    """Illumination: all bands times exp(-gain) to exp(gain)."""
    band_gain: Strength = 0.1
    """Calibration: each band times exp(-band_gain) to exp(band_gain)."""
    brightness: Strength = 0.3
    """Offset of all bands, at most so many standard deviations either way."""
    contrast: Strength = 0.4
    """Spread about the crop's own mean times exp(-contrast) to exp(contrast)."""
    gray: Share = 0.2
    """Share of the crops whose bands are drawn towards the mean of all, wholly at most."""


class S2Config(OpticalConfig):
    """Multispectral images."""

    global_size: int = Field(default=32, ge=1)
    """Pixels along a side of its global crops."""
    local_size: int = Field(default=16, ge=1)
    """Pixels along a side of its local crops."""
    dates: tuple[int, int] = (1, 4)
    """Fewest and most dates of a view; all that are valid where a sample has fewer."""
    day_jitter: int = Field(default=7, ge=0, le=182)
    """Days at most that an acquisition is moved in the year."""
    blur: Strength = 0.7
    """Largest standard deviation of the blur, in pixels of the crop; half of them have none."""
    gain: Strength = 0.15
    """Illumination: all bands times exp(-gain) to exp(gain)."""
    band_gain: Strength = 0.05
    """Calibration: each band times exp(-band_gain) to exp(band_gain)."""
    brightness: Strength = 0.05
    """Offset of all bands, at most so many standard deviations either way."""
    band_brightness: Strength = 0.05
    """Offset of each band, at most so many standard deviations either way."""
    haze: Strength = 0.5
    """Most light added to the bluest band, in standard deviations, and less the longer the wave;
    half of the crops have none."""


class S1Config(ModalityConfig):
    """Radar backscatter in decibel; drawn for each date of a view by itself."""

    global_size: int = Field(default=32, ge=1)
    """Pixels along a side of its global crops."""
    local_size: int = Field(default=16, ge=1)
    """Pixels along a side of its local crops."""
    dates: tuple[int, int] = (1, 2)
    """Fewest and most dates of a view; all that are valid where a sample has fewer."""
    day_jitter: int = Field(default=7, ge=0, le=182)
    """Days at most that an acquisition is moved in the year."""
    gain: Strength = 1.0
    """Offset of both polarizations, at most so many decibel either way."""
    band_gain: Strength = 0.5
    """Offset of each polarization, at most so many decibel either way."""
    speckle: Share = 0.4
    """Largest relative standard deviation of the power, 1 / sqrt(looks); half of the crops have
    none."""


class ViewConfig(Config):
    """Which views a sample has."""

    global_count: int = Field(default=2, ge=1)
    """Global views."""
    local_count: int = Field(default=4, ge=0)
    """Local views."""
    global_scale: tuple[Share, Share] = (0.4, 1.0)
    """Smallest and largest share of the ground that a global crop covers."""
    local_scale: tuple[Share, Share] = (0.1, 0.4)
    """Smallest and largest share of the ground that a local crop covers."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest height of a crop's ground over its width."""
    min_overlap: float = Field(default=0.3, ge=0, le=0.7)
    """Least share of the smaller of the first global crop and another that lies in both, so that
    there are pixel pairs; crops that are too far apart are moved towards each other."""
    turns: bool = True
    """Rotate by quarters and mirror."""
    drop_modality: float = Field(default=0.1, ge=0, lt=1)
    """Probability that a view lacks a modality that the sample has; one always stays."""
    hr: HrConfig = Field(default_factory=HrConfig)
    """High-resolution optical images."""
    s2: S2Config = Field(default_factory=S2Config)
    """Multispectral images."""
    s1: S1Config = Field(default_factory=S1Config)
    """Radar."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "ViewConfig":
        for name in ("global_scale", "local_scale", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"`{name}` is {(low, high)}, expected two rising numbers above 0")
        return self

    def modality(self, key: str) -> ModalityConfig:
        """The part of `hr`, `s2` or `s1`."""
        part: ModalityConfig = getattr(self, key)
        return part
