"""Labelled sets from folders and CSVs, every kind of image file, and what is wrong with them."""

import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from skysense.data.image_files import ImageFile, read_image
from skysense.data.labelled import open_labelled, split, stratified

ROOT = Path(os.environ.get("SKYSENSE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def pixels(value, bands=3, dtype=np.uint8):
    return np.full((bands, 8, 6), value, dtype)


def write(path, array, colors=None, names=None, **profile):
    """A raster without a place on the ground; the kind by its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drivers = {".png": "PNG", ".jpg": "JPEG", ".tif": "GTiff"}
    count, height, width = array.shape
    facts = {"driver": drivers[path.suffix], "dtype": array.dtype, "count": count, **profile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", height=height, width=width, **facts) as file:
            file.write(array)
            if colors:
                file.colorinterp = colors
            if names:
                file.descriptions = names
    return path


@pytest.fixture
def folders(tmp_path):
    """Two classes in folders, three images each of three kinds."""
    root = tmp_path / "set"
    for i, name in enumerate(("field", "water")):
        write(root / name / "a.png", pixels(10 * i))
        write(root / name / "b.tif", pixels(10 * i + 1))
        np.save(root / name / "c.npy", pixels(10 * i + 2))
    (root / "NOTICE.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    return root


@pytest.fixture
def table(tmp_path):
    """`table(text) -> Path` of `set/labels.csv`, beside images `a.png` to `d.png`."""

    def make(text):
        for i, name in enumerate("abcd"):
            write(tmp_path / "set" / f"{name}.png", pixels(i))
        path = tmp_path / "set" / "labels.csv"
        path.write_text(text)
        return path

    return make


def test_folders(folders):
    labelled = open_labelled(folders)
    assert (labelled.name, labelled.classes, len(labelled)) == ("set", ("field", "water"), 6)
    assert labelled.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert labelled.counts().tolist() == [3, 3]
    assert [int(labelled.read(i)[0, 0, 0]) for i in range(6)] == [0, 1, 2, 10, 11, 12]
    assert labelled.bands == ("red", "green", "blue")


def test_csv_with_names_and_numbers(table):
    path = table("path,class,label\na.png,water,1\nb.png,field,0\nc.png,water,1\n")
    for given_path in (path, path.parent):
        labelled = open_labelled(given_path)
        assert labelled.classes == ("field", "water")
        assert labelled.labels.tolist() == [1, 0, 1]
        assert labelled.read(2)[0, 0, 0] == 2
        assert labelled.name == "set"


def test_csv_with_labels_and_parts(table):
    path = table("label, path ,split\n10,a.png,train\n9,b.png,train\n10,c.png,test\n")
    labelled = open_labelled(path)
    assert labelled.classes == ("9", "10"), "by number"
    assert labelled.parts == ("train", "train", "test")
    assert labelled.subset([2, 0]).parts == ("test", "train")


def test_columns_of_no_concern_may_be_empty(table):
    labelled = open_labelled(table("path,label,note\na.png,x,\nb.png,y,cloudy\n"))
    assert labelled.classes == ("x", "y")
    with pytest.raises(ValueError, match=r"row 3: expected a value in each of `path`, `label`$"):
        open_labelled(table("path,label,note\na.png,x,\nb.png,,cloudy\n"))


def test_csv_with_a_zip(tmp_path):
    inner = write(tmp_path / "x.png", pixels(7))
    np.savez(tmp_path / "y.npz", image=pixels(8), other=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(inner, "deep/x.png")
        archive.write(tmp_path / "y.npz", "y.npz")
    write(tmp_path / "z.tif", pixels(9))
    (tmp_path / "labels.csv").write_text("path,label\ndeep/x.png,a\ny.npz,b\nz.tif,b\n")
    labelled = open_labelled(tmp_path)
    assert [int(labelled.read(i)[0, 0, 0]) for i in range(3)] == [7, 8, 9]
    assert str(labelled.files[0]).endswith("images.zip/deep/x.png")


def test_what_is_missing_is_nan(tmp_path):
    rgba = pixels(5, bands=4)
    rgba[3, :2] = 0
    image, names = read_image(ImageFile(write(tmp_path / "a.png", rgba)))
    assert image.shape == (3, 8, 6)
    assert names == ("red", "green", "blue")
    assert np.isnan(image[:, :2]).all()
    assert (image[:, 2:] == 5).all()
    holed = pixels(5, dtype=np.int16)
    holed[:, 0] = -1
    image, _ = read_image(ImageFile(write(tmp_path / "b.tif", holed, nodata=-1)))
    assert np.isnan(image[:, 0]).all()
    assert image.dtype == np.float32


def test_band_names(tmp_path):
    path = write(tmp_path / "a.tif", pixels(5, bands=2, dtype=np.float32), names=("VV", "VH"))
    assert read_image(ImageFile(path))[1] == ("VV", "VH")
    path = write(tmp_path / "b.tif", pixels(5, bands=2), colors=[ColorInterp.undefined] * 2)
    assert read_image(ImageFile(path))[1] is None
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write(tmp_path / "c.tif", pixels(5, bands=4), colors=colors, names=("R", "G", "B", "N"))
    image, names = read_image(ImageFile(path))
    assert names == ("R", "G", "B", "N"), "near infrared colored as alpha"
    assert image.dtype == np.uint8


def test_arrays(tmp_path):
    np.savez(tmp_path / "one.npz", anything=pixels(3)[0])
    assert read_image(ImageFile(tmp_path / "one.npz"))[0].shape == (1, 8, 6)
    np.savez(tmp_path / "two.npz", a=pixels(3), b=pixels(4))
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    for name, match in (
        ("two.npz", "none of its arrays is `image`: a, b"),
        ("flat.npy", r"its array has shape \(5,\), expected \(C, H, W\)"),
        ("object.npy", "allow_pickle"),
    ):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as an image .*{match}"):
            read_image(ImageFile(tmp_path / name))


@pytest.mark.parametrize("name", ["a.png", "b.tif", "c.npy", "d.npz", "e.jpg"])
@pytest.mark.parametrize("content", [b"", b"not an image", b"\x93NUMPY\x01\x00"])
def test_damaged_images_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: cannot be read as an image"):
        read_image(ImageFile(tmp_path / name))


def test_truncated_images_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8)
    path = write(tmp_path / "a.tif", noise)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"a\.tif: cannot be read as an image"):
        read_image(ImageFile(path))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_stratified(labels, share):
    labels = np.array(labels)
    first, second = stratified(labels, share, seed=3)
    assert sorted([*first, *second]) == list(range(len(labels)))
    for label in set(labels.tolist()):
        count = int((labels == label).sum())
        got = int((labels[second] == label).sum())
        assert abs(got - share * count) <= 1
        assert count < 2 or 1 <= got < count
    again = stratified(labels, share, seed=3)
    np.testing.assert_array_equal(again[1], second)


def test_split(folders):
    first, second = split(open_labelled(folders), 1 / 3, seed=0)
    assert first.counts().tolist() == [2, 2]
    assert second.counts().tolist() == [1, 1]
    assert not set(first.files) & set(second.files)
    with pytest.raises(ValueError, match="share to split off is 1"):
        split(first, 1.0, 0)


def test_other_classes(folders):
    labelled = open_labelled(folders)
    moved = labelled.with_classes(("cloud", "water", "field"))
    assert moved.labels.tolist() == [2, 2, 2, 1, 1, 1]
    assert labelled.subset([0, 1]).with_classes(("field",)).labels.tolist() == [0, 0]
    with pytest.raises(ValueError, match="classes that the training images lack: `water`"):
        labelled.with_classes(("field", "forest"))


def test_bad_folders(folders, tmp_path):
    (folders / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image .* in class folder `empty`"):
        open_labelled(folders)
    with pytest.raises(ValueError, match="neither a folder for each class nor a CSV"):
        open_labelled(folders / "empty")
    with pytest.raises(ValueError, match="no such folder or file"):
        open_labelled(tmp_path / "nothing")
    with pytest.raises(ValueError, match="neither a folder nor a CSV"):
        open_labelled(folders / "NOTICE.txt")
    write(tmp_path / "one" / "only" / "a.png", pixels(1))
    with pytest.raises(ValueError, match="one class only"):
        open_labelled(tmp_path / "one")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("path,label\n")
    with pytest.raises(ValueError, match="holds 2 CSV files"):
        open_labelled(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "has columns .none."),
        ("file,label\na.png,x\n", "has columns file, label; expected `path` and `label`"),
        ("path,label\n", "lists no image"),
        ("path,label\na.png,x\nb.png\n", "row 3: expected a value"),
        ("path,label\na.png,x,y\n", "row 2: expected a value"),
        ("path,label\na.png,x\na.png,y\n", "lists 1 files more than once: `a.png`"),
        ("path,label\na.png,x\nb.png,x\n", "one class only"),
        ("path,class,label\na.png,x,0\nb.png,y,0\n", "contradict each other"),
        ("path,class,label\na.png,x,0\nb.png,x,1\n", "contradict each other"),
        ("path,label\na.png,x\n" + "".join(f"no{i}.png,y\n" for i in range(7)),
         "7 of 8 listed files are missing: `no0.png`, .* and 2 more"),
    ],
)  # fmt: skip
def test_bad_tables(table, text, match):
    with pytest.raises(ValueError, match=match):
        open_labelled(table(text))


def test_damaged_zip(table):
    path = table("path,label\na.png,x\nb.png,y\n")
    (path.parent / "images.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"images\.zip: cannot be read as a zip"):
        open_labelled(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as a CSV"):
        open_labelled(path)


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no imagery in {ROOT} (set SKYSENSE_DATA)")
def test_real_sets():
    eurosat = open_labelled(ROOT / "eurosat_rgb")
    assert (len(eurosat), eurosat.counts().tolist()) == (10_000, [1000] * 10)
    assert eurosat.read(9_999).shape == (3, 64, 64)
    merced = open_labelled(ROOT / "ucmerced")
    assert (len(merced), len(merced.classes)) == (1610, 21)
    assert merced.read(0).dtype == np.uint8


def test_images_behind_links(folders, tmp_path):
    """Datasets are often put together of links."""
    (folders / "water").rename(tmp_path / "elsewhere")
    (folders / "water/deep").mkdir(parents=True)
    (folders / "water/deep/er").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    labelled = open_labelled(folders)
    assert labelled.classes == ("field", "water")
    assert labelled.counts().tolist() == [3, 3]
