"""`skysense map` as it is typed: features or imagery, labels or clusters, and what cannot be."""

import json

import numpy as np
import pytest
import rasterio
from rasterio import Affine

CELL, LEFT, TOP = 40.0, 600_000.0, 5_340_000.0


def table(path, cells, names, heads="x,y,class"):
    """A CSV of the centres of cells."""
    rows = [
        f"{LEFT + CELL * (col + 0.5)},{TOP - CELL * (row + 0.5)},{name}"
        for (row, col), name in zip(cells, names, strict=True)
    ]
    path.write_text("\n".join([heads, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def half():
    """Cells `(N, 2)` of a 24 x 16 map, and the half that they lie in."""
    cells = np.argwhere(np.ones((24, 16)))[::7]
    return cells, ["left" if col < 8 else "right" for _, col in cells]


@pytest.fixture
def labels(tmp_path, half):
    return table(tmp_path / "labels.csv", *half)


@pytest.fixture
def two_sided(raster):
    """An image of 96 x 64 pixels, dark and smooth on the left, bright and rough on the right."""
    rng = np.random.default_rng(0)
    pixels = np.full((3, 96, 64), 60, np.uint8)
    pixels[:, :, 32:] = rng.integers(100, 250, (3, 96, 32))
    return raster("scene.tif", pixels)


@pytest.fixture
def features(tmp_path):
    """A feature map of 24 x 16 cells whose halves differ."""
    path = tmp_path / "features.tif"
    values = np.random.default_rng(0).normal(size=(4, 24, 16)).astype(np.float32)
    values[:2, :, 8:] += 4
    transform = Affine(CELL, 0, LEFT, 0, -CELL, TOP)
    facts = {"driver": "GTiff", "crs": "EPSG:32632", "transform": transform, "nodata": np.nan}
    with rasterio.open(path, "w", count=4, height=24, width=16, dtype="float32", **facts) as file:
        file.write(values)
        file.update_tags(SKYSENSE_MODEL="v2_tiny")
    return path


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "landcover.tif"


@pytest.fixture
def make_map(skysense, output):
    """`make_map(...) -> Result` into `output`, of labels in the map's coordinate system."""

    def run(*arguments):
        return skysense("map", "-o", output, "--crs", "EPSG:32632", *arguments)

    return run


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def halves(found):
    return (found[:, :8] == 1).mean(), (found[:, 8:] == 2).mean()


def test_a_feature_map_and_labels(make_map, features, labels, output):
    result = make_map(features, "--labels", labels)
    assert (result.exit_code, result.stderr) == (0, "")
    assert min(halves(read(output))) > 0.9
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{output}: left ")
    assert "logistic (strength " in lines[1]
    assert any(line.startswith("  F1 of right") for line in lines)
    assert any("cells at random" in line for line in lines)
    assert lines[-1] == (
        f"also made: {output.with_name('landcover_confidence.tif')}, "
        f"{output.with_name('landcover.json')}"
    )


def test_imagery_is_embedded_first_and_its_features_go(make_map, two_sided, labels, output):
    result = make_map(
        two_sided, "--labels", labels, "-m", "v2_tiny", "--stage", "1", "--head", "knn"
    )
    assert result.exit_code == 0, result.stderr
    assert "note: `v2_tiny` is untrained" in result.stderr
    assert min(halves(read(output))) > 0.8
    facts = json.loads(output.with_suffix(".json").read_text())
    assert facts["features"]["tags"]["SKYSENSE_STAGE"] == "1"
    assert facts["head"] == "knn"
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "landcover.json",
        "landcover.tif",
        "landcover.tif.aux.xml",
        "landcover_confidence.tif",
    ]


def test_features_can_be_kept_and_used_again(make_map, two_sided, labels, output, tmp_path):
    kept = tmp_path / "kept.tif"
    usual = ("--labels", labels, "-q", "--metrics", tmp_path / "m.json", "--folds", "3")
    imagery = (two_sided, "-m", "v2_tiny", "--stage", "1", "--features", kept)
    assert make_map(*imagery, *usual).exit_code == 0
    first, facts = output.read_bytes(), json.loads((tmp_path / "m.json").read_text())
    assert facts["cross_validation"]["folds"] == 3
    result = make_map(kept, *usual)
    assert (result.exit_code, result.output) == (0, "")
    assert output.read_bytes() == first


@pytest.fixture
def store(make_map, two_sided, tmp_path):
    """`store(suffix) -> Path` of the features of `two_sided`, as a run that keeps them makes it."""

    def make(suffix):
        path = tmp_path / "kept" / f"features{suffix}"
        imagery = (two_sided, "-m", "v2_tiny", "--stage", "1", "--features", path)
        result = make_map(*imagery, "--clusters", "2", "-q")
        assert (result.exit_code, result.output) == (0, "")
        return path

    return make


def test_stores_give_what_the_geotiff_gives(make_map, store, labels, output):
    for extra in ("zarr", "pyarrow", "lancedb"):
        pytest.importorskip(extra, reason="the extras `stores` and `search` are not installed")
    maps = {}
    for suffix in (".tif", ".zarr", ".parquet", ".lance"):
        path = store(suffix)
        result = make_map(path, "--labels", labels, "-q")
        assert (result.exit_code, result.output) == (0, "")
        with rasterio.open(output) as file:
            tags = file.tags()
        assert tags["FEATURES_MODEL"] == "v2_tiny"
        assert json.loads(tags.pop("FEATURES_PROVENANCE"))["weights"] != "unknown"
        maps[suffix] = (read(output).tolist(), tags)
    assert all(own == maps[".tif"] for own in maps.values())


def test_several_modalities_are_those_of_embed(make_map, embed, files, output):
    inputs = ["--hr", *files["hr"], "--s1", files["s1"][0].parent, "--s2", *files["s2"]]
    cards = [word for card in ("rgb8", "s2_l2a", "s1") for word in ("--sensor", card)]
    what = (*inputs, *cards, "--stage", "1")
    assert embed(*what).exit_code == 0
    assert make_map(embed.output, "--clusters", "3", "-q").exit_code == 0
    expected = output.read_bytes()
    result = make_map(*what, "-m", "v2_tiny", "--clusters", "3", "-q")
    assert (result.exit_code, result.output) == (0, "")
    assert output.read_bytes() == expected


def test_a_budget_makes_finer_cells(make_map, files, output):
    sides = []
    for budget in ("fast", "fine"):
        how = ("-m", "v2_tiny", "--budget", budget, "--clusters", "2", "-q")
        assert make_map("--hr", *files["hr"], *how).exit_code == 0
        with rasterio.open(output) as file:
            sides.append(file.transform.a)
    assert sides[0] == 4 * sides[1]


def test_imagery_in_wrong_units_is_refused(refused, files, output, labels):
    inputs = ("--s2", *files["s2"], "--sensor", "s2", "--labels", labels)
    refused(*inputs, match="fix: --sensor s2_l2a")


def test_days_of_a_series(make_map, files, output):
    kept = output.with_name("kept.tif")
    inputs = ("--s2", files["s2"][0].parent, "-m", "v2_tiny", "--stage", "1", "--clusters", "2")
    assert make_map(*inputs, "--features", kept, "-q").exit_code == 0
    with rasterio.open(kept) as file:
        _, first, *others = file.tags()["SKYSENSE_S2"].split()
    assert others
    assert make_map(*inputs, "--features", kept, "--dates", first, "-q").exit_code == 0
    with rasterio.open(kept) as file:
        assert file.tags()["SKYSENSE_S2"].split()[1:] == [first]


@pytest.fixture
def item(raster, tmp_path):
    """A STAC item of Sentinel-2 whose assets are files beside it, 16 x 16 pixels of 10 m."""
    pytest.importorskip("pystac", reason="the extra `stac` is not installed")
    keys = ["blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08"]
    keys += ["swir16", "swir22"]
    assets, rng = {}, np.random.default_rng(0)
    for key in keys:
        pixels = rng.integers(1100, 4000, (1, 16, 16)).astype(np.uint16)
        raster(f"item/{key}.tif", pixels, (key,), nodata=0)
        assets[key] = {"href": f"./{key}.tif", "type": "image/tiff", "roles": ["data"]}
    west, south, east, north = 10.34, 48.19, 10.36, 48.21
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    path = tmp_path / "item" / "item.json"
    facts = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A_32UPU_20210615_0_L2A",
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": "2021-06-15T10:10:31Z", "platform": "sentinel-2a"},
        "assets": assets,
        "links": [],
    }
    path.write_text(json.dumps(facts))
    return path


def test_imagery_of_a_catalog(make_map, item, output):
    kept = output.with_name("kept.tif")
    what = ("--stac", item, "-m", "v2_tiny", "--stage", "1", "--clusters", "2", "-q")
    result = make_map(*what, "--dates", "2021-06", "--features", kept)
    assert (result.exit_code, result.output) == (0, "")
    with rasterio.open(kept) as file:
        assert file.tags()["SKYSENSE_S2"].endswith(" 2021-06-15")
    result = make_map(*what, "--dates", "2020")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_clusters(make_map, features, output):
    result = make_map(features, "--clusters", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0].startswith(f"{output}: cluster 1 ")
    left, right = halves(read(output))
    assert max(left, 1 - left) > 0.9
    assert max(right, 1 - right) > 0.9


def test_a_picture(make_map, features, labels, output):
    pytest.importorskip("matplotlib", reason="matplotlib, of the extra `plots`, is not installed")
    look = output.with_name("look.png")
    for what in (("--labels", labels), ("--clusters", "2")):
        result = make_map(features, *what, "--picture", look)
        assert result.exit_code == 0
        assert result.stdout.splitlines()[-1].endswith(str(look))
        assert look.read_bytes().startswith(b"\x89PNG")
        look.unlink()


def test_notes_are_one_line_each(make_map, features, half, output, tmp_path):
    cells, names = half
    path = table(tmp_path / "l.csv", [*cells, (99, 99)], [*names, "left"])
    result = make_map(features, "--labels", path)
    assert result.exit_code == 0
    total = len(names) + 1
    assert result.stderr == f"note: 1 of {total} labels lie outside the map and are left out\n"


@pytest.fixture
def refused(make_map, tmp_path):
    """`refused(..., match=...)`: exit 2, one line on stderr, and nothing new on the disk."""

    def check(*arguments, match):
        before = set(tmp_path.rglob("*"))
        result = make_map(*arguments, "-q")
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert match in line, line
        made = set(tmp_path.rglob("*")) - before
        assert not [path for path in made if not path.is_dir() or path.name.startswith(".")]

    return check


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the file of labels is empty"),
        ("class\na\nb\n", "expected columns lon and lat, or x and y with --crs"),
        ("x,y,class\n1,2,a\n3,4,b\n", "all labels lie outside the map"),
        ("x,y,class\n600100,5339900,a\n600200,5339800,a\n", "names one class only (a)"),
        ("x,y,class\n600100,5339900,a\n600100,5339900,b\n", "labelled cells contradict each other"),
        ("x,y,a,b\n1,2,3,4\n", "name it with --class-field (fields: a, b)"),
    ],
)
def test_labels_that_make_no_map(refused, features, two_sided, tmp_path, text, match):
    path = tmp_path / "l.csv"
    path.write_text(text)
    refused(features, "--labels", path, match=match)
    if "contradict" not in match:  # that is only found when the cells are looked up
        refused(two_sided, "-m", "v2_tiny", "--labels", path, match=match)


def test_malformed_geojson(refused, features, tmp_path):
    pytest.importorskip("pyogrio", reason="pyogrio, of the extra `vector`, is not installed")
    path = tmp_path / "l.geojson"
    path.write_text('{"type": "FeatureCollection", "features": [{]}')
    refused(features, "--labels", path, match="l.geojson: is not valid GeoJSON (Expecting property")


def test_options_that_cannot_be(refused, features, labels, two_sided, output, tmp_path):
    same_name = output.with_suffix(".zarr")
    for arguments, match in (
        ((features,), "give either --labels (a file of points or polygons) or --clusters K"),
        ((features, "--labels", labels, "--clusters", "3"), "give either --labels"),
        ((features, "--clusters", "1"), "--clusters"),
        ((features, "--labels", tmp_path / "no.csv"), "there is no such file of labels"),
        ((tmp_path / "no.tif", "--labels", labels), "no.tif: there is no such file"),
        ((features, "--labels", labels, "--class-field", "c"), "no field `c`; its fields are"),
        ((features, "--labels", labels, "--head", "tree"), "'tree' is not one of"),
        ((features, "--labels", labels, "--folds", "1"), "--folds"),
        ((features, "--labels", labels, "--block", "0"), "--block 0: expected metres above 0"),
        ((features, "--labels", labels, "--picture", "p.jpg"), "must end in .png"),
        ((features, "--labels", labels, "--metrics", "m.txt"), "must end in .json"),
        ((features, "--labels", labels, "--features", "f.tif"), "is a feature map already"),
        ((two_sided, "--labels", labels, "--features", "f.png"), "must end in one of .tif, .zarr"),
        ((two_sided, "--labels", labels, "--features", two_sided), "is an input or another output"),
        ((two_sided, "--labels", labels, "--features", same_name), "a name that is not that of"),
        ((two_sided, "--labels", labels, "--features", "f.ZARR"), "must end in .zarr"),
        ((features, "--labels", labels, "-o", features), "is an input; choose another output"),
        ((features, "--labels", labels, "-o", tmp_path), "the output's name must end in .tif"),
        ((features, "--labels", labels, "-o", labels / "a.tif"), "is a file, not a folder"),
        ((features, "--labels", labels, "--crs", "EPSG:0"), "--crs EPSG:0 is no coordinate"),
        ((two_sided, "--labels", labels, "--sensor", "rbg8"), "did you mean `rgb8`?"),
        ((two_sided, "--labels", labels, "-m", "v2_tinny"), "unknown model `v2_tinny`"),
        ((labels, "--labels", labels), "cannot be read as a raster"),
        (("--labels", labels), "no input: give"),
        (("--labels", labels, "--bands", "VV", "--stac", "c.json"), "is not among the inputs"),
        ((features, "--labels", labels, "--stac", "c.json"), "leave --stac out"),
        ((features, "--labels", labels, "--s2", two_sided), "leave --s2 out"),
        ((features, "--labels", labels, "--max-cloud", "0.5"), "leave --max-cloud out"),
        ((two_sided, "--labels", labels, "--bbox", "1,2,x"), "expected west,south,east,north"),
        ((two_sided, "--labels", labels, "--collection", "c"), "give --stac as well"),
        ((two_sided, two_sided.with_suffix(".zarr"), "--labels", labels), "give it alone"),
        ((two_sided.with_suffix(".zarr"), "--labels", labels), "scene.zarr: there is no such"),
    ):
        refused(*arguments, match=match)


IMAGERY = ("-m", "v2_tiny", "--stage", "1", "-q")


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_an_interrupted_embedding_goes_on(make_map, two_sided, labels, output, monkeypatch):
    arguments = (two_sided, "--labels", labels, *IMAGERY)
    assert make_map(*arguments).exit_code == 0
    expected = output.read_bytes()
    output.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("skysense.inference.writer.MapWriter.finish", interrupt)
        result = make_map(*arguments)
    assert (result.exit_code, result.stderr.split(":")[0]) == (130, "interrupted")
    assert not output.exists()
    with monkeypatch.context() as patch:
        patch.setattr("skysense.inference.pipeline.compute", lambda *_: pytest.fail("twice"))
        assert make_map(*arguments).exit_code == 0
    assert output.read_bytes() == expected
    assert [p.name for p in output.parent.iterdir() if p.name.startswith(".")] == []


def test_restart_forgets_an_interrupted_embedding(make_map, two_sided, labels, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("skysense.inference.writer.MapWriter.finish", interrupt)
        make_map(two_sided, "--labels", labels, *IMAGERY)
    other = (two_sided, "--labels", labels, *IMAGERY, "--keep-clouds")
    result = make_map(*other)
    assert (result.exit_code, "begin anew with --restart" in result.stderr) == (2, True)
    assert make_map(*other, "--restart").exit_code == 0


def test_the_features_outlive_what_comes_after(make_map, two_sided, labels, output, monkeypatch):
    said = f"its features are in {output.parent / '.landcover.features.tif'}: give that file"
    with monkeypatch.context() as patch:
        patch.setattr("skysense.tasks.mapping.map_classes", interrupt)
        result = make_map(two_sided, "--labels", labels, *IMAGERY)
    assert result.exit_code == 130
    assert result.stderr == f"interrupted: stopped early; {said} in place of the imagery\n"

    def fail(*_, **__):
        raise ValueError("no label falls on the map")

    with monkeypatch.context() as patch:
        patch.setattr("skysense.tasks.mapping.map_classes", fail)
        result = make_map(two_sided, "--labels", labels, *IMAGERY)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: no label falls on the map; {said}")
    assert [path.name for path in output.parent.iterdir()] == [".landcover.features.tif"]
    assert make_map(output.parent / ".landcover.features.tif", "--labels", labels).exit_code == 0
