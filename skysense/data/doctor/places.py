"""Which files lie in one place, and which are of one sensor and day."""

import math
from collections.abc import Sequence

from skysense.data.doctor.look import Look
from skysense.data.ground import bounds_in
from skysense.geo import Bounds, intersect

_WORLD = "EPSG:4326"


def places_of(looks: Sequence[Look]) -> list[int | None]:
    """Number the places: files that overlap, or overlap with others that do, are in one.

    Returns:
        A number a file, `None` for those without a place on the ground.
    """
    boxes = [_box(look) for look in looks]
    labels: list[int | None] = [None if box is None else i for i, box in enumerate(boxes)]
    for i, box in enumerate(boxes):
        for j in range(i):
            if box is None or boxes[j] is None or labels[i] == labels[j]:
                continue
            if _shared(box, boxes[j]):
                old, new = labels[i], labels[j]
                labels = [new if label == old else label for label in labels]
    order = list(dict.fromkeys(label for label in labels if label is not None))
    return [None if label is None else order.index(label) for label in labels]


def _box(look: Look) -> Bounds | None:
    """Longitudes and latitudes of a file."""
    if look.file is None:
        return None
    try:
        return bounds_in(look.file.grid, _WORLD)
    except ValueError:
        return None


def _shared(first: Bounds, second: Bounds | None) -> Bounds | None:
    """The common part of two boxes of longitude and latitude, over the antimeridian as well."""
    if second is None:
        return None
    left, bottom, right, top = first
    for turn in (0.0, -360.0, 360.0):
        common = intersect((left + turn, bottom, right + turn, top), second)
        if common:
            return common
    return None


def overlap(first: Look, second: Look) -> float:
    """The common ground of two files, as a part of the smaller one's: 0...1."""
    one, two = _box(first), _box(second)
    common = _shared(one, two) if one and two else None
    if not one or not two or not common:
        return 0.0
    least = min(_area(one), _area(two))
    return _area(common) / least if least > 0 else math.nan


def _area(box: Bounds) -> float:
    """Width times height."""
    return (box[2] - box[0]) * (box[3] - box[1])
