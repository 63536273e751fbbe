"""Cloudy dates are left out, with a line that says which; masks of the user's own count."""

import numpy as np
import pytest
from rasterio import Affine

from skysense.data.products import cloud_share, find_masks, is_clear
from skysense.data.rasters import inspect
from skysense.data.scene import open_scene

ALL = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
TEN = Affine(10, 0, 6e5, 0, -10, 5.34e6)


@pytest.fixture
def series(put, tmp_path):
    """Three dates whose clouds cover 0, 1/4 and 3/4; the last has no classification if asked."""

    def make(shares=(0.0, 0.25, 0.75), name="SCL", cloud=9, clear=4, **profile):
        for month, share in enumerate(shares, 1):
            day = f"2021-{month:02d}-01"
            put(tmp_path / f"in/{day}.tif", np.full((10, 16, 16), 1000, np.uint16), TEN, names=ALL)
            if share is None:
                continue
            classes = np.full((1, 16, 16), clear, np.uint8)
            classes[:, :, : int(16 * share)] = cloud
            put(tmp_path / f"in/{day}_{name}.tif", classes, TEN, **profile)
        return tmp_path / "in"

    return make


def months(scene):
    return [int(str(day)[5:7]) for day in scene.layers["s2"].dates]


def open_(folder, **options):
    return open_scene({"s2": [folder]}, {"s2": "s2_l2a"}, **options)


def test_cloudy_dates_are_left_out_and_named(series):
    folder = series()
    assert months(open_(folder)) == [1, 2, 3]
    with pytest.warns(UserWarning, match=r"s2: left out 1 of 3 dates, cloudier than 0\.5: .*03-01"):
        assert months(open_(folder, max_cloud=0.5)) == [1, 2]
    with pytest.warns(UserWarning, match=r"2021-02-01 \(0\.25\), 2021-03-01 \(0\.75\)"):
        assert months(open_(folder, max_cloud=0.0)) == [1]
    assert months(open_(folder, max_cloud=0.75)) == [1, 2, 3], "not above it"


def test_all_dates_are_cloudier(series):
    folder = series((0.5, 0.25))
    with pytest.raises(ValueError, match=r"every date of s2 is cloudier.*2021-02-01 with 0\.25"):
        open_(folder, max_cloud=0.1)


def test_no_data_is_not_cloud_and_no_mask_is_no_reason(series):
    assert months(open_(series((0.75, 1.0, None), cloud=0), max_cloud=0.1)) == [1, 2, 3]


def test_the_share_is_that_of_the_box(series):
    """The west of the last date is cloudy; its east is not."""
    folder = series((0.0, 0.5))
    east = (10.3472, 48.0, 10.36, 49.0)
    scene = open_(folder, max_cloud=0.1, bbox=east)
    assert months(scene) == [1, 2]
    assert scene.grid.shape[1] < 8


@pytest.mark.parametrize("nodata", [None, 0])
@pytest.mark.parametrize("name", ["cloud_mask", "CLOUDMASK", "my-cloud-mask_v2"])
def test_masks_of_the_user(series, read, name, nodata):
    folder = series((0.0, 0.25), name=name, cloud=1, clear=0, nodata=nodata)
    scene = open_(folder)
    mask = read(scene).series["s2"].mask.numpy()
    assert mask[0].all()
    np.testing.assert_array_equal(mask[1].all(0), np.arange(16) >= 4)
    assert read(scene, mask_clouds=False).series["s2"].mask.all()
    with pytest.warns(UserWarning, match="left out 1 of 2"):
        assert months(open_(folder, max_cloud=0.1)) == [1]


@pytest.fixture
def share(put, tmp_path):
    """`share(kind, pixels (1, H, W), **profile)`: what `--max-cloud` is compared with."""

    def of(kind, pixels, **profile):
        file = inspect(put(tmp_path / f"2021-01-01_{kind}.tif", pixels, TEN, **profile))
        return cloud_share(file, 0, kind.lower(), file.grid)

    return of


def halved(values, missing):
    """A sixteenth of the eastern half is cloud, the western half is missing."""
    clear, cloud = values
    pixels = np.full((1, 16, 16), clear, np.asarray(missing).dtype)
    pixels[:, :8, 8:10] = cloud
    pixels[:, :, :8] = missing
    return pixels


@pytest.mark.parametrize(
    ("kind", "values", "missing", "nodata"),
    [
        ("cloud_mask", (0, 1), np.uint8(255), 255),
        ("cloud_mask", (0, 1), np.int16(-1), -1),
        ("cloud_mask", (0, 1), np.float32(np.nan), None),
        ("cloud_mask", (0, 1), np.float32(np.nan), np.nan),
        ("cloud_mask", (0, 1), np.float32(-9999), -9999),
        ("cloud_mask", (0, 0.4), np.float32(np.inf), None),
        ("SCL", (4, 9), np.uint8(0), 0),
        ("SCL", (4, 9), np.uint8(255), 255),
        ("SCL", (4, 9), np.float32(np.nan), None),
        ("QA_PIXEL", (64, 8), np.uint16(1), 1),
        ("QA_PIXEL", (64, 8), np.uint16(65535), 65535),
        ("QA_PIXEL", (64, 8), np.float32(np.nan), None),
    ],
)
def test_the_share_is_of_what_the_mask_measured(share, kind, values, missing, nodata):
    assert share(kind, halved(values, missing), nodata=nodata) == 1 / 8


def test_a_mask_that_measured_nothing_has_no_share(share):
    assert share("cloud_mask", np.full((1, 16, 16), 255, np.uint8), nodata=255) is None
    assert share("cloud_mask", np.full((1, 16, 16), np.nan, np.float32)) is None


def test_zero_is_clear_in_a_mask_that_declares_it_as_nodata(share):
    """As profiles that are copied from an image do."""
    mask = np.zeros((1, 16, 16), np.uint8)
    mask[:, :4] = 1
    assert share("cloud_mask", mask, nodata=0) == 1 / 4


def test_masks_of_numbers_between_classes_read_as_they_are_counted():
    values = np.array([[0, 0.4, 1, np.nan]], np.float32)
    clear = is_clear("cloud_mask", values, np.isfinite(values))
    assert clear.tolist() == [[True, False, False, True]]


def test_dates_are_not_left_out_for_what_a_mask_did_not_see(series, put):
    folder = series((0.0, None))
    seen = halved((0, 1), np.uint8(255))
    put(folder / "2021-02-01_cloud_mask.tif", seen, TEN, nodata=255)
    assert months(open_(folder, max_cloud=0.2)) == [1, 2]


def test_mask_and_classification_count_both(series, put, read):
    folder = series((0.25,))
    mask = np.zeros((1, 16, 16), np.uint8)
    mask[:, -4:] = 1
    put(folder / "2021-01-01_cloud_mask.tif", mask, TEN)
    clear = read(open_(folder)).series["s2"].mask[0].numpy()
    assert clear[:12, 4:].all()
    assert not clear[12:].any()
    assert not clear[:, :4].any()


def test_a_larger_finer_mask_does_not_change_the_grid(series, put, read):
    folder = series((None,))
    wide = Affine(5, 0, 6e5 - 100, 0, -5, 5.34e6 + 100)
    put(folder / "2021-01-01_cloud_mask.tif", np.zeros((1, 80, 80), np.uint8), wide)
    scene = open_(folder)
    assert scene.grid.shape == (16, 16)
    assert read(scene).series["s2"].mask.all()


def test_days_and_boxes_of_folders(series):
    folder = series()
    assert months(open_(folder, dates="2021-02/2021-03")) == [2, 3]
    with pytest.raises(ValueError, match=r"lies in 2020-01-01/2020-12-31; they are from 2021-01"):
        open_(folder, dates="2020")
    with pytest.raises(ValueError, match=r"no file of `s2_l2a` has a pixel in bbox"):
        open_(folder, bbox=(20, 40, 21, 41))


def test_names_of_masks():
    assert find_masks(["B2", "SCL", "LC08_x_QA_PIXEL", None]) == {"scl": 1, "qa_pixel": 2}
    assert find_masks(["QA_RADSAT", "SR_CLOUD_QA", "cloudy"]) == {}


def test_shares_that_make_no_sense(series):
    folder = series((0.0,))
    with pytest.raises(ValueError, match=r"max_cloud 30: expected a share from 0 to 1; .*0\.3\?"):
        open_(folder, max_cloud=30)
