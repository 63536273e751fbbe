"""Files of labels: CSV by ourselves, everything else through pyogrio and shapely.

Legend: L labels, P points, Q polygons.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyproj import CRS

from skysense._optional import require

Coordinates = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

EXTRA = "vector"

_DEGREES = (("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"), ("long", "lat"))
_PLANE = (("x", "y"), ("easting", "northing"))
_POINTS, _POLYGONS = ("Point", "MultiPoint"), ("Polygon", "MultiPolygon")


@dataclass(frozen=True)
class Table:
    """What a file of labels holds, before it is known which field is the class."""

    fields: Mapping[str, Sequence[Any]]
    """Columns by name, of L values each."""
    crs: str | None
    """Coordinate system, if the file names one."""
    points: Coordinates
    """`(P, 2)` x and y."""
    point_labels: Indices
    """`(P,)` the label that each point belongs to."""
    polygons: tuple[Any, ...]
    """Q shapely polygons and multi-polygons."""
    polygon_labels: Indices
    """`(Q,)` the label that each belongs to."""


def read_csv(path: Path) -> Table:
    """A table of points with columns `lon,lat`, or `x,y` of a coordinate system told apart.

    A row with neither number is a label without a place.

    Raises:
        ValueError: no table, no rows, no coordinates, or some that are no numbers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        names = [str(name).strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as CSV ({error})") from None
    x, y, crs = _columns(path, names)
    if not rows:
        raise ValueError(f"{path}: the file of labels has a heading and no rows")
    fields = {name: [row[name] for _, row in rows] for name in names if name not in (x, y)}
    placed = [i for i, (_, row) in enumerate(rows) if any((row[c] or "").strip() for c in (x, y))]
    points = [[_number(path, *rows[i], name) for name in (x, y)] for i in placed]
    return Table(
        fields,
        crs,
        np.array(points, np.float64).reshape(-1, 2),
        np.array(placed, np.int64),
        (),
        np.zeros(0, np.int64),
    )


def _columns(path: Path, names: list[str]) -> tuple[str, str, str | None]:
    """The columns of x and y, and the coordinate system that their names imply."""
    lower = {name.lower(): name for name in reversed(names)}
    for pairs, crs in ((_DEGREES, "EPSG:4326"), (_PLANE, None)):
        for x, y in pairs:
            if x in lower and y in lower:
                return lower[x], lower[y], crs
    raise ValueError(
        f"{path}: no coordinates; expected columns lon and lat, or x and y with --crs (columns: "
        f"{', '.join(names)})"
    )


def _number(path: Path, line: int, row: dict[str, Any], name: str) -> float:
    """A coordinate."""
    try:
        value = float(row[name])
    except (TypeError, ValueError):
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{path}, line {line}: {name} is {row[name]!r}, expected a number")
    return value


def read_vector(path: Path, layer: str | None = None) -> Table:
    """Points and polygons of a vector file.

    Raises:
        ValueError: the extra is missing, the file is none or damaged, several layers to choose
            from, no feature, or lines among them.
    """
    pyogrio, raw = require("pyogrio", EXTRA), require("pyogrio.raw", EXTRA)
    if path.suffix.lower() in (".geojson", ".json"):
        _check_geojson(path)
    try:
        layer = _layer(path, [str(name) for name, _ in pyogrio.list_layers(path)], layer)
        facts, _, shapes, values = raw.read(path, layer=layer)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        why = " ".join(str(error).split()).partition("; ")[0]
        raise ValueError(f"{path}: cannot be read as labels ({why})") from None
    if shapes is None:
        raise ValueError(f"{path}: the labels have no geometry; expected points or polygons")
    if len(shapes) == 0:
        raise ValueError(f"{path}: the file of labels holds no features")
    fields = dict(zip(map(str, facts["fields"]), values, strict=True))
    return _table(path, fields, _named_crs(facts["crs"]), shapes)


def _check_geojson(path: Path) -> None:
    """Say where the text breaks off, and what else is no GeoJSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: is not valid GeoJSON ({error})") from None
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "FeatureCollection" and isinstance(content.get("features"), list):
        if not content["features"]:
            raise ValueError(f"{path}: the file of labels holds no features")
    elif kind != "Feature":
        raise ValueError(
            f"{path}: is not valid GeoJSON (expected a FeatureCollection with features, found "
            f"{kind or type(content).__name__})"
        )


def _layer(path: Path, layers: list[str], wanted: str | None) -> str:
    """The layer to read."""
    listed = ", ".join(layers) or "none"
    if wanted is not None and wanted not in layers:
        raise ValueError(f"{path}: there is no layer `{wanted}`; its layers are: {listed}")
    if wanted is None and len(layers) != 1:
        raise ValueError(f"{path}: choose one of its layers with --layer (layers: {listed})")
    return wanted or layers[0]


def _named_crs(text: str | None) -> str | None:
    """A coordinate system; `None` for what GeoPackage calls undefined."""
    if text is None or "undefined" in CRS(text).name.lower():
        return None
    return text


def _table(path: Path, fields: dict[str, Any], crs: str | None, shapes: Sequence[Any]) -> Table:
    """Sort geometries into points and polygons."""
    shapely = require("shapely", EXTRA)
    points, point_labels, polygons, polygon_labels = [], [], [], []
    for i, shape in enumerate(shapely.from_wkb(shapes, on_invalid="ignore")):
        if shape is None or shape.is_empty:
            continue
        if shape.geom_type in _POINTS:
            places = shapely.get_coordinates(shape)
            points.append(places)
            point_labels += [i] * len(places)
        elif shape.geom_type in _POLYGONS:
            polygons.append(shapely.force_2d(shape))
            polygon_labels.append(i)
        else:
            raise ValueError(
                f"{path}: feature {i + 1} is a {shape.geom_type}; labels are points or polygons"
            )
    return Table(
        {name: list(column) for name, column in fields.items()},
        crs,
        np.concatenate([np.zeros((0, 2)), *points]),
        np.array(point_labels, np.int64),
        tuple(polygons),
        np.array(polygon_labels, np.int64),
    )
