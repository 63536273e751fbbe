"""The picture: components as numpy finds them, a thumbnail without seams, a whole PNG."""

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning

from skysense.geo import Window
from skysense.inference.quicklook import (
    SIDE,
    Moments,
    Thumbnail,
    enlarge,
    features_picture,
    stretch,
    write_quicklook,
)
from skysense.sample import Sample, Series, undated
from skysense.sensors import SENSORS


def features(shape=(12, 17), channels=6, seed=0):
    """`(D, h, w)` with three strong directions far from zero, and a hole."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(channels, 3)) @ (
        rng.normal(size=(3, np.prod(shape))) * [[9], [4], [2]]
    )
    values = (mixed + 0.01 * rng.normal(size=mixed.shape)).reshape(channels, *shape) + 1000
    values[:, 2:5, 3:9] = np.nan
    return values.astype(np.float32)


def of(values, rows=5):
    moments = Moments(values.shape[0])
    for row in range(0, values.shape[1], rows):
        moments.add(values[:, row : row + rows])
    return moments


def sample(pixels, mask=None, sensor="rgb8"):
    """Of `(T, C, H, W)`."""
    mask = np.ones((pixels.shape[0], *pixels.shape[2:]), bool) if mask is None else mask
    series = Series(torch.from_numpy(pixels), torch.from_numpy(mask), undated(len(pixels)), sensor)
    return Sample({SENSORS[sensor].modality: series})


def test_components_are_those_of_all_valid_cells():
    values = features()
    cells = values.reshape(6, -1)
    cells = cells[:, np.isfinite(cells[0])].astype(np.float64)
    _, vectors = np.linalg.eigh(np.cov(cells, bias=True))
    mean, directions = of(values).components()
    np.testing.assert_allclose(mean, cells.mean(1), rtol=1e-9)
    cosines = np.abs((directions * vectors[:, ::-1][:, :3].T).sum(1))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    assert (np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1) > 0).all()


def test_components_do_not_depend_on_how_rows_come():
    for rows in (1, 12):
        mean, directions = of(features(), rows).components()
        np.testing.assert_allclose(mean, of(features()).components()[0])
        np.testing.assert_allclose(directions, of(features()).components()[1], atol=1e-4)


def test_nothing_valid_has_components_all_the_same():
    mean, directions = of(np.full((4, 3, 3), np.nan, np.float32)).components()
    assert np.isfinite(mean).all()
    assert np.isfinite(directions).all()


def test_features_are_shown_and_holes_are_white():
    values = features()
    picture = features_picture(values.transpose(1, 0, 2), of(values))
    assert (picture.shape, picture.dtype) == ((3, 12, 17), np.uint8)
    assert (picture[:, 2:5, 3:9] == 255).all()
    assert picture[0].std() > 40


def test_large_maps_are_thinned():
    values = np.random.default_rng(0).normal(size=(3, 3, SIDE + 1)).astype(np.float32)
    assert features_picture(values.transpose(1, 0, 2), of(values)).shape == (3, 2, SIDE // 2 + 1)


def test_stretch():
    ramp = np.stack([np.arange(101.0), np.arange(101.0) / 2, np.full(101, np.nan)])[:, None]
    ramp = ramp.astype(np.float32)
    each, together = stretch(ramp[:2].repeat(2, 1)), stretch(ramp[:2].repeat(2, 1), together=True)
    assert (each[0] == each[1]).all()
    assert each[0, 0, 50] == pytest.approx(127, abs=1)
    assert each.min() == 0
    assert each.max() == 255
    assert together[0].max() == 255
    assert together[1].max() < 140
    assert (stretch(ramp[2:]) == 255).all()
    assert (stretch(np.full((3, 2, 2), 7, np.float32)) == 0).all(), "one value alone"


def add(thumbnail, window, tile):
    thumbnail.paste(window, thumbnail.cut(window, tile))


@pytest.mark.parametrize(
    ("sensor", "channels"),
    [("rgb8", [0, 1, 2]), ("s2", [2, 1, 0]), ("s1", [0, 1, 0]), ("s1_vv", [0, 0, 0])],
)
def test_thumbnail_shows_the_colours_of_the_sensor(sensor, channels):
    card = SENSORS[sensor]
    count = {"hr": 3, "s2": 10, "s1": 2}[card.modality]
    pixels = np.random.default_rng(0).normal(size=(1, count, 8, 9)).astype(np.float32)
    thumbnail = Thumbnail((8, 9), card.modality, card)
    add(thumbnail, Window(0, 0, 8, 9), sample(pixels, sensor=sensor))
    expected = stretch(pixels[0, channels], together=card.modality != "s1")
    np.testing.assert_array_equal(thumbnail.picture(), expected)


@pytest.mark.parametrize("shape", [(40, 30), (SIDE + 7, 50), (30, 3 * SIDE)])
def test_thumbnail_of_tiles_is_that_of_the_whole(shape):
    pixels = np.random.default_rng(0).normal(size=(1, 3, *shape)).astype(np.float32)
    step = -(-max(shape) // SIDE)
    thumbnail = Thumbnail(shape, "hr", SENSORS["rgb8"])
    tile, stride = 16, 13
    for row in range(0, shape[0], stride):
        for col in range(0, shape[1], stride):
            part = pixels[:, :, row : row + tile, col : col + tile]
            add(thumbnail, Window(row, col, *part.shape[2:]), sample(part))
    expected = stretch(pixels[0, :, ::step, ::step], together=True)
    np.testing.assert_array_equal(thumbnail.picture(), expected)


def test_thumbnail_takes_the_first_date_that_saw_a_place():
    pixels = np.stack([np.full((3, 4, 4), v, np.float32) for v in (10, 20, 30)])
    mask = np.ones((3, 4, 4), bool)
    mask[0, :2] = False
    mask[:2, 0] = False
    mask[:, 0, 0] = False
    thumbnail = Thumbnail((4, 4), "hr", SENSORS["rgb8"])
    add(thumbnail, Window(0, 0, 4, 4), sample(pixels, mask))
    shown = thumbnail._pixels[0]
    np.testing.assert_array_equal(shown[:, 1], [30, 20, 10, 10])
    assert np.isnan(shown[0, 0])


def test_enlarge_repeats_cells():
    picture = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    np.testing.assert_array_equal(enlarge(picture, (6, 4)), picture.repeat(3, 1).repeat(2, 2))


def read_png(path):
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as file:
        return file.read()


def test_png_with_scene_and_features_side_by_side(tmp_path):
    scene, cells = np.full((3, 600, 400), 9, np.uint8), np.full((3, 10, 7), 200, np.uint8)
    path = tmp_path / "new" / "look.png"
    write_quicklook(path, scene, cells)
    image = read_png(path)
    assert image.shape == (3, 600, 816)
    assert (image[:, :, :400] == 9).all()
    assert (image[:, :, 400:416] == 255).all()
    assert (image[:, :, 416:] == 200).all()
    assert list(path.parent.iterdir()) == [path], "no side-car, nothing temporary"


def test_small_scenes_are_enlarged(tmp_path):
    write_quicklook(
        tmp_path / "a.png", np.zeros((3, 64, 32), np.uint8), np.zeros((3, 2, 1), np.uint8)
    )
    assert read_png(tmp_path / "a.png").shape == (3, 512, 2 * 256 + 16)


def test_no_folder_to_write_to(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "look.png"
    message = r"cannot write the picture .*look\.png .*the map itself is complete"
    with pytest.raises(ValueError, match=message):
        write_quicklook(path, np.zeros((3, 4, 4), np.uint8), np.zeros((3, 1, 1), np.uint8))
