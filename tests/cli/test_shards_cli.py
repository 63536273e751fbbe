"""`skysense shards build`: what it makes, what it says, and errors in one line."""

import itertools
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from skysense.data.shards import ShardLoader

ROOT = Path(os.environ.get("SKYSENSE_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def build(skysense, tmp_path):
    """`build(...) -> Result` into `build.output`."""

    def run(*arguments):
        return skysense("shards", "build", *arguments, "-o", run.output)

    run.output = tmp_path / "shards"
    return run


@pytest.fixture
def photos(tmp_path):
    """Five pictures in two folders, and a broken one."""
    rng = np.random.default_rng(0)
    for i in range(5):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(1, 255, (3, 16, 16)).astype(np.uint8)
        profile = {"driver": "PNG", "count": 3, "height": 16, "width": 16, "dtype": "uint8"}
        with rasterio.open(path, "w", **profile) as file:
            file.write(pixels)
    (tmp_path / "photos" / "a" / "torn.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


def first(folder, size, **options):
    batches = ShardLoader(folder, size, **options).batches()
    loaded = next(batches)
    batches.close()
    return loaded


def test_a_folder_of_images(build, photos):
    result = build(photos, "--samples-per-shard", 2)
    assert result.exit_code == 0
    assert f"{build.output}: 5 samples (hr 5) in 3 shards" in result.stdout
    assert "left out, cannot be used: 1\n  photos/a/torn.jpg: cannot be read" in result.stderr
    assert first(build.output, 5).batch.modalities["hr"].pixels.shape == (5, 1, 3, 16, 16)
    assert build(photos, "--quiet").output == ""


def test_synthetic_places(build):
    result = build("--synthetic", 3)
    assert result.exit_code == 0
    assert "3 samples (hr 3, s2 3, s1 3) in 1 shards" in result.stdout
    assert "class maps of water, forest" in result.stdout
    loaded = first(build.output, 3)
    assert list(loaded.batch.modalities) == ["hr", "s2", "s1"]
    assert (loaded.classes >= 0).all()


def test_a_scene_cut_into_windows(build, files):
    scene = [word for key in ("hr", "s2", "s1") for word in (f"--{key}", *files[key])]
    assert build(*scene, "--size", "80m", "-q").exit_code == 0
    loaded = first(build.output, 4)
    assert len(set(loaded.keys)) == 4
    assert loaded.batch.modalities["s2"].sizes.tolist() == [[8, 8]] * 4
    assert loaded.batch.modalities["hr"].sizes.tolist() == [[64, 64]] * 4


def test_folders_that_pair_by_name(build, files, tmp_path):
    for key in ("hr", "s1"):
        (tmp_path / key).mkdir()
        shutil.copy(files[key][0], tmp_path / key / "place.tif")
    result = build("--hr", tmp_path / "hr", "--s1", tmp_path / "s1", "--by-name")
    assert "1 samples (hr 1, s1 1)" in result.stdout
    result = build("--hr", files["hr"][0], "--by-name")
    assert result.exit_code == 2
    assert "`--by-name` goes with one folder each" in result.stderr


def test_listed_images_stay_out(build, photos, tmp_path):
    (tmp_path / "out.csv").write_text("path,class\na/0.png,x\nb/1.png,x\n")
    result = build(photos, "--exclude", tmp_path / "out.csv")
    assert "3 samples" in result.stdout
    assert "left out as listed: 2" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "no source: give images"),
        (["gone"], "gone: there is no such file or folder"),
        (["--synthetic", 1, "--size", "12km"], "--size 12km"),
        (["--synthetic", 1, "--sensor", "rgb9"], "did you mean `rgb8`"),
        (["--synthetic", 1, "--sensor", "rgb8", "--sensor", "naip"], "of the same modality"),
        (["--synthetic", 1, "--bands", "dem=a"], "expected once each hr="),
        (["--synthetic", -1], "Invalid value for '--synthetic'"),
        (["--hr"], "--hr needs a file"),
    ],
)
def test_options_that_are_wrong(build, arguments, match):
    result = build(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert match in line
    assert not build.output.exists()


def test_images_of_which_none_can_be_used(build, photos):
    result = build(photos, "--sensor", "s2_l2a")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "none of 6 files or places can be used; the first: photos/a/0.png" in line
    assert not build.output.exists()


def test_a_folder_of_something_else_is_not_replaced(build, photos):
    build.output.mkdir()
    (build.output / "letter.txt").touch()
    result = build(photos)
    assert result.exit_code == 2
    assert "is not a folder of shards (it holds letter.txt)" in result.stderr


@pytest.mark.skipif(not ROOT.is_dir(), reason=f"no imagery in {ROOT} (set SKYSENSE_DATA)")
def test_real_imagery(build, tmp_path):
    """Pictures in an archive, ten-band patches, and Sentinel-1 and 2 pairs, in one loader."""
    with (
        zipfile.ZipFile(ROOT / "eurosat_rgb" / "images.zip") as source,
        zipfile.ZipFile(tmp_path / "some.zip", "w") as archive,
    ):
        for name in [n for n in source.namelist() if n.endswith(".jpg")][::500]:
            archive.writestr(name, source.read(name))
    terramesh = ROOT / "terramesh_multimodal"
    pairs = ("--s2", terramesh / "S2L2A", "--s1", terramesh / "S1RTC", "--by-name")
    patches = ROOT / "s2_l2a_patches" / "part_00.npz"
    folders = []
    for name, arguments, count in (
        ("rgb", [tmp_path / "some.zip"], 20),
        ("patches", [patches, "--sensor", "s2_l2a"], 200),
        ("pairs", [*pairs, "--size", 112], 16),
    ):
        build.output = tmp_path / name
        result = build(*arguments)
        assert result.exit_code == 0
        assert f"{count} samples" in result.stdout
        assert result.stderr == ""
        folders.append(build.output)
    loader = ShardLoader(folders, 59)
    batches = loader.batches()
    for loaded in itertools.islice(batches, 4):
        for key, part in loaded.batch.modalities.items():
            seen = part.pixels.movedim(2, -1)[part.mask]
            low, high = {"hr": (20, 200), "s2": (0.01, 0.6), "s1": (-30, -5)}[key]
            assert low < seen.mean() < high
    batches.close()
    assert loader.skipped.samples == 0
