"""A file's facts are read as it states them; what is wrong with one is a line that names it."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from skysense.data.rasters import canonical, expand, inspect, parse_date, public

RGB = ("R", "G", "B")
RED, GREEN, BLUE, ALPHA = (getattr(ColorInterp, c) for c in ("red", "green", "blue", "alpha"))


def ones(count=3, height=8, width=12, dtype="uint8"):
    return np.ones((count, height, width), dtype)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("s2_20210615_10m", "2021-06-15"),
        ("2021-06-15_scene", "2021-06-15"),
        ("T33UUP_20210615T101031_B02_10m", "2021-06-15"),
        ("LC08_L2SP_039037_20200105_20200113_02_T1_SR_B4", "2020-01-05"),
        ("S1A_IW_GRDH_1SDV_20200903T131212_20200903T131237", "2020-09-03"),
        ("20210231_then_20210301", "2021-03-01"),  # there is no 31 February
        ("2021-0615", None),
        ("120210615", None),
        ("18990101", None),
        ("aerial", None),
    ],
)
def test_dates(text, date):
    found = parse_date(text)
    assert np.isnat(found) if date is None else found == np.datetime64(date)


def test_facts_of_a_file(raster):
    path = raster("s2_20210615.tif", ones(2, dtype="uint16"), ("B02", "B03"), nodata=0)
    facts = inspect(path)
    assert (facts.path, facts.names, facts.dtype, facts.nodata) == (
        path,
        ("B02", "B03"),
        "uint16",
        0,
    )
    assert facts.grid.transform == (10, 0, 600_000, 0, -10, 5_340_000)
    assert facts.grid.shape == (8, 12)
    assert facts.metres == pytest.approx(10, rel=1e-3)
    assert facts.date == np.datetime64("2021-06-15")
    assert facts.found == "s2_20210615.tif has 2 bands: 1=B02, 2=B03"
    assert (facts.alpha, facts.false_alpha, facts.masked, facts.baseline) == (
        None,
        False,
        False,
        None,
    )


def test_names_by_colour_by_file_and_given(raster):
    coloured = raster("a.tif", ones(), colours=[RED, GREEN, BLUE])
    assert inspect(coloured).names == ("red", "green", "blue")
    single = raster("T33UUP_20210615T101031_B02_10m.tif", ones(1))
    assert inspect(single).names == ("T33UUP_20210615T101031_B02_10m",)
    assert inspect(raster("b.tif", ones(2))).names == (None, None)
    assert inspect(coloured, ["x", "y", "z"]).names == ("x", "y", "z")
    with pytest.raises(ValueError, match=r"a\.tif: has 3 bands, but 2 names"):
        inspect(coloured, ["x", "y"])


def test_date_of_the_folder_where_the_file_has_none(raster):
    assert inspect(raster("2021-06-15/B2.tif", ones(1))).date == np.datetime64("2021-06-15")
    named = raster("2021-06-15/s2_20200101.tif", ones(1))
    assert inspect(named).date == np.datetime64("2020-01-01")


def test_baseline_of_the_innermost_product_name(raster):
    inside = "S2B_MSIL2A_20220613T101031_N0400_R022_T33UUP_1.SAFE/GRANULE/IMG_DATA/B02.tif"
    assert inspect(raster(inside, ones(1))).baseline == 400
    both = "S2_N0400_R1/S2_N0214_R1.tif"
    assert inspect(raster(both, ones(1))).baseline == 214


def test_alpha_is_a_mask_and_near_infrared_coloured_as_alpha_is_not(raster):
    colours = [RED, GREEN, BLUE, ALPHA]
    for names in (None, ("R", "G", "B", "Alpha"), ("R", "G", "B", "A")):
        facts = inspect(raster("rgba.tif", ones(4), names, colours=colours))
        assert (facts.alpha, facts.false_alpha) == (3, False)
    facts = inspect(raster("naip.tif", ones(4), ("R", "G", "B", "N"), colours=colours))
    assert (facts.alpha, facts.false_alpha) == (None, True)


def test_mask_inside_and_beside_the_file(raster):
    mask = np.zeros((8, 12), np.uint8)
    for internal in (True, False):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
            path = raster(f"masked_{internal}.tif", ones(), RGB, mask=mask)
        assert path.with_name(path.name + ".msk").exists() is not internal
        assert inspect(path).masked


def test_what_is_no_raster(tmp_path):
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "empty.tif").touch()
    for name in ("text.tif", "empty.tif"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a raster \(.+\)$"):
            inspect(tmp_path / name)
    with pytest.raises(ValueError, match=r"missing\.tif: there is no such file"):
        inspect(tmp_path / "missing.tif")


def test_a_file_that_breaks_off(raster):
    path = raster("cut.tif", ones(3, 64, 64), RGB)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"cut\.tif: cannot be read as a raster"):
        inspect(path)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers(raster, dtype):
    pixels = np.ones((2, 8, 8), "complex128" if dtype == "complex128" else "complex64")
    with pytest.raises(ValueError, match=rf"slc\.tif: holds complex numbers \({dtype}\)"):
        inspect(raster("slc.tif", pixels, ("VV", "VH"), dtype=dtype))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # while writing
def test_no_place_on_the_ground(raster):
    with pytest.raises(ValueError, match=r"a\.tif: has no coordinate reference system"):
        inspect(raster("a.tif", ones(), RGB, crs=None))
    with pytest.raises(ValueError, match=r"b\.tif: has no geotransform"):
        inspect(raster("b.tif", ones(), RGB, transform=None))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32632", (10, 0, 6e8, 0, -10, 5e9)),
        ("EPSG:32632", (1e300, 0, 0, 0, -1e300, 0)),
        ("EPSG:32632", (1e-300, 0, 0, 0, -1e-300, 0)),
        ("EPSG:32632", (10, 0, float("nan"), 0, -10, 0)),
        ("EPSG:32632", (10, 0, 5, 0, 0, 5)),
        ("EPSG:4326", (10, 0, 600_000, 0, -10, 5_340_000)),
        ("EPSG:4326", (1e-4, 0, 10, 0, -1e-4, 95)),
        ('LOCAL_CS["site",UNIT["metre",1]]', (1, 0, 5, 0, -1, 5)),
    ],
)
def test_nonsense_on_the_ground(raster, crs, transform):
    with pytest.raises(ValueError, match=r"odd\.tif: ") as error:
        inspect(raster("odd.tif", ones(), RGB, crs=crs, transform=transform))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:4326", (1e-4, 0, 179.9996, 0, -1e-4, 0.0004), 11.1),  # over the antimeridian
        ("EPSG:4326", (1e-4, 0, 359.99, 0, -1e-4, 0.0), 11.1),  # longitudes from 0 to 360
        ("EPSG:3413", (10, 0, -40, 0, -10, 40), 10.3),  # at the pole, true at 70 degrees
        ("EPSG:3857", (10, 0, 0, 0, -10, 8_399_738), 5),  # at 60 degrees north
        ("EPSG:2263", (1, 0, 990_000, 0, -1, 200_000), 0.3048),  # feet
        ("EPSG:32632", (8, 6, 600_000, 6, -8, 5_340_000), 10),  # turned
        ("EPSG:32632", (10, 0, 600_000, 0, 10, 5_340_000), 10),  # south up
    ],
)
def test_metres_on_the_ground(raster, crs, transform, metres):
    facts = inspect(raster("a.tif", ones(), RGB, crs=crs, transform=transform))
    assert facts.metres == pytest.approx(metres, rel=0.01)


def test_folders_are_searched(raster, tmp_path):
    wanted = [raster(f"in/{name}", ones(1)) for name in ("b/x.TIF", "a.tif", "c.tiff")]
    for passed_over in (".a.tif.77.part/map.tif", "._a.tif", "MSK_DETFOO_B02.tif", "T3_PVI.tif"):
        raster(f"in/{passed_over}", ones(1))
    (tmp_path / "in/notes.txt").touch()
    assert expand([tmp_path / "in"]) == sorted(wanted)
    single = tmp_path / "in/MSK_DETFOO_B02.tif"
    assert expand([single, tmp_path / "in"]) == [single, *sorted(wanted)], "a named file is taken"


def test_folder_without_rasters(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"this folder holds no raster \(\.tif, "):
        expand([tmp_path])


@pytest.mark.parametrize(
    ("tags", "date"),
    [
        ({"TIFFTAG_DATETIME": "2021:06:15 10:10:31"}, "2021-06-15"),
        (
            {"ACQUISITION_DATE": "2021-06-14", "TIFFTAG_DATETIME": "2022:01:01 00:00:00"},
            "2021-06-14",
        ),
        ({"acquisition_date": "20210613"}, "2021-06-13"),
        ({"TIFFTAG_DATETIME": "yesterday"}, None),
    ],
)
def test_date_of_the_metadata_where_no_name_has_one(raster, tags, date):
    for name, expected in (("scene.tif", date), ("scene_20200101.tif", "2020-01-01")):
        path = raster(name, ones(1))
        with rasterio.open(path, "r+") as file:
            file.update_tags(**tags)
        found = inspect(path).date
        assert np.isnat(found) if expected is None else found == np.datetime64(expected)


def test_addresses_are_shown_without_what_signs_them():
    signed = "/vsicurl/https://user:word@store.net/a/b.tif?sig=secret"
    assert public(signed) == "https://store.net/a/b.tif"
    assert public("/vsis3/bucket/b.tif") == "s3://bucket/b.tif"


def test_one_spelling_of_a_coordinate_system():
    from pyproj import CRS

    texts = {
        canonical(t) for t in ("EPSG:32632", CRS(32632).to_wkt(), CRS(32632).to_wkt("WKT1_GDAL"))
    }
    assert len(texts) == 1
    with pytest.raises(ValueError, match="is no coordinate system"):
        canonical("EPSG:none")


AZURE = "st=2026-01-01&se=2026-01-02&sp=rl&sv=2021-06-08&sr=c&skoid=a&sktid=b&sig=secret"
AWS = "X-Amz-Date=2026&X-Amz-Credential=secret&X-Amz-Security-Token=secret&X-Amz-Signature=secret"


@pytest.mark.parametrize("signature", [AZURE, AWS, "Expires=1&Signature=secret", "token=secret"])
def test_what_an_address_asks_for_tells_files_apart_and_its_signature_does_not(raster, signature):
    facts = inspect(raster("a.tif", ones(1)))
    root = "https://user:word@store.net/download"
    two, three, again, plain, signed = (
        replace(facts, address=f"{root}{query}")
        for query in (
            f"?band=2&{signature}",
            f"?band=3&{signature}",
            f"?{signature.replace('secret', 'other')}&band=2",
            "",
            f"?{signature}",
        )
    )
    assert two.key != three.key
    assert two.identity != three.identity
    assert two.identity == again.identity
    assert plain.identity == signed.identity == "https://store.net/download"
    shown = " ".join(file.label + file.identity for file in (two, three, again, plain, signed))
    assert "secret" not in shown
    assert "word" not in shown
    assert (facts.key, facts.identity) == (str(facts.path), str(facts.path))


def test_files_are_sent_to_other_processes_whatever_signs_them(raster):
    """A signer that cannot be sent answers before; one that can goes along."""
    path = raster("a.tif", ones(1))
    facts = inspect(path)
    for sign in (lambda _: str(path), None, str.upper):
        file = replace(facts, address="https://store.net/a.tif?band=2", sign=sign)
        sent = pickle.loads(pickle.dumps(file))
        assert (sent.key, sent.identity) == (file.key, file.identity)
        assert sent.sign is sign or sent.sign("") == str(path)
    sent = pickle.loads(pickle.dumps(replace(file, sign=lambda _: str(path))))
    opened = sent.open()
    assert (opened.height, opened.width) == (8, 12)
    opened.close()
