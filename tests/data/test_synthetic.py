"""The synthetic scene: repeatable, the same ground in every modality, and true GeoTIFFs."""

import dataclasses
import itertools

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.data.synthetic import (
    LAND_COVER,
    S2_BANDS,
    land_cover,
    make_scene,
    write_scene,
)
from skysense.data.synthetic.classes import SEASONS, greenness
from skysense.data.synthetic.noise import hash_unit, smooth_noise
from skysense.data.synthetic.satellites import speckle

NAMES = [cover.name for cover in LAND_COVER]
WATER, FOREST, SUMMER_CROP = (NAMES.index(n) for n in ("water", "forest", "summer crop"))
B2, B4, B8 = (S2_BANDS.index(band) for band in ("B2", "B4", "B8"))


@pytest.fixture(scope="module")
def scene():
    return make_scene(seed=3, s2_dates=12)


@pytest.fixture(scope="module")
def written(scene, tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "new" / "folder", scene)


def blocks(pixels, factor):
    """(H, W) -> (h, w, factor * factor)."""
    height, width = (n // factor for n in pixels.shape)
    cut = pixels.reshape(height, factor, width, factor)
    return cut.swapaxes(1, 2).reshape(height, width, -1)


def pure(scene, factor=8):
    """(h, w) the cover of the satellite pixels that hold one alone, else 255."""
    aerial = land_cover(scene.hr.shape[1:], seed=3, gsd=scene.hr_gsd)
    cells = blocks(aerial, factor)
    alone = (cells == cells[..., :1]).all(-1)
    return np.where(alone, scene.classes, 255)


def ndvi(numbers):
    red, near_infrared = numbers[..., B4, :, :].astype(float), numbers[..., B8, :, :].astype(float)
    return (near_infrared - red) / (near_infrared + red)


def arrays(scene):
    return {name: value for name, value in vars(scene).items() if isinstance(value, np.ndarray)}


def test_shapes_and_types(scene):
    found = {name: (value.shape, str(value.dtype)) for name, value in arrays(scene).items()}
    assert found == {
        "classes": ((64, 64), "uint8"),
        "hr": ((3, 512, 512), "uint8"),
        "s2": ((12, 10, 64, 64), "uint16"),
        "s2_scl": ((12, 64, 64), "uint8"),
        "s2_dates": ((12,), "datetime64[D]"),
        "s1": ((4, 2, 64, 64), "float32"),
        "s1_dates": ((4,), "datetime64[D]"),
    }
    assert scene.crs == "EPSG:32632"
    assert scene.hr_gsd == 1.25
    assert scene.s2.min() > 0, "0 means nodata, and nothing is missing"
    assert np.isfinite(scene.s1).all()


def test_same_seed_same_scene_and_another_seed_another():
    first, again, other = (make_scene(size=16, seed=seed) for seed in (5, 5, 6))
    for name, value in arrays(first).items():
        np.testing.assert_array_equal(value, getattr(again, name), err_msg=name)
        assert not np.array_equal(value, getattr(other, name)), name


def test_number_of_dates_in_one_series_leaves_the_rest_alone():
    first, fewer = make_scene(size=16), make_scene(size=16, s2_dates=2)
    for name in ("classes", "hr", "s1", "s1_dates"):
        np.testing.assert_array_equal(getattr(first, name), getattr(fewer, name), err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_every_class_is_present_and_patches_are_coherent(seed):
    classes = land_cover((512, 512), seed)
    shares = np.bincount(classes.ravel(), minlength=len(LAND_COVER)) / classes.size
    assert len(shares) == len(LAND_COVER)
    assert shares.min() > 0.01, dict(zip(NAMES, shares, strict=True))
    same = (classes[1:] == classes[:-1]).mean(), (classes[:, 1:] == classes[:, :-1]).mean()
    assert min(same) > 0.95


def test_land_cover_is_not_bound_to_squares():
    assert land_cover((40, 200), gsd=2.5).shape == (40, 200)


def test_10m_classes_are_the_majority_of_the_aerial_classes(scene):
    cells = blocks(land_cover((512, 512), seed=3, gsd=scene.hr_gsd), 8)
    counts = np.stack([(cells == code).sum(-1) for code in range(len(LAND_COVER))])
    here = np.take_along_axis(counts, scene.classes[None].astype(int), 0)[0]
    np.testing.assert_array_equal(here, counts.max(0))


def test_aerial_colour_tells_the_10m_class(scene):
    cover = pure(scene)
    color = np.stack([blocks(band, 8).mean(-1) for band in scene.hr], -1)  # (h, w, 3)
    texture = np.stack([blocks(band, 8).std(-1) for band in scene.hr], -1)
    seen = np.concatenate([color, texture], -1)
    west, east = np.s_[:, :32], np.s_[:, 32:]
    centers = np.array(
        [np.median(seen[west][cover[west] == code], axis=0) for code in range(len(LAND_COVER))]
    )
    known = cover[east] != 255
    away = np.abs(seen[east][known][:, None] - centers).sum(-1)
    agreement = (away.argmin(-1) == cover[east][known]).mean()
    assert agreement > 0.5, "chance is below 0.3; single crops look alike in June"


def test_aerial_has_detail_below_the_10m_pixel(scene):
    cover = pure(scene)
    texture = blocks(scene.hr[1], 8).std(-1)
    assert np.median(texture[cover == FOREST]) > 3 * np.median(texture[cover == WATER])


def test_summer_crop_is_greenest_in_summer(scene):
    cover = pure(scene)
    clear = np.isin(scene.s2_scl, (4, 5, 6))
    values = np.where(clear & (cover == SUMMER_CROP), ndvi(scene.s2), np.nan)
    months = scene.s2_dates.astype("datetime64[M]").astype(int) % 12 + 1
    medians = [np.nan if np.isnan(date).all() else np.nanmedian(date) for date in values]
    assert months[np.nanargmax(medians)] in (7, 8)
    assert np.nanmax(medians) > 0.7
    assert np.nanmin(medians) < 0.3


def test_water_is_dark_in_near_infrared_and_in_radar(scene):
    cover = pure(scene)
    clear = np.isin(scene.s2_scl, (4, 5, 6)) & (cover == WATER)
    assert np.median(scene.s2[:, B8][clear]) < 300
    assert scene.s1[:, 0][:, cover == WATER].mean() < scene.s1[:, 0][:, cover == FOREST].mean() - 8


def test_scene_classification_agrees_with_the_pixels(scene):
    assert set(np.unique(scene.s2_scl)) == {3, 4, 5, 6, 9}
    assert scene.s2[:, B2][scene.s2_scl == 9].min() > 1500
    assert scene.s2[:, B2][scene.s2_scl != 9].max() < 3000
    assert np.median(ndvi(scene.s2)[scene.s2_scl == 4]) > 0.5
    open_water = np.isin(scene.s2_scl, (4, 5, 6)) & (scene.classes == WATER)
    assert (scene.s2_scl[open_water] == 6).all()


def test_shadow_darkens(scene):
    near_infrared = scene.s2[:, B8].astype(float)
    for code in (FOREST, SUMMER_CROP):
        cover = (scene.classes == code) & (scene.s2_scl != 9)
        dates = [t for t in range(12) if (cover & (scene.s2_scl == 3))[t].sum() > 20]
        assert dates
        for t in dates:
            shadow, lit = (cover & (scene.s2_scl == 3))[t], (cover & (scene.s2_scl != 3))[t]
            assert np.median(near_infrared[t][shadow]) < 0.9 * np.median(near_infrared[t][lit])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_cloud_cover_is_met_on_average(share):
    clouds = [make_scene(16, 1, 12, 1, share, seed).s2_scl == 9 for seed in range(8)]
    assert np.mean(clouds) == pytest.approx(share, abs=0.06 if 0 < share < 1 else 0)


def test_speckle_keeps_the_mean_and_has_the_stated_looks():
    power = np.full((2, 300, 300), 0.05, np.float32)
    seen = speckle(power, np.random.default_rng(0))
    assert seen.mean() == pytest.approx(0.05, rel=0.01)
    assert seen.mean() ** 2 / seen.var() == pytest.approx(4.4, rel=0.03)


def test_radar_power_of_water_is_the_one_in_the_table(scene):
    power = 10 ** (scene.s1[:, 0][:, pure(scene) == WATER].astype(float) / 10)
    cover = LAND_COVER[WATER]
    low, high = sorted((cover.bare_db[0], cover.green_db[0]))
    assert low - 0.3 < 10 * np.log10(power.mean()) < high + 0.3


@settings(max_examples=10, deadline=None)
@given(num=st.integers(1, 365), seed=st.integers(0, 50))
def test_dates_are_distinct_sorted_and_within_the_year(num, seed):
    dates = make_scene(8, 1, num, 1, 0, seed, year=2023).s2_dates
    assert len(dates) == num
    assert (np.diff(dates).astype(int) > 0).all()
    assert (dates.astype("datetime64[Y]") == np.datetime64("2023")).all()


@given(day=st.integers(1, 365), code=st.integers(0, len(LAND_COVER) - 1))
def test_greenness_is_a_share_and_cyclic(day, code):
    value = greenness(day, SEASONS[code])
    assert 0 <= value <= 1
    assert greenness(SEASONS[code][1], SEASONS[code]) == 1
    np.testing.assert_allclose(greenness(365, SEASONS[code]), greenness(0, SEASONS[code]))


def test_spectra_are_physical():
    for cover in LAND_COVER:
        for spectrum in (cover.bare, cover.green):
            assert len(spectrum) == len(S2_BANDS)
            assert 0 < min(spectrum) < max(spectrum) < 0.6
        assert cover.season[0] < cover.season[1] < cover.season[2]
        assert all(vv > vh for vv, vh in (cover.bare_db, cover.green_db))


def test_noise_is_standardized_and_smooth():
    field = smooth_noise((200, 300), 40, np.random.default_rng(0))
    assert field.mean() == pytest.approx(0, abs=1e-4)
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(field, axis=0)).max() < 0.2


def test_hash_is_uniform_and_tells_keys_apart():
    rows, columns = np.mgrid[-50:50, -50:50]
    values = hash_unit(7, rows, columns)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.02)
    assert len(np.unique(values)) > 0.999 * values.size
    assert abs(np.corrcoef(values.ravel(), hash_unit(8, rows, columns).ravel())[0, 1]) < 0.04
    assert abs(np.corrcoef(values[1:].ravel(), values[:-1].ravel())[0, 1]) < 0.04


def test_files_are_named_by_date_and_described(scene, written):
    stamps = [str(date).replace("-", "") for date in scene.s2_dates]
    assert list(written) == ["hr", "s2", "s1"]
    assert [p.name for p in written["hr"]] == ["hr.tif"]
    assert [p.name for p in written["s2"]] == [
        f"s2_{s}_{gsd}m.tif" for s, gsd in itertools.product(stamps, (10, 20))
    ]
    assert [p.name for p in written["s1"]] == [
        f"s1_{str(date).replace('-', '')}.tif" for date in scene.s1_dates
    ]
    folder = written["hr"][0].parent
    assert sorted(folder.iterdir()) == sorted(itertools.chain(*written.values()))
    cases = {
        written["hr"][0]: (("R", "G", "B"), "uint8", 1.25, None, 256),
        written["s2"][0]: (("B02", "B03", "B04", "B08"), "uint16", 10, 0, 64),
        written["s2"][1]: (
            ("B05", "B06", "B07", "B8A", "B11", "B12", "SCL"), "uint16", 20, 0, 32,
        ),
        written["s1"][0]: (("VV", "VH"), "float32", 10, np.nan, 64),
    }  # fmt: skip
    for path, (names, dtype, gsd, nodata, block) in cases.items():
        with rasterio.open(path) as file:
            assert file.descriptions == names
            assert set(file.dtypes) == {dtype}
            assert file.res == (gsd, gsd)
            np.testing.assert_equal(file.nodata, nodata)
            assert set(file.block_shapes) == {(block, block)}
            assert file.compression.value == "DEFLATE"


def test_files_of_all_modalities_cover_the_same_ground(scene, written):
    x, y = scene.origin
    for path in itertools.chain(*written.values()):
        with rasterio.open(path) as file:
            assert file.crs == rasterio.CRS.from_string("EPSG:32632")
            assert (file.transform.c, file.transform.f) == scene.origin
            assert tuple(file.bounds) == (x, y - 640, x + 640, y)


def test_files_hold_the_pixels(scene, written):
    with rasterio.open(written["hr"][0]) as file:
        np.testing.assert_array_equal(file.read(), scene.hr)
    with rasterio.open(written["s2"][2]) as file:
        np.testing.assert_array_equal(file.read(), scene.s2[1][[0, 1, 2, 6]])
    with rasterio.open(written["s2"][3]) as file:
        coarse = file.read()
    means = blocks(scene.s2[1, S2_BANDS.index("B11")].astype(float), 2).mean(-1)
    np.testing.assert_allclose(coarse[4], means, atol=0.5)
    np.testing.assert_array_equal(coarse[6], scene.s2_scl[1, ::2, ::2])
    with rasterio.open(written["s1"][-1]) as file:
        np.testing.assert_array_equal(file.read(), scene.s1[-1])


def test_nodata_does_not_dilute_the_20m_means(tmp_path):
    scene = make_scene(size=16, hr_per_s2=1, s2_dates=1, s1_dates=1)
    holes = scene.s2.copy()
    holes[0, 3, :2, :2] = [[0, 100], [200, 0]]  # B5
    holes[0, 3, 2:4, :2] = 0
    files = write_scene(tmp_path, dataclasses.replace(scene, s2=holes))
    with rasterio.open(files["s2"][1]) as file:
        assert file.read(1)[:2, 0].tolist() == [150, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "`size` is 4; expected a whole number of 8 or more"),
        ({"size": 64.0}, "`size` is 64.0; expected a whole number"),
        ({"hr_per_s2": 0}, "`hr_per_s2` is 0"),
        ({"s2_dates": 0}, "`s2_dates` is 0; expected a whole number from 1 to 365"),
        ({"s1_dates": 366}, "`s1_dates` is 366"),
        ({"cloud_cover": 20}, "`cloud_cover` is 20; expected a share from 0 to 1"),
        ({"cloud_cover": float("nan")}, "`cloud_cover` is nan"),
        ({"seed": -1}, "`seed` is -1"),
        ({"year": 0}, "`year` is 0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_scene(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((64, 7),), r"`shape` is \(64, 7\)"),
        (((64,),), r"`shape` is \(64,\)"),
        (((64, 64), -1), "`seed` is -1"),
        (((64, 64), 0, 0.0), "`gsd` is 0.0"),
    ],
)
def test_wrong_map_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        land_cover(*arguments)


def test_odd_scene_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="9 x 9 pixels of 10 m; expected even sides"):
        write_scene(tmp_path / "odd", make_scene(size=9, hr_per_s2=1, s2_dates=1, s1_dates=1))
    assert not (tmp_path / "odd").exists()
