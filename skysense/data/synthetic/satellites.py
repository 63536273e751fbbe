"""What Sentinel-2 and Sentinel-1 see of a layout over a year.

Legend: T acquisitions, C bands, K classes, H W aerial pixels, h w pixels of the 10 m grid.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skysense.data.synthetic import classes as cover
from skysense.data.synthetic.classes import POWER, REFLECTANCE, SEASONS, FloatArray, greenness
from skysense.data.synthetic.layout import Layout
from skysense.data.synthetic.noise import smooth_noise

DN_PER_REFLECTANCE = 10_000
SCL_SHADOW, SCL_VEGETATION, SCL_BARE, SCL_WATER, SCL_CLOUD = 3, 4, 5, 6, 9  # Sen2Cor codes
CLOUD_SPECTRUM = (0.66, 0.64, 0.64, 0.65, 0.65, 0.65, 0.65, 0.64, 0.45, 0.36)
FLAGGED = 0.25  # opacity from which Sen2Cor would call a pixel cloud, or shadow
NUM_LOOKS = 4.4  # equivalent number of looks of a Sentinel-1 IW GRD product
VEGETATED = 0.4  # NDVI from which Sen2Cor would call a pixel vegetation


@dataclass(frozen=True, eq=False)
class Ground:
    """What a satellite pixel holds: the layout averaged over the 10 m grid."""

    classes: npt.NDArray[np.uint8]  # (h, w)
    fractions: FloatArray  # (K, h, w), sums to 1 over K
    brightness: FloatArray  # (h, w), about 1
    delay: FloatArray  # (h, w), days by which the season is late

    @classmethod
    def of(cls, layout: Layout, factor: int) -> "Ground":
        """Averages over `factor` pixels of the layout each way."""
        shares = [
            block_mean(layout.classes == code, factor) for code in range(len(cover.LAND_COVER))
        ]
        fractions = np.stack(shares)
        brightness = block_mean(layout.tone, factor)
        delay = block_mean(layout.delay, factor)
        return cls(fractions.argmax(0).astype(np.uint8), fractions, brightness, delay)

    def mix(self, day: int, states: FloatArray) -> FloatArray:
        """(2, K, C) values of the classes bare and green -> (C, h, w) seen on a day of year."""
        green = greenness(day - self.delay, SEASONS.T[:, :, None, None])  # (K, h, w)
        bare_part = np.tensordot(states[0].T, self.fractions * (1 - green), 1)
        return (bare_part + np.tensordot(states[1].T, self.fractions * green, 1)).astype(np.float32)


def block_mean(pixels: npt.NDArray[np.bool_] | FloatArray, factor: int) -> FloatArray:
    """(..., H, W) -> (..., H / factor, W / factor) means of square blocks, float32."""
    *lead, height, width = pixels.shape
    blocks = pixels.reshape(*lead, height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(-3, -1)), np.float32)


def sentinel2(
    ground: Ground, days: npt.NDArray[np.int64], cloud_cover: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """(T, 10, h, w) digital numbers and (T, h, w) scene classes."""
    shape = (ground.classes.shape[0], ground.classes.shape[1])
    numbers = np.empty((len(days), len(cover.S2_BANDS), *shape), np.uint16)
    scl = np.empty((len(days), *shape), np.uint8)
    spread = min(cloud_cover, 1 - cloud_cover)
    white = np.array(CLOUD_SPECTRUM, np.float32)[:, None, None]
    grain = 1 + 0.03 * rng.standard_normal(shape, dtype=np.float32)  # of the ground, so lasting
    for t, day in enumerate(days):
        clear = ground.mix(int(day), REFLECTANCE) * ground.brightness * grain
        cloud, shadow = _clouds(shape, cloud_cover + spread * rng.uniform(-1, 1), rng)
        seen = (1 - cloud) * (1 - 0.6 * shadow) * clear + cloud * white
        seen *= 1 + 0.01 * rng.standard_normal(seen.shape, dtype=np.float32)
        numbers[t] = np.clip((seen * DN_PER_REFLECTANCE).round(), 1, 65535)
        ndvi = (clear[6] - clear[2]) / (clear[6] + clear[2])
        scl[t] = np.where(ndvi > VEGETATED, SCL_VEGETATION, SCL_BARE)
        scl[t][ground.classes == cover.WATER] = SCL_WATER
        scl[t][shadow >= FLAGGED] = SCL_SHADOW
        scl[t][cloud >= FLAGGED] = SCL_CLOUD
    return numbers, scl


def _clouds(
    shape: tuple[int, int], share: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Opacity 0..1 of clouds, flagged over `share` of the pixels, and of their shadows."""
    reach = int(rng.integers(2, max(4, min(shape[0] // 6, 60))))  # pixels to the shadow
    field = smooth_noise(
        (shape[0] + reach, shape[1] + reach), float(np.clip(max(shape) / 4, 4, 80)), rng, octaves=3
    )
    here = field[: shape[0], : shape[1]]
    # The quantile of an empty share is the maximum itself, which would still flag one pixel.
    limit = float(np.quantile(here, 1 - share)) if share > 0 else np.inf
    opacity = np.clip(FLAGGED + 2.5 * (field - limit), 0, 1).astype(np.float32)
    return opacity[: shape[0], : shape[1]], opacity[reach:, reach:]


def sentinel1(ground: Ground, days: npt.NDArray[np.int64], rng: np.random.Generator) -> FloatArray:
    """(T, 2, h, w) backscatter in dB."""
    power = np.stack([ground.mix(int(day), POWER) for day in days])
    return np.asarray(10 * np.log10(speckle(power, rng)), np.float32)


def speckle(power: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Multiplies linear power, of any shape, by gamma noise of mean 1 and `NUM_LOOKS` looks."""
    grain = rng.standard_gamma(NUM_LOOKS, power.shape, dtype=np.float32) / np.float32(NUM_LOOKS)
    return np.asarray(power * np.maximum(grain, 1e-4), np.float32)  # an exact 0 has no dB
