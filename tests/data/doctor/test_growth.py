"""The work grows as the number of files does: calls are counted, not seconds."""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skysense.data import doctor
from skysense.data.doctor import examine, first_errors
from skysense.data.doctor.places import overlaps, places_of

HOME = str(Path(doctor.__file__).parent)
FEW = 8
NAMES = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")


def at(east, north, size):
    return {"transform": (size, 0.0, 600_000.0 + east, 0.0, -size, 5_340_000.0 + north)}


@pytest.fixture
def folder(raster):
    """`folder(kind, count) -> [Path]`: small files of a kind that there can be many of."""
    rng = np.random.default_rng(0)

    def picture(i, east, north):
        pixels = rng.integers(1, 255, (3, 16, 16), np.uint8)
        name = f"tiles/{i:02}_20240615.tif"
        return raster(name, pixels, names=("R", "G", "B"), **at(east, north, 0.3))

    def band(i):
        day, name = i // len(NAMES) + 1, NAMES[i % len(NAMES)]
        pixels = rng.integers(100, 3000, (1, 16, 16), np.uint16)
        return raster(f"bands/202406{day:02}_{name}.tif", pixels, **at(0, 0, 10.0))

    def copy(i):
        return picture(i, 0.3 * i, 0)

    def tile(i):
        return picture(i, 4.8 * (i % 4), 4.8 * (i // 4))

    def place(i):
        return picture(i, 5000 * i, 0)

    kinds = {"copies": copy, "tiles": tile, "places": place, "bands": band}
    return lambda kind, count: [kinds[kind](i) for i in range(count)]


def calls_of(work):
    """How often each function and generator of the doctor runs or goes on."""
    counts = Counter()

    def see(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HOME):
            counts[code.co_filename, code.co_firstlineno, code.co_name] += 1

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counts


@pytest.mark.parametrize(
    ("kind", "card", "modality"),
    [
        ("copies", "rgb8", "hr"),
        ("tiles", "rgb8", "hr"),
        ("places", "rgb8", "hr"),
        ("bands", "s2_l2a", "s2"),
    ],
)
def test_twice_the_files_take_twice_the_calls(folder, kind, card, modality):
    few = len(NAMES) if kind == "bands" else FEW
    files = folder(kind, 2 * few)
    few_calls, more_calls = (
        calls_of(lambda some=some: first_errors(some, card, modality=modality))
        for some in (files[:few], files)
    )
    assert few_calls
    grown = {
        key: (few_calls[key], count)
        for key, count in more_calls.items()
        if count > 2 * few_calls[key] + 4
    }
    assert not grown


def test_a_file_is_placed_and_its_bands_are_found_once(folder, monkeypatch):
    seen = Counter()

    def counted(module, name):
        function = getattr(module, name)

        def call(*arguments):
            seen[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, call)

    from skysense.data.doctor import judging, look, series

    counted(look, "bounds_in")
    counted(series, "used")
    counted(judging, "offset_of")
    examine(folder("copies", FEW))
    assert seen == {"bounds_in": FEW, "used": FEW, "offset_of": 1}


def naive_overlap(first, second):
    """The common part of two boxes over the smaller one, 0 where there is none."""
    for turn in (0, -360, 360):
        width = min(first[2] + turn, second[2]) - max(first[0] + turn, second[0])
        height = min(first[3], second[3]) - max(first[1], second[1])
        if width > 0 and height > 0:
            areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
            return width * height / min(areas)
    return 0.0


@pytest.mark.parametrize("seed", range(20))
def test_places_are_those_of_comparing_every_pair(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform((165, 0), (195, 30), (30, 2))
    corners[::3, 0] -= 360  # as files on the other side of the antimeridian have it
    boxes = np.hstack([corners, corners + rng.uniform(0.5, 4, (30, 2))])
    pairs = [[naive_overlap(one, two) for two in boxes] for one in boxes]
    for box, expected in zip(boxes, pairs, strict=True):
        np.testing.assert_allclose(overlaps(box, boxes), expected, rtol=1e-12)
    labels = list(range(30))
    for i in range(30):
        for j in range(i):
            if pairs[i][j] > 0:
                labels = [labels[j] if label == labels[i] else label for label in labels]
    order = list(dict.fromkeys(labels))
    looks = [SimpleNamespace(box=tuple(box)) for box in boxes]
    assert places_of(looks) == [order.index(label) for label in labels]
    assert places_of([SimpleNamespace(box=None), *looks])[0] is None
    assert 1 < len(order) < 30
