"""Layers over each other: the finest is the reference, the rest nested, clouds and holes masked."""

import errno
import os

import numpy as np
import pytest
from pyproj import Transformer

from skysense.data.scene import SceneReader, open_scene
from skysense.data.synthetic import make_scene, write_scene
from skysense.data.warping import GridReader
from skysense.geo import Window

CARDS = {"hr": "rgb8", "s2": "s2_l2a", "s1": "s1"}
ALL = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
RGB = ("R", "G", "B")


def at(size, x=600_000.0, y=5_340_000.0):
    return size, 0.0, x, 0.0, -size, y


def rgb(side=64):
    return np.random.default_rng(0).integers(1, 255, (3, side, side)).astype(np.uint8)


def s2(side=16, value=1000):
    return np.full((10, side, side), value, np.uint16)


def open_(**inputs):
    return open_scene({k: v if isinstance(v, list) else [v] for k, v in inputs.items()}, CARDS)


def read(scene, window=None, **options):
    with SceneReader(scene, **options) as reader:
        return reader.read(window or Window(0, 0, *scene.grid.shape))


def check(scene):
    with SceneReader(scene) as reader:
        reader.check_scale()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    scene = make_scene(size=16, s2_dates=3, s1_dates=2, seed=4, cloud_cover=0.4)
    return scene, write_scene(tmp_path_factory.mktemp("scene"), scene)


def test_the_triple_is_read_as_it_was_written(written):
    truth, files = written
    scene = open_(**files)
    assert (scene.reference, scene.pixel_metres) == ("hr", pytest.approx(1.25, rel=1e-3))
    assert scene.ratios == {"hr": 1, "s2": 8, "s1": 8}
    assert scene.grid.transform == at(1.25)
    sample = read(scene, mask_clouds=False)
    hr, s2_series, s1 = (sample.series[key] for key in ("hr", "s2", "s1"))
    np.testing.assert_array_equal(hr.pixels[0], truth.hr)
    np.testing.assert_array_equal(s1.pixels, truth.s1)
    np.testing.assert_array_equal(s2_series.dates, truth.s2_dates)
    fine = [0, 1, 2, 6]
    np.testing.assert_allclose(s2_series.pixels[:, fine], truth.s2[:, fine] / 1e4, rtol=1e-6)
    assert all(series.mask.all() for series in sample.series.values())
    assert sample.location == pytest.approx((10.345, 48.2), abs=0.01)


def test_clouds_are_masked_where_the_classes_say_so(written):
    truth, files = written
    mask = read(open_(s2=files["s2"])).series["s2"].mask.numpy()
    classes = truth.s2_scl[:, ::2, ::2].repeat(2, 1).repeat(2, 2)  # as written, at 20 m
    np.testing.assert_array_equal(mask, ~np.isin(classes, (0, 1, 3, 8, 9, 10)))
    assert 0 < mask.mean() < 1


def test_windows_are_parts_of_the_whole(written):
    _, files = written
    scene = open_(**files)
    whole = read(scene)
    part = read(scene, Window(24, 56, 64, 40))
    for key, ratio in scene.ratios.items():
        rows, cols = slice(24 // ratio, 88 // ratio), slice(56 // ratio, 96 // ratio)
        np.testing.assert_array_equal(
            part.series[key].pixels, whole.series[key].pixels[..., rows, cols]
        )


@pytest.mark.parametrize(("crs", "size"), [(32633, 9.8), (4326, 1.05e-4)])
def test_reference_is_the_finest_and_among_equals_the_first(raster, crs, size):
    """The radar's pixels are a little smaller, by the accident of its projection."""
    corner = Transformer.from_crs(32632, crs, always_xy=True).transform(600_030, 5_339_970)
    radar = np.full((2, 16, 16), -10, np.float32)
    path = raster("s1.tif", radar, ("VV", "VH"), crs=f"EPSG:{crs}", transform=at(size, *corner))
    scene = open_(s1=path, s2=raster("s2.tif", s2(), ALL))
    assert scene.layers["s1"].acquisitions[0].files[0].metres < 10
    assert scene.reference == "s2"
    assert scene.grid.crs == scene.layers["s2"].grid.crs
    assert scene.ratios == {"s1": 1, "s2": 1}


@pytest.mark.parametrize(("size", "ratio"), [(2.5, 4), (3, 4), (2, 4), (4, 2), (7.2, 1), (0.3, 32)])
def test_ratios_are_the_nearest_powers_of_two(raster, size, ratio):
    fine = raster("hr.tif", rgb(), RGB, transform=at(size))
    scene = open_(hr=fine, s2=raster("s2.tif", s2(128), ALL))
    assert scene.ratios == {"hr": 1, "s2": ratio}
    assert all(side % ratio == 0 for side in scene.grid.shape)


def test_only_the_ground_of_all_layers(raster):
    hr = raster("hr.tif", rgb(), RGB, transform=at(5))  # 320 m
    coarse = raster("s2.tif", s2(), ALL, transform=at(10, 600_055, 5_339_945))  # 160 m
    scene = open_(hr=hr, s2=coarse)
    assert scene.grid.transform == at(5, 600_055, 5_339_945)
    assert scene.grid.shape == (32, 32)
    assert read(scene).series["s2"].mask.all()


def test_what_sticks_out_of_the_files_is_masked(raster):
    """33 pixels of 5 m make 17 of 10 m: the last column of either layer is half outside."""
    hr = raster("hr.tif", rgb(33), RGB, transform=at(5))
    scene = open_(hr=hr, s2=raster("s2.tif", s2(20), ALL))
    assert scene.grid.shape == (34, 34)
    mask = read(scene).series["hr"].mask[0].numpy()
    assert mask[:33, :33].all()
    assert not mask[33].any()
    assert not mask[:, 33].any()


def test_turned_and_south_up_references_keep_their_grid(raster):
    for transform in ((8.0, 6.0, 600_000.0, 6.0, -8.0, 5_340_000.0), (10, 0, 6e5, 0, 10, 5.34e6)):
        scene = open_(hr=raster("hr.tif", rgb(20), RGB, transform=transform))
        assert (scene.grid.transform, scene.grid.shape) == (transform, (20, 20))
        np.testing.assert_array_equal(read(scene).series["hr"].pixels[0], rgb(20))


@pytest.mark.parametrize(
    ("x", "crs"), [(610_000, "EPSG:32632"), (600_320, "EPSG:32632"), (600_000, "EPSG:32756")]
)
def test_layers_that_share_no_ground(raster, x, crs):
    """Far away, edge to edge, and on the other side of the Earth."""
    hr = raster("hr.tif", rgb(), RGB, transform=at(5))
    away = raster("s2.tif", s2(), ALL, transform=at(10, x), crs=crs)
    with pytest.raises(ValueError, match=r"the rasters do not overlap: hr covers .* s2 covers"):
        open_(hr=hr, s2=away)


def test_nothing_to_open():
    with pytest.raises(ValueError, match="no input"):
        open_scene({}, CARDS)


def test_place_beyond_180_degrees(raster):
    over = raster("hr.tif", rgb(), RGB, crs="EPSG:4326", transform=at(1e-4, 180.01, 5))
    assert read(open_(hr=over)).location == pytest.approx((-179.9868, 4.9968))


def test_slightly_negative_reflectance_is_fine_and_mostly_negative_is_not(raster):
    values = np.random.default_rng(0).integers(-300, 3000, (10, 64, 64)).astype(np.int16)
    scene = open_(s2=raster("a.tif", values, ALL))
    check(scene)
    assert read(scene).series["s2"].pixels.min() < 0
    with pytest.raises(ValueError, match=r"b\.tif: the median value is -0\.\d+ reflectance"):
        check(open_(s2=raster("b.tif", values - 5000, ALL)))


@pytest.mark.parametrize("value", [30_000, 60_000])
def test_wrong_scale(raster, value):
    with pytest.raises(ValueError, match=r"s2_20210101\.tif: the median value .* scaling"):
        check(open_(s2=raster("s2_20210101.tif", s2(64, value), ALL)))


def test_wrong_scale_of_the_last_date_and_of_a_swath(raster):
    first = raster("s2_20210101.tif", s2(64), ALL)
    last = s2(64, 50_000)
    last[:, :, 3:] = 0
    with pytest.raises(ValueError, match=r"s2_20210201\.tif: the median"):
        check(open_(s2=[first, raster("s2_20210201.tif", last, ALL)]))


def test_linear_power_becomes_decibel_and_zero_is_missing(raster):
    power = np.full((2, 16, 16), 0.01, np.float32)
    power[0, :4] = 0
    path = raster("s1.tif", power, ("VV", "VH"))
    scene = open_scene({"s1": [path]}, {"s1": "s1_linear"})
    series = read(scene).series["s1"]
    assert series.pixels[0, 0, 8, 8] == pytest.approx(-20)
    np.testing.assert_array_equal(series.mask[0, :, 0], np.arange(16) >= 4)


def test_damage_ends_the_reading(raster):
    path = raster(
        "a.tif", rgb(256), RGB, compress="deflate", tiled=True, blockxsize=64, blockysize=64
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    scene = open_(hr=path)
    with pytest.raises(ValueError, match=r"a\.tif: is truncated or damaged"):
        read(scene)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_images_side_by_side_are_read_where_they_are(raster, monkeypatch, shift):
    """Each is a date of its own; those that a window misses are not read, and nothing changes."""
    files = [
        raster(f"tile_{i}.tif", rgb(), RGB, transform=at(5, 600_000 + 320.0 * i + shift * (i % 2)))
        for i in range(5)
    ]
    scene = open_(hr=files)
    assert len(scene.layers["hr"].acquisitions) == 5
    windows = [Window(0, col, 32, 32) for col in range(0, 320, 16)]
    count = []
    real = GridReader.read

    def counted(self, *arguments):
        count.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(GridReader, "read", counted)
    with SceneReader(scene) as reader:
        fast = [reader.read(window).series["hr"] for window in windows]
        few = len(count)
        monkeypatch.setattr(GridReader, "touches", lambda *_: True)
        slow = [reader.read(window).series["hr"] for window in windows]
    assert few < 2 * len(windows) + 10
    assert len(count) - few == 5 * len(windows)
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        np.testing.assert_array_equal(one.mask, other.mask)
    assert all(series.mask.any() for series in fast[:-1])


@pytest.fixture
def few_files():
    """The soft limit of open files is a little above what is open; the hard one as it is."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open(os.devnull, os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + 12, before[1]))
    yield resource
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def series(raster):
    """Thirty dates."""
    return [raster(f"hr_2021{i // 28 + 1:02}{i % 28 + 1:02}.tif", rgb(8), RGB) for i in range(30)]


def test_more_files_than_are_allowed_at_first(series, few_files):
    with SceneReader(open_(hr=series)) as reader:
        assert reader.read(Window(0, 0, 8, 8)).series["hr"].mask.all()


def test_more_files_than_are_allowed_at_all(series, few_files, monkeypatch):
    def refuse(*_):
        raise ValueError("not allowed to raise maximum limit")

    scene = open_(hr=series)
    with monkeypatch.context() as patch:
        patch.setattr(few_files, "setrlimit", refuse)
        with pytest.raises(
            ValueError, match=r"has 30 files of 30 dates, .*--dates.*ulimit -n"
        ) as e:
            SceneReader(scene)
    assert "\n" not in str(e.value)
    assert os.strerror(errno.EMFILE) not in str(e.value)
