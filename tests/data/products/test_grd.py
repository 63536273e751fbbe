"""Sentinel-1 GRD as delivered: known gamma nought comes back at its place on the ground."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer
from typer.testing import CliRunner

from skysense.cli import app
from skysense.data.products.calibration import AzimuthNoise, Calibration, Table
from skysense.data.products.control import control_points
from skysense.data.products.grd import GroundRange
from skysense.data.scene import SceneReader, open_scene
from skysense.data.warping import GridReader
from skysense.geo import Grid, Window

pytestmark = pytest.mark.filterwarnings("ignore:Sentinel-1 GRD is placed by")

S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


def s1(path, **options):
    paths = path if isinstance(path, list) else [path]
    return open_scene({"s1": paths}, options)


def centres(grid):
    """`(H, W)` x and y of the centres of pixels."""
    rows, cols = np.indices(grid.shape) + 0.5
    return grid.xy(rows, cols)


def truth(scene, sample, polarization="vv"):
    """`(H, W)` known decibel on the grid of a sample, and how deep in the image, in pixels."""
    x, y = centres(sample.grid)
    lines, pixels = scene.line_pixel(x, y)
    high, wide = scene.shape
    depth = np.minimum.reduce([lines, high - 1 - lines, pixels, wide - 1 - pixels])
    return scene.decibel(x, y, polarization), depth


@pytest.mark.parametrize("noise", ["both", "range", ""])
@pytest.mark.parametrize("track", ["ascending", "descending"])
@pytest.mark.filterwarnings("ignore:.*its noise stays in")
def test_known_gamma_nought_at_its_place(grd, ground_range_scene, read, track, noise):
    known = ground_range_scene(track)
    scene = s1(grd(known, noise=noise))
    (acquisition,) = scene.layers["s1"].acquisitions
    assert acquisition.date == np.datetime64(known.day)
    assert scene.layers["s1"].card.name == "s1"
    assert scene.grid.transform[:2] == (10.0, 0.0)
    assert scene.grid.transform[2] % 10 == scene.grid.transform[5] % 10 == 0  # as Sentinel-2's
    sample = read(scene, scale=True)
    mask = sample.series["s1"].mask[0].numpy()
    for i, polarization in enumerate(("vv", "vh")):
        expected, depth = truth(known, sample, polarization)
        np.testing.assert_array_equal(mask, depth >= -0.5)
        error = np.abs(sample.series["s1"].pixels[0, i].numpy() - expected)
        assert error[depth >= 0].max() < 0.02
        assert error[mask].max() < 0.1  # beyond the last centres
        assert np.median(error[mask]) < 0.002


def test_noise_matters(grd, read):
    """What the noise annotation takes out is far above the tolerance of the test before."""
    root = grd()
    clean = read(s1(root)).series["s1"].pixels
    for path in root.rglob("noise-*.xml"):
        path.unlink()
    with pytest.warns(UserWarning, match=r"has no noise-s1a.*its noise stays in"):
        noisy = read(s1(root)).series["s1"].pixels
    assert (noisy - clean)[0, 1].max() > 0.5


@pytest.mark.parametrize("tied", [True, False])
def test_windows_agree_with_the_whole(grd, read, tied):
    """Bit by bit, also where control points come from the annotation."""
    scene = s1(grd(tied=tied))
    whole = read(scene).series["s1"]
    height, width = scene.grid.shape
    with SceneReader(scene) as reader:
        for row, col, tall, wide in ((0, 0, 64, 64), (37, 101, 90, 55), (height - 70, 3, 70, 200)):
            part = reader.read(Window(row, col, tall, wide)).series["s1"]
            rows, cols = slice(row, row + tall), slice(col, min(col + wide, width))
            np.testing.assert_array_equal(part.pixels, whole.pixels[..., rows, cols])
            np.testing.assert_array_equal(part.mask, whole.mask[..., rows, cols])


def test_only_what_lies_beneath_a_window_is_read(grd, monkeypatch):
    scene = s1(grd())
    file = scene.layers["s1"].acquisitions[0].files[0]
    view = file.open()
    asked = []

    class Spy:
        def read(self, band, window):
            asked.append(window)
            return np.ones((window.height, window.width), np.uint16)

    monkeypatch.setattr(view, "dataset", Spy())
    view.read([1], window=rasterio.windows.Window(100, 100, 32, 32))
    (window,) = asked
    assert max(window.height, window.width) < 32 * (np.cos(0.21) + np.sin(0.21)) + 4


def test_control_points_of_file_and_annotation_agree(grd, read):
    tied, annotated = (read(s1(grd(tied=tied, folder=str(tied)))) for tied in (True, False))
    pixels = [sample.series["s1"].pixels.numpy() for sample in (tied, annotated)]
    np.testing.assert_allclose(*pixels, atol=1e-3)


def test_zip_equals_folder(grd, zipped, read):
    root = grd()
    folder = read(s1(root)).series["s1"]
    archive = read(s1(zipped(root))).series["s1"]
    np.testing.assert_array_equal(archive.pixels, folder.pixels)
    np.testing.assert_array_equal(archive.mask, folder.mask)


def test_the_two_files_equal_the_folder(grd, read):
    root = grd()
    files = sorted((root / "measurement").iterdir())
    given = read(s1(files)).series["s1"].pixels
    np.testing.assert_array_equal(given, read(s1(root)).series["s1"].pixels)


def test_border_zeros_are_masked(grd, ground_range_scene, read):
    def border(numbers):
        numbers[:, :30] = 0
        return numbers

    known = ground_range_scene()
    sample = read(s1(grd(known, change=border)))
    expected, _ = truth(known, sample)
    lines, pixels = known.line_pixel(*centres(sample.grid))
    mask = sample.series["s1"].mask[0].numpy()
    assert not mask[pixels < 29].any()
    deep = (pixels > 30.5) & (np.abs(lines - 110) < 100) & (pixels < 250)
    assert mask[deep].all()
    error = np.abs(sample.series["s1"].pixels[0, 0].numpy() - expected)
    assert error[mask].max() < 0.1


def test_noise_above_the_signal_gives_the_floor(grd, read):
    pixels = read(s1(grd(change=lambda numbers: np.ones_like(numbers)))).series["s1"]
    assert np.unique(pixels.pixels[pixels.mask[:, None].expand_as(pixels.pixels)]) == [-40.0]


def put_optical(put, folder, transform, crs="EPSG:32632", side=96):
    rng = np.random.default_rng(0)
    values = rng.integers(1100, 4000, (10, side, side)).astype(np.uint16)
    return put(folder / "s2_20200903.tif", values, transform, crs, S2)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32632", Affine(10, 0, 599_520, 0, -10, 5_340_480)),
        ("EPSG:32632", Affine(10, 0, 599_523, 0, -10, 5_340_487)),  # edges do not meet
        ("EPSG:32632", Affine(8, -6, 599_900, -6, -8, 5_340_600)),  # turned
    ],
)
def test_beside_sentinel2_on_its_grid(grd, ground_range_scene, put, read, tmp_path, crs, transform):
    """Radar is interpolated once, at the pixels of the optical raster."""
    known = ground_range_scene()
    optical = put_optical(put, tmp_path, transform, crs)
    scene = open_scene({"s2": [optical], "s1": [grd(known)]}, {})
    assert scene.reference == "s2"
    assert scene.grid.shape == (96, 96)
    sample = read(scene, scale=True)
    series = sample.series["s1"]
    assert series.mask.all()
    error = np.abs(series.pixels[0, 0].numpy() - known.decibel(*centres(sample.grid)))
    assert error.max() < 0.02


def test_on_the_grid_of_another_zone_and_in_degrees(grd, ground_range_scene):
    """Places are transformed and values interpolated once, whatever the coordinate system."""
    known = ground_range_scene()
    file = s1(grd(known)).layers["s1"].acquisitions[0].sources["VV"][0]
    for crs, size in (("EPSG:32633", 10.0), ("EPSG:4326", 1e-4), ("EPSG:3857", 14.0)):
        x, y = Transformer.from_crs("EPSG:32632", crs, always_xy=True).transform(*known.origin)
        grid = Grid(crs, (size, 0, x - 32 * size, 0, -size, y + 32 * size), (64, 64))
        reader = GridReader(file, grid, None)
        values, valid = reader.read([0], Window(0, 0, 64, 64))
        reader.close()
        back = Transformer.from_crs(crs, "EPSG:32632", always_xy=True)
        there = back.transform(*centres(grid))
        assert valid.all()
        assert np.abs(values[0] - known.decibel(*there)).max() < 0.02


def test_a_much_coarser_grid_gets_means(grd, ground_range_scene):
    known = ground_range_scene()
    file = s1(grd(known)).layers["s1"].acquisitions[0].sources["VV"][0]
    grid = Grid(file.grid.crs, (40, 0, 599_600, 0, -40, 5_340_400), (20, 20))
    assert file.onto(grid) is file
    reader = GridReader(file, grid, None)
    values, valid = reader.read([0], Window(0, 0, 20, 20))
    reader.close()
    assert valid.all()
    assert np.abs(values[0] - known.decibel(*centres(grid))).max() < 0.05


def test_embed_beside_sentinel2(grd, put, tmp_path):
    optical = put_optical(put, tmp_path, Affine(10, 0, 599_520, 0, -10, 5_340_480), side=64)
    root, output = grd(), tmp_path / "map.tif"
    words = ["embed", "--s2", optical, "--s1", root, "--model", "v2_tiny", "-o", output]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert result.stderr.count("without terrain correction") == 1
    with rasterio.open(output) as file:
        assert {"SKYSENSE_S2", "SKYSENSE_S1"} <= set(file.tags())
        assert np.isfinite(file.read()).all()


def test_embed_refuses_in_one_line(grd):
    root = grd()
    for path in root.rglob("calibration-*.xml"):
        path.unlink()
    result = CliRunner().invoke(app, ["embed", "--s1", str(root), "--model", "v2_tiny", "-q"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "give the whole SAFE folder or its zip" in line


def test_one_warning_for_a_series(grd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = s1([grd(folder="a"), grd(folder="b")])
    assert len(scene.layers["s1"].acquisitions) == 2
    (warning,) = [one for one in caught if "Sentinel-1" in str(one.message)]
    assert "take RTC there" in str(warning.message)
    assert "\n" not in str(warning.message)
    file = scene.layers["s1"].acquisitions[0].files[0]
    assert isinstance(file, GroundRange)
    replaced = replace(file, image=(10, 10))
    with pytest.raises(ValueError, match=r"was replaced"):
        GridReader(replaced, file.grid, None)


def edit(pattern, change=None):
    """Change the text of a file of a product, or remove it."""

    def apply(root):
        (path,) = root.rglob(pattern)
        if change is None:
            path.unlink()
        else:
            path.write_text(change(path.read_text("latin-1")))

    return apply


GAMMA = "calibration-*-vv-*.xml"


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (edit(GAMMA), r"without its calibration .*give the whole SAFE"),
        (edit("calibration-*-vh-*.xml", lambda t: t[:300]), r"calibration-.*is not XML"),
        (edit(GAMMA, lambda t: "<a/>"), r"has no calibrationVector"),
        (
            edit(GAMMA, lambda t: t.replace("gamma", "other")),
            r"gamma of a calibrationVector is missing or damaged",
        ),
        (
            edit(GAMMA, lambda t: t.replace("<gamma count='3'>", "<gamma>1 ")),
            r"a calibrationVector has 4 values at 3 places",
        ),
        (
            edit(GAMMA, lambda t: t.replace("<gamma count='3'>", "<gamma>-")),
            r"a calibration value is not positive",
        ),
        (edit("noise-*-vv-*.xml", lambda t: t + "<"), r"noise-.*is not XML"),
        (
            edit("noise-*-vv-*.xml", lambda t: t.replace("e+04", "e+0x")),
            r"noiseRangeLut of a noiseRangeVector is missing or damaged",
        ),
        (edit("measurement/*-vv-*.tiff", lambda t: "no raster"), r"cannot be read as a raster"),
        (edit("measurement/*-vh-*.tiff"), r"needs VH of 2020-09-03.*would fit `--sensor s1_vv`"),
    ],
)
def test_damage_is_one_line(grd, damage, match):
    root = grd()
    damage(root)
    with pytest.raises(ValueError, match=match) as error:
        s1(root)
    assert "\n" not in str(error.value)


def test_without_any_control_points(grd):
    root = grd(tied=False)
    for path in (root / "annotation").glob("*.xml"):
        path.unlink()
    with pytest.raises(ValueError, match=r"no ground control points, and there is no annotation/"):
        s1(root)


def test_a_measurement_by_itself_is_refused(grd, tmp_path):
    (path,) = grd().rglob("measurement/*-vv-*.tiff")
    alone = path.rename(tmp_path / path.name)
    with pytest.raises(ValueError, match=r"without its calibration .*give the whole SAFE folder"):
        s1(alone)
    renamed = alone.rename(tmp_path / "vv_20200903.tif")
    with pytest.raises(ValueError, match=r"control points only.*give the whole SAFE folder"):
        s1(renamed)


def test_single_polarization(grd, ground_range_scene, read):
    known = ground_range_scene()
    scene = s1(grd(name=known.name.replace("1SDV", "1SSV"), words=("vv",)))
    assert scene.layers["s1"].card.name == "s1_vv"
    sample = read(scene, scale=True)
    expected, depth = truth(known, sample)
    error = np.abs(sample.series["s1"].pixels[0, 0].numpy() - expected)
    assert error[depth >= 0].max() < 0.02


def test_horizontal_polarization_and_power_are_refused(grd, ground_range_scene):
    name = ground_range_scene().name.replace("1SDV", "1SDH").replace("IW", "EW")
    with pytest.raises(ValueError, match=r"holds HH and HV, which no sensor card has: take"):
        s1(grd(name=name, words=("hh", "hv"), folder="ew"))
    with pytest.raises(ValueError, match=r"product of sensor `s1`, but `s1_linear` is asked for"):
        s1(grd(), s1="s1_linear")


def test_single_look_complex_stays_refused(put, tmp_path):
    name = "S1A_IW_SLC__1SDV_20200903T171212_20200903T171237_034197_03F8E6_2D1B.SAFE"
    path = tmp_path / name / "measurement" / "s1a-iw1-slc-vv-20200903t171212-001.tiff"
    put(path, np.ones((1, 8, 8), np.complex64), Affine(10, 0, 6e5, 0, -10, 5.34e6))
    with pytest.raises(ValueError, match=r"holds complex numbers"):
        s1(tmp_path / name)


# Tables and control points by themselves.


@st.composite
def tables(draw):
    """A table of up to five lines, each with pixels of its own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lines = np.sort(rng.choice(np.arange(-20, 120), draw(st.integers(1, 5)), replace=False))
    pixels = [np.sort(rng.choice(100, draw(st.integers(1, 6)), replace=False)) for _ in lines]
    values = [rng.uniform(100, 900, len(own)) for own in pixels]
    return Table(lines.astype(float), tuple(p.astype(float) for p in pixels), tuple(values))


@given(tables(), st.integers(0, 90), st.integers(0, 90))
def test_table_equals_a_plain_double_loop(table, top, left):
    lines, pixels = np.arange(top, top + 9), np.arange(left, left + 7)
    expected = np.empty((9, 7))
    for i, line in enumerate(lines):
        for j, pixel in enumerate(pixels):
            along = [np.interp(pixel, *pair) for pair in zip(table.pixels, table.values)]  # noqa: B905
            expected[i, j] = np.interp(line, table.lines, along)
    np.testing.assert_allclose(table.at(lines, pixels), expected, rtol=1e-12)


@given(tables(), tables(), st.integers(0, 2**32 - 1))
def test_power_equals_a_plain_double_loop(gamma, noise, seed):
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, 60, 2)
    parts = (
        AzimuthNoise((0, 0), (40, 30), np.array([0.0, 40.0]), np.array([0.7, 1.4])),
        AzimuthNoise((0, 31), (99, 80), np.array([10.0]), np.array([1.2])),
    )
    lines, pixels = np.arange(top, top + 8), np.arange(left, left + 8)
    stored = rng.integers(0, 2**16, (8, 8)).astype(np.uint16)
    expected = np.empty((8, 8))
    for i, line in enumerate(lines):
        for j, pixel in enumerate(pixels):
            place = lines[i : i + 1], pixels[j : j + 1]
            factor = 1.0
            if line <= 40 and pixel <= 30:
                factor = 0.7 + 0.7 * line / 40
            elif 31 <= pixel <= 80 and line <= 99:
                factor = 1.2
            squared = int(stored[i, j]) ** 2 - noise.at(*place)[0, 0] * factor
            expected[i, j] = squared / gamma.at(*place)[0, 0] ** 2
    found = Calibration(gamma, noise, parts).power(stored, lines, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def bent(track_degrees, lat, lon, relief):
    """Control points of a real scene's size, bent, and displaced by the relief beneath."""
    rng = np.random.default_rng(relief)
    lines, pixels = np.linspace(0, 16_000, 10).round(), np.linspace(0, 25_000, 21).round()
    i, j = (part.ravel() for part in np.meshgrid(lines, pixels, indexing="ij"))
    heading = np.deg2rad(track_degrees)
    height = rng.uniform(0, relief, i.shape)
    u, v = (i - 8000) * 10, (j - 12_500) * 10 + 1.3 * height
    u = u + 1e-8 * v**2
    north = u * np.cos(heading) - v * np.sin(heading)
    east = u * np.sin(heading) + v * np.cos(heading)
    lats = lat + north / 111_000
    lons = (lon + east / (111_000 * np.cos(np.deg2rad(lats))) + 180) % 360 - 180
    return list(zip(i, j, lons, lats, height, strict=True))


@pytest.mark.parametrize("relief", [0, 2000])
@pytest.mark.parametrize(
    ("heading", "lat", "lon"),
    [
        (-12, 47, 11),
        (192, 47, 11),
        (192, -33, 179.6),
        (-20, 71, -179.9),
        (-12, 0, 30),
        (-60, 86, 5),
    ],
)
def test_places_are_found_again(heading, lat, lon, relief):
    """At the points and amid four of them, over the antimeridian and at a pole as well."""
    points = bent(heading, lat, lon, relief)
    control = control_points(points)
    assert control.heights[1] <= relief
    lines, pixels = control.locate(control.x, control.y)
    table = np.array(sorted(points))
    np.testing.assert_allclose(lines.ravel(), table[:, 0], atol=1e-3)
    np.testing.assert_allclose(pixels.ravel(), table[:, 1], atol=1e-3)
    lines, pixels = control.locate(*(_middle(_middle(p).T).T for p in (control.x, control.y)))
    np.testing.assert_allclose(lines, np.repeat(_middle(control.lines)[:, None], 20, 1), atol=1e-3)
    np.testing.assert_allclose(pixels, np.repeat(_middle(control.pixels)[None], 9, 0), atol=1e-3)
    grid = control.grid((16_001, 25_001))
    assert grid.transform[0] in (9.0, 10.0, 11.0)
    left, bottom, right, top = grid.bounds
    assert left <= control.x.min()
    assert control.x.max() <= right
    assert bottom <= control.y.min()
    assert control.y.max() <= top


def _middle(values):
    return (values[1:] + values[:-1]) / 2


def test_agrees_with_the_thin_plate_spline_of_gdal():
    """Between the points of flat ground both are smooth: they differ by parts of a pixel."""
    points = bent(-12, 47, 11, 0)
    control = control_points(points)
    ties = [
        GroundControlPoint(line, pixel, x, y)
        for (line, pixel, *_), x, y in zip(
            sorted(points), control.x.ravel(), control.y.ravel(), strict=True
        )
    ]
    rng = np.random.default_rng(0)
    x = control.x.mean() + rng.uniform(-6e4, 6e4, 500)
    y = control.y.mean() + rng.uniform(-5e4, 5e4, 500)
    with GCPTransformer(ties, tps=True) as transformer:
        rows, cols = transformer.rowcol(x, y, op=lambda value: value)
    lines, pixels = control.locate(x, y)
    assert np.abs(lines - rows).max() < 0.5
    assert np.abs(pixels - cols).max() < 0.5


def test_points_that_are_no_grid():
    points = bent(-12, 47, 11, 0)
    with pytest.raises(ValueError, match=r"its 209 ground control points are no grid"):
        control_points(points[1:])
    with pytest.raises(ValueError, match=r"no grid"):
        control_points(points[:1])
    wrong = [(*points[0][:3], 95.0, 0.0), *points[1:]]
    with pytest.raises(ValueError, match=r"has no longitude and latitude"):
        control_points(wrong)
