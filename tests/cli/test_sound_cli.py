"""The check before embedding: errors in what is read stop it, those in the rest do not."""

import numpy as np
import pytest
import rasterio.shutil

S2_NAMES = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
NEW, OLD = "20210601", "20190601"


@pytest.fixture
def picture(raster):
    """`picture(name, **raster) -> Path` of 64 x 64 pixels in the folder `in`."""
    rng = np.random.default_rng(0)

    def write(name, names=("R", "G", "B"), **facts):
        pixels = rng.integers(20, 200, (3, 64, 64), np.uint8)
        return raster(f"in/{name}", pixels, names, **facts)

    return write


def damage(path):
    """Let a file break off behind its header."""
    whole = path.rename(path.with_name("whole.tif"))
    rasterio.shutil.copy(whole, path, driver="COG")
    whole.unlink()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damage_on_a_day_that_is_left_out(embed, refused, picture, tmp_path):
    picture(f"{NEW}.tif")
    damage(picture(f"{OLD}.tif"))
    folder = tmp_path / "in"
    assert embed(folder, "--dates", "2021").exit_code == 0
    refused(folder, match=f"{OLD}.tif: is damaged", output="x.tif")
    refused(folder, "--dates", "2019/2021", match=f"{OLD}.tif: is damaged", output="x.tif")
    refused(folder, "--dates", "2019", match=f"{OLD}.tif: is damaged", output="x.tif")


def test_a_file_of_a_day_that_is_left_out_is_not_opened(embed, refused, picture, tmp_path):
    picture(f"{NEW}.tif")
    old = picture(f"{OLD}.tif")
    old.write_bytes(b"no raster")
    assert embed(tmp_path / "in", "--dates", "2021").exit_code == 0
    refused(tmp_path / "in", "--dates", "2019/2021", match=f"{OLD}.tif: cannot", output="x.tif")
    old.rename(tmp_path / "in/some_day.tif")
    refused(tmp_path / "in", "--dates", "2021", match="some_day.tif: cannot", output="x.tif")


def test_damage_on_a_file_of_no_day(embed, refused, picture, tmp_path):
    picture(f"{NEW}.tif")
    damage(picture("some_day.tif"))
    assert embed(tmp_path / "in", "--dates", "2021").exit_code == 0
    refused(tmp_path / "in", match="some_day.tif: is damaged", output="x.tif")


def test_damage_on_ground_that_is_left_out(embed, refused, picture, tmp_path):
    picture(f"{NEW}.tif")
    damage(picture("20210611.tif", transform=(10.0, 0.0, 602_000.0, 0.0, -10.0, 5_340_000.0)))
    west = ("--bbox", "10.345,48.205,10.352,48.2075")
    assert embed(tmp_path / "in", *west).exit_code == 0
    refused(tmp_path / "in", match="20210611.tif: is damaged", output="x.tif")


def test_damage_on_a_cloudy_day(embed, refused, picture, raster, tmp_path):
    picture(f"{NEW}.tif")
    damage(picture("20210611.tif"))
    raster("in/20210611_cloud_mask.tif", np.ones((1, 64, 64), np.uint8), names=None)
    assert embed(tmp_path / "in", "--max-cloud", "0.5").exit_code == 0
    refused(tmp_path / "in", match="20210611.tif: is damaged", output="x.tif")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_that_no_date_could_take(embed, refused, picture, tmp_path):
    """The reader passes over bands without names in a folder; their user did not mean that."""
    picture(f"{NEW}.tif")
    picture(f"{OLD}.tif", names=None, photometric="MINISBLACK")
    folder = tmp_path / "in"
    assert embed(folder, "--dates", "2021").exit_code == 0
    refused(folder, match=f"{OLD}.tif: its 3 bands have no names", output="x.tif")
    refused(folder, "--dates", "2019/2021", match=f"{OLD}.tif: its 3 bands", output="x.tif")
    east = ("--bbox", "10.36,48.205,10.37,48.2075")
    picture(f"{NEW}_east.tif", transform=(10.0, 0.0, 601_000.0, 0.0, -10.0, 5_340_000.0))
    assert embed(folder, *east).exit_code == 0


def test_an_unreadable_product_of_another_sensor(embed, refused, raster, tmp_path):
    digital = np.random.default_rng(0).integers(200, 3000, (10, 16, 16)).astype(np.uint16)
    raster(f"in/{NEW}.tif", digital, S2_NAMES)
    landsat = tmp_path / "in" / "LC08_L2SP_039037_20190616_20190620_02_T1_SR_B4.tif"
    landsat.write_text("no raster")
    folder = ("--s2", tmp_path / "in", "--sensor", "s2_l2a")
    assert embed(*folder, "--dates", "2021").exit_code == 0
    refused(*folder, match="SR_B4.tif: is no raster", output="x.tif")


def test_an_error_that_is_no_damage(embed, refused, picture, raster, tmp_path):
    """A readable file is examined where it is read, and there alone."""
    picture(f"{NEW}.tif")
    raster(f"in/{OLD}.tif", np.random.default_rng(0).uniform(0, 1, (3, 64, 64)).astype(np.float32))
    assert embed(tmp_path / "in", "--dates", "2021").exit_code == 0
    refused(tmp_path / "in", "--dates", "2019", match="the median is", output="x.tif")
