"""The land-cover map: fields in rotated blocks, forest, a town with streets, a river and a lake.

Lengths are in metres until they meet pixels. Legend: H W pixels; `y` down, `x` right, in metres.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skysense.data.synthetic import classes as cover
from skysense.data.synthetic.classes import FloatArray
from skysense.data.synthetic.noise import hash_unit, smooth_noise

Mask = npt.NDArray[np.bool_]

BLOCK = (48.0, 72.0)  # a town block from street axis to street axis, down and across
STREET_HALF_WIDTH = 3.5
LANE_HALF_WIDTH = 3.0
MARGIN = 1.25  # grass strip on each side of a field boundary
FIELD_SHARES = {  # of the parcels
    cover.WINTER_CROP: 0.32,
    cover.SUMMER_CROP: 0.30,
    cover.GRASSLAND: 0.24,
    cover.BARE_SOIL: 0.14,
}


@dataclass(frozen=True, eq=False)
class Layout:
    """The map and what an aerial camera needs to draw its details."""

    classes: npt.NDArray[np.uint8]
    """(H, W) index into `LAND_COVER`."""
    tone: FloatArray
    """(H, W) brightness relative to the class, 0.88..1.12, constant in a field."""
    delay: FloatArray
    """(H, W) days by which the season is late, -12..12, constant in a field."""
    furrow: FloatArray
    """(H, W) metres across the direction of tillage."""
    margin: Mask
    """(H, W) strips of grass between fields, too narrow for trees."""
    street: Mask
    """(H, W) paved ground in town and country."""
    town_angle: float
    """Direction of the street grid in radians."""
    gsd: float
    """Metres per pixel."""


def land_cover(shape: tuple[int, int], seed: int = 0, gsd: float = 1.25) -> npt.NDArray[np.uint8]:
    """Draws a land-cover map; `make_scene` sees the same map for the same seed, shape and `gsd`.

    Args:
        shape: (H, W) in pixels.
        seed: Not negative; equal arguments give equal maps.
        gsd: Metres per pixel. Fields are about 100 m across, streets 7 m wide.

    Returns:
        (H, W) uint8 index into `LAND_COVER`.

    Raises:
        ValueError: If a side is smaller than 8 pixels, the seed negative or `gsd` not positive.

    Source: *ours*.
    """
    if len(shape) != 2 or min(shape) < 8:
        raise ValueError(f"`shape` is {shape}; expected (H, W) of at least 8 pixels a side")
    if seed < 0:
        raise ValueError(f"`seed` is {seed}; expected 0 or more")
    if not gsd > 0:
        raise ValueError(f"`gsd` is {gsd}; expected a positive number of metres per pixel")
    return draw_layout(shape, seed, gsd).classes


def draw_layout(shape: tuple[int, int], seed: int, gsd: float) -> Layout:
    """Paints the covers over each other: fields, forest, town, river banks, water, lanes."""
    rng = np.random.default_rng(seed)
    extent = max(shape) * gsd
    scale = float(np.clip(extent / 640, 0.3, 1))  # so that a small map shows of everything too
    region = min(0.4 * extent, 600) / gsd  # pixels across a wood or a town
    fields, lane = _fields(shape, gsd, scale, rng)
    classes, tone, delay = fields.classes, fields.tone, fields.delay

    stands = smooth_noise(shape, region, rng, octaves=4)
    forest = stands > _quantile(stands, 0.78)
    classes[forest] = cover.FOREST
    tone[forest] = 1
    delay[forest] = 4 * stands[forest]

    town_angle = rng.uniform(0, np.pi / 2)
    town, street = _town(shape, gsd, region, town_angle, rng)
    classes[town] = cover.BUILT_UP
    tone[town] = 1

    river, bank = _river(shape, gsd, rng)
    basin = smooth_noise(shape, region, rng, octaves=2)
    water = river | (basin > _quantile(basin, 0.965))
    classes[bank & ~town & ~forest] = cover.GRASSLAND
    classes[water] = cover.WATER
    tone[water], delay[water] = 1, 0
    classes[lane] = cover.BUILT_UP  # crosses the river on a bridge
    tone[lane] = 1
    street = (street & town & ~water) | lane
    margin = fields.margin & ~forest & ~town
    return dataclasses.replace(fields, margin=margin, street=street, town_angle=town_angle)


def coordinates(shape: tuple[int, int], gsd: float, angle: float) -> tuple[FloatArray, FloatArray]:
    """Metres down and across, (H, W) each, in axes turned by `angle` radians."""
    y = (np.arange(shape[0], dtype=np.float32)[:, None] + 0.5) * np.float32(gsd)
    x = (np.arange(shape[1], dtype=np.float32)[None] + 0.5) * np.float32(gsd)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return y * cos - x * sin, y * sin + x * cos


def _fields(
    shape: tuple[int, int], gsd: float, scale: float, rng: np.random.Generator
) -> tuple[Layout, Mask]:
    """The layout as if the whole map were farmland, and the lanes through it."""
    district, lane = _districts(shape, gsd, rng)
    num_districts = int(district.max()) + 1
    salt = int(rng.integers(2**31))
    down = np.empty(shape, np.float32)
    across = np.empty(shape, np.float32)
    depth = rng.uniform(80, 140, num_districts).astype(np.float32) * np.float32(scale)
    for index, angle in enumerate(rng.uniform(0, np.pi, num_districts)):
        inside = district == index
        turned = coordinates(shape, gsd, angle)
        down[inside], across[inside] = turned[0][inside], turned[1][inside]
    # Strips `depth` metres deep, each cut into fields of its own width from its own start.
    depth_here = depth[district]
    strip = np.floor(down / depth_here)
    width = (50 + 130 * hash_unit(salt, district, strip)) * np.float32(scale)
    start = across + width * hash_unit(salt + 1, district, strip)
    column = np.floor(start / width)
    number = [hash_unit(salt + k, district, strip, column) for k in (2, 3, 4)]
    from_top, from_left = down - strip * depth_here, start - column * width
    edge = np.minimum(
        np.minimum(from_top, depth_here - from_top), np.minimum(from_left, width - from_left)
    )
    shares = np.cumsum(list(FIELD_SHARES.values()))
    codes = np.array(list(FIELD_SHARES), np.uint8)
    pick = np.searchsorted(shares, number[0] * shares[-1])
    classes = codes[np.minimum(pick, len(codes) - 1)]
    margin = edge < MARGIN
    classes[margin] = cover.GRASSLAND
    furrow = np.where(depth_here < width, down, across)
    tone, delay = 0.88 + 0.24 * number[1], 24 * number[2] - 12
    return Layout(classes, tone, delay, furrow, margin, lane, 0.0, gsd), lane


def _districts(
    shape: tuple[int, int], gsd: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], Mask]:
    """Voronoi cells that share a field direction, and the lanes that run between them."""
    size = np.array(shape) * gsd
    num = int(np.clip(np.prod(size) / 400**2, 2, 12))
    seeds = (rng.random((num, 2)) * size).astype(np.float32)
    y, x = coordinates(shape, gsd, 0.0)
    nearest = np.full(shape, np.inf, np.float32)
    second = np.full(shape, np.inf, np.float32)
    owner = np.zeros(shape, np.intp)
    rival = np.zeros(shape, np.intp)
    for index, (row, column) in enumerate(seeds):
        square = (y - row) ** 2 + (x - column) ** 2
        closer, closer2 = square < nearest, square < second
        rival = np.where(closer, owner, np.where(closer2, index, rival))
        second = np.where(closer, nearest, np.where(closer2, square, second))
        owner = np.where(closer, index, owner)
        nearest = np.where(closer, square, nearest)
    apart = np.linalg.norm(seeds[:, None] - seeds[None], axis=-1).astype(np.float32)
    # Distance to the line halfway between two seeds: difference of squares over twice their gap.
    return owner, second - nearest < 2 * LANE_HALF_WIDTH * apart[owner, rival]


def _town(
    shape: tuple[int, int], gsd: float, region: float, angle: float, rng: np.random.Generator
) -> tuple[Mask, Mask]:
    """Whole blocks of a turned street grid where a smooth field is high, and the streets."""
    density = smooth_noise(shape, region, rng, octaves=2)
    down, across = coordinates(shape, gsd, angle)
    block_row, block_column = np.floor(down / BLOCK[0]), np.floor(across / BLOCK[1])
    in_row, in_column = down - block_row * BLOCK[0], across - block_column * BLOCK[1]
    # The field is read at the centre of the block, in pixels of the unturned map.
    to_row, to_column = BLOCK[0] / 2 - in_row, BLOCK[1] / 2 - in_column
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    step_down, step_right = to_row * cos + to_column * sin, to_column * cos - to_row * sin
    rows = np.arange(shape[0], dtype=np.float32)[:, None] + step_down / np.float32(gsd)
    columns = np.arange(shape[1], dtype=np.float32)[None] + step_right / np.float32(gsd)
    rows = np.clip(rows.round(), 0, shape[0] - 1).astype(np.intp)
    columns = np.clip(columns.round(), 0, shape[1] - 1).astype(np.intp)
    town = density[rows, columns] > _quantile(density, 0.87)
    off_axis = np.minimum(
        BLOCK[0] / 2 - np.abs(to_row), BLOCK[1] / 2 - np.abs(to_column)
    )  # metres to the nearest street axis
    return town, off_axis < STREET_HALF_WIDTH


def _river(shape: tuple[int, int], gsd: float, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """A river that winds across the map, and the strip it takes with its banks."""
    extent = max(shape) * gsd
    across = coordinates(shape, gsd, rng.uniform(0, np.pi))[1]
    bend = smooth_noise(shape, 0.35 * max(shape), rng, octaves=2)
    # The river is the line where this height, in metres, is zero.
    height = across - across.mean() + np.float32(extent * rng.uniform(-0.2, 0.2))
    height += np.float32(0.07 * extent) * bend
    slope_y, slope_x = np.gradient(height, gsd)
    distance = np.abs(height) / np.maximum(np.hypot(slope_y, slope_x), 0.3)
    half_width = float(np.clip(0.02 * extent, 5, 40))
    return distance < half_width, distance < 1.7 * half_width


def _quantile(field: FloatArray, share: float) -> float:
    """The value that `share` of the field lies below, from one pixel in sixteen."""
    step = 4 if min(field.shape) >= 64 else 1
    return float(np.quantile(field[::step, ::step], share))
