"""Maps from labels: they recover what is known, say how sure they are, and leave nothing half."""

import json
import re
import shutil
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from pyproj import Geod

from skysense.geo import Grid, Window
from skysense.tasks.mapping import (
    FeatureMap,
    MapWarning,
    is_class_map,
    is_feature_map,
    map_classes,
    map_clusters,
)
from skysense.tasks.mapping.facts import Classes, Tally
from skysense.tasks.mapping.output import attribute_table
from skysense.tasks.mapping.palette import class_colors
from skysense.tasks.mapping.sources import cell_areas

pytest.importorskip("pyogrio", reason="pyogrio, of the extra `vector`, is not installed")


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.fixture
def mapped(features, labels, tmp_path):
    """`mapped(**options) -> MapResult` in a folder of its own."""

    def run(name="out", **options):
        given = {"features": features, "labels": labels, **options}
        return map_classes(
            given.pop("features"), given.pop("labels"), tmp_path / name / "landcover.tif", **given
        )

    return run


@pytest.fixture(scope="module")
def usual(features, maps_of):
    """`usual(head) -> MapResult` of the usual features and labels, which no test may change."""
    return maps_of(features)


@pytest.mark.parametrize("head", ["logistic", "knn", "mlp"])
def test_the_map_recovers_the_classes(usual, truth, values, head):
    result = usual(head)
    classes, confidence = read(result.path), read(result.confidence)
    valid = np.isfinite(values[0])
    assert (classes[~valid] == 255).all()
    assert (confidence[~valid] == 255).all()
    right = classes[valid] == truth[valid] + 1
    assert right.mean() > 0.8
    assert confidence[valid].max() <= 100
    sure = confidence[valid] > confidence[valid].mean()
    assert right[sure].mean() > right[~sure].mean(), "what is sure is more often right"
    found = result.metrics["cross_validation"]
    assert abs(found["accuracy"] - right.mean()) < 0.15
    low, high = found["accuracy_interval"]
    assert low <= found["accuracy"] <= high


def test_hectares_are_those_of_the_ground_where_a_class_lies(tmp_path):
    """In degrees, cells near the pole are smaller: the classes have as many, and less ground."""
    grid = Grid("EPSG:4326", (0.5, 0, 10, 0, -0.5, 60), (40, 20))
    areas = cell_areas(grid)
    earth = Geod(ellps="WGS84")
    for row in (0, 39):
        north, south = 60 - row / 2, 59.5 - row / 2
        corners = [15, 15.5, 15.5, 15], [north, north, south, south]
        area = abs(earth.polygon_area_perimeter(*corners)[0])
        assert areas[row] == pytest.approx(area, rel=1e-3)
    source = SimpleNamespace(grid=grid, extent=grid.shape)
    tally = Tally(source, Classes("ab", (1, 2), class_colors("ab")))
    valid = np.ones((20, 20), bool)
    for i, row in enumerate((0, 20)):
        tally.add(Window(row, 0, 20, 20), valid, np.full(400, i))
    assert tally.counts == [400, 400]
    expected = [20 * areas[:20].sum() / 1e4, 20 * areas[20:].sum() / 1e4]
    assert tally.hectares == pytest.approx(expected)
    assert tally.hectares[0] < 0.85 * tally.hectares[1]


def test_hectares_end_where_the_scene_does():
    """The last cells reach beyond a scene that is no whole number of them."""
    grid = Grid("EPSG:32632", (40, 0, 600_000, 0, -40, 5_340_000), (3, 5))
    areas = cell_areas(grid) / 1e4
    tally = Tally(
        SimpleNamespace(grid=grid, extent=(2.25, 4.5)), Classes("ab", (1, 2), class_colors("ab"))
    )
    tally.add(Window(0, 0, 3, 2), np.ones((3, 2), bool), np.zeros(6, np.int64))
    valid = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
    tally.add(Window(0, 2, 3, 3), valid, np.array([0, 0, 1, 0, 1, 0, 0, 1]))

    assert tally.counts == [11, 3]
    assert tally.hectares[0] == pytest.approx(areas @ [4, 3, 4 * 0.25])
    assert tally.hectares[1] == pytest.approx(areas @ [0.5, 0.5, 0.5 * 0.25])


@pytest.mark.parametrize(
    ("options", "extent"),
    [
        ({"pixels": [473, 633], "cell": 8}, (59.125, 79.125)),
        ({"pixels": [480, 640], "cell": 8}, (60, 80)),
        ({"pixels": [4730, 633], "cell": 8}, (60, 80)),  # of another map
        ({"pixels": [473, 633], "cell": 0}, (60, 80)),
        ({"pixels": 473, "cell": 8}, (60, 80)),
        ({}, (60, 80)),
    ],
)
def test_the_extent_of_the_scene(world, values, tmp_path, options, extent):
    tags = {"SKYSENSE_MODEL": "v2_tiny", "SKYSENSE_PROVENANCE": json.dumps({"options": options})}
    with FeatureMap(world.features(tmp_path / "f.tif", values, tags=tags)) as source:
        assert source.extent == extent


def test_neither_features_nor_foreign_files_are_replaced(world, features, kept_labels, tmp_path):
    output = tmp_path / "map.tif"
    world.features(output, np.ones((2, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"map\.tif holds features; choose another output"):
        map_classes(features, kept_labels, output)
    output.unlink()
    metrics = tmp_path / "map.json"
    for text in ('{"stac_version": "1.1.0"}', "[1]", "no JSON"):
        metrics.write_text(text)
        with pytest.raises(ValueError, match=r"map\.json is there and holds no scores of a map"):
            map_clusters(features, 3, output)
        assert metrics.read_text() == text
    other = tmp_path / "scores.json"
    for _ in range(2):  # its own are replaced
        map_clusters(features, 3, output, metrics=other)
    assert json.loads(other.read_text())["task"] == "clusters"


def test_files_say_what_they_are(usual, features, kept_labels, values):
    result = usual("logistic")
    names = sorted(path.name for path in result.path.parent.iterdir())
    assert names == [
        "landcover.json",
        "landcover.tif",
        "landcover.tif.aux.xml",
        "landcover_confidence.tif",
    ]
    with rasterio.open(result.path) as file, rasterio.open(features) as source:
        assert (file.crs, file.transform, file.shape) == (
            source.crs,
            source.transform,
            source.shape,
        )
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        tags, colors = file.tags(), file.colormap(1)
    assert [tags[f"CLASS_{i}"] for i in (1, 2, 3)] == ["crop", "forest", "water"]
    assert (tags["SKYSENSE_MAP"], tags["FEATURES_MODEL"]) == ("logistic", "v2_tiny")
    assert colors[3] == (*class_colors(["water"])[0], 255)
    assert colors[255][3] == 0
    with rasterio.open(result.confidence) as file:
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
    written = json.loads(result.metrics_path.read_text())
    assert written == result.metrics
    classes = read(result.path)
    for name, own in written["classes"].items():
        assert own["cells"] == (classes == own["value"]).sum()
        assert own["hectares"] == pytest.approx(own["cells"] * 0.16, rel=0.01), name
    assert sum(own["cells"] for own in written["classes"].values()) == np.isfinite(values[0]).sum()
    assert sum(own["share"] for own in written["classes"].values()) == pytest.approx(1)
    assert written["labels"]["file"] == str(kept_labels)
    assert len(written["labels"]["sha256"]) == 64
    assert written["features"]["tags"]["SKYSENSE_MODEL"] == "v2_tiny"
    assert written["options"] == {"folds": 5, "block": None, "seed": 0}
    error = written["calibration"]["expected_calibration_error_after"]
    assert 0 <= error < 0.3


def test_gdal_reads_the_attribute_table(usual, tmp_path):
    result = usual("logistic")
    rasterio.shutil.copy(result.path, tmp_path / "seen.vrt", driver="VRT")
    text = (tmp_path / "seen.vrt").read_text()
    rows = re.findall(r"<Row[^>]*>(.*?)</Row>", text, re.DOTALL)
    first = re.findall(r"<F>(.*?)</F>", rows[0])
    assert len(rows) == 3
    assert first[0] == "1"
    assert first[2] == "crop"


def test_the_attribute_table_is_xml_whatever_classes_are_called():
    names = ["a <b> & \x01c", "Wald, ö"]
    text = attribute_table(names, [1, 2], [(1, 2, 3), (4, 5, 6)], [7, 8])
    rows = [[cell.text for cell in row] for row in ElementTree.fromstring(text).iter("Row")]
    assert rows == [
        ["1", "7", "a <b> & c", "1", "2", "3"],
        ["2", "8", "Wald, ö", "4", "5", "6"],
    ]


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_the_same_seed_gives_the_same_bytes(usual, mapped, kept_labels, head):
    first, second = usual(head), mapped(labels=kept_labels, head=head)
    for one, other in (
        (first.path, second.path),
        (first.confidence, second.confidence),
        (first.metrics_path, second.metrics_path),
    ):
        assert one.read_bytes() == other.read_bytes()


def test_int8_strips_and_foreign_maps_give_the_same_classes(usual, mapped, world, values, tmp_path):
    expected = read(usual("logistic").path)
    for name, options in (
        ("int8", {"kind": "int8"}),
        ("strips", {"block": None}),
        ("foreign", {"tags": {}}),
    ):
        path = world.features(tmp_path / f"{name}.tif", values, **options)
        assert is_feature_map(path) == (name != "foreign")
        found = read(mapped(name, features=path).path)
        agreement = (found == expected).mean()
        assert agreement > (0.97 if name == "int8" else 0.9999)


def test_windows_cover_the_map_once_and_are_small(features, monkeypatch):
    monkeypatch.setattr("skysense.tasks.mapping.sources.WINDOW_BYTES", 4 * 6 * 32 * 40)
    with FeatureMap(features) as source:
        seen = np.zeros(source.grid.shape, int)
        for window in source.windows():
            assert window.height * window.width <= 32 * 32
            seen[
                window.row : window.row + window.height, window.col : window.col + window.width
            ] += 1
        assert (seen == 1).all()


def test_small_windows_give_the_same_map(usual, mapped, monkeypatch):
    expected = read(usual("logistic").path)
    monkeypatch.setattr("skysense.tasks.mapping.sources.WINDOW_BYTES", 4 * 6 * 32 * 40)
    monkeypatch.setattr("skysense.tasks.mapping.mapping._AT_ONCE", 100)
    calls = []
    found = mapped(progress=calls.append)
    np.testing.assert_array_equal(read(found.path), expected)
    assert calls == [1] * 6


def test_codes_stay_as_they_are(mapped, world, picked, truth, tmp_path):
    codes = [[10, 0, 254][truth[row, col]] for row, col in picked]
    path = world.geojson(tmp_path / "codes.geojson", world.lonlat(picked), codes)
    result = mapped(labels=path)
    assert set(np.unique(read(result.path))) == {0, 10, 254, 255}
    assert result.metrics["classes"]["10"]["value"] == 10


def test_random_cells_look_better_where_neighbours_are_alike(mapped, world, tmp_path):
    """Features that know the place and not the class: random folds are fooled, blocks are not."""
    rows, cols = np.indices((60, 80))
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 2, (6, 8))[rows // 10, cols // 10]
    anchors = np.stack(np.meshgrid(range(5, 60, 10), range(5, 80, 10)), -1).reshape(-1, 2)
    place = np.stack([np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / 60) for r, c in anchors])
    path = world.features(tmp_path / "place.tif", place.astype(np.float32))
    cells = np.stack([rng.integers(0, 60, 300), rng.integers(0, 80, 300)], 1)
    names = ["ab"[patches[row, col]] for row, col in cells]
    with_labels = world.geojson(tmp_path / "l.geojson", world.lonlat(cells), names)
    found = mapped(features=path, labels=with_labels, head="knn", block=400)
    scores = found.metrics["cross_validation"]
    assert scores["random_folds_accuracy"] > scores["accuracy"] + 0.15


def test_no_more_cells_than_needed(mapped, world, truth, tmp_path, monkeypatch):
    monkeypatch.setattr("skysense.tasks.mapping.training.MOST_CELLS", 60)
    cells = np.argwhere(np.ones_like(truth))[700:1500]
    names = [world.names[truth[row, col]] for row, col in cells]
    path = world.geojson(tmp_path / "many.geojson", world.lonlat(cells), names)
    with pytest.warns(MapWarning) as said:
        result = mapped(labels=path)
    assert any("800 labelled cells are more than" in str(w.message) for w in said)
    assert 50 < result.metrics["labels"]["labelled_cells"] <= 60


def test_few_labels_mean_fewer_folds_or_none(mapped, world, picked, names_of, tmp_path):
    names = np.array(names_of(picked))
    three = np.concatenate([np.flatnonzero(names == name)[:3] for name in world.names])
    path = world.geojson(tmp_path / "few.geojson", world.lonlat(picked[three]), names[three])
    with pytest.warns(MapWarning, match="3 folds instead of 5: class crop has 3"):
        result = mapped("few", labels=path)
    assert result.metrics["cross_validation"]["folds"] == 3
    lone = np.concatenate([np.flatnonzero(names == "crop")[:1], np.flatnonzero(names == "water")])
    path = world.geojson(tmp_path / "lone.geojson", world.lonlat(picked[lone]), names[lone])
    with pytest.warns(MapWarning, match="no cross-validation.*class crop has one labelled cell"):
        result = mapped("lone", labels=path)
    assert result.metrics["cross_validation"] is None
    assert "one labelled cell" in result.metrics["cross_validation_note"]
    assert result.metrics["calibration"] is None
    assert set(np.unique(read(result.path))) == {1, 2, 255}


def test_polygons_over_several_folds_and_classes_in_one_are_said(mapped, world, truth, tmp_path):
    shapely = pytest.importorskip("shapely")
    corners = world.xy([(31, 1), (39, 78)])
    long = shapely.box(*corners.min(0), *corners.max(0))
    raw = pytest.importorskip("pyogrio.raw")
    points = [*world.xy([(5, 5), (6, 5)])]
    shapes = [long, *map(shapely.Point, points)]
    raw.write(
        tmp_path / "p.gpkg",
        geometry=shapely.to_wkb(shapes),
        field_data=[np.array(["a", "b", "b"], object)],
        fields=["class"],
        geometry_type="Unknown",
        crs=world.crs,
    )
    with pytest.warns(MapWarning) as said:
        result = mapped(labels=tmp_path / "p.gpkg", folds=2, block=400)
    texts = "\n".join(str(warning.message) for warning in said)
    assert "1 polygons have cells in several folds" in texts
    assert "all labels of b lie in one fold and count as wrong" in texts
    assert result.metrics["cross_validation"]["classes_in_one_fold"] == ["b"]
    assert result.metrics["cross_validation"]["f1"]["b"] == 0


def refuse(mapped, match, **options):
    with pytest.raises(ValueError, match=re.escape(match)):
        mapped(**options)


def test_labels_on_nothing(mapped, world, picked, names_of, tmp_path):
    hole = [(1, 71), (2, 75), (5, 79)]
    path = world.geojson(tmp_path / "h.geojson", world.lonlat(hole), ["a", "b", "a"])
    refuse(mapped, "all labelled cells lie where the map holds nothing", labels=path)
    names = [*names_of(picked), "a", "b", "a"]
    both = world.geojson(tmp_path / "b.geojson", world.lonlat([*picked, *hole]), names)
    with pytest.warns(MapWarning) as said:
        result = mapped(labels=both)
    texts = [str(warning.message) for warning in said]
    assert texts[:2] == [
        f"3 of {len(names)} labelled cells hold no features and are left out",
        "no label of a, b is left on the map, so it will not be mapped",
    ]
    assert result.metrics["labels"]["cells_without_features"] == 3
    assert list(result.metrics["classes"]) == list(world.names)


def test_one_class_is_left(mapped, world, tmp_path):
    cells = [(10, 10), (20, 20), (2, 75)]
    path = world.geojson(tmp_path / "o.geojson", world.lonlat(cells), ["a", "a", "b"])
    with pytest.warns(MapWarning, match="hold no features"):
        refuse(mapped, "on the map only class a has labelled cells", labels=path)
    ties = [(10, 10), (10, 10)]
    path = world.geojson(tmp_path / "t.geojson", world.lonlat(ties), ["a", "b"])
    with pytest.warns(MapWarning, match="labels of different classes"):
        refuse(mapped, "all labelled cells contradict each other", labels=path)


def test_inputs_and_outputs_that_cannot_be(mapped, features, labels, tmp_path):
    for match, options in (
        ("unknown head `tree` (known: logistic, knn, mlp)", {"head": "tree"}),
        ("1 folds: at least 2 are needed", {"folds": 1}),
        ("blocks of -3.0 m: expected a number above 0", {"block": -3.0}),
        ("out.txt: the output's name must end in .json", {"metrics": tmp_path / "out.txt"}),
        ("p.jpg: the output's name must end in .png", {"picture": tmp_path / "p.jpg"}),
        (
            "labels.json is an input",
            {
                "metrics": labels.rename(tmp_path / "labels.json"),
                "labels": tmp_path / "labels.json",
            },
        ),
        (
            "there is no such file",
            {"features": tmp_path / "no.tif", "labels": tmp_path / "labels.json"},
        ),
    ):
        refuse(mapped, match, **options)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"must end in \.tif or \.tiff"):
        map_classes(features, tmp_path / "labels.json", tmp_path / "map.png")


def test_a_class_map_is_no_feature_map(usual, mapped):
    made = usual("logistic").path
    assert not is_feature_map(made)
    assert is_class_map(made)
    refuse(mapped, "is a class map already", features=made)


def test_a_damaged_feature_map(mapped, features, tmp_path):
    whole = features.read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    refuse(mapped, "cut.tif: cannot be read", features=path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_half_is_left(usual, mapped, tmp_path, error):
    shutil.copytree(usual("logistic").path.parent, tmp_path / "out")
    before = (tmp_path / "out" / "landcover.tif").read_bytes()

    def fail(windows):
        raise error

    with pytest.raises(error):
        mapped(progress=fail, head="knn", picture=tmp_path / "new" / "p.png")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names[0] == "landcover.json"
    assert len(names) == 4
    assert (tmp_path / "out" / "landcover.tif").read_bytes() == before, "the old map stays"
    assert not (tmp_path / "new").exists()


def test_what_a_killed_run_left_is_removed(mapped, tmp_path):
    old = tmp_path / "out" / ".landcover.tif.999999999.part"
    old.mkdir(parents=True)
    (old / "landcover.tif").write_bytes(b"half")
    mapped()
    assert not old.exists()


def test_the_picture(mapped, tmp_path):
    image = pytest.importorskip(
        "matplotlib.image", reason="matplotlib, of the extra `plots`, is not installed"
    )
    result = mapped(picture=tmp_path / "out" / "look.png")
    pixels = image.imread(tmp_path / "out" / "look.png")  # (H, W, 4) in 0...1
    pixels = np.round(255 * pixels).astype(int).transpose(2, 0, 1)
    shown = {tuple(color) for color in pixels[:3, ::2, ::2].reshape(3, -1).T.tolist()}
    for own in result.metrics["classes"].values():
        color = tuple(bytes.fromhex(own["color"][1:]))
        assert color in shown
    assert pixels.shape[2] > pixels.shape[1], "two panels side by side"


def test_colors_are_as_expected_and_differ():
    names = ["deep water", "lake", "Forest", "built-up", "x", "y", *map(str, range(60))]
    colors = class_colors(names)
    assert len(set(colors)) == len(names)
    assert colors[0] == class_colors(["water"])[0]
    assert colors[2] == class_colors(["tree cover"])[0]
    assert colors == class_colors(names)
