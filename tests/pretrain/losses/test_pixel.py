"""Pairs of places: parity with loops, and what masks and padding may not change."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.pretrain.losses.pixel import draw_cells, pixel_pairs, take_cells


def literal_sample(values, valid, x, y):
    """Bilinear interpolation over valid cells, and their share of the weight."""
    height, width = valid.shape
    col = min(max((x + 1) * width / 2 - 0.5, 0), width - 1)
    row = min(max((y + 1) * height / 2 - 0.5, 0), height - 1)
    total, cover = torch.zeros(values.shape[0]), 0.0
    for i in range(height):
        for j in range(width):
            weight = max(0, 1 - abs(row - i)) * max(0, 1 - abs(col - j))
            if valid[i, j]:
                total, cover = total + weight * values[:, i, j], cover + weight
    return total / max(cover, 1e-9), cover


def square_number(row, col):
    """Position of a cell in squares that grow around cell (0, 0)."""
    cells = [(0, 0)]
    for side in range(1, max(row, col) + 1):
        cells += [(i, side) for i in range(side + 1)]
        cells += [(side, j) for j in range(side - 1, -1, -1)]
    return cells.index((row, col))


@pytest.fixture
def views():
    torch.manual_seed(0)
    b, d, h, w = 3, 5, 4, 6
    return {
        "student_map": torch.randn(b, d, h, w),
        "student_valid": torch.rand(b, h, w) > 0.2,
        "teacher_map": torch.randn(b, d, 5, 3),
        "teacher_valid": torch.rand(b, 5, 3) > 0.3,
        "coordinates": 2.2 * torch.rand(b, h, w, 2) - 1.1,
        "inside": torch.rand(b, h, w) > 0.2,
    }


CHOICE = torch.rand(3, 36, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("count", [1, 4, 24, 30])
def test_pairs_are_parity_with_a_double_loop(views, count):
    student, teacher, weight = pixel_pairs(**views, count=count, choice=CHOICE)

    assert student.shape == teacher.shape == (3 * count, 5)
    assert weight.shape == (3 * count,)
    for b in range(3):
        places = []
        for i in range(4):
            for j in range(6):
                x, y = views["coordinates"][b, i, j].tolist()
                seen, cover = literal_sample(
                    views["teacher_map"][b], views["teacher_valid"][b], x, y
                )
                if views["student_valid"][b, i, j] and views["inside"][b, i, j] and cover >= 0.5:
                    number = CHOICE[b, square_number(i, j)].item()
                    places.append((number, views["student_map"][b, :, i, j], seen))
        places = sorted(places, key=lambda place: -place[0])[:count]
        mine = slice(b * count, b * count + len(places))
        assert weight[b * count : (b + 1) * count].sum() == len(places)
        assert (weight[mine] == 1).all()
        torch.testing.assert_close(student[mine], torch.stack([place[1] for place in places]))
        torch.testing.assert_close(teacher[mine], torch.stack([place[2] for place in places]))


def test_masked_cells_change_nothing(views):
    before = pixel_pairs(**views, count=8, choice=CHOICE)
    counts = before[2] > 0
    for name in ("student", "teacher"):
        values = views[f"{name}_map"]
        values.masked_fill_(~views[f"{name}_valid"][:, None], math.nan)

    student, teacher, weight = pixel_pairs(**views, count=8, choice=CHOICE)

    assert torch.equal(weight, before[2])
    torch.testing.assert_close(student[counts], before[0][counts])
    torch.testing.assert_close(teacher[counts], before[1][counts])


def test_padding_of_the_student_changes_nothing(views):
    before = pixel_pairs(**views, count=8, choice=CHOICE)
    choice = torch.cat([CHOICE, torch.rand(3, 64)], 1)
    pad = torch.nn.functional.pad
    for name in ("student_map", "student_valid", "inside"):
        views[name] = pad(views[name], (0, 3, 0, 2))
    views["coordinates"] = pad(views["coordinates"], (0, 0, 0, 3, 0, 2))

    after = pixel_pairs(**views, count=8, choice=choice)

    counts = before[2] > 0
    assert torch.equal(before[2], after[2])
    assert torch.equal(before[0][counts], after[0][counts])
    assert torch.equal(before[1][counts], after[1][counts])


def test_the_same_view_pairs_each_cell_with_itself():
    values = torch.randn(2, 3, 4, 5)
    x, y = (torch.arange(5) + 0.5) / 5 * 2 - 1, (torch.arange(4) + 0.5) / 4 * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).expand(2, -1, -1, -1)
    everywhere = torch.ones(2, 4, 5, dtype=torch.bool)

    student, teacher, weight = pixel_pairs(
        values, everywhere, values, everywhere, grid, everywhere, 20, torch.rand(2, 25)
    )

    assert (weight == 1).all()
    torch.testing.assert_close(student, teacher)


def test_gradient_flows_to_the_student_alone(views):
    views["student_map"].requires_grad_()
    views["teacher_map"].requires_grad_()

    student, teacher, _ = pixel_pairs(**views, count=4, choice=CHOICE)
    student.sum().backward()

    assert not teacher.requires_grad
    assert views["student_map"].grad.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 60), st.integers(0, 1000))
def test_drawn_cells_are_eligible_and_distinct(h, w, count, seed):
    torch.manual_seed(seed)
    eligible = torch.rand(2, h, w) > 0.4

    index, weight = draw_cells(eligible, count, torch.rand(2, max(h, w) ** 2))

    assert index.shape == weight.shape == (2, count)
    for b in range(2):
        drawn = index[b][weight[b] > 0]
        assert len(drawn) == min(count, int(eligible[b].sum())) == len(drawn.unique())
        assert eligible[b].flatten()[drawn].all()


def test_every_cell_is_drawn_about_as_often():
    index, _ = draw_cells(torch.ones(6000, 2, 3, dtype=torch.bool), 2, torch.rand(6000, 9))

    assert (index.flatten().bincount(minlength=6) / 2000 - 1).abs().max() < 0.1


def test_taken_cells_are_those_of_the_map():
    values = torch.arange(24.0).view(2, 3, 2, 2)

    assert take_cells(values, torch.tensor([[1, 3], [0, 0]])).tolist() == [
        [1, 5, 9],
        [3, 7, 11],
        [12, 16, 20],
        [12, 16, 20],
    ]


def test_no_sample_gives_no_rows():
    values, valid = torch.randn(0, 3, 2, 2), torch.ones(0, 2, 2, dtype=torch.bool)

    student, teacher, weight = pixel_pairs(
        values, valid, values, valid, torch.zeros(0, 2, 2, 2), valid, 5, torch.rand(0, 4)
    )

    assert student.shape == teacher.shape == (0, 3)
    assert weight.shape == (0,)
