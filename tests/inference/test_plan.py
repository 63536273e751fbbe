"""The plan of a scene: sizes that fit the model, tiles that cover, messages that help."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.geo import Tiling, Window
from skysense.inference.plan import Plan, make_plan

KEEP = ("keep", "keep", "keep")


@pytest.fixture(scope="module")
def triple(files, opened):
    return opened(**files)


@pytest.fixture(scope="module")
def radar(files, opened):
    return opened(s1=files["s1"])


def test_defaults_of_the_triple(model, triple):
    """A token of hr is 32 pixels of 1.25 m, one of s2 is 4 x 8 of them: 40 m."""
    plan = make_plan(model, triple)
    assert (plan.tiling.tile, plan.tiling.unit, plan.cell, plan.stage) == (512, 32, 32, None)
    assert plan.tiling.overlap in range(32, 257, 32)
    assert plan.channels == 64
    assert plan.grid.shape == (8, 8)
    assert plan.grid.transform == (40, 0, 600_000, 0, -40, 5_340_000)
    assert plan.grid.crs == triple.grid.crs


def test_defaults_of_a_10_m_scene(model, radar):
    plan = make_plan(model, radar)
    assert (plan.tiling.tile, plan.cell) == (128, 4)
    assert plan.grid.shape == (8, 8)


@pytest.mark.parametrize(
    ("stage", "cell", "channels"), [(1, 4, 32), (2, 8, 64), (3, 16, 128), (4, 32, 256)]
)
def test_stages_of_the_finest_modality(model, triple, stage, cell, channels):
    plan = make_plan(model, triple, stage)
    assert (plan.cell, plan.channels) == (cell, channels)
    assert plan.grid.pixel_size == (1.25 * cell, 1.25 * cell)


def test_schedules_change_the_cell(model, triple):
    assert make_plan(model, triple, schedule={"hr": KEEP}).cell == 4
    assert make_plan(model, triple, schedule={"hr": ("merge", "keep", "keep")}).cell == 8
    assert make_plan(model, triple, schedule={"s2": ("merge",) * 3}).tiling.unit == 256


@pytest.mark.parametrize("option", ["tile", "overlap"])
@pytest.mark.parametrize("value", [-64, 1, 33, 100])
def test_sizes_that_do_not_fit_come_with_one_that_does(model, triple, option, value):
    with pytest.raises(ValueError, match=rf"--{option} {value} does not fit") as error:
        make_plan(model, triple, **{option: value})
    nearest = re.search(r"for example (\d+)", str(error.value))
    plan = make_plan(model, triple, **{option: int(nearest.group(1))})
    assert getattr(plan.tiling, option) == int(nearest.group(1))


def test_other_sizes_out_of_range(model, triple):
    with pytest.raises(ValueError, match="--tile 0 does not fit"):
        make_plan(model, triple, tile=0)
    with pytest.raises(ValueError, match=r"between 0 and half a tile \(32\)"):
        make_plan(model, triple, tile=64, overlap=64)
    with pytest.raises(ValueError, match="schedule for unknown modality `sar`"):
        make_plan(model, triple, schedule={"sar": KEEP})


sides = st.integers(1, 300)


@given(
    shape=st.tuples(sides, sides),
    units=st.integers(1, 4),
    overlap=st.integers(0, 2),
    size=st.integers(1, 5),
)
@settings(max_examples=50, deadline=None)
def test_tasks_hold_every_tile_once_in_order_and_of_one_shape(model, shape, units, overlap, size):
    tile = 32 * units
    tiling = Tiling(shape, tile, min(overlap, units // 2) * 32, 32)
    grid_shape = tuple(-(-side // 8) for side in shape)
    plan = Plan(tiling, 8, _grid(grid_shape), 5, None)
    covered = np.zeros(grid_shape, bool)
    seen, previous = [], 0
    tasks = plan.tasks(size)
    for task in tasks:
        assert 1 <= len(task.tiles) <= size
        assert len({(w.height, w.width) for w in task.tiles}) == 1
        assert {w.row for w in task.tiles} == {tiling.starts(0)[task.row]}
        seen += task.tiles
        for window in task.tiles:
            place = plan.place(window)
            assert place.row >= previous, "rows that were handed out are not touched again"
            covered[place.row : place.row + place.height, place.col : place.col + place.width] = (
                True
            )
        if task.next_row is not None:
            assert covered[: task.next_row].all()
            previous = task.next_row
    assert [task.index for task in tasks] == list(range(len(tasks)))
    assert previous == grid_shape[0]
    assert covered.all()
    assert seen == [window for row in tiling.rows() for window in row]


def _grid(shape):
    from skysense.geo import Grid

    return Grid("EPSG:32632", (1, 0, 0, 0, -1, 0), shape)


def test_place_rounds_up_at_the_edge(model, triple):
    plan = make_plan(model, triple)
    assert plan.place(Window(32, 64, 40, 32)) == Window(1, 2, 2, 1)


def test_a_plan_can_be_written_down(model, triple):
    plan = make_plan(model, triple)

    assert json.loads(json.dumps(plan.describe())) == plan.describe()
    assert plan.describe() == make_plan(model, triple).describe()
    assert plan.describe() != make_plan(model, triple, stage=4).describe()
