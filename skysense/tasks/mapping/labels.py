"""Labels as users keep them: points and polygons with a class, in GeoJSON, GeoPackage or CSV.

Legend: L labels.
"""

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from pyproj import CRS
from pyproj.exceptions import CRSError

from skysense.tasks.mapping.label_files import Table, read_csv, read_vector

CLASS_FIELDS = (
    ("class", "label"),
    ("class_name", "classname", "landcover", "land_cover", "lulc", "category", "cover"),
    ("name", "type", "kind", "code", "value"),
)
"""Names that a class goes by, the most obvious first."""
_NOTHING = {"", "nan", "na", "n/a", "<na>", "null", "inf", "-inf"}
_WHOLE = re.compile(r"^(-?\d+)\.0+$")


class MapWarning(UserWarning):
    """Something about the labels that the map can live with and its maker should know."""


@dataclass(frozen=True)
class LabelSet:
    """Places with a class."""

    path: Path
    """The file."""
    field: str
    """The field that was taken for the class."""
    crs: str
    """Coordinate system of all places."""
    names: tuple[str | None, ...]
    """`(L,)` classes; `None` for a label without one, or without a place."""
    table: Table
    """The places."""

    @property
    def classes(self) -> list[str]:
        """The different classes: numbers by value, then names by alphabet."""
        return sorted({name for name in self.names if name is not None}, key=_order)


def read_labels(
    path: str | Path,
    class_field: str | None = None,
    crs: str | None = None,
    layer: str | None = None,
) -> LabelSet:
    """Read points or polygons with their classes.

    Args:
        path: a CSV with columns `lon,lat` (or `x,y`), or a vector file: GeoJSON, GeoPackage and
            whatever else GDAL reads.
        class_field: the field that holds the class; guessed if there is one obvious candidate.
        crs: coordinate system of the labels, which goes before what the file says.
        layer: of a file of several layers.

    Raises:
        ValueError: not such a file, damaged, empty, without places, class or coordinate system.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of labels")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file of labels is empty")
    is_csv = path.suffix.lower() in (".csv", ".tsv", ".txt")
    table = read_csv(path) if is_csv else read_vector(path, layer)
    field = _field(path, list(table.fields), class_field)
    names = tuple(_name(value) for value in table.fields[field])
    labels = LabelSet(path, field, _crs(path, crs or table.crs), names, table)
    _check(labels)
    return _placed(labels)


def _check(labels: LabelSet) -> None:
    """Refuse what cannot make a map; say what is left out."""
    classes = labels.classes
    if len(classes) < 2:
        what = f"one class only ({classes[0]})" if classes else "no class at all"
        raise ValueError(
            f"{labels.path}: field `{labels.field}` names {what}; a map needs labels of two"
        )
    if len(classes) > 254:
        raise ValueError(
            f"{labels.path}: field `{labels.field}` has {len(classes)} different values, a map "
            "holds 254 classes at most; name the field of the class with --class-field"
        )
    unnamed = sum(name is None for name in labels.names)
    if unnamed:
        _warn(f"{unnamed} of {len(labels.names)} labels have no class and are left out")


def _placed(labels: LabelSet) -> LabelSet:
    """Take the class from labels that lie nowhere."""
    placed = {*labels.table.point_labels.tolist(), *labels.table.polygon_labels.tolist()}
    if not placed:
        raise ValueError(f"{labels.path}: no label has a place; expected points or polygons")
    nowhere = len(labels.names) - len(placed)
    if nowhere:
        _warn(f"{nowhere} of {len(labels.names)} labels have no place and are left out")
    names = tuple(name if i in placed else None for i, name in enumerate(labels.names))
    return replace(labels, names=names)


def _field(path: Path, fields: list[str], wanted: str | None) -> str:
    """The field of the class."""
    listed = ", ".join(fields) or "none"
    if wanted is not None:
        if wanted not in fields:
            raise ValueError(f"{path}: there is no field `{wanted}`; its fields are: {listed}")
        return wanted
    for tier in CLASS_FIELDS:
        found = [field for field in fields if field.lower() in tier]
        if len(found) == 1:
            return found[0]
        if found:
            break
    if len(fields) == 1:
        return fields[0]
    raise ValueError(
        f"{path}: it is not clear which field is the class; name it with --class-field (fields: "
        f"{listed})"
    )


def _name(value: object) -> str | None:
    """A class as text: 3, 3.0 and "3.0" are `3`; `None` for nothing, in the words of tables."""
    text = "" if value is None else " ".join(str(value).split())
    if text.lower() in _NOTHING:
        return None
    return _WHOLE.sub(r"\1", text)


def _order(name: str) -> tuple[int, float, str]:
    """Sort numbers by value, before names."""
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


def _crs(path: Path, text: str | None) -> str:
    """A coordinate system as WKT.

    Raises:
        ValueError: there is none, or none that is known.
    """
    if text is None:
        raise ValueError(
            f"{path}: the labels name no coordinate system; say it with --crs, such as "
            "--crs EPSG:4326 for longitude and latitude"
        )
    try:
        return str(CRS.from_user_input(text).to_wkt())
    except CRSError:
        raise ValueError(
            f"--crs {text} is no coordinate system; give one like EPSG:32633"
        ) from None


def _warn(text: str) -> None:
    """Say what is left out."""
    warnings.warn(text, MapWarning, stacklevel=4)
