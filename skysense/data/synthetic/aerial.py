"""The aerial image of a layout: field rows, tree crowns, roofs, streets and their shadows.

The sun stands in the south-east, as it does when Sentinel-2 passes, so shadows fall to the
north-west. Lengths in metres. Legend: H W pixels.
"""

import numpy as np
import numpy.typing as npt

from skysense.data.synthetic import classes as cover
from skysense.data.synthetic.classes import REFLECTANCE, SEASONS, FloatArray, greenness
from skysense.data.synthetic.layout import BLOCK, Layout, Mask, coordinates
from skysense.data.synthetic.noise import hash_unit, smooth_noise

RGB = [2, 1, 0]  # B4, B3, B2 in the order of `S2_BANDS`
DAY = 166.0  # mid June: winter crops ripen, summer crops begin
WHITE = 0.34  # reflectance shown as 255
SHADOW_LENGTH = 6.0
SHADOW_LIGHT = 0.45
TREE_SPACING = 8.0
ASPHALT = (0.105, 0.105, 0.110)
LAWN = (0.050, 0.082, 0.036)
ROOFS = np.array(
    [[0.26, 0.125, 0.085], [0.20, 0.10, 0.08], [0.10, 0.10, 0.11], [0.24, 0.235, 0.23]], np.float32
)  # two tiles, slate, sheet metal


def render_aerial(layout: Layout, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draws the layout as a camera sees it in mid June, (3, H, W) uint8 red, green, blue.

    Source: *ours*.
    """
    classes = layout.classes
    green = greenness(DAY - layout.delay, np.moveaxis(SEASONS[classes], -1, 0))
    bare, full = REFLECTANCE[:, :, RGB]  # (K, 3) each
    image = np.stack([bare[classes, c] + green * (full - bare)[classes, c] for c in range(3)])
    shade = layout.tone * _ground(layout, rng)
    roof = _paint_town(image, shade, layout, rng)
    crowns = _plant_trees(image, shade, layout, roof, rng)
    # A lone tree is cut where its meadow ends, and so must be its shadow.
    wood = np.isin(classes, (cover.FOREST, cover.BUILT_UP))
    shadow = _shadow(roof | (crowns & wood), layout.gsd)
    shadow |= _shadow(crowns & ~wood, layout.gsd) & (classes == cover.GRASSLAND)
    shade[shadow] *= SHADOW_LIGHT
    image *= shade
    image += rng.normal(0, 0.002, image.shape).astype(np.float32)
    return (255 * np.sqrt(np.clip(image / WHITE, 0, 1))).round().astype(np.uint8)


def _ground(layout: Layout, rng: np.random.Generator) -> FloatArray:
    """(H, W) texture of the ground, about 1: rows and wheel tracks in crops, mottle elsewhere."""
    shape, gsd = layout.classes.shape, layout.gsd
    mottle = smooth_noise((shape[0], shape[1]), 25 / gsd, rng, octaves=4)
    strength = np.array([0.02, 0.04, 0.05, 0.035, 0.035, 0.06, 0.05], np.float32)
    texture = 1 + strength[layout.classes] * mottle
    crop = np.isin(layout.classes, (cover.WINTER_CROP, cover.SUMMER_CROP, cover.BARE_SOIL))
    period = 4.75 + 0.1 * layout.delay  # metres; drawn only where the pixels can resolve it
    rows = np.cos(2 * np.pi * layout.furrow / period) * (period > 2.5 * gsd)
    tracks = (layout.furrow % 18) < max(1.0, gsd)
    detail = 1 + 0.05 * rows - 0.10 * (tracks & (gsd < 4))
    return np.where(crop, texture * detail, texture).astype(np.float32)


def _paint_town(
    image: FloatArray, shade: FloatArray, layout: Layout, rng: np.random.Generator
) -> Mask:
    """Paints lawns, houses and streets into `image` (3, H, W); returns the roofs, (H, W)."""
    where = np.nonzero(layout.classes == cover.BUILT_UP)
    shape = (layout.classes.shape[0], layout.classes.shape[1])
    down, across = (c[where] for c in coordinates(shape, layout.gsd, layout.town_angle))
    salt = int(rng.integers(2**31))
    block = np.floor(down / BLOCK[0]), np.floor(across / BLOCK[1])
    hall = hash_unit(salt, *block) < 0.15  # one flat roof fills the block
    lot_depth = np.where(hall, BLOCK[0], BLOCK[0] / 2)
    lot_width = np.where(hall, BLOCK[1], BLOCK[1] / 4)
    lot = np.floor(down / lot_depth), np.floor(across / lot_width)
    number = [hash_unit(salt + k, *lot) for k in range(1, 6)]
    off_y = down - (lot[0] + 0.5) * lot_depth - np.where(hall, 0, 3 * number[0] - 1.5)
    off_x = across - (lot[1] + 0.5) * lot_width - np.where(hall, 0, 2 * number[1] - 1)
    half_y = np.where(hall, 14, 3.6 + 2.2 * number[2])
    half_x = np.where(hall, 24, 4.2 + 2.4 * number[3])
    house = (np.abs(off_y) < half_y) & (np.abs(off_x) < half_x) & (hall | (number[4] < 0.9))
    house &= ~layout.street[where]
    tile = np.where(hall, 2 + (number[0] * 2).astype(int), (number[4] / 0.9 * 3).astype(int) % 3)
    # The roof half that faces the sun is brighter; a flat roof is not.
    facing = np.sign(off_y) * np.sign(np.cos(layout.town_angle) - np.sin(layout.town_angle) + 1e-6)
    lit = np.where(hall, 1.0, 1 + 0.22 * facing)
    for channel in range(3):
        color = np.where(house, ROOFS[tile, channel] * lit, LAWN[channel])
        image[channel][where] = np.where(layout.street[where], ASPHALT[channel], color)
    roof = np.zeros(shape, bool)
    roof[where] = house
    shade[roof | layout.street] = 1
    return roof


def _plant_trees(
    image: FloatArray, shade: FloatArray, layout: Layout, roof: Mask, rng: np.random.Generator
) -> Mask:
    """Shades crowns into wood, gardens and meadows; returns where crowns stand, (H, W)."""
    shape = (layout.classes.shape[0], layout.classes.shape[1])
    share = np.zeros(len(cover.LAND_COVER), np.float32)
    share[[cover.FOREST, cover.BUILT_UP, cover.GRASSLAND]] = 0.96, 0.22, 0.02
    where = np.nonzero((share[layout.classes] > 0) & ~(roof | layout.street | layout.margin))
    y, x = (c[where] / TREE_SPACING for c in coordinates(shape, layout.gsd, 0.0))
    relief, number = _crowns(y, x, share[layout.classes[where]], int(rng.integers(2**31)))
    inside = relief > 0
    forest = layout.classes[where] == cover.FOREST
    light = np.where(inside, (0.6 + 0.9 * relief) * (0.8 + 0.4 * number), 1.0)
    shade[where] *= np.where(forest & ~inside, 0.5, light)  # dark ground between the trunks
    leaf = REFLECTANCE[1, cover.FOREST, RGB]
    for channel in range(3):
        pixels = image[channel][where]
        image[channel][where] = np.where(inside & ~forest, leaf[channel], pixels)
    tall = np.zeros(shape, bool)
    tall[where] = inside
    return tall


def _crowns(
    y: FloatArray, x: FloatArray, share: FloatArray, salt: int
) -> tuple[FloatArray, FloatArray]:
    """Light on the highest crown over each point and that tree's random number, (n,) each.

    One tree may stand in each unit cell, off its centre; its crown is lit from the south-east.
    """
    relief = np.zeros(y.shape, np.float32)
    number = np.zeros(y.shape, np.float32)
    height = np.zeros(y.shape, np.float32)
    for row_step in (-1, 0, 1):
        for column_step in (-1, 0, 1):
            row, column = np.floor(y) + row_step, np.floor(x) + column_step
            lot = [hash_unit(salt + k, row, column) for k in range(4)]
            off_y = y - row - 0.15 - 0.7 * lot[0]
            off_x = x - column - 0.15 - 0.7 * lot[1]
            radius = 0.45 + 0.3 * lot[2]
            dome = 1 - (off_y**2 + off_x**2) / radius**2
            higher = (dome > height) & (lot[3] < share)
            light = np.clip(0.25 + 0.45 * dome + 0.35 * (off_y + off_x) / radius, 0.01, None)
            height = np.where(higher, dome, height)
            relief = np.where(higher, light, relief)
            number = np.where(higher, lot[2], number)
    return relief, number


def _shadow(tall: Mask, gsd: float) -> Mask:
    """Ground north-west of what is tall, as far as shadows reach."""
    shadow = np.zeros_like(tall)
    for step in range(1, int(SHADOW_LENGTH / np.sqrt(2) / gsd) + 1):
        shadow[:-step, :-step] |= tall[step:, step:]
    return shadow & ~tall
