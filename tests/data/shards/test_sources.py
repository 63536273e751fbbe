"""Images, arrays, scenes, places and STAC items become samples of the right numbers."""

import json
import zipfile

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.enums import ColorInterp

from skysense.data.scene import SceneReader, open_scene
from skysense.data.shards import (
    Cut,
    Reading,
    arrays,
    drafts_of,
    images,
    items,
    leave_out,
    pairs,
    places,
    read_excluded,
    scene,
    synthetic,
)
from skysense.data.shards.sources.scenes import windows
from skysense.data.synthetic import S2_BANDS, make_scene, write_scene
from skysense.sensors import DEFAULT_SENSORS

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_340_000.0)


@pytest.fixture
def write(tmp_path):
    """`write(name, pixels (C, H, W), ...) -> Path`."""

    def run(name, pixels, colours=None, names=None, transform=None, **profile):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
        count, height, width = pixels.shape
        facts = {"driver": driver, "dtype": pixels.dtype, **profile}
        if transform is not None:
            facts |= {"transform": Affine(*transform), "crs": "EPSG:32632"}
        with rasterio.open(path, "w", count=count, height=height, width=width, **facts) as file:
            if colours:
                file.colorinterp = colours
            if names:
                file.descriptions = tuple(names)
            file.write(pixels)
        return path

    return run


def picture(seed=0, shape=(3, 12, 10)):
    return np.random.default_rng(seed).integers(1, 255, shape).astype(np.uint8)


def read(drafts):
    return {draft.name: list(draft.read()) for draft in drafts}


def test_a_folder_of_images(write, tmp_path):
    first, second = picture(0), picture(1)
    write("set/a/one.png", first)
    write("set/b/two_20240615.tif", second, photometric="RGB", transform=UTM)
    write("set/.hidden/three.png", first)
    (tmp_path / "set" / "notes.txt").touch()
    found = read(images(tmp_path / "set", "rgb8"))
    assert list(found) == ["set/a/one.png", "set/b/two_20240615.tif"]
    (one,), (two,) = found.values()
    np.testing.assert_array_equal(one.series["hr"].pixels, first[None])
    np.testing.assert_array_equal(two.series["hr"].pixels, second[None])
    assert (one.location, one.classes) == (None, None)
    assert np.isnat(one.series["hr"].dates[0])
    assert str(two.series["hr"].dates[0]) == "2024-06-15"
    assert two.location == pytest.approx((10.34, 48.2), abs=0.02)


def test_a_zip_archive_of_images(write, tmp_path):
    path = write("one.png", picture())
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(path, "a/one.png")
        archive.writestr("a/broken.jpg", b"no image")
        archive.writestr("labels.csv", "path")
    broken, good = images(tmp_path / "all.zip", "rgb8")
    np.testing.assert_array_equal(next(iter(good.read())).series["hr"].pixels[0], picture())
    with pytest.raises(ValueError, match="cannot be read as an image"):
        list(broken.read())
    (tmp_path / "no.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is no whole zip archive"):
        images(tmp_path / "no.zip", "rgb8")


def test_transparent_pixels_and_declared_nodata_are_masks(write):
    pixels = picture(shape=(4, 6, 6))
    pixels[3] = 255
    pixels[3, 2] = 0
    path = write("alpha.png", pixels)
    (sample,) = read(images(path, "rgb8"))["alpha.png"]
    assert (~sample.series["hr"].measured()[0]).nonzero()[0].tolist() == [2] * 6
    rgb = picture(shape=(3, 6, 6))
    rgb[:, 4] = 9
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    (sample,) = read(images(write("n.tif", rgb, colours, nodata=9), "rgb8"))["n.tif"]
    assert not sample.series["hr"].measured()[0, 4].any()


def test_large_images_are_cut(write):
    path = write("large.png", picture(shape=(3, 50, 20)))
    (parts,) = read(images(path, "rgb8", max_size=20)).values()
    assert [part.series["hr"].pixels.shape[2:] for part in parts] == [(16, 20), (17, 20), (17, 20)]
    whole = np.concatenate([part.series["hr"].pixels[0] for part in parts], 1)
    np.testing.assert_array_equal(whole, picture(shape=(3, 50, 20)))
    assert parts[1].source == "large.png[16,0]"


@pytest.mark.parametrize(
    ("pixels", "sensor", "bands", "match"),
    [
        (picture(shape=(1, 4, 4)), "rgb8", None, "needs R, G, B; found .*name the bands"),
        (picture(shape=(3, 4, 4)), "s2_l2a", None, "needs B5, B6"),
        (picture(shape=(2, 4, 4)), "s1", ["VV"], "has 2 bands, but 1 names"),
        (picture(shape=(2, 4, 4)), "s1", ["VV", "VH"], "the scaling does not fit"),
    ],
)
def test_images_that_do_not_fit_the_sensor(write, pixels, sensor, bands, match):
    with pytest.raises(ValueError, match=match):
        read(images(write("odd.tif", pixels), sensor, bands))


def test_arrays_of_one_sensor(tmp_path):
    stored = np.random.default_rng(0).integers(100, 3000, (3, 10, 8, 8)).astype(np.int64)
    names, bands = ["x.npy", "y.npy", "z.npy"], [f"B{b[1:]:0>2}" for b in S2_BANDS]
    np.savez(
        tmp_path / "a.npz",
        images=stored[:, ::-1],
        names=names,
        bands=bands[::-1],
        dates=["2020-01-02", "", "2020-05-06"],
        locations=[[7, 51], [np.nan, 0], [8, 50]],
    )
    found = read(arrays(tmp_path / "a.npz", "s2_l2a"))
    assert list(found) == ["a.npz/x.npy", "a.npz/y.npy", "a.npz/z.npy"]
    (one,), (two,), _ = found.values()
    assert one.series["s2"].pixels.dtype == np.uint16
    series = one.series["s2"].to_series()
    np.testing.assert_allclose(series.pixels[0], stored[0] * 1e-4, rtol=1e-6)
    assert (str(series.dates[0]), one.location) == ("2020-01-02", (7.0, 51.0))
    assert np.isnat(two.series["s2"].dates[0])
    assert two.location is None
    np.savez(tmp_path / "b.npz", images=stored)
    assert len(read(arrays(tmp_path / "b.npz", "s2_l2a"))) == 3


def test_arrays_of_one_place(tmp_path):
    place = make_scene(size=8, s2_dates=2, s1_dates=3)
    np.savez(
        tmp_path / "p.npz",
        hr=place.hr,
        s2=place.s2,
        s2_dates=place.s2_dates,
        s2_mask=place.s2_scl == 4,
        s1=place.s1,
        classes=place.classes,
        class_names=[f"c{i}" for i in range(7)],
        location=[1.0, 2.0],
    )
    ((sample,),) = read(arrays(tmp_path / "p.npz", "rgb8")).values()
    assert {k: s.pixels.shape[0] for k, s in sample.series.items()} == {"hr": 1, "s2": 2, "s1": 3}
    np.testing.assert_array_equal(sample.series["s2"].measured(), place.s2_scl == 4)
    np.testing.assert_array_equal(sample.classes, place.classes)
    assert sample.location == (1.0, 2.0)


def test_arrays_that_are_none(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=np.zeros(3))
    with pytest.raises(ValueError, match="holds pictures; expected `images`, or `hr`"):
        arrays(tmp_path / "a.npz", "rgb8")
    np.savez(tmp_path / "c.npz", images=np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match=r"`images` has shape \(3, 4, 4\)"):
        arrays(tmp_path / "c.npz", "rgb8")
    (tmp_path / "b.npz").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        arrays(tmp_path / "b.npz", "rgb8")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of two places, and the files of the first."""
    folder = tmp_path_factory.mktemp("places")
    found = [
        write_scene(
            folder / f"place{i}", make_scene(size=16, hr_per_s2=4, s2_dates=3, s1_dates=2, seed=i)
        )
        for i in range(2)
    ]
    return folder, found[0]


def test_windows_of_a_scene_hold_its_stored_numbers(files):
    _, inputs = files
    opened = open_scene(inputs, DEFAULT_SENSORS)
    samples = list(scene("s", inputs, DEFAULT_SENSORS, Cut(32)).read())
    assert len(samples) == 4
    whole = list(windows(opened, Cut(32)))
    with SceneReader(opened) as reader:
        for window, sample in zip(whole, samples, strict=True):
            expected = reader.read(window)
            assert sample.location == pytest.approx(expected.location)
            for key, own in sample.series.items():
                series, other = own.to_series(), expected.series[key]
                kept = other.mask.any(-1).any(-1)
                np.testing.assert_array_equal(series.mask, other.mask[kept])
                np.testing.assert_allclose(
                    series.pixels, other.pixels[kept], rtol=1e-3, atol=5.1e-5 if key == "s2" else 0
                )
                np.testing.assert_array_equal(series.dates, other.dates[kept.numpy()])
    assert samples[0].series["hr"].pixels.dtype == np.uint8
    assert samples[0].series["s2"].pixels.dtype == np.uint16


@pytest.mark.parametrize(
    ("cut", "size", "count"),
    [
        (Cut(64), (64, 64), 1),
        (Cut(256), (64, 64), 1),
        (Cut(24), (24, 24), 9),
        (Cut.parse("80m"), (32, 32), 4),
        (Cut.parse("30"), (32, 32), 4),
        (Cut(1), (4, 4), 256),
    ],
)
def test_windows_have_one_size_and_fall_on_whole_pixels(files, cut, size, count):
    found = list(windows(open_scene(files[1], DEFAULT_SENSORS), cut))
    assert {(w.height, w.width) for w in found} == {size}
    assert len(set(found)) == count
    assert all(w.row % 4 == w.col % 4 == 0 for w in found)
    assert all(0 <= w.row <= 64 - w.height and 0 <= w.col <= 64 - w.width for w in found)


@pytest.mark.parametrize("text", ["", "0", "-3", "12km", "m"])
def test_a_size_that_is_none(text):
    with pytest.raises(ValueError, match="expected pixels such as 256, or metres"):
        Cut.parse(text)


def test_folders_of_places(files):
    folder, inputs = files
    found = places(folder)
    assert list(found) == [f"{folder.name}/place0", f"{folder.name}/place1"]
    assert {k: sorted(v) for k, v in found[f"{folder.name}/place0"].items()} == {
        k: sorted(v) for k, v in inputs.items()
    }
    assert list(places(folder / "place1")) == ["place1"]
    drafts = drafts_of(folder, Reading(cut=Cut(32)))
    assert [len(samples) for samples in read(drafts).values()] == [4, 4]


def test_pairs_of_files_by_name(write, tmp_path):
    rgb = {"photometric": "RGB", "transform": UTM}
    for name in ("x", "y"):
        write(f"images/{name}.tif", picture(), **rgb)
        write(
            f"radar/{name}.tif",
            np.full((2, 12, 10), -9, np.float32),
            names=("VV", "VH"),
            transform=UTM,
        )
    write("radar/z.tif", np.full((2, 12, 10), -9, np.float32), names=("VV", "VH"), transform=UTM)
    found = pairs({"hr": tmp_path / "images", "s1": tmp_path / "radar"})
    assert {name: list(inputs) for name, inputs in found.items()} == {
        "x": ["hr", "s1"], "y": ["hr", "s1"], "z": ["s1"],
    }  # fmt: skip
    ((sample,),) = read([scene("x", found["x"], DEFAULT_SENSORS)]).values()
    assert set(sample.series) == {"hr", "s1"}


def stac(name, collection, files, bbox=(10.0, 48.0, 10.1, 48.1), **properties):
    assets = {
        path.stem: {
            "href": str(path),
            "roles": ["data"],
            "eo:bands": [{"name": band} for band in bands],
        }
        for path, bands in files
    }
    assets["thumbnail"] = {"href": "https://example.com/a.jpg", "roles": ["thumbnail"]}
    facts = {"datetime": "2021-06-07T10:20:30Z", **properties}
    return {
        "type": "Feature",
        "id": name,
        "collection": collection,
        "bbox": list(bbox),
        "properties": facts,
        "assets": assets,
    }


def test_stac_items_of_one_place(files, tmp_path):
    _, inputs = files
    ten, twenty = inputs["s2"][:2]
    ten_names = [f"B{n:0>2}" for n in ("2", "3", "4", "8")]
    twenty_names = ["B05", "B06", "B07", "B8A", "B11", "B12", "SCL"]
    listed = [
        stac("a", "sentinel-2-l2a", [(ten, ten_names), (twenty, twenty_names)]),
        stac("b", "sentinel-1-grd", [(inputs["s1"][0], ["VV", "VH"])], datetime=None),
        stac("far", "naip", [(inputs["hr"][0], "RGB")], bbox=(0.0, 0.0, 1.0, 1.0)),
    ]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": listed}))
    found = read(drafts_of(path))
    assert list(found) == ["items.json/a", "items.json/far"]
    ((one,), (two,)) = found.values()
    assert {key: own.sensor for key, own in one.series.items()} == {"s2": "s2_l2a", "s1": "s1"}
    assert str(one.series["s2"].dates[0]) == "2021-06-07"
    assert np.isnat(one.series["s1"].dates[0])
    assert two.series["hr"].sensor == "naip"
    ((direct,),) = read([scene("d", {"s2": [ten, twenty]}, DEFAULT_SENSORS)]).values()
    np.testing.assert_array_equal(one.series["s2"].pixels, direct.series["s2"].pixels)


def test_stac_baseline_and_relative_paths(files, tmp_path):
    source = files[1]["s1"][0]
    (tmp_path / "s1.tif").write_bytes(source.read_bytes())
    item = stac("a", "sentinel-1-grd", [])
    item["assets"]["data"] = {"href": "./s1.tif", "bands": [{"name": "VV"}, {"name": "VH"}]}
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    ((sample,),) = read(items(path)).values()
    assert sample.series["s1"].sensor == "s1"
    from skysense.data.shards.sources.items import _address, _sensor

    for properties, card in (
        ({"s2:processing_baseline": "05.09"}, "s2_l2a_n0400"),
        ({"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True}, "s2_l2a"),
        ({"s2:processing_baseline": "02.14"}, "s2_l2a"),
    ):
        assert _sensor(stac("a", "sentinel-2-l2a", [], **properties)) == card
    assert _address("https://x.org/a.tif", tmp_path) == "/vsicurl/https://x.org/a.tif"
    assert _address("s3://bucket/a.tif", tmp_path) == "/vsis3/bucket/a.tif"


def test_what_is_no_stac_item(tmp_path):
    path = tmp_path / "a.json"
    for text, match in (
        ("{", "is not JSON"),
        ("{}", "holds no STAC items"),
        ("[]", "holds no STAC items"),
        ('{"features": [{"id": 1}]}', r"KeyError: 'properties'"),
        (json.dumps(stac("a", "modis", [])), "names no known sensor; name one `--sensor`"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            items(path)


def test_the_synthetic_world_agrees_with_itself():
    one, again, other = (next(iter(synthetic(1, 8, seed=seed)[0].read())) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.series["hr"].pixels, again.series["hr"].pixels)
    assert one.location == again.location != other.location
    assert one.series["hr"].pixels.shape == (1, 3, 64, 64)
    assert str(one.series["hr"].dates[0]) == "2021-06-15"
    assert one.classes.shape == (8, 8)
    assert len(one.class_names) == 7


def test_sources_by_their_kind(write, tmp_path):
    write("mixed/a.png", picture())
    np.savez(tmp_path / "mixed" / "b.npz", images=picture(shape=(2, 3, 8, 8)))
    assert len(drafts_of(tmp_path / "mixed")) == 3
    (tmp_path / "none").mkdir()
    for path, match in (
        (tmp_path / "gone", "there is no such file or folder"),
        (tmp_path / "none", "holds no images, no .npz files and no places"),
        (write("a.png", picture()).rename(tmp_path / "a.gif"), "is of no kind that can be read"),
    ):
        with pytest.raises(ValueError, match=match):
            drafts_of(path)
    assert Reading({"s2": "s2_l1c"}).single == "s2_l1c"
    assert Reading({"s2": "s2_l1c", "s1": "s1"}).single == "rgb8"


def test_listed_paths_are_left_out(write, tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        write(f"set/{name}", picture())
    drafts = images(tmp_path / "set", "rgb8")
    table = tmp_path / "held_out.csv"
    table.write_text("label,path\nx,a/1.png\ny,other.png\n")
    kept, count = leave_out(drafts, read_excluded(table))
    assert ([draft.name for draft in kept], count) == (["set/a/2.png", "set/b/1.png"], 1)
    table.write_text("a/2.png\n")
    assert read_excluded(table) == {"a/2.png"}
    table.write_text("path\nnowhere.png\n")
    with pytest.raises(ValueError, match="none of the 1 paths to leave out is there: nowhere"):
        leave_out(drafts, read_excluded(table))
    table.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        read_excluded(table)
