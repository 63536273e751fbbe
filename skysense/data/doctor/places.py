"""Which files lie in one place.

Legend: N boxes of west, south, east, north in degrees.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skysense.data.doctor.look import Look

Floats = npt.NDArray[np.float64]


def places_of(looks: Sequence[Look]) -> list[int | None]:
    """Number the places: files that overlap, or overlap with others that do, are in one.

    Returns:
        A number a file, `None` for those without a place on the ground.
    """
    placed = [i for i, look in enumerate(looks) if look.box is not None]
    boxes = np.array([looks[i].box for i in placed]).reshape(-1, 4)  # (N, 4)
    labels = np.arange(len(placed))
    for i in range(1, len(placed)):
        near = np.unique(labels[:i][_common(boxes[i], boxes[:i]) > 0])
        if near.size:
            labels[i] = near[0]
        if near.size > 1:
            labels[np.isin(labels, near)] = near[0]
    numbers: dict[int, int] = {}
    places: list[int | None] = [None] * len(looks)
    for i, label in zip(placed, labels.tolist(), strict=True):
        places[i] = numbers.setdefault(label, len(numbers))
    return places


def overlaps(box: Floats, boxes: Floats) -> Floats:
    """The common ground of a box and others, as a part of the smaller one's.

    Args:
        box: `(4,)`.
        boxes: `(N, 4)`.

    Returns:
        `(N,)`, 0...1; NaN where the smaller one has no area.
    """
    least = np.minimum(_area(box), _area(boxes))
    parts = np.full(len(boxes), np.nan)
    return np.asarray(np.divide(_common(box, boxes), least, out=parts, where=least > 0))


def _common(box: Floats, boxes: Floats) -> Floats:
    """`(N,)` area that a box shares with others, over the antimeridian as well."""
    shared = np.zeros(len(boxes))
    for turn in (0.0, -360.0, 360.0):
        low = np.maximum(box[:2] + np.array([turn, 0.0]), boxes[:, :2])  # (N, 2)
        high = np.minimum(box[2:] + np.array([turn, 0.0]), boxes[:, 2:])
        area = np.clip(high - low, 0, None).prod(1)
        shared = np.where(shared > 0, shared, area)
    return shared


def _area(boxes: Floats) -> Floats:
    """Width times height; `(...)` of `(..., 4)`."""
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))
