"""Pairs of two modalities at one place, both ways."""

import torch

from skysense.pretrain.losses.alignment import aligned_pairs
from skysense.pretrain.losses.pixel import draw_cells


def make_maps():
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 4, 5).requires_grad_() for _ in range(4)]
    return (maps[0], maps[1]), (maps[2], maps[3]), torch.rand(2, 4, 5) > 0.3, torch.rand(2, 25)


def test_pairs_are_parity_with_a_loop():
    student, teacher, valid, choice = make_maps()
    index, weight = draw_cells(valid, 6, choice)

    own, other, weights = aligned_pairs(student, teacher, valid, 6, choice)

    assert own.shape == other.shape == (2 * 2 * 6, 3)
    for way in range(2):
        for b in range(2):
            for p in range(6):
                row = (way * 2 + b) * 6 + p
                i, j = divmod(index[b, p].item(), 5)
                assert torch.equal(own[row], student[way][b, :, i, j])
                assert torch.equal(other[row], teacher[1 - way][b, :, i, j])
                assert weights[row] == weight[b, p]


def test_exchanging_the_modalities_exchanges_the_directions():
    student, teacher, valid, choice = make_maps()

    own, other, weight = aligned_pairs(student, teacher, valid, 6, choice)
    swapped = aligned_pairs(student[::-1], teacher[::-1], valid, 6, choice)

    assert torch.equal(swapped[0], own.roll(12, 0))
    assert torch.equal(swapped[1], other.roll(12, 0))
    assert torch.equal(swapped[2], weight)


def test_gradient_flows_to_the_student_alone():
    student, teacher, valid, choice = make_maps()

    own, other, weight = aligned_pairs(student, teacher, valid, 20, choice)
    (own * weight[:, None]).sum().backward()

    assert not other.requires_grad
    assert torch.equal(student[0].grad.any(1), valid)
    assert torch.equal(student[1].grad.any(1), valid)
