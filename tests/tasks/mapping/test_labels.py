"""Labels in every format that users have, and one clear line for those that are no labels."""

import json
import re

import numpy as np
import pytest
from pyproj import CRS

from skysense.tasks.mapping import FeatureMap, MapWarning, label_cells, read_labels

pyogrio = pytest.importorskip("pyogrio", reason="pyogrio, of the extra `vector`, is not installed")
shapely = pytest.importorskip("shapely", reason="shapely, of the extra `vector`, is not installed")
raw = pytest.importorskip("pyogrio.raw")

CELLS = [(10, 20), (30, 40), (50, 60)]
CLASSES = ["forest", "water", "forest"]


@pytest.fixture
def grid(features):
    with FeatureMap(features) as source:
        return source.grid


def where(labels, grid):
    """Cell and class of each labelled cell."""
    found = label_cells(labels, grid)
    classes = found.classes.tolist()
    return {cell: found.names[i] for cell, i in zip(where_of(found), classes, strict=True)}


def where_of(found):
    """Row and column of each."""
    return list(zip(found.rows.tolist(), found.cols.tolist(), strict=True))


def refuse(path, match, **options):
    with pytest.raises(ValueError, match=re.escape(match)) as error:
        read_labels(path, **options)
    assert "\n" not in str(error.value)


def geopackage(path, shapes, names, crs, layer=None, append=False):
    wkb = shapely.to_wkb(shapes)
    raw.write(
        path,
        geometry=wkb,
        field_data=[np.array(names, object)],
        fields=["class"],
        geometry_type="Unknown",
        crs=crs,
        driver="GPKG",
        layer=layer,
        append=append,
    )
    return path


def test_points_of_every_format_fall_on_the_same_cells(world, grid, tmp_path):
    expected = dict(zip(CELLS, CLASSES, strict=True))
    degrees, metres = world.lonlat(CELLS), world.xy(CELLS)
    files = [
        (world.geojson(tmp_path / "a.geojson", degrees, CLASSES), {}),
        (world.table(tmp_path / "a.csv", degrees, CLASSES), {}),
        (
            world.table(
                tmp_path / "b.csv", degrees, CLASSES, ("Longitude", "LATITUDE", "Label"), ";"
            ),
            {},
        ),
        (
            world.table(tmp_path / "c.csv", metres, CLASSES, ("x", "y", "name")),
            {"crs": "EPSG:32632"},
        ),
        (
            geopackage(tmp_path / "a.gpkg", shapely.points(metres), CLASSES, "EPSG:32632"),
            {},
        ),
    ]
    for path, options in files:
        assert where(read_labels(path, **options), grid) == expected, path


def test_a_polygon_labels_the_cells_whose_centre_is_inside(world, grid, tmp_path):
    x, y = world.xy([(10, 20)])[0]
    side = world.cell
    # from just beside the centre of cell (10, 20) to just beyond that of (12, 22)
    ring = shapely.box(x + 0.1 * side, y - 2.1 * side, x + 2.1 * side, y + 0.1 * side)
    tiny = shapely.box(*(world.xy([(40, 7)])[0] + 5), *(world.xy([(40, 7)])[0] + 9))
    path = geopackage(tmp_path / "p.gpkg", [ring, tiny], ["a", "b"], "EPSG:32632")
    expected = {(row, col): "a" for row in (10, 11, 12) for col in (21, 22)} | {(40, 7): "b"}
    assert where(read_labels(path), grid) == expected


def test_multi_geometries_and_holes(world, grid, tmp_path):
    x, y = world.xy([(20, 20)])[0]
    side = world.cell
    holed = shapely.difference(
        shapely.box(x - 1.2 * side, y - 1.2 * side, x + 1.2 * side, y + 1.2 * side),
        shapely.box(x - 0.2 * side, y - 0.2 * side, x + 0.2 * side, y + 0.2 * side),
    )
    several = shapely.multipolygons([shapely.box(0, 0, 1, 1), holed])
    points = shapely.multipoints(world.xy([(1, 2), (3, 4)]))
    path = geopackage(tmp_path / "p.gpkg", [several, points], ["a", "b"], "EPSG:32632")
    around = {(r, c) for r in (19, 20, 21) for c in (19, 20, 21)} - {(20, 20)}
    expected = dict.fromkeys(around, "a") | {(1, 2): "b", (3, 4): "b"}
    assert where(read_labels(path), grid) == expected


def test_a_polygon_that_sticks_out_is_cut(world, grid, tmp_path):
    x, y = world.xy([(0, 0)])[0]
    box = shapely.box(x - 1e5, y - 1.2 * world.cell, x + 0.2 * world.cell, y + 1e5)
    path = geopackage(
        tmp_path / "p.gpkg", [box, shapely.Point(*world.xy([(9, 9)])[0])], ["a", "b"], world.crs
    )
    assert where(read_labels(path), grid) == {(0, 0): "a", (1, 0): "a", (9, 9): "b"}


@pytest.mark.parametrize("shift", [0, 360, -360])
def test_labels_over_the_antimeridian(world, tmp_path, shift):
    from skysense.geo import Grid

    grid = Grid(CRS("EPSG:4326").to_wkt(), (0.01, 0, 179.5, 0, -0.01, 10), (100, 100))
    places = [(179.755 + shift, 9.505), (180.255 - 360, 9.505)]
    path = world.table(tmp_path / "a.csv", places, ["a", "b"])
    assert where(read_labels(path), grid) == {(49, 25): "a", (49, 75): "b"}


def test_the_class_field_is_guessed_where_it_is_obvious(world, tmp_path):
    degrees = world.lonlat(CELLS)
    for fields, expected in (
        (("landcover", {}), "landcover"),
        (("Class", {"name": ["x", "y", "z"]}), "Class"),
        (("whatever", {}), "whatever"),
        (("type", {"id": [1, 2, 3]}), "type"),
    ):
        (field, more) = fields
        path = world.geojson(tmp_path / "a.geojson", degrees, CLASSES, field, **more)
        assert read_labels(path).field == expected


@pytest.mark.parametrize(
    ("field", "more", "wanted", "match"),
    [
        ("kind_of", {"id": [1, 2, 3]}, None, "name it with --class-field (fields: kind_of, id)"),
        ("class", {"label": [1, 2, 3]}, None, "it is not clear which field is the class"),
        ("class", {}, "klass", "no field `klass`; its fields are: class"),
    ],
)
def test_fields_that_are_not_obvious(world, tmp_path, field, more, wanted, match):
    path = world.geojson(tmp_path / "a.geojson", world.lonlat(CELLS), CLASSES, field, **more)
    refuse(path, match, class_field=wanted)


def test_words_of_tables_for_nothing_and_for_whole_numbers(tmp_path, grid):
    names = ["3", "3.0", "10.00", "-1.0", "1.5", "v2.0", "nan", "N/A", "null", " "]
    rows = "".join(f"{11 + i / 1000},48,{name}\n" for i, name in enumerate(names))
    path = tmp_path / "labels.csv"
    path.write_text(f"lon,lat,class\n{rows}", encoding="utf-8")
    with pytest.warns(MapWarning, match="4 of 10 labels have no class"):
        found = read_labels(path)
    assert found.names == ("3", "3", "10", "-1", "1.5", "v2.0", None, None, None, None)


def test_only_line_ends_end_the_lines_of_a_table(tmp_path):
    path = tmp_path / "labels.csv"
    text = 'lon,lat,class\r\n11,48,"a\u2028b"\r\n12,48,c\x85d\r\n'
    path.write_bytes(text.encode())
    assert read_labels(path).classes == ["a b", "c d"]


def test_numbers_are_classes_by_value(world, tmp_path):
    names = [10, 9.0, 10.0]
    path = world.geojson(tmp_path / "a.geojson", world.lonlat(CELLS), names)
    assert read_labels(path).classes == ["9", "10"]


def test_labels_without_class_or_place_are_left_out_and_said(world, grid, tmp_path):
    path = world.geojson(tmp_path / "a.geojson", world.lonlat([*CELLS, (5, 5)]), [*CLASSES, None])
    content = json.loads(path.read_text())
    content["features"].append(
        {"type": "Feature", "properties": {"class": "water"}, "geometry": None}
    )
    path.write_text(json.dumps(content))
    with pytest.warns(MapWarning) as said:
        labels = read_labels(path)
    texts = [str(warning.message) for warning in said]
    assert texts == [
        "1 of 5 labels have no class and are left out",
        "1 of 5 labels have no place and are left out",
    ]
    assert where(labels, grid) == dict(zip(CELLS, CLASSES, strict=True))


def test_rows_without_a_place_are_left_out_and_said(world, grid, tmp_path):
    path = tmp_path / "a.csv"
    places = world.lonlat(CELLS)
    rows = [f"{x},{y},{name}" for (x, y), name in zip(places, CLASSES, strict=True)]
    path.write_text("\n".join(["lon,lat,class", ",,water", *rows, " ,,water"]) + "\n")
    with pytest.warns(MapWarning, match="2 of 5 labels have no place and are left out"):
        labels = read_labels(path)
    assert where(labels, grid) == dict(zip(CELLS, CLASSES, strict=True))


def test_majority_on_a_cell_and_ties(world, grid, tmp_path):
    cells = [(1, 1), (1, 1), (1, 1), (2, 2), (2, 2), (3, 3)]
    names = ["a", "a", "b", "a", "b", "b"]
    path = world.geojson(tmp_path / "a.geojson", world.lonlat(cells), names)
    with pytest.warns(MapWarning, match="2 cells have labels of different classes.* 1 without"):
        found = where(read_labels(path), grid)
    assert found == {(1, 1): "a", (3, 3): "b"}


def test_labels_outside(world, grid, tmp_path):
    names = [*CLASSES, "water"]
    path = world.geojson(tmp_path / "a.geojson", world.lonlat([*CELLS, (500, 5)]), names)
    with pytest.warns(MapWarning, match="1 of 4 labels lie outside the map"):
        found = label_cells(read_labels(path), grid)
    assert (found.outside, len(found.rows)) == (1, 3)
    near = world.geojson(tmp_path / "c.geojson", world.lonlat(CELLS), CLASSES)
    with pytest.warns(MapWarning, match="1 of 3 labels lie outside the map"):
        found = label_cells(read_labels(near), grid, (grid.shape[0] - 0.5, 60.25))
    assert where_of(found) == [(10, 20), (30, 40)]  # a point lies in the middle of its cell
    away = world.geojson(tmp_path / "b.geojson", [(0, 0), (1, 1), (-80, 5)], CLASSES)
    with pytest.raises(ValueError, match=r"all labels lie outside the map: .*name it with --crs"):
        label_cells(read_labels(away), grid)
    exchanged = world.geojson(tmp_path / "d.geojson", world.lonlat(CELLS)[:, ::-1], CLASSES)
    with pytest.raises(ValueError, match=r"all labels lie outside .* coordinates look exchanged"):
        label_cells(read_labels(exchanged), grid)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the file of labels is empty"),
        ('{"type": "FeatureCollection", "features": [', "is not valid GeoJSON (Expecting value"),
        ("lon,lat\n1,2\n", "is not valid GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "holds no features"),
        ('{"type": "Polygon"}', "expected a FeatureCollection with features, found Polygon"),
        ("[1, 2]", "expected a FeatureCollection with features, found list"),
    ],
)
def test_malformed_geojson(tmp_path, text, match):
    path = tmp_path / "a.geojson"
    path.write_text(text)
    refuse(path, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("class\nforest\n", "expected columns lon and lat, or x and y with --crs"),
        ("lon,lat,class\n", "has a heading and no rows"),
        ("lon,lat,class\n1,2,a\n1,north,b\n", "line 3: lat is 'north', expected a number"),
        ("lon,lat,class\n,,a\n,,b\n", "no label has a place"),
        ("lon,lat,class\n1\n", "line 2: lat is None, expected a number"),
        ("x,y,class\n1,2,a\n3,4,b\n", "the labels name no coordinate system; say it with --crs"),
        ("lon,lat\n1,2\n", "it is not clear which field is the class"),
        ("lon,lat,class\n1,2,a\n3,4,a\n", "names one class only (a)"),
        ("lon,lat,class\n1,2,\n3,4,\n", "names no class at all"),
    ],
)
def test_malformed_tables(tmp_path, text, match):
    path = tmp_path / "a.csv"
    path.write_text(text)
    refuse(path, match)


def test_other_files_that_are_no_labels(world, tmp_path):
    refuse(tmp_path / "none.geojson", "there is no such file of labels")
    (tmp_path / "a.gpkg").write_bytes(b"SQLite format 3\0 but not really")
    refuse(tmp_path / "a.gpkg", "cannot be read as labels")
    (tmp_path / "a.csv").write_bytes(b"lon,lat,class\n\xff\xfe,1,2\n")
    refuse(tmp_path / "a.csv", "cannot be read as CSV")
    line = world.geojson(
        tmp_path / "l.geojson", [[(0, 0), (1, 1)]] * 2, ["a", "b"], kind="LineString"
    )
    refuse(line, "feature 1 is a LineString; labels are points or polygons")
    many = world.geojson(tmp_path / "m.geojson", [(0, 0)] * 300, range(300), "value")
    refuse(many, "has 300 different values, a map holds 254 classes at most")
    known = world.table(tmp_path / "c.csv", [(0, 0), (1, 1)], ["a", "b"], ("x", "y", "class"))
    refuse(known, "--crs EPSG:0 is no coordinate system", crs="EPSG:0")


def test_geopackages_without_crs_and_with_layers(world, grid, tmp_path):
    points = shapely.points(world.xy(CELLS))
    with pytest.warns(UserWarning, match="crs"):
        bare = geopackage(tmp_path / "a.gpkg", points, CLASSES, None)
    refuse(bare, "the labels name no coordinate system; say it with --crs")
    expected = dict(zip(CELLS, CLASSES, strict=True))
    assert where(read_labels(bare, crs="EPSG:32632"), grid) == expected
    path = geopackage(tmp_path / "b.gpkg", points, CLASSES, "EPSG:32632", "first")
    geopackage(path, points, CLASSES, "EPSG:32632", "second", append=True)
    refuse(path, "choose one of its layers with --layer (layers: first, second)")
    refuse(path, "there is no layer `third`; its layers are: first, second", layer="third")
    assert where(read_labels(path, layer="second"), grid) == expected
