"""Real files of nine sources, as they came: each becomes a map in its place, or says why not.

The files are not part of the project: `../shared/data` from its root, or the folder that
SKYSENSE_DATA names. Without them these tests are skipped.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from skysense.cli import app
from skysense.data.doctor import examine
from skysense.data.scene import SceneReader, open_scene
from skysense.geo import Window

ROOT = Path(os.environ.get("SKYSENSE_DATA", Path(__file__).parents[2] / "shared" / "data"))
SCENES = ROOT / "georef_scenes"
NAIP = [SCENES / f"naip_5m_{day}.tif" for day in ("20090818", "20140720", "20200831")]
TERRAMESH = ("637U_59R_1_3", "282D_485L_3_3", "609U_541L_3_0", "38D_378R_2_3")

pytestmark = pytest.mark.skipif(
    not SCENES.is_dir(), reason=f"no imagery in {ROOT} (set SKYSENSE_DATA)"
)


@pytest.fixture
def embed(tmp_path):
    """`embed(...) -> Result` into `embed.output`; a traceback fails the test."""

    def run(*arguments):
        words = ["embed", *map(str, arguments), "-o", str(run.output), "-m", "v2_tiny", "-q"]
        result = CliRunner().invoke(app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    run.output = tmp_path / "map.tif"
    return run


@pytest.fixture
def mapped(embed):
    """`mapped(reference file, cell in its pixels, ...)`: the map, its place checked by hand."""

    def run(reference, cell, *arguments):
        result = embed(*arguments)
        assert (result.exit_code, result.output) == (0, "")
        with rasterio.open(reference) as source, rasterio.open(embed.output) as file:
            assert file.crs == source.crs
            np.testing.assert_allclose(
                np.array(file.transform)[[0, 1, 3, 4]],
                np.array(source.transform)[[0, 1, 3, 4]] * cell,
            )
            values, tags = file.read(), file.tags()
            middle = np.array(source.transform @ (source.width / 2, source.height / 2))
            left, bottom, right, top = file.bounds
        assert left < middle[0] < right
        assert bottom < middle[1] < top
        spread = np.nanstd(values.reshape(len(values), -1), 1)
        assert (spread > 0).all(), "no band is the same everywhere"
        return values, tags

    return run


@pytest.mark.parametrize("path", NAIP, ids=lambda path: path.stem)
def test_naip(mapped, path):
    """Its near infrared is coloured as alpha; water is dark there and no hole."""
    values, tags = mapped(path, 32, path, "--sensor", "naip")
    assert values.shape == (64, 23, 30)
    assert np.isfinite(values).all()
    assert tags["SKYSENSE_HR"].startswith("naip 20")


def test_naip_of_three_years(mapped):
    values, tags = mapped(NAIP[0], 32, *NAIP, "--sensor", "naip")
    assert tags["SKYSENSE_HR"] == "naip 2009-08-18 2014-07-20 2020-08-31"
    assert np.isfinite(values).all()
    scene = open_scene({"hr": NAIP}, {"hr": "naip"})
    with SceneReader(scene) as reader:
        mask = reader.read(Window(8, 8, 704, 912)).series["hr"].mask
    assert mask.all(), "straight and warped alike"


def test_aerial_mosaic_in_a_national_grid(mapped):
    path = SCENES / "pair_za_ngi_rgb_byte_1_5m.tif"
    values, _ = mapped(path, 32, path)
    with rasterio.open(path) as file:
        seen = (file.read() != 0).any(0)
    seen = np.pad(seen, [(0, -side % 32) for side in seen.shape])
    cells = seen.reshape(seen.shape[0] // 32, 32, -1, 32).any((1, 3))
    np.testing.assert_array_equal(np.isfinite(values).all(0), cells)


def test_sentinel_2_as_a_picture_and_not_as_reflectance(mapped, embed):
    path = SCENES / "pair_za_sentinel2_b432_10m.tif"
    mapped(path, 32, path)
    result = embed(path, "--sensor", "s2_l2a")
    assert result.exit_code == 2
    assert "needs B5, B6, B7, B8, B8A, B11, B12, not found by name" in result.stderr


def test_sentinel_2_at_10_and_20_m_is_one_date():
    files = sorted(SCENES.glob("majortom_*m.tif"))
    scene = open_scene({"s2": files}, {"s2": "s2_l2a"})
    assert [str(date) for date in scene.layers["s2"].dates] == ["2020-02-23"]
    assert scene.grid.shape == (768, 768)
    with SceneReader(scene) as reader:
        reader.check_scale()
        pixels = reader.read(Window(256, 256, 128, 128)).series["s2"].pixels[0].numpy()
    for path, bands, size in ((files[0], [0, 1, 2, 6], 1), (files[1], [3, 4, 5, 7, 8, 9], 2)):
        with rasterio.open(path) as file:
            part = rasterio.windows.Window(*(256 // size,) * 2, *(128 // size,) * 2)
            stored = file.read(window=part).astype(float) / 1e4
        means = pixels[bands].reshape(len(bands), 128 // size, size, 128 // size, size).mean((2, 4))
        np.testing.assert_allclose(means.mean((1, 2)), stored.mean((1, 2)), rtol=0.01)
        closeness = [
            np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(means, stored, strict=True)
        ]
        assert min(closeness) > (0.9999 if size == 1 else 0.97)


@pytest.mark.slow
def test_whole_sentinel_2_scene(mapped):
    files = sorted(SCENES.glob("majortom_*m.tif"))
    values, _ = mapped(files[0], 4, "--s2", *files)
    assert values.shape == (64, 192, 192)
    assert np.isfinite(values).all()


def test_radar_of_one_polarization(mapped, embed):
    path = SCENES / "S1A_IW_20150309_VV_gamma0_dB_20m.tif"
    values, tags = mapped(path, 4, path, "--sensor", "s1_vv")
    assert tags["SKYSENSE_S1"] == "s1_vv 2015-03-09"
    assert np.isfinite(values).all()
    result = embed("--s1", path)
    assert result.exit_code == 2
    assert "needs VH of 2015-03-09" in result.stderr
    assert "these bands would fit `--sensor s1_vv`" in result.stderr


@pytest.mark.parametrize("name", TERRAMESH)
def test_terramesh(mapped, name):
    s2, s1, l1c = (
        ROOT / "terramesh_multimodal" / k / f"{name}.tif" for k in ("S2L2A", "S1RTC", "S2L1C")
    )
    values, tags = mapped(s2, 4, "--s2", s2, "--s1", s1)
    assert values.shape == (64, 56, 56)
    assert np.isfinite(values).all()
    assert tags["SKYSENSE_S2"] == "s2_l2a undated"
    other, _ = mapped(l1c, 4, l1c, "--sensor", "s2_l1c")
    assert not np.array_equal(other, values)


def test_ssl4eo_series_in_degrees(mapped):
    """Two dates each of Sentinel-2, at 10 and 20 m, and of Sentinel-1, on a grid of its own."""
    folder = ROOT / "ssl4eo_s12_samples" / "0000200"
    reference = sorted((folder / "s2a").glob("*_10m.tif"))[0]
    values, tags = mapped(reference, 4, "--s2", folder / "s2a", "--s1", folder / "s1")
    assert tags["SKYSENSE_S2"] == "s2_l2a 2020-06-04 2020-08-13"
    assert tags["SKYSENSE_S1"] == "s1 2020-06-07 2020-09-03"
    assert np.isfinite(values).all()


@pytest.mark.slow
def test_ssl4eo_four_seasons(embed):
    """The dates lie on grids of slightly different origin."""
    folder = ROOT / "ssl4eo_s12_samples" / "0000042" / "s2a"
    assert embed("--s2", folder).exit_code == 0
    with rasterio.open(embed.output) as file:
        assert len(file.tags()["SKYSENSE_S2"].split()) == 5
        assert np.isfinite(file.read(1)).mean() > 0.9


def test_other_readable_sources(embed):
    scene = ROOT / "bigearthnet_samples" / "S2A_MSIL2A_20170717T113321_28_88"
    tree = sorted((ROOT / "treesatai_ts" / "aerial").glob("*.tif"))[0]
    for arguments in (("--s2", scene), (tree,)):
        result = embed(*arguments)
        assert (result.exit_code, result.output) == (0, "")


@pytest.mark.slow
def test_bands_named_by_hand(embed):
    floods = ROOT / "sen1floods11_sample"
    names = "B1,B2,B3,B4,B5,B6,B7,B8,B8A,B9,B10,B11,B12"
    for arguments in (
        (floods / "Spain_7370579_S1Hand.tif", "--sensor", "s1", "--bands", "VV,VH"),
        (floods / "Spain_7370579_S2Hand.tif", "--sensor", "s2_l1c", "--bands", names),
    ):
        result = embed(*arguments)
        assert (result.exit_code, result.output) == (0, "")


def test_what_cannot_be_embedded_says_so(embed):
    for path, match in (
        (ROOT / "dfc2020_samples" / "ROIs0000_test_s2_0_p0.tif", "has no geotransform"),
        (ROOT / "ucmerced" / "agricultural" / "agricultural00.jpg", "has no coordinate reference"),
        (ROOT / "georef_scenes" / "s2_toa_cloudmask_512.npz", "cannot be read as a raster"),
        (ROOT / "terramesh_multimodal" / "DEM" / f"{TERRAMESH[0]}.tif", "1 bands: 1=DEM_m"),
        (sorted((ROOT / "treesatai_ts" / "sentinel-ts").glob("*.h5"))[0], "is a container"),
        (SCENES, "lie too far apart for one map"),
    ):
        result = embed(path)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert match in line


def test_the_doctor_finds_no_error_in_sound_scenes():
    report = examine(sorted(SCENES.glob("*.tif")))
    assert [finding for finding in report.findings if finding.severity == "error"] == []
