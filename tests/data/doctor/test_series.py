"""Faults among the files of a series."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil

from skysense.data.acquisitions import open_layer
from skysense.data.doctor import Chosen, examine, first_errors
from skysense.data.products.choice import in_dates, parse_dates


def codes(report):
    return [(finding.code, finding.severity) for finding in report.findings]


def moved(east, crs="EPSG:32632"):
    return {"transform": (10.0, 0.0, 600_000.0 + east, 0.0, -10.0, 5_340_000.0), "crs": crs}


def test_duplicate_date(scene):
    files = [scene("s2_l2a", f"{name}_20240615.tif") for name in "ab"]
    report = examine(files)
    assert codes(report) == [("duplicate-date", "warning")]
    assert report.across[0].files == tuple(map(str, files))


def test_neighbours_of_one_day_are_no_duplicates(scene):
    files = [
        scene("s2_l2a", "a_20240615.tif"),
        scene("s2_l2a", "b_20240615.tif", **moved(700)),
    ]
    assert codes(examine(files)) == []


def test_files_of_several_places(scene):
    files = [
        scene("s2_l2a", "a_20240615.tif"),
        scene("s2_l2a", "b_20240625.tif", seed=1, **moved(20_000)),
    ]
    report = examine(files)
    assert codes(report) == [("no-overlap", "warning")]
    assert report.commands == tuple(
        f"skysense embed --s2 {path} -o features_{i + 1}.tif" for i, path in enumerate(files)
    )
    assert report.as_dict()["command"] == " && ".join(report.commands)


def test_several_coordinate_systems(scene):
    size = 1.35e-4, 0.9e-4
    files = [
        scene("s2_l2a", "a_20240615.tif"),
        scene(
            "s2_l2a",
            "b_20240625.tif",
            seed=1,
            crs="EPSG:4326",
            transform=(size[0], 0.0, 10.345, 0.0, -size[1], 48.205),
        ),
    ]
    report = examine(files)
    assert codes(report) == [("mixed-crs", "note")]
    assert len(report.commands) == 1


def test_shifted_pixels(scene):
    files = [
        scene("s2_l2a", "a_20240615.tif"),
        scene("s2_l2a", "b_20240625.tif", seed=1, **moved(4)),
    ]
    assert codes(examine(files)) == [("mixed-grids", "note")]


def test_shifted_pixels_name_the_first_pair(scene):
    files = [
        scene("s2_l2a", f"{i}_2024061{i}.tif", seed=i, **moved(east))
        for i, east in enumerate((0, 30, 15, 14))
    ]
    (finding,) = examine(files).findings
    assert finding.files == (str(files[0]), str(files[2]))


def test_the_first_of_several_copies_is_named(scene):
    files = [scene("s2_l2a", f"{name}_20240615.tif") for name in "abc"]
    other = scene("s2_l2a", "d_20240625.tif", seed=1)
    undated = [scene("s2_l2a", f"{name}.tif", seed=2) for name in "ef"]
    findings = [f for f in examine([*files, other, *undated]).findings if len(f.files) == 2]
    assert [(f.code, f.files) for f in findings] == [
        ("duplicate-date", (str(files[0]), str(files[i]))) for i in (1, 2)
    ]


def test_mixed_baselines(scene):
    files = [
        scene("s2_l2a", "S2B_MSIL2A_20210615T101031_N0300_R022_T32UPU.tif"),
        scene("s2_l2a_n0400", "S2B_MSIL2A_20240615T101031_N0510_R022_T32UPU.tif", seed=1),
    ]
    report = examine(files)
    assert codes(report) == [("mixed-baselines", "error")]
    assert report.commands == ()


def test_several_products(scene):
    files = [scene("s2_l1c", "L1C_20240615.tif"), scene("s2_l2a", "L2A_20240625.tif", seed=1)]
    assert codes(examine(files)) == [("mixed-products", "warning")]


def test_undated_file_in_a_dated_series(scene):
    files = [scene("s2_l2a", "a_20240615.tif"), scene("s2_l2a", "b.tif", seed=1)]
    report = examine(files)
    assert codes(report) == [("no-date", "warning")]
    assert report.of(files[1])[0].code == "no-date"


def split(names):
    def change(facts):
        wanted = [facts["names"].index(name) for name in names]
        facts["pixels"], facts["names"] = facts["pixels"][wanted], names

    return change


def test_bands_of_one_date_in_two_files(scene):
    ten = ("B02", "B03", "B04", "B08")
    twenty = ("B05", "B06", "B07", "B8A", "B11", "B12")
    files = [
        scene("s2_l2a", "a_20240615_10m.tif", split(ten)),
        scene("s2_l2a", "a_20240615_20m.tif", split(twenty)),
    ]
    assert codes(examine(files)) == []
    report = examine([files[0], scene("s2_l2a", "b_20240625.tif", split(twenty))])
    assert codes(report) == [("missing-bands", "warning")] * 2
    assert "no file of 2024-06-15 has" in report.findings[0].message
    assert report.commands == ()


def test_scene_classification_beside_the_bands(scene, raster, tmp_path):
    scene("s2_l2a", "folder/a_20240615.tif")
    classes = np.full((1, 80, 80), 9, np.uint8)
    cloudy = raster("folder/a_20240615_SCL.tif", classes)
    report = examine([tmp_path / "folder"])
    assert codes(report) == [("all-cloudy", "warning")]
    assert report.of(cloudy)
    assert report.commands == (f"skysense embed --s2 {tmp_path / 'folder'} -o features.tif",)


def test_other_files_of_a_folder_are_left_out(scene, raster, tmp_path):
    scene("s2_l2a", "folder/a_20240615.tif")
    raster("folder/height.tif", np.arange(6400, dtype=np.int16).reshape(1, 80, 80))
    report = examine([tmp_path / "folder"])
    assert codes(report) == [("not-used", "note")]
    assert report.commands == (f"skysense embed --s2 {tmp_path / 'folder'} -o features.tif",)


def test_coarser_copy_is_not_used(scene):
    fine = scene("rgb8", "fine_20240615.tif")
    coarse = scene(
        "rgb8",
        "coarse_20240615.tif",
        transform=(0.6, 0.0, 600_000.0, 0.0, -0.6, 5_340_000.0),
    )
    report = examine([fine, coarse])
    assert ("not-used", "note") in codes(report)
    assert report.count("error") == 0


SAFE = "S2B_MSIL2A_20240615T101031_N0510_R022_T32UPU_20240615T121212.SAFE"


def product(scene, folder, card="s2_l2a_n0400"):
    """One file a band, and one that no model takes, as a product has them."""
    for name in ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"):
        scene(card, f"{folder}/IMG_DATA/T32UPU_20240615T101031_{name}_10m.tif", split([name]))

    def aerosol(facts):
        facts.update(pixels=facts["pixels"][:1] // 8, names=None)

    scene(card, f"{folder}/IMG_DATA/T32UPU_20240615T101031_AOT_10m.tif", aerosol)


def test_product_of_one_file_a_band(scene, tmp_path):
    product(scene, SAFE)
    report = examine([tmp_path / SAFE])
    assert codes(report) == [("not-used", "note")]
    guess = report.files[1].guess
    assert (guess.card, guess.others) == ("s2_l2a_n0400", ())
    assert guess.reasons[1].startswith("of the product S2B_MSIL2A_20240615T101031_N0510")
    assert report.commands == (
        f"skysense embed --s2 {tmp_path / SAFE} --sensor s2_l2a_n0400 -o features.tif",
    )


def test_archive_and_a_damaged_one(scene, tmp_path):
    product(scene, SAFE)
    archive = shutil.make_archive(tmp_path / "product", "zip", tmp_path, SAFE)
    report = examine([archive])
    assert codes(report) == [("not-used", "note")]
    assert len(report.files) == 11
    assert report.commands == (
        f"skysense embed --s2 {archive} --sensor s2_l2a_n0400 -o features.tif",
    )
    broken = tmp_path / "broken.zip"
    broken.write_bytes(Path(archive).read_bytes()[:5000])
    report = examine([archive, broken])
    assert codes(report) == [("damaged", "error"), ("not-used", "note")]
    assert len(report.commands) == 1


def test_members_of_archives_that_a_scene_leaves_out(scene, tmp_path):
    for year in ("2022", "2023"):
        folder = SAFE.replace("2024", year)
        product(scene, folder)
        if year == "2022":
            (band,) = (tmp_path / folder).rglob("*_B11_10m.tif")
            whole = band.rename(tmp_path / "whole.tif")
            rasterio.shutil.copy(whole, band, driver="COG")
            band.write_bytes(band.read_bytes()[: band.stat().st_size // 2])
        shutil.make_archive(tmp_path / "in" / folder, "zip", tmp_path, folder)
    inputs = [tmp_path / "in"]
    layer = open_layer(inputs, None, modality="s2")

    def errors(text):
        seen, days = [], parse_dates(text)
        chosen = Chosen(in_dates(layer, days), dates=days)
        found = first_errors(inputs, modality="s2", progress=seen.append, chosen=chosen)
        assert len(seen) == 22, "those that are left out count, too"
        return [(error.code, Path(error.files[0]).name) for error in found]

    assert errors("2023") == []
    fault = [("damaged", "T32UPU_20240615T101031_B11_10m.tif")]
    assert errors("2022") == errors("2022/2023") == fault


def test_product_that_cannot_be_used(scene):
    name = "LC08_L1TP_039037_20240615_20240620_02_T1_SR_B4.tif"
    (finding,) = examine([scene("landsat_c2_l2", name)]).findings
    assert (finding.code, finding.severity) == ("unusable", "error")
    assert "order Level-2 surface reflectance" in finding.message


def test_product_whose_offset_is_not_known(scene):
    path = scene("s2_l2a", "S2B_32UPU_20240615_0_L2A/bands.tif")
    report = examine([path])
    assert codes(report) == [("offset-unknown", "note")]
    assert report.files[0].guess.card == "s2_l2a"


def test_products_of_another_card_in_a_folder(scene, tmp_path):
    """The readers pass over Landsat beside Sentinel-2, so it must not stop them."""
    scene("s2_l2a", "folder/a_20240615.tif")
    landsat = scene("landsat_c2_l2", "folder/LC08_L2SP_039037_20240616_20240620_02_T1_SR.tif")
    report = examine([tmp_path / "folder"], sensor="s2_l2a")
    assert codes(report) == [("not-used", "note")]
    assert first_errors([tmp_path / "folder"], "s2_l2a") == []
    (finding,) = first_errors([landsat], "s2_l2a")
    assert finding.code == "missing-bands"
    assert "does not read the product LC08_L2SP" in finding.message


def test_empty_date_among_others_is_no_error(scene):
    def empty(facts):
        facts.update(pixels=facts["pixels"] * 0, nodata=0)

    files = [scene("s2_l2a", "a_20240615.tif"), scene("s2_l2a", "b_20240625.tif", empty)]
    report = examine(files)
    assert codes(report) == [("nothing-valid", "warning")]
    assert first_errors(files, "s2_l2a") == []
    assert str(files[1]) in report.commands[0]


def test_what_the_reader_refuses_is_an_error(scene, monkeypatch):
    """Whatever the checks oversee, the command is not offered."""

    def refuse(*_):
        raise ValueError("not these")

    monkeypatch.setattr("skysense.data.doctor.advice.open_layer", refuse)
    report = examine([scene("s2_l2a")])
    assert codes(report) == [("refused", "error")]
    assert report.findings[0].message == "not these"
    assert report.commands == ()


def test_input(tmp_path, scene):
    with pytest.raises(ValueError, match=r"missing\.tif: there is no such file"):
        examine([tmp_path / "missing.tif"])
    with pytest.raises(ValueError, match="holds no raster"):
        examine([tmp_path])
    with pytest.raises(ValueError, match="unknown sensor `s2_l2b`"):
        examine([scene("s2_l2a")], sensor="s2_l2b")
    with pytest.raises(ValueError, match="no input"):
        examine([])


def test_progress_counts_files(scene):
    seen = []
    examine([scene("s2_l2a"), scene("s1", "b_20240615.tif")], progress=seen.append)
    assert seen == [1, 1]
