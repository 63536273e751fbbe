"""Rows of the dense levels: which are paired, and that padding and empty maps change nothing."""

import pytest
import torch
import torch.nn.functional as F

from skysense.pretrain.dense import (
    align_modalities,
    next_view,
    pair_objects,
    pair_pixels,
    pair_queries,
)
from skysense.pretrain.losses.qsacl import SemanticQueries
from skysense.pretrain.network import FeatureMap
from skysense.pretrain.views import View
from skysense.sample import Batch, ModalityBatch

B, G, D = 3, 2, 5


def make_map(side, seed, rows=G * B, holes=0.2):
    """Random features with holes."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(rows, side, side, generator=generator) >= holes
    values = torch.randn(rows, D, side, side, generator=generator) * valid[:, None]
    return FeatureMap(values, valid, torch.full((rows, 2), float(side)))


def empty(side):
    return FeatureMap(
        torch.zeros(G * B, D, side, side),
        torch.zeros(G * B, side, side, dtype=torch.bool),
        torch.zeros(G * B, 2),
    )


def padded(own, by):
    """The same map on a larger grid."""
    return FeatureMap(
        F.pad(own.values, (0, by, 0, by)), F.pad(own.valid, (0, by, 0, by)), own.cells
    )


def without(own, rows):
    """The map without what some rows see."""
    gone = torch.zeros(len(own.valid), dtype=torch.bool)
    gone[list(rows)] = True
    values, valid = own.values.clone(), own.valid.clone()
    values[gone], valid[gone] = 0, False
    return FeatureMap(values, valid, own.cells * ~gone[:, None])


@pytest.fixture
def views():
    """Two global views that overlap, turned otherwise."""
    part = ModalityBatch(
        torch.zeros(B, 1, 3, 4, 4),
        torch.ones(B, 1, 4, 4, dtype=torch.bool),
        torch.zeros(B, 1, dtype=torch.int64),
        torch.full((B, 2), 4),
        ("hr",) * B,
    )
    batch = Batch({"hr": part}, torch.full((B, 2), torch.nan))
    boxes = [(0.0, 0.1, 0.8, 0.7), (0.15, 0.2, 0.7, 0.8)]
    turns = [torch.tensor([0, 1, 6]), torch.tensor([3, 5, 2])]
    return [View(batch, torch.tensor([box] * B), turn) for box, turn in zip(boxes, turns)]  # noqa: B905


@pytest.fixture
def choice():
    return torch.rand(G * B, 64, generator=torch.Generator().manual_seed(9))


def test_the_view_after_the_last_is_the_first():
    own = make_map(2, 0, rows=9)
    found = next_view(own, 3)

    for view in range(3):
        after = (view + 1) % 3
        assert torch.equal(
            found.values[3 * view : 3 * view + 3], own.values[3 * after : 3 * after + 3]
        )


def test_padding_changes_no_pixel_pair(views, choice):
    student, teacher = make_map(4, 0), make_map(3, 1)
    expected = pair_pixels("fused", views, student, teacher, 16, choice)
    found = pair_pixels("fused", views, padded(student, 2), padded(teacher, 3), 16, choice)

    def drawn(rows):
        """Pairs in an order of their own: padding comes last among equals."""
        kept = rows.weight > 0
        table = torch.cat([rows.student[kept], rows.teacher[kept]], 1)
        return table[table[:, 0].argsort()]

    assert drawn(expected).shape[0] > B
    torch.testing.assert_close(drawn(found), drawn(expected))


@pytest.mark.parametrize("side", [1, 3])
def test_a_stream_that_nobody_sees(views, choice, side):
    none = empty(side)
    rows = [
        pair_pixels("modality", views, none, none, 4, choice),
        pair_objects("modality", B, none, none, 2),
        *align_modalities({"hr": none, "s2": none}, {"hr": none, "s2": none}, 4, choice),
    ]

    for own in rows:
        assert own.student.shape == own.teacher.shape == (0, D)
        assert own.weight.shape == (0,)


def test_views_of_which_each_lacks_what_the_other_has(views, choice):
    student = without(make_map(3, 0), range(B))  # the first view sees nothing
    teacher = without(make_map(3, 1), range(B))
    for own in (
        pair_pixels("modality", views, student, teacher, 4, choice),
        pair_objects("modality", B, student, teacher, 2),
    ):
        assert len(own.student) == 0


def test_rows_that_see_nothing_are_left_out(views, choice):
    student, teacher = make_map(4, 0), make_map(4, 1)
    lacking = without(student, [1]), without(teacher, [1])
    found = pair_objects("modality", B, *lacking, 2)
    whole = pair_objects("modality", B, student, teacher, 2)
    kept = [0, 2, 3, 5]  # row 1, and row 4 whose next view is row 1's

    torch.testing.assert_close(found.student.view(4, 2, D), whole.student.view(G * B, 2, D)[kept])
    torch.testing.assert_close(found.teacher.view(4, 2, D), whole.teacher.view(G * B, 2, D)[kept])
    assert pair_pixels("modality", views, *lacking, 4, choice).student.shape == (16, D)


@pytest.mark.parametrize("pair", [("hr",), ("hr", "s2"), ("hr", "s2", "s1")])
def test_every_pair_of_modalities(pair, choice):
    sides = {"hr": 4, "s2": 3, "s1": 2}
    student = {key: make_map(sides[key], i, holes=0) for i, key in enumerate(pair)}
    teacher = {key: make_map(sides[key], 5 + i, holes=0) for i, key in enumerate(pair)}
    found = align_modalities(student, teacher, 9, choice)

    assert len(found) == {1: 1, 2: 1, 3: 3}[len(pair)]
    cells = {1: 0, 2: 9, 3: 9 + 4 + 4}[len(pair)]
    assert sum(int(own.weight.sum()) for own in found) == 2 * G * B * cells
    assert {own.kind for own in found} == {"modality"}


def test_alignment_where_some_rows_lack_a_modality(choice):
    student = {"hr": make_map(3, 0), "s2": without(make_map(3, 1), [0, 4])}
    teacher = {"hr": make_map(3, 2), "s2": without(make_map(3, 3), [0, 4])}
    some = torch.tensor([1, 2, 3, 5])
    (found,) = align_modalities(student, teacher, 4, choice)
    expected = align_modalities(
        {key: own.chosen(some) for key, own in student.items()},
        {key: own.chosen(some) for key, own in teacher.items()},
        4,
        choice[some],
    )

    torch.testing.assert_close(found.student, expected[0].student)
    torch.testing.assert_close(found.teacher, expected[0].teacher)


@pytest.mark.parametrize("looked", [1, 2, 3])
def test_queries_meet_the_global_view_that_goes_with_a_local_one(looked):
    torch.manual_seed(0)
    ours, theirs = SemanticQueries(D, 2, 1), SemanticQueries(D, 2, 1)
    student = make_map(3, 0), without(make_map(2, 1, rows=3 * B), [1])
    teacher = make_map(3, 2), make_map(2, 3, rows=looked * B)
    found = pair_queries((ours, *student), (theirs, *teacher), B)

    assert len(found) == looked
    for local, own in enumerate(found):
        whole = local % G
        weight = own.weight.view(2, B, 2)
        assert weight[:, 1].any() == (local != 0), "the first local view of row 1 sees nothing"
        assert weight[:, [0, 2]].all()
        for b in (0, 2):
            rows = whole * B + b, local * B + b
            for queries, maps, table in (
                (ours, student, own.student.view(2, B, 2, D)[:, b]),
                (theirs, teacher, own.teacher.view(2, B, 2, D)[:, b].flip(0)),
            ):
                for scale in (0, 1):  # global, local
                    tokens = [x[rows[scale]][None] for x in maps[scale].tokens()]
                    torch.testing.assert_close(table[scale], queries(*tokens)[0])
        assert not own.teacher.requires_grad
