"""One fault is planted in a sound raster: exactly its code is said, and its fix mends it."""

import shlex
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from skysense.data.doctor import CODES, examine, first_errors
from skysense.data.doctor import structure as structure_module
from skysense.data.doctor.findings import Finding

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


def stored(**values):
    """Replace arguments of the raster."""
    return lambda facts: facts.update(values)


def pixels(change):
    """Replace the pixels."""

    def apply(facts):
        facts["pixels"] = change(facts["pixels"].copy())

    return apply


def border(value, columns=20):
    def change(values):
        if isinstance(value, float):
            values = values.astype(np.float32)
        values[:, :, :columns] = value
        return values

    return pixels(change)


def put(place, value):
    def change(values):
        values[place] = value
        return values

    return pixels(change)


def both(*changes):
    def apply(facts):
        for change in changes:
            change(facts)

    return apply


def rename(*pairs):
    """Exchange names, as a wrong band order does."""

    def apply(facts):
        names = list(facts["names"])
        for first, second in pairs:
            i, j = names.index(first), names.index(second)
            names[i], names[j] = names[j], names[i]
        facts["names"] = names

    return apply


def only(*names):
    """Keep some bands."""

    def apply(facts):
        wanted = [facts["names"].index(name) for name in names]
        facts["pixels"], facts["names"] = facts["pixels"][wanted], names

    return apply


def to(dtype, factor):
    return pixels(lambda values: (values * float(factor)).round().astype(dtype))


HALF = (0, slice(0, 40))
DEGREES = stored(transform=(1e-4, 0.0, 10.0, 0.0, -1e-4, 48.0))
EPSG_4326 = stored(crs="EPSG:4326")
TURNED = stored(transform=(8.0, -6.0, 600_000.0, -6.0, -8.0, 5_340_000.0))
UPWARD = stored(transform=(10.0, 0.0, 600_000.0, 0.0, 10.0, 5_300_000.0))
HUGE = stored(transform=(3000.0, 0.0, 300_000.0, 0.0, -3000.0, 5_340_000.0))
GREY = stored(photometric="MINISBLACK")
COLOURS = stored(colours=RGB, photometric="RGB")
BGR = both(COLOURS, stored(names=("B", "G", "R")))
ALPHA = stored(names=None, colours=[*RGB, ColorInterp.alpha])


def with_classes(values):
    """Add a scene classification that holds these classes in equal parts."""

    def apply(facts):
        _, height, width = facts["pixels"].shape
        classes = np.resize(values, (height, width)).astype(facts["pixels"].dtype)
        facts["pixels"] = np.concatenate([facts["pixels"], classes[None]])
        facts["names"] = [*facts["names"], "SCL"]

    return apply


FAULTS = [  # code, severity, card, sensor told, what is done to the sound raster
    ("complex-values", "error", "s1", None, pixels(lambda v: v.astype(np.complex64))),
    ("no-crs", "error", "s2_l2a", None, stored(crs=None)),
    ("no-geotransform", "error", "s2_l2a", None, stored(transform=None)),
    ("crs-contradicts", "error", "s2_l2a", None, DEGREES),
    ("crs-contradicts", "error", "s2_l2a", None, EPSG_4326),
    ("south-up", "note", "s2_l2a", None, UPWARD),
    ("rotated", "note", "s2_l2a", None, TURNED),
    ("pixel-size", "warning", "s2_l2a", None, HUGE),
    ("no-band-names", "error", "s2_l2a", None, stored(names=None)),
    ("no-band-names", "error", "s1", None, stored(names=None)),
    ("no-band-names", "error", "s1_linear", None, stored(names=None)),
    ("no-band-names", "error", "rgb8", "rgb8", stored(names=None, photometric="MINISBLACK")),
    (
        "duplicate-band",
        "error",
        "s2_l2a",
        None,
        stored(names=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8", "B11", "B12")),
    ),
    ("missing-bands", "warning", "s2_l2a", None, only("B02", "B03", "B04", "B08")),
    ("missing-bands", "error", "s2_l2a", "s2_l2a", only("B02", "B03", "B04", "B08")),
    ("missing-bands", "error", "s1_vv", "s1", stored()),
    ("missing-bands", "error", "s1", "s2_l2a", stored()),
    ("colours-contradict", "note", "rgb8", None, BGR),
    ("alpha-is-data", "warning", "naip", "naip", ALPHA),
    ("unknown-sensor", "warning", "s1_vv", None, stored(names=("temperature",))),
    ("not-decibel", "error", "s1_linear", "s1", stored()),
    ("not-power", "error", "s1", "s1_linear", stored()),
    ("radar-numbers", "error", "s1_linear", None, to("uint16", 900)),
    ("radar-numbers", "error", "s1", None, to("int16", 100)),
    ("not-numbers", "error", "s2", "s2_l2a", stored()),
    ("not-reflectance", "error", "s2_l2a", "s2", stored()),
    ("not-reflectance", "error", "s2_l2a_n0400", "s2", stored()),
    ("eight-bit", "error", "s2_l2a", "s2_l2a", to("uint8", 0.025)),
    ("eight-bit", "error", "planet", "planet", both(to("uint8", 0.04), GREY)),
    ("eight-bit", "warning", "rgb8", None, stored(names=("B4", "B3", "B2"))),
    ("sixteen-bit", "error", "rgb8", None, to("uint16", 200.0)),
    ("sixteen-bit", "error", "rgb8", "rgb8", to("uint16", 200.0)),
    (
        "brightness-fraction",
        "error",
        "rgb8",
        None,
        pixels(lambda values: (values / 255).astype(np.float32)),
    ),
    ("implausible-values", "error", "s2_l2a", "s2_l2a", to("uint16", 20)),
    ("implausible-values", "error", "landsat_c2_l2", "landsat_c2_l2", to("uint16", 0.3)),
    ("offset-there", "warning", "s2_l2a_n0400", "s2_l2a", stored()),
    ("offset-missing", "error", "s2_l2a", "s2_l2a_n0400", stored()),
    ("bands-exchanged", "warning", "s2_l2a", None, rename(("B02", "B08"))),
    ("bands-exchanged", "warning", "s2_l2a", None, rename(("B02", "B04"))),
    ("bands-exchanged", "warning", "s2", None, rename(("B04", "B08"))),
    ("bands-exchanged", "warning", "s2_l2a", None, rename(("B8A", "B12"))),
    ("polarizations-exchanged", "error", "s1", None, rename(("VV", "VH"))),
    ("polarizations-exchanged", "error", "s1_linear", None, rename(("VV", "VH"))),
    ("no-nodata", "warning", "rgb8", None, border(255)),
    ("no-nodata", "warning", "rgb8", None, border(0)),
    ("no-nodata", "warning", "s2_l2a", None, border(65535)),
    ("no-nodata", "warning", "s1", None, border(-9999.0)),
    ("no-nodata", "note", "s1", None, border(float("nan"))),
    ("no-nodata", "note", "s2_l2a", None, border(0)),
    ("wrong-nodata", "warning", "s1", None, both(border(-9999.0), stored(nodata=-32768.0))),
    ("wrong-nodata", "warning", "rgb8", None, both(border(255), stored(nodata=0))),
    ("nothing-valid", "error", "s2_l2a", None, both(put(..., 0), stored(nodata=0))),
    ("nothing-valid", "error", "s1", None, both(put(..., np.nan), stored(nodata=np.nan))),
    ("not-finite", "warning", "s2", None, put((3, 40, slice(30, 40)), np.inf)),
    ("not-finite", "note", "s1", None, put((0, 40, slice(30, 40)), np.nan)),
    ("zero-band", "error", "s2_l2a", None, put(8, 0)),
    ("constant-band", "warning", "s2_l2a", None, put(8, 1234)),
    ("saturated", "warning", "rgb8", None, put(HALF, 255)),
    ("saturated", "warning", "s2_l2a", None, put((9, slice(0, 40)), 65535)),
    ("clouds", "note", "s2_l2a", None, with_classes([4, 4, 9, 4, 5])),
    ("all-cloudy", "warning", "s2_l2a", None, with_classes([9, 8, 10])),
]


@pytest.mark.parametrize(
    ("code", "severity", "card", "told", "change"),
    FAULTS,
    ids=[f"{i}-{fault[0]}" for i, fault in enumerate(FAULTS)],
)
def test_planted_fault(scene, code, severity, card, told, change):
    path = scene(card, change=change)
    findings = examine([path], sensor=told).findings
    assert [(f.code, f.severity) for f in findings] == [(code, severity)], findings
    (finding,) = findings
    assert finding.files == (str(path),)
    assert finding.message
    assert "\n" not in finding.message
    if told is not None:
        quick = [(f.code, f.severity) for f in first_errors([path], told)]
        assert quick == ([(code, severity)] if severity == "error" else [])
    if (finding.fix or "").startswith("--"):
        option, value = finding.fix.split()
        mended = {"sensor": told, "names": None}
        mended |= {"--sensor": {"sensor": value}, "--bands": {"names": value.split(",")}}[option]
        after = examine([path], **mended)
        assert code not in {f.code for f in after.findings if f.severity == severity} - {
            "eight-bit"
        }
        assert after.count("error") == 0
        assert after.commands


def test_at_least_twenty_faults():
    assert len({code for code, *_ in FAULTS}) >= 20


def damage(name):
    """Ways in which a file is no raster."""
    return {
        "empty-file": lambda path: path.write_bytes(b""),
        "not-a-raster": lambda path: path.write_text("a table, a letter, anything"),
        "damaged": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    }[name]


@pytest.mark.parametrize("code", ["empty-file", "not-a-raster", "damaged"])
def test_broken_file_does_not_hide_the_others(scene, code):
    broken, sound = scene("s2_l2a", "a_20240615.tif"), scene("s2_l2a", "b_20240625.tif", seed=1)
    damage(code)(broken)
    report = examine([broken, sound])
    assert [(f.code, f.severity, f.files) for f in report.findings] == [
        (code, "error", (str(broken),))
    ]
    assert report.files[1].guess.card == "s2_l2a"
    assert report.commands == (f"skysense embed --s2 {sound} -o features.tif",)


def test_file_that_breaks_off_behind_its_header(scene, tmp_path):
    whole, cut = scene("s2_l2a", "whole.tif"), tmp_path / "cut_20240615.tif"
    rasterio.shutil.copy(whole, cut, driver="COG")
    cut.write_bytes(cut.read_bytes()[:60_000])
    (finding,) = examine([cut]).findings
    assert (finding.code, finding.severity) == ("damaged", "error")
    assert "cannot be read" in finding.message


def test_container_without_bands(scene, tmp_path):
    path, image = tmp_path / "two_20240615.gpkg", scene("rgb8")
    for i in range(2):
        options = {"RASTER_TABLE": f"t{i}", "APPEND_SUBDATASET": "YES" if i else "NO"}
        rasterio.shutil.copy(image, path, driver="GPKG", **options)
    assert [f.code for f in examine([path]).findings] == ["no-bands"]


def test_ground_range_is_named_and_can_be_embedded(grd):
    """Both files of a product; no numbers are mistaken for amplitudes, no border for a fault."""
    root = grd()
    report = examine([root])
    assert [(f.code, f.severity) for f in report.findings] == [("ground-range", "note")] * 2
    for finding in report.findings:
        assert "without terrain correction; their heights are 400 to 619 m" in finding.message
        assert finding.fix == "take RTC for mountains"
    assert [file.guess.card for file in report.files] == ["s1", "s1"]
    assert report.files[0].crs == "EPSG:32632"
    assert report.commands == (f"skysense embed --s1 {root} -o features.tif",)
    assert first_errors([root], modality="s1") == []


def test_ground_range_without_calibration(grd):
    root = grd()
    for path in root.rglob("calibration-*.xml"):
        path.unlink()
    findings = examine([root]).findings
    assert [(f.code, f.severity) for f in findings] == [("unusable", "error")] * 2
    assert "give the whole SAFE folder or its zip" in findings[0].message


def test_large_file_in_strips(scene, monkeypatch):
    path = scene("s2_l2a")
    assert examine([path]).findings == ()
    monkeypatch.setattr(structure_module, "LARGE", 80 * 80)
    (finding,) = examine([path]).findings
    assert (finding.code, finding.severity) == ("slow-layout", "note")
    assert finding.message.startswith("80 x 80 pixels, is stored in strips")


@pytest.mark.parametrize(
    ("code", "name", "severity"),
    [
        ("no-date", "scene.tif", "note"),
        ("future-date", "scene_20990101.tif", "warning"),
        ("early-date", "scene_19650101.tif", "warning"),
        ("early-date", "scene_20140101.tif", "warning"),
    ],
)
def test_date(scene, code, name, severity):
    (finding,) = examine([scene("s2_l2a", name)]).findings
    assert (finding.code, finding.severity) == (code, severity)


@pytest.mark.parametrize(
    "tags", [{"PROCESSING_BASELINE": "05.10"}, {"BOA_ADD_OFFSET_B2": "-1000"}, {"band": -0.1}]
)
def test_baseline_of_the_metadata(scene, tags):
    path = scene("s2_l2a_n0400", "L2A_20240615.tif")
    with rasterio.open(path, "r+") as file:
        if "band" in tags:
            file.offsets = [tags["band"]] * file.count
        else:
            file.update_tags(**tags)
    assert examine([path]).findings == ()
    (finding,) = examine([path], sensor="s2_l2a").findings
    assert (finding.code, finding.severity) == ("offset-there", "error")
    assert finding.fix == "--sensor s2_l2a_n0400"
    assert examine([path], sensor="s2_l2a").commands[0].count("--sensor s2_l2a_n0400") == 1


def test_features_of_this_package(scene):
    path = scene("s1_vv", "f.tif", stored(names=[f"feature_{i:04d}" for i in range(1)]))
    with rasterio.open(path, "r+") as file:
        file.update_tags(SKYSENSE_MODEL="v2_nano")
    (finding,) = examine([path]).findings
    assert (finding.code, finding.severity) == ("own-output", "warning")
    assert "skysense map" in finding.fix


def test_harmonized_numbers_under_a_newer_name(scene):
    """`embed` goes by the name, so no option helps."""
    (finding,) = examine(
        [scene("s2_l2a", "S2B_MSIL2A_20240615T101031_N0510_R022_T32UPU.tif")]
    ).findings
    assert (finding.code, finding.severity) == ("offset-missing", "error")
    assert finding.fix.startswith("rename the file")


@pytest.fixture
def rio():
    """`rio(command)`: run a fix as it is printed."""
    from click.testing import CliRunner

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of rasterio itself
        from rasterio.rio.main import main_group

        def run(command):
            program, *arguments = shlex.split(command)
            assert program == "rio"
            done = CliRunner().invoke(main_group, arguments)
            assert done.exit_code == 0, (done.output, done.exception)

        yield run


@pytest.mark.parametrize(("card", "value"), [("rgb8", 255), ("s1", -9999.0)])
def test_the_command_that_declares_nodata_works(scene, rio, card, value):
    path = scene(card, change=border(value))
    (finding,) = examine([path]).findings
    assert finding.code == "no-nodata"
    rio(finding.fix)
    assert examine([path]).findings == ()


def one(name, **changes):
    """Keep one band, which the copy does not name but for its file."""
    return both(only(name), stored(**changes))


@pytest.mark.parametrize(
    ("name", "target", "change"),
    [
        ("20240615_VH.tif", "20240615_VH_decibel.tif", one("VH", names=None)),
        ("20240615_VV.tif", "20240615_VV_decibel.tif", one("VV", nodata=0)),
        ("20240615_VV.tif", "20240615_VV_decibel.tif", one("VV", nodata=-9999.0)),
        ("it's_20240615_VV.tif", "it's_20240615_VV_decibel.tif", one("VV", nodata=np.nan)),
        ("a_20240615.tif", "a_20240615_VV_decibel.tif", one("VV")),
    ],
    ids=["none", "zero", "negative", "nan", "other name"],
)
def test_the_command_that_makes_decibel_works(
    scene, rio, tmp_path, monkeypatch, name, target, change
):
    path = scene("s1_linear", name, change)
    (finding,) = (f for f in examine([path], "s1").findings if f.code == "not-decibel")
    monkeypatch.chdir(tmp_path)
    rio(finding.fix)
    with rasterio.open(path) as power, rasterio.open(tmp_path / target) as decibel:
        np.testing.assert_allclose(decibel.read(), 10 * np.log10(power.read()), rtol=1e-5)
    report = examine([tmp_path / target], "s1_vv" if "VV" in target else None)
    assert report.count("error") == 0
    assert report.files[0].date == "2024-06-15"


def test_the_command_that_makes_decibel_takes_the_right_band(scene):
    def angles(facts):
        facts["pixels"] = np.concatenate([facts["pixels"][:1] * 0 + 40, facts["pixels"][:1]])
        facts["names"] = ("incidence angle mask", "VV")

    findings = examine([scene("s1_linear", change=angles)], "s1_vv").findings
    (fix,) = (f.fix for f in findings if f.code == "not-decibel")
    assert "(read 1 2)" in fix


def test_north_up_in_a_system_without_a_code(scene):
    change = both(TURNED, stored(crs="+proj=laea +lat_0=48 +lon_0=10"))
    (finding,) = examine([scene("s2_l2a", change=change)]).findings
    assert finding.code == "rotated"
    assert finding.fix.endswith("north_up.tif --dst-crs EPSG:...")


def test_nodata_of_a_cloud_mask_is_no_cloud(scene):
    """Half of the mask saw nothing."""

    def masked(facts):
        mask = np.zeros_like(facts["pixels"][:1])
        mask[:, :, :40], facts["nodata"] = 255, 255
        facts["pixels"] = np.concatenate([facts["pixels"], mask])
        facts["names"] = [*facts["names"], "cloud_mask"]

    report = examine([scene("s2_l2a", change=masked)])
    assert "clouds" not in {finding.code for finding in report.findings}


def test_large_file_is_sampled(tmp_path):
    """Windows reach all four edges and are far less than the file."""
    path = tmp_path / "scene_20240615.tif"
    rng = np.random.default_rng(0)
    values = rng.integers(20, 200, (3, 2000, 3000), np.uint8)
    values[:, :, -300:] = 0
    with rasterio.open(
        path, "w", driver="GTiff", width=3000, height=2000, count=3, dtype="uint8", tiled=True,
        crs="EPSG:32632", transform=Affine(0.3, 0, 6e5, 0, -0.3, 5e6),
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = ("R", "G", "B")
    (finding,) = examine([path]).findings
    assert finding.code == "no-nodata"
    assert "are 0 in all bands" in finding.message


def test_codes_are_known_and_documented():
    with pytest.raises(AssertionError):
        Finding("note", "unheard-of", "")
    from pathlib import Path

    page = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in page] == []


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
