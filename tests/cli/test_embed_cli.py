"""`skysense embed` as it is typed: what works, and one helpful line for what does not."""

import os
import shutil

import numpy as np
import pytest
import rasterio

ALL = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")


def shape_of(path):
    with rasterio.open(path) as file:
        return file.count, *file.shape


def noise(*shape):
    return np.random.default_rng(0).integers(20, 200, shape).astype(np.uint8)


def test_one_image(skysense, image, tmp_path):
    result = skysense("embed", image, "-o", tmp_path / "map.tif", "--model", "v2_tiny")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{tmp_path / 'map.tif'}: 64 bands, 3 x 2 cells of 320 m, 1 tile in ")
    assert "note: `v2_tiny` is untrained" in result.stderr
    assert shape_of(tmp_path / "map.tif") == (64, 3, 2)


def test_quiet_is_quiet(embed, image):
    result = embed(image)
    assert (result.exit_code, result.output) == (0, "")


def test_default_output(skysense, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert skysense("embed", image, "-m", "v2_tiny", "-q").exit_code == 0
    assert (tmp_path / "features.tif").exists()


def test_all_modalities_from_files_and_folders_with_a_picture(embed, files, tmp_path):
    look = tmp_path / "new" / "look.png"
    inputs = ("--hr", *files["hr"], "--s2", *files["s2"], "--s1", files["s1"][0].parent)
    assert embed(*inputs, "--quicklook", look).exit_code == 0
    assert shape_of(embed.output) == (64, 4, 4)
    assert look.exists()
    with rasterio.open(embed.output) as file:
        assert {"SKYSENSE_HR", "SKYSENSE_S2", "SKYSENSE_S1"} <= set(file.tags())


def test_ways_to_name_many_files(embed, files):
    first, *rest = files["s2"]
    ways = [
        ("--s2", first, *rest),
        (f"--s2={first}", *rest),
        tuple(word for path in files["s2"] for word in ("--s2", path)),
        ("--sensor", "s2_l2a", first, *rest),
    ]
    tags = set()
    for way in ways:
        assert embed(*way).exit_code == 0
        with rasterio.open(embed.output) as file:
            tags.add(file.tags()["SKYSENSE_S2"])
    assert len(tags) == 1


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (("--stage", "1"), (32, 24, 16)),
        (("--stage", "4"), (256, 3, 2)),
        (("--merge-schedule", "hr=merge, merge, keep"), (64, 6, 4)),
        (("--budget", "fast"), (64, 3, 2)),
        (("--budget", "fine"), (64, 12, 8)),
        (("--tile", "32", "--overlap", "0"), (64, 3, 2)),
        (("--tile", "64", "--overlap", "32"), (64, 3, 2)),
        (("--batch-size", "1"), (64, 3, 2)),
        (("--dtype", "int8"), (64, 3, 2)),
        (("--device", "cpu"), (64, 3, 2)),
        (("--bands", "B,G,R"), (64, 3, 2)),
        (("--bands", "hr=B,G,R"), (64, 3, 2)),
        (("--sensor", "naip"), (64, 3, 2)),
        (("--keep-clouds",), (64, 3, 2)),
    ],
)
def test_options(embed, image, options, shape):
    assert embed(image, *options).exit_code == 0
    assert shape_of(embed.output) == shape


def test_saved_models(embed, skysense, image, fresh, tmp_path):
    folder = fresh("v2_tiny").save(tmp_path / "model")
    out = tmp_path / "map.tif"
    result = skysense("embed", image, "-o", out, "-m", folder, "-q")
    assert result.exit_code == 0
    assert shape_of(out) == (64, 3, 2)


def test_clouds_are_kept_on_request(embed, raster, refused):
    pixels = np.full((11, 16, 16), 1000, np.uint16)
    pixels[10] = 9
    path = raster("s2.tif", pixels, (*ALL, "SCL"))
    refused(
        "--s2", path, match="no valid pixel: all is nodata, not a finite number, cloud or shadow"
    )
    assert embed("--s2", path, "--keep-clouds").exit_code == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--sensor", "rbg8"), "unknown sensor `rbg8`; did you mean `rgb8`?"),
        (("--sensor", "rgb8", "--sensor", "naip"), "two `--sensor` cards are of the same modality"),
        (("--sensor", "rgb8", "--sensor", "s1"), "name modalities with --hr, --s2, --s1"),
        (("--device", "tpu"), "--device tpu is not known; give auto, cpu, cuda"),
        (("--device", "meta"), "--device meta is not known"),
        (("--device", "cpu:x"), "--device cpu:x cannot be used here"),
        (("--stage", "5"), "'5' is not one of"),
        (("--dtype", "float64"), "'float64' is not one of"),
        (("--tile", "abc"), "--tile"),
        (("--tile", "33"), "--tile 33 does not fit"),
        (("--tile", "0"), "--tile 0 does not fit"),
        (("--tile", "-64"), "--tile -64 does not fit"),
        (("--overlap", "5"), "--overlap 5 does not fit"),
        (("--overlap", "-32"), "--overlap -32 does not fit"),
        (("--tile", "64", "--overlap", "64"), "overlap 64 must lie between 0 and half a tile (32)"),
        (("--batch-size", "0"), "--batch-size"),
        (("--batch-size", "many"), "--batch-size"),
        (
            ("--merge-schedule", "hr=merge,merge"),
            "three of merge and keep, such as hr=merge,merge,keep",
        ),
        (("--merge-schedule", "hr"), "expected a modality and three of merge and keep"),
        (("--merge-schedule", "s1=keep,keep,keep"), "s1 is not among the inputs (hr)"),
        (
            ("--merge-schedule", "hr=keep,keep,keep", "--merge-schedule", "hr=keep,keep,keep"),
            "given twice",
        ),
        (("--budget", "huge"), "'huge' is not one of"),
        (("--budget", "fine", "--merge-schedule", "hr=keep,keep,keep"), "give one of them"),
        (("--bands", "R,G"), "image.tif: has 3 bands, but 2 names were given"),
        (("--bands", "R,G,X"), "needs B, not found by name in: image.tif has 3 bands: 1=R, 2=G"),
        (("--bands", "R,R,B"), "2 bands claim to be R"),
        (("--bands", "s2=R,G,B"), "s2 is not among the inputs (hr)"),
        (("--bands", "R,G,B", "--bands", "hr=R,G,B"), "--bands is given twice for hr"),
        (("--hr",), "--hr needs a file or a folder after it"),
        (("--hr", "x.tif"), "name modalities with --hr, --s2, --s1"),
        (("--colour", "red"), "No such option: --colour"),
        (("--quicklook", "look.jpg"), "look.jpg: the output's name must end in .png"),
        (("--model", "v2_tinny"), "unknown model `v2_tinny`"),
        (("--model", "no/such"), "neither a folder nor on the hub"),
    ],
)
def test_options_that_cannot_be(refused, image, options, match):
    refused(image, *options, match=match)


def test_no_input(refused):
    refused(match="no input: give GeoTIFFs with --sensor, or --hr, --s2, --s1")


def test_sensor_without_its_input(refused, image):
    refused("--hr", image, "--sensor", "s1_vv", match="`--sensor s1_vv` is s1, but no s1 input")


def test_model_that_is_no_model(refused, image, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(image, "--model", tmp_path / "folder", match="is not a saved model: it has no config")


def test_outputs_that_cannot_be(refused, image, tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "file").touch()
    for name, match in (
        ("map.png", "the output's name must end in .tif or .tiff or .zarr"),
        ("map", "the output's name must end in .tif or .tiff or .zarr"),
        ("folder.tif", "folder.tif is a folder"),
        ("file/map.tif", "file is a file, not a folder"),
    ):
        refused(image, output=tmp_path / name, match=match)
    refused(image, "--quicklook", tmp_path / "file/a.png", match="file is a file, not a folder")


@pytest.fixture
def nobody(tmp_path):
    """The rights of a user who owns nothing and may enter `tmp_path` (root may write anywhere)."""
    if os.geteuid():
        yield
        return
    modes = {path: path.stat().st_mode for path in (tmp_path, *tmp_path.parents)}
    closed = {path: mode for path, mode in modes.items() if not mode & 0o001}
    for path, mode in closed.items():
        path.chmod(mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in closed.items():
            path.chmod(mode)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such users here")
def test_folders_without_permission(skysense, image, tmp_path, request):
    free = tmp_path / "free"
    free.mkdir()
    free.chmod(0o777)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    request.getfixturevalue("nobody")
    for arguments in (
        ("-o", locked / "map.tif"),
        ("-o", locked / "new" / "map.tif"),
        ("-o", free / "map.tif", "--quicklook", locked / "look.png"),
    ):
        result = skysense("embed", image, "-m", "v2_tiny", "-q", *arguments)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert f"cannot be written: no permission to write in {locked}" in line
    assert list(locked.iterdir()) == list(free.iterdir()) == []


def test_output_that_is_an_input(refused, image, tmp_path):
    before = image.read_bytes()
    link = tmp_path / "link.tif"
    link.symlink_to(image)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(image, folder / "a.tif")
    refused(image, output=image, match="image.tif is an input; choose another output")
    refused(link, output=image, match="is an input")
    refused(folder, output=folder / "a.tif", match="a.tif is an input; choose another output")
    assert image.read_bytes() == (folder / "a.tif").read_bytes() == before


def test_a_map_in_the_folder_of_its_inputs_is_no_input_of_the_next_run(embed, image, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(image, folder / "a.tif")
    for _ in range(2):
        assert embed(folder, output=folder / "map.tif").exit_code == 0
    with rasterio.open(folder / "map.tif") as file:
        assert file.tags()["SKYSENSE_HR"] == "rgb8 undated"


@pytest.fixture
def bad(request, raster, tmp_path):
    """A file or folder with something wrong, by name."""
    kind = request.param
    path = tmp_path / "bad.tif"
    if kind == "text":
        path.write_text("not a raster")
    elif kind == "empty":
        path.touch()
    elif kind == "cut":  # the directory comes first in this kind of GeoTIFF
        raster("bad.tif", noise(3, 64, 64), driver="COG")
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "cut header":
        raster("bad.tif", noise(3, 64, 64))
        path.write_bytes(path.read_bytes()[:60])
    elif kind == "no crs":
        raster("bad.tif", noise(3, 8, 8), crs=None)
    elif kind == "no geotransform":
        raster("bad.tif", noise(3, 8, 8), transform=None)
    elif kind == "nonsense geotransform":
        raster("bad.tif", noise(3, 8, 8), transform=(10, 0, 1e9, 0, -10, 1e9))
    elif kind == "two bands":
        raster("bad.tif", noise(2, 8, 8), ("R", "G"))
    elif kind == "nameless bands":
        raster("bad.tif", noise(5, 8, 8), None)
    elif kind == "all nodata":
        raster("bad.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    elif kind == "all NaN":
        raster("bad.tif", np.full((3, 64, 64), np.nan, np.float32))
    elif kind == "complex":
        raster("bad.tif", np.ones((3, 8, 8), np.complex64))
    elif kind == "too large":
        raster("bad.tif", np.full((3, 8, 8), 10**12))
    elif kind == "empty folder":
        path.mkdir()
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # while writing
@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ("missing", "bad.tif: there is no such file"),
        ("text", "bad.tif: cannot be read as a raster"),
        ("empty", "bad.tif: cannot be read as a raster"),
        ("cut", "bad.tif: is damaged"),
        ("cut header", "bad.tif: cannot be read as a raster"),
        ("no crs", "bad.tif: has no coordinate reference system; assign it first"),
        ("no geotransform", "bad.tif: has no geotransform"),
        ("nonsense geotransform", "bad.tif: the geotransform"),
        ("two bands", "sensor `rgb8` needs B, not found by name in: bad.tif has 2 bands"),
        ("nameless bands", "5 bands: 1=(no name), 2=(no name)"),
        ("all nodata", "bad.tif: every pixel is nodata"),
        ("all NaN", "bad.tif: every pixel is nodata"),
        ("complex", "bad.tif: holds complex numbers (complex64); give backscatter"),
        ("too large", "bad.tif: the median is 1e+12"),
        ("empty folder", "bad.tif: this folder holds no raster"),
    ],
    indirect=["bad"],
)
def test_bad_input(refused, bad, match):
    refused(bad, match=match)


def test_wrong_units(refused, embed, raster):
    digital = np.random.default_rng(0).integers(200, 3000, (10, 16, 16)).astype(np.int16)
    fine = raster("dn.tif", digital - 300, ALL)  # a few are below zero
    assert embed("--s2", fine).exit_code == 0
    refused("--s2", fine, "--sensor", "s2", match="dn.tif: the median is", output="x.tif")
    refused("--s2", fine, "--sensor", "s2", match="fix: --sensor s2_l2a", output="x.tif")
    negative = raster("neg.tif", digital - 5000, ALL)
    refused("--s2", negative, match="neg.tif: the median is -", output="x.tif")
    power = raster("power.tif", np.full((2, 16, 16), 1000, np.float32), ("VV", "VH"))
    refused("--s1", power, match="power.tif: the median is 1000", output="x.tif")


def test_the_reader_refuses_what_went_unchecked(refused, raster):
    digital = np.random.default_rng(0).integers(200, 3000, (10, 16, 16)).astype(np.int16)
    negative = raster("neg.tif", digital - 5000, ALL)
    refused("--s2", negative, "--unchecked", match="the scaling does not fit", output="x.tif")
    power = raster("power.tif", np.full((2, 16, 16), 1000, np.float32), ("VV", "VH"))
    refused("--s1", power, "--unchecked", match="expected between", output="x.tif")
    nothing = raster("none.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    refused(nothing, "--unchecked", match="no valid pixel", output="x.tif")


def test_rasters_that_do_not_overlap(refused, image, raster):
    digital = np.full((10, 16, 16), 1000, np.uint16)
    for i, (x, crs) in enumerate(((650_000, 32632), (600_640, 32632), (600_000, 32756))):
        away = raster(f"{i}.tif", digital, ALL, transform=(10, 0, x, 0, -10, 5_340_000), crs=crs)
        refused("--hr", image, "--s2", away, match="the rasters do not overlap: hr covers")


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint16", "float32"])
def test_types_of_sensible_values(embed, raster, dtype):
    assert embed(raster("a.tif", noise(3, 64, 64).astype(dtype))).exit_code == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 300)])
def test_scenes_smaller_than_a_tile(embed, raster, shape):
    assert embed(raster("a.tif", noise(3, *shape))).exit_code == 0


def test_names_with_odd_characters(embed, raster, tmp_path):
    path = raster("in & out/a <b> 'c' [1] ü.tif", noise(3, 32, 32))
    output = tmp_path / "out & [in]" / "m <1> 'ü'.tif"
    assert embed(path, output=output).exit_code == 0
    assert set(output.parent.iterdir()) == {output, output.with_suffix(".json")}


def test_unknown_commands_and_help(skysense):
    result = skysense("embedd", "x.tif")
    assert result.exit_code == 2
    assert (
        result.stderr
        == "error: No such command 'embedd'. Did you mean 'embed'? (see `root --help`)\n"
    )
    assert skysense("--version").stdout.startswith("skysense ")
    assert skysense("--nonsense").stderr.startswith("error: No such option: --nonsense")
    assert "Turn a scene into a georeferenced feature map" in skysense("embed", "--help").stdout
    assert "embed" in skysense().output


def test_errors_that_are_not_the_users(skysense, image, tmp_path, monkeypatch):
    """A bug keeps its traceback; memory and rasterio's own errors are a line."""
    for error, match in (
        (MemoryError("9 GB"), "out of memory (9 GB); give a smaller --tile or --batch-size"),
        (rasterio.errors.RasterioIOError("disk on fire"), "disk on fire"),
        (RuntimeError("a bug"), None),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("skysense.inference.embed.embed_scene", fail)
        arguments = ("embed", image, "-o", tmp_path / "m.tif", "-m", "v2_tiny", "-q")
        if match is None:
            with pytest.raises(RuntimeError, match="a bug"):
                skysense(*arguments)
            continue
        result = skysense(*arguments)
        assert (result.exit_code, result.stderr) == (2, f"error: {match}\n")


def test_interrupted(skysense, image, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("skysense.inference.embed.embed_scene", fail)
    result = skysense("embed", image, "-o", tmp_path / "m.tif", "-m", "v2_tiny", "-q")
    assert result.exit_code == 130
    assert result.stderr == "interrupted: stopped early, nothing half-written is left\n"
