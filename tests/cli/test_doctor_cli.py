"""`skysense doctor` as it is typed: text, JSON, exit codes."""

import json

import numpy as np
import pytest


def radar(linear=False, seed=0):
    """`(2, 64, 64)` float32 backscatter, VV and VH."""
    rng = np.random.default_rng(seed)
    decibel = np.array([-11.0, -18.0])[:, None, None] + rng.normal(0, 2, (2, 64, 64))
    return (10 ** (decibel / 10) if linear else decibel).astype(np.float32)


@pytest.fixture
def sound(raster):
    return raster("radar_20240615.tif", radar(), ("VV", "VH"))


@pytest.fixture
def linear(raster):
    return raster("power_20240615.tif", radar(linear=True), ("VV", "VH"))


def test_sound_file(skysense, sound):
    result = skysense("doctor", sound)
    assert (result.exit_code, result.stderr) == (0, "")
    first, facts, guess, empty, last = result.stdout.splitlines()
    assert first == str(sound)
    assert facts == ("  64 x 64, 10 m, EPSG:32632, float32, 2024-06-15, nodata none; bands VV, VH")
    assert guess.startswith("  sensor s1 (or s1_vv): bands by name (VV, VH); median -14.")
    assert empty == ""
    assert last == (
        f"1 file: 0 errors, 0 warnings, 0 notes; to embed: skysense embed --s1 {sound} "
        f"-o features.tif"
    )


def test_error_with_its_fix_and_a_command_that_works(skysense, linear):
    result = skysense("doctor", linear, "--sensor", "s1")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[3].startswith("  error not-decibel: the median is 0.0")
    assert lines[4] == "      fix: --sensor s1_linear"
    assert lines[-1].startswith("1 file: 1 error, 0 warnings, 0 notes; to embed: ")
    assert f"--s1 {linear} --sensor s1_linear" in lines[-1]
    assert skysense("doctor", linear, "--sensor", "s1_linear").exit_code == 0
    assert skysense("doctor", linear).exit_code == 0


def test_the_command_is_typed_as_it_stands(skysense, linear, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = skysense("doctor", linear).stdout.splitlines()[-1].partition("to embed: ")[2]
    program, *arguments = command.split()
    assert program == "skysense"
    assert skysense(*arguments, "-m", "v2_tiny", "-q").exit_code == 0
    assert (tmp_path / "features.tif").exists()


def test_json_is_all_that_is_printed(skysense, linear, sound):
    result = skysense("doctor", linear, sound, "--sensor", "s1", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    report = json.loads(result.stdout)
    assert list(report) == ["files", "findings", "command"]
    assert [file["path"] for file in report["files"]] == [str(linear), str(sound)]
    assert report["files"][1]["guess"]["card"] == "s1"
    assert report["files"][1]["shape"] == [64, 64]
    worst = report["findings"][0]
    assert (worst["severity"], worst["code"]) == ("error", "not-decibel")
    assert (worst["fix"], worst["files"]) == ("--sensor s1_linear", [str(linear)])
    assert report["command"].startswith("skysense embed --s1 ")


def test_worst_findings_come_first(skysense, raster):
    pixels = radar()
    pixels[1] = -12.0
    pixels[0, 40, 30:40] = np.nan
    path = raster("radar.tif", pixels, ("VV", "VH"))
    lines = skysense("doctor", path).stdout.splitlines()
    kinds = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    found = [kind for kind in kinds if kind in ("error", "warning", "note")]
    assert found == sorted(found, key=["error", "warning", "note"].index)
    assert found.count("note") >= 2
    assert "warning" in found


def test_folder_with_garbage(skysense, raster, tmp_path):
    folder = tmp_path / "scenes"
    raster("scenes/radar_20240615.tif", radar(), ("VV", "VH"))
    (folder / "letter.tif").write_text("dear reader")
    (folder / "nothing.tif").touch()
    result = skysense("doctor", folder)
    assert result.exit_code == 1
    assert "error not-a-raster: " in result.stdout
    assert "error empty-file: " in result.stdout
    assert "sensor s1" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("3 files: 2 errors, 0 warnings, 0 notes; to embed: ")
    assert f"--s1 {folder / 'radar_20240615.tif'} " in last


def test_nothing_that_could_be_embedded(skysense, tmp_path):
    (tmp_path / "letter.tif").write_text("[bold]dear reader[/bold]")
    result = skysense("doctor", tmp_path / "letter.tif")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("as they are, no command embeds them")


def test_names_from_the_command_line(skysense, raster):
    path = raster("radar_20240615.tif", radar(), names=None)
    result = skysense("doctor", path)
    assert result.exit_code == 1
    assert "fix: --bands VV,VH" in result.stdout
    named = skysense("doctor", path, "--bands", "VV, VH")
    assert named.exit_code == 0
    assert f"--s1 {path} --bands s1=VV,VH" in named.stdout


def test_several_places_have_a_command_each(skysense, sound, raster):
    far = (10.0, 0.0, 640_000.0, 0.0, -10.0, 5_340_000.0)
    other = raster("far_20240615.tif", radar(seed=1), ("VV", "VH"), far)
    result = skysense("doctor", sound, other)
    assert result.exit_code == 0
    *_, summary, first, second = result.stdout.splitlines()
    assert summary.endswith("to embed, place by place:")
    assert first == f"skysense embed --s1 {sound} -o features_1.tif"
    assert second == f"skysense embed --s1 {other} -o features_2.tif"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("missing.tif",), "missing.tif: there is no such file"),
        ((), "Missing argument 'FILE...'"),
        (("SOUND", "--sensor", "s3"), "unknown sensor `s3`"),
        (("FOLDER",), "this folder holds no raster"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(skysense, sound, tmp_path, arguments, match):
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"SOUND": sound, "FOLDER": empty}
    result = skysense("doctor", *(places.get(word, word) for word in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert match in line
