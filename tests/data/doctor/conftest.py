"""Sound little scenes of every sensor card: water, forest, meadow, soil and a town, 80 x 80."""

import numpy as np
import pytest

from skysense.sensors import SENSORS

SPECTRA = {  # reflectance of B2 B3 B4 B5 B6 B7 B8 B8A B11 B12
    "water": (0.040, 0.035, 0.020, 0.015, 0.010, 0.010, 0.008, 0.007, 0.004, 0.003),
    "forest": (0.022, 0.040, 0.024, 0.070, 0.190, 0.240, 0.260, 0.280, 0.130, 0.060),
    "meadow": (0.040, 0.080, 0.050, 0.120, 0.290, 0.360, 0.380, 0.400, 0.240, 0.130),
    "soil": (0.080, 0.110, 0.150, 0.180, 0.200, 0.220, 0.240, 0.260, 0.340, 0.290),
    "town": (0.120, 0.140, 0.160, 0.170, 0.180, 0.190, 0.200, 0.210, 0.230, 0.210),
}
BACKSCATTER = {  # dB of VV and VH
    "water": (-20.0, -27.0),
    "forest": (-10.0, -15.0),
    "meadow": (-13.0, -20.0),
    "soil": (-12.0, -22.0),
    "town": (-4.0, -11.0),
}
BRIGHTNESS = {  # red green blue near infrared
    "water": (45, 60, 70, 15),
    "forest": (60, 85, 55, 150),
    "meadow": (105, 130, 80, 180),
    "soil": (160, 135, 105, 165),
    "town": (150, 150, 145, 140),
}
NAMES = {
    "planet": ("blue", "green", "red", "nir"),
    "landsat_c2_l2": ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"),
    "s1": ("VV", "VH"),
    "s1_linear": ("VV", "VH"),
    "s1_vv": ("VV",),
    "hr": ("R", "G", "B"),
    "rgb8": ("R", "G", "B"),
    "naip": ("R", "G", "B", "N"),
    "naip_rgbn": ("R", "G", "B", "N"),
}
S2_NAMES = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
PLACES = {4: (0, 1, 2, 6), 6: (0, 1, 2, 7, 8, 9), 10: range(10)}
SIZE = 80


def land(table, count, seed):
    """`(C, H, W)` float64 values of the table over fields of 8 x 8 pixels."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(table), (SIZE // 8, SIZE // 8)).repeat(8, 0).repeat(8, 1)
    columns = PLACES[count] if len(next(iter(table.values()))) == 10 else range(count)
    values = np.array(list(table.values()))[:, list(columns)]
    return np.moveaxis(values[kinds], -1, 0), rng


def pixels_of(card, seed=0):
    """`(C, H, W)` as the product of a card stores them."""
    names = NAMES.get(card, S2_NAMES)
    if SENSORS[card].modality == "s1":
        values, rng = land(BACKSCATTER, len(names), seed)
        values = values + rng.normal(0, 1.2, values.shape)
        return (10 ** (values / 10) if card == "s1_linear" else values).astype(np.float32)
    if SENSORS[card].unit == "8-bit brightness":
        values, rng = land(BRIGHTNESS, len(names), seed)
        return np.clip(values + rng.normal(0, 6, values.shape), 3, 240).astype(np.uint8)
    values, rng = land(SPECTRA, len(names), seed)
    values = values * rng.normal(1, 0.05, values.shape) * rng.normal(1, 0.08, values.shape[1:])
    if card == "s2":
        return values.astype(np.float32)
    facts = SENSORS[card]
    return np.round((values - facts.offset) / facts.scale).astype(np.uint16)


@pytest.fixture
def scene(raster):
    """`scene(card, name, change, seed, **of the raster) -> Path`.

    `change` takes the arguments of the raster and alters them.
    """

    def write(card, name="scene_20240615.tif", change=None, seed=0, **facts):
        size = SENSORS[card].gsd
        arguments = {
            "pixels": pixels_of(card, seed),
            "names": NAMES.get(card, S2_NAMES),
            "transform": (size, 0.0, 600_000.0, 0.0, -size, 5_340_000.0),
            **facts,
        }
        if change is not None:
            change(arguments)
        return raster(name, **arguments)

    return write
