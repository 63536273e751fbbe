"""Sound rasters of every card, and real imagery: no false alarm, and the right guess."""

import json
import os
from pathlib import Path

import pytest

from skysense.data.acquisitions import open_layer
from skysense.data.doctor import examine, first_errors
from skysense.sensors import SENSORS

ROOT = Path(os.environ.get("SKYSENSE_DATA", Path(__file__).parents[4] / "shared" / "data"))
SCENES = ROOT / "georef_scenes"

GUESSES = {"hr": "rgb8", "naip_rgbn": "naip"}
"""Where the guess is another card of the same numbers."""


@pytest.mark.parametrize("card", SENSORS)
def test_sound_scene_of_every_card(scene, card):
    level = "L1C" if "l1c" in card else "L2A" if "l2a" in card else "scene"
    path = scene(card, f"{level}_20240615.tif")
    report = examine([path])
    assert report.findings == ()
    assert report.files[0].guess.card == GUESSES.get(card, card)
    assert report.files[0].date == "2024-06-15"
    told = examine([path], sensor=card)
    assert told.findings == ()
    assert first_errors([path], card) == []
    (command,) = report.commands
    assert command.startswith(f"skysense embed --{SENSORS[card].modality} {path}")
    open_layer([path], report.files[0].guess.card)


def test_a_guess_says_why_and_what_else(scene):
    guess = examine([scene("s2_l2a")]).files[0].guess
    assert guess.reasons[0] == "bands by name (B2, B3, B4, B5, B6, B7, B8, B8A, B11, B12)"
    assert "digital numbers" in guess.reasons[1]
    assert "below the offset of 1000" in guess.reasons[2]
    assert {"s2_l2a_n0400", "s2_l1c"} <= set(guess.others)


def test_baseline_of_the_name_decides(scene):
    name = "S2B_MSIL2A_20240615T101031_N0510_R022_T32UPU.tif"
    report = examine([scene("s2_l2a_n0400", name)], sensor="s2_l2a")  # as embed takes it
    assert report.findings == ()
    guess = report.files[0].guess
    assert (guess.card, guess.reasons[-1]) == (
        "s2_l2a_n0400",
        "the name says processing baseline 05.10",
    )


def test_series_of_all_modalities_and_its_command(scene, tmp_path):
    for day in ("20240601", "20240611"):
        scene("s2_l2a_n0400", f"optical/{day}.tif", seed=int(day))
        scene("s1_linear", f"radar/{day}.tif", seed=int(day))
    aerial = scene("rgb8", "aerial_20240601.tif")
    report = examine([tmp_path / "optical", tmp_path / "radar", aerial])
    assert report.findings == ()
    assert report.commands == (
        f"skysense embed --hr {aerial} --s2 {tmp_path / 'optical'} --sensor s2_l2a_n0400 "
        f"--s1 {tmp_path / 'radar'} --sensor s1_linear -o features.tif",
    )
    facts = json.loads(json.dumps(report.as_dict()))
    assert list(facts) == ["files", "findings", "command"]
    assert len(facts["files"]) == 5
    assert facts["command"] == report.commands[0]


@pytest.mark.skipif(not SCENES.is_dir(), reason=f"no imagery in {ROOT} (set SKYSENSE_DATA)")
def test_real_imagery_gives_no_false_alarm():
    """One file is odd: 8-bit stretched Sentinel-2 bands. All of them are of four places."""
    report = examine([SCENES])
    odd = {(f.code, Path(f.files[0]).name) for f in report.findings if f.severity != "note"}
    first = sorted(SCENES.glob("*.tif"))[0].name
    assert odd == {
        ("eight-bit", "pair_za_sentinel2_b432_10m.tif"),
        ("no-overlap", first),
    }
    assert {Path(file.path).name[:4]: file.guess.card for file in report.files} == {
        "S1A_": "s1_vv",
        "majo": "s2_l2a",
        "naip": "naip",
        "pair": "rgb8",
    }
    assert len(report.commands) == 4


@pytest.mark.skipif(not SCENES.is_dir(), reason=f"no imagery in {ROOT} (set SKYSENSE_DATA)")
@pytest.mark.parametrize("path", sorted(SCENES.glob("*.tif")), ids=lambda path: path.stem)
def test_real_files_one_by_one(path):
    """Half of a Sentinel-2 scene lacks the bands of the other half, which is all there is."""
    codes = {f.code for f in examine([path]).findings if f.severity != "note"}
    expected = {"majortom": {"missing-bands"}, "pair_za_sentinel2": {"eight-bit"}}
    assert codes == next((c for name, c in expected.items() if path.stem.startswith(name)), set())
    assert examine([path]).count("error") == 0
