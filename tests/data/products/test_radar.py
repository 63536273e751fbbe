"""Sentinel-1: corrected pairs are read in the unit their names say, amplitudes are refused."""

import numpy as np
import pytest
from rasterio import Affine

from skysense.data.scene import open_scene

GRD = "S1A_IW_GRDH_1SDV_20200903T171212_20200903T171237_034197_03F8E6_2D1B"
HYP3 = "S1A_IW_20200903T171212_DVP_RTC20_G_g{scale}uned_1A2B"
OPERA = "OPERA_L2_RTC-S1_T064-135518-IW1_20200903T171212Z_20200905T070711Z_S1A_30_v1.0"
TEN = Affine(10, 0, 6e5, 0, -10, 5.34e6)


def power(value=0.05):
    return np.full((1, 16, 16), value, np.float32)


def s1(path, sensor=None):
    return open_scene({"s1": [path]}, {"s1": sensor} if sensor else {})


@pytest.fixture
def pair(put, tmp_path):
    """`pair("folder/name_{}.tif", value)`: VV and VH."""

    def make(name, value=0.05, words=("VV", "VH")):
        for word in words:
            path = put(tmp_path / "in" / name.format(word), power(value), TEN)
        return path.parent

    return make


def test_corrected_pair(pair, read):
    folder = pair(f"{GRD}_{{}}.tif", -12.0)
    scene = s1(folder)
    assert scene.layers["s1"].card.name == "s1"
    assert scene.layers["s1"].dates[0] == np.datetime64("2020-09-03")
    assert read(scene).series["s1"].pixels[0, :, 0, 0].tolist() == [-12.0, -12.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{HYP3.format(scale='p')}/{HYP3.format(scale='p')}_{{}}.tif", ("VV", "VH")),
        (f"{OPERA}_{{}}.tif", ("VV", "VH")),
        (f"{GRD}_rtc/measurement/iw-{{}}.rtc.tiff", ("vv", "vh")),
    ],
)
def test_linear_power_of_rtc_archives(pair, read, put, tmp_path, name, words):
    folder = pair(name, words=words)
    put(tmp_path / "in" / name.format("inc_map"), power(0.7), TEN)  # beside the measurement
    scene = s1(folder)
    assert scene.layers["s1"].card.name == "s1_linear"
    assert scene.layers["s1"].dates[0] == np.datetime64("2020-09-03")
    sample = read(scene, scale=True)
    assert sample.series["s1"].pixels[0, 0, 0, 0] == pytest.approx(10 * np.log10(0.05))
    with pytest.raises(ValueError, match=r"product of sensor `s1_linear`, but `s1` is asked for"):
        s1(folder, "s1")


def test_decibel_and_amplitude_of_hyp3(pair, zipped, read):
    name = HYP3.format(scale="d")
    folder = pair(f"{name}/{name}_{{}}.tif", -12.0)
    scene = s1(folder)
    assert scene.layers["s1"].card.name == "s1"
    archive = zipped(folder, keep=True)
    other = read(s1(archive)).series["s1"]
    np.testing.assert_array_equal(other.pixels, read(scene).series["s1"].pixels)
    name = HYP3.format(scale="a")
    with pytest.raises(ValueError, match=r"holds amplitudes: order HyP3 RTC in power or decibel"):
        s1(pair(f"{name}/{name}_{{}}.tif", 0.2))


def test_two_passes_of_a_day_keep_apart(pair):
    names = [HYP3.format(scale="p").replace("T171212", time) for time in ("T051212", "T171212")]
    for name in names:
        folder = pair(f"{name}_{{}}.tif")
    layer = s1(folder).layers["s1"]
    assert len(layer.acquisitions) == 2
    for acquisition in layer.acquisitions:
        assert len({file.product for file in acquisition.files}) == 1
