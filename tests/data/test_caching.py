"""Decoded blocks are kept between windows, in memory that depends on the windows alone."""

import numpy as np
import pytest
import rasterio
from rasterio._env import get_gdal_config
from rasterio.errors import NotGeoreferencedWarning

from skysense.data.caching import LEAST_BYTES, block_cache, bytes_under_window
from skysense.data.scene import SceneReader, open_scene
from skysense.geo import Window

MOST_BYTES = 512 << 20


def cache_bytes():
    return int(get_gdal_config("GDAL_CACHEMAX"))


def write(path, shape=(512, 512), block=256, **settings):
    """Bytes of noise, in blocks that do not compress."""
    facts = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 5.3e6)}
    facts |= {"dtype": "uint8", "count": 3, "height": shape[0], "width": shape[1]}
    facts |= {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate"}
    pixels = np.random.default_rng(0).integers(1, 255, (3, *shape), np.uint8)
    with rasterio.open(path, "w", driver="GTiff", **facts | settings) as file:
        file.write(pixels)
    return path


def test_a_block_is_decoded_once_for_neighbouring_windows(tmp_path):
    path = write(tmp_path / "scene.tif")
    scene = open_scene({"hr": [path]}, {"hr": "rgb8"})
    with SceneReader(scene) as reader:
        before = reader.read(Window(0, 0, 128, 128)).series["hr"].pixels
        reader.read(Window(0, 256, 128, 128))  # another block
        size = path.stat().st_size
        with path.open("r+b") as file:  # what is not decoded yet is lost
            file.seek(4096)
            file.write(bytes(size - 4096))
        again = reader.read(Window(0, 0, 128, 128)).series["hr"].pixels
        beside = reader.read(Window(0, 64, 128, 128)).series["hr"].pixels
        with pytest.raises(ValueError, match=r"scene\.tif: is truncated or damaged"):
            reader.read(Window(256, 256, 128, 128))
    assert (again == before).all()
    assert (beside[..., :64] == before[..., 64:]).all()


def test_a_scene_leaves_the_cache_of_others_as_it_was(tmp_path):
    scene = open_scene({"hr": [write(tmp_path / "scene.tif")]}, {"hr": "rgb8"})
    before = cache_bytes()
    with SceneReader(scene):
        assert cache_bytes() == LEAST_BYTES
    assert cache_bytes() == before


@pytest.mark.parametrize(
    ("shape", "block", "expected"),
    [
        ((512, 512), 256, 3 * 512 * 512),  # no more than there is
        ((2048, 2048), 256, 3 * 1024 * 1024),  # four blocks a side touch 512 pixels anywhere
        ((2048, 2048), 512, 3 * 1536 * 1536),
    ],
)
def test_the_blocks_under_a_window_are_counted(tmp_path, shape, block, expected):
    with rasterio.open(write(tmp_path / "a.tif", shape, block)) as source:
        assert bytes_under_window(source) == expected


def test_the_cache_grows_with_the_files_and_ends(tmp_path):
    with rasterio.open(write(tmp_path / "a.tif", (2048, 2048), 512)) as source:
        each = bytes_under_window(source)
        for count, expected in ((1, LEAST_BYTES), (10, 10 * each), (1000, MOST_BYTES)):
            with block_cache([source] * count):
                assert cache_bytes() == expected


def test_the_files_of_ground_range_images_are_counted(grd):
    with pytest.warns(UserWarning, match="without terrain correction"):
        scene = open_scene({"s1": [grd()]}, {"s1": "s1"})
    files = scene.layers["s1"].acquisitions[0].files
    with SceneReader(scene) as reader:
        held = [source for own in reader._series["s1"] for source in own.opened()]
        assert sorted(source.name for source in held) == sorted(str(file.path) for file in files)


def test_the_lines_of_an_image_that_lies_turned_are_counted(tmp_path):
    """A strip a line, as radar images have it: as many as the diagonal of a window is long."""
    strips = {"blockysize": 1, "tiled": False, "count": 1, "crs": None, "transform": None}
    path = tmp_path / "a.tif"
    with (
        pytest.warns(NotGeoreferencedWarning),
        rasterio.open(
            path, "w", driver="GTiff", width=600, height=2000, dtype="uint16", **strips
        ) as file,
    ):
        file.write(np.zeros((1, 2000, 600), np.uint16))
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(path) as source:
        assert 2 * 600 * 512 * 2**0.5 <= bytes_under_window(source) < 2 * 600 * 740
