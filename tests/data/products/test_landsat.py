"""Landsat Collection 2 Level-2: factors of the MTL, quality bits as clouds, older band numbers."""

import numpy as np
import pytest
from rasterio import Affine

from skysense.data.scene import open_scene

NAME = "L{sensor}_{level}_039037_20200105_20200113_02_T1"
THIRTY = Affine(30, 0, 6e5, 0, -30, 3.69e6)
MTL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = IMAGE_ATTRIBUTES
    DATE_ACQUIRED = 2020-01-05
  END_GROUP = IMAGE_ATTRIBUTES
  GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
    REFLECTANCE_MULT_BAND_2 = {scale}
    REFLECTANCE_MULT_BAND_3 = {scale}
    REFLECTANCE_ADD_BAND_2 = {offset}
    REFLECTANCE_ADD_BAND_3 = {offset}
  END_GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
END_GROUP = LANDSAT_METADATA_FILE
END
"""
CLEAR = 21824  # water and cloud confidences low, nothing else


@pytest.fixture
def landsat(put, tmp_path):
    """`landsat(sensor, level, quality) -> folder`."""

    def make(sensor="C08", level="L2SP", quality=None, mtl=("2.75e-05", "-0.2"), bands=range(1, 8)):
        name = NAME.format(sensor=sensor, level=level)
        folder = tmp_path / "in" / name
        middle = "SR_" if level.startswith("L2") else ""
        for band in bands:
            values = np.full((1, 16, 16), 8000 + 1000 * band, np.uint16)
            put(folder / f"{name}_{middle}B{band}.TIF", values, THIRTY, "EPSG:32611", nodata=0)
        if quality is None:
            quality = np.full((16, 16), CLEAR)
        put(
            folder / f"{name}_QA_PIXEL.TIF",
            quality[None].astype(np.uint16),
            THIRTY,
            "EPSG:32611",
            nodata=1,
        )
        put(folder / f"{name}_ST_B10.TIF", values, THIRTY, "EPSG:32611", nodata=0)
        put(folder / f"{name}_QA_RADSAT.TIF", 0 * values, THIRTY, "EPSG:32611")
        if mtl:
            scale, offset = mtl
            (folder / f"{name}_MTL.txt").write_text(MTL.format(scale=scale, offset=offset))
        return folder

    return make


def open_(path, sensor=None):
    return open_scene({"s2": [path]}, {"s2": sensor} if sensor else {})


def reflectance(number):
    return number * 2.75e-5 - 0.2


def test_folder_and_tar(landsat, zipped, read):
    folder = landsat()
    scene = open_(folder)
    layer = scene.layers["s2"]
    assert (layer.card.name, str(layer.dates[0])) == ("landsat_c2_l2", "2020-01-05")
    series = read(scene, scale=True).series["s2"]
    numbers = dict(zip(("B2", "B3", "B4", "B8A", "B11", "B12"), range(2, 8), strict=True))
    channels = dict(zip(("B2", "B3", "B4", "B8A", "B11", "B12"), (0, 1, 2, 7, 8, 9), strict=True))
    for band, channel in channels.items():
        expected = reflectance(8000 + 1000 * numbers[band])
        assert series.pixels[0, channel, 0, 0] == pytest.approx(expected, abs=1e-6)
    packed = read(open_(zipped(folder, ".tar"))).series["s2"]
    np.testing.assert_array_equal(packed.pixels, series.pixels)
    with pytest.raises(ValueError, match=r"product of sensor `landsat_c2_l2`"):
        open_(folder.parent, "s2_l2a")


def test_quality_bits_are_masks(landsat, read):
    quality = np.full((16, 16), CLEAR)
    for row, bit in enumerate((1, 2, 3, 4)):  # dilated cloud, cirrus, cloud, shadow
        quality[row] = CLEAR | 1 << bit
    quality[4] = 1  # fill
    quality[5] = CLEAR | 1 << 5  # snow stays
    quality[6] = CLEAR | 1 << 7  # water stays
    folder = landsat(quality=quality)
    mask = read(open_(folder)).series["s2"].mask[0].numpy()
    np.testing.assert_array_equal(mask.all(1), np.arange(16) >= 5)
    np.testing.assert_array_equal(mask.any(1), np.arange(16) >= 5)
    assert read(open_(folder), mask_clouds=False).series["s2"].mask.all()


def test_older_sensors_count_their_bands_from_blue(landsat, read):
    scene = open_(landsat("E07", bands=(1, 2, 3, 4, 5, 7)))
    pixels = read(scene).series["s2"].pixels[0, :, 0, 0].numpy()
    for channel, band in zip((0, 1, 2, 7, 8, 9), (1, 2, 3, 4, 5, 7), strict=True):
        assert pixels[channel] == pytest.approx(reflectance(8000 + 1000 * band), abs=1e-6)


def test_factors_of_the_metadata(landsat, read):
    scene = open_(landsat(mtl=("1e-5", "0.1")))
    assert read(scene).series["s2"].pixels[0, 0, 0, 0] == pytest.approx(0.2, abs=1e-6)
    with pytest.raises(ValueError, match=r"MTL\.txt: a reflectance factor is missing or no number"):
        open_(landsat("C09", mtl=("many", "0")))


def test_level_1_is_refused(landsat):
    with pytest.raises(ValueError, match=r"is Landsat Level-1 \(L1TP\).*order Level-2"):
        open_(landsat(level="L1TP"))
