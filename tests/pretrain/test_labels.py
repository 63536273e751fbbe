"""Classes at the places of a view: a map that is cropped and turned as an image is."""

import pytest
import torch

from skysense.pretrain.labels import Labels, label_rows
from skysense.pretrain.network import FeatureMap
from skysense.pretrain.views import View
from skysense.pretrain.views.resampling import crop
from skysense.sample import Batch, ModalityBatch

SIDE = 8


def view_of(box, turn):
    """A view of some rows on given ground; what it shows does not matter."""
    b = len(box)
    part = ModalityBatch(
        torch.zeros(b, 1, 3, 4, 4),
        torch.ones(b, 1, 4, 4, dtype=torch.bool),
        torch.zeros(b, 1, dtype=torch.int64),
        torch.full((b, 2), 4),
        ("hr",) * b,
    )
    return View(Batch({"hr": part}, torch.full((b, 2), torch.nan)), box, turn)


def feature_map(rows, side, width=2):
    values = torch.arange(rows * width * side * side).float().view(rows, width, side, side)
    valid = torch.ones(rows, side, side, dtype=torch.bool)
    return FeatureMap(values, valid, torch.full((rows, 2), float(side)))


@pytest.fixture
def classes():
    """A map of other classes in each cell, 8 rows: the ground of 8 samples."""
    return torch.randint(0, 50, (8, SIDE, SIDE), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.25, 0.5)])
def test_classes_turn_as_pixels_do(classes, corner):
    box, turn = torch.tensor([[*corner, 0.5, 0.5]] * 8), torch.arange(8)
    sizes = torch.full((8, 2), SIDE)
    expected, _ = crop(classes[:, None, None].float(), None, sizes, box, turn, 4)
    features, found = label_rows([view_of(box, turn)], feature_map(8, 4), Labels(classes, sizes))

    assert torch.equal(found.view(8, 4, 4), expected[:, 0, 0].round().long())
    assert torch.equal(features.view(8, 4, 4, 2), feature_map(8, 4).values.permute(0, 2, 3, 1))


def test_each_row_has_a_size_and_padding_of_its_own(classes):
    sizes = torch.tensor([[8, 8], [4, 8], [0, 0]])
    padded = classes[:3].clone()
    padded[1, 4:], padded[2] = -1, -1
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3)
    own = feature_map(3, 4)
    _, found = label_rows([view_of(whole, torch.zeros(3).long())], own, Labels(padded, sizes))

    found = found.view(3, 4, 4)
    assert torch.equal(found[0], classes[0, 1::2, 1::2])  # a cell's center is a corner of four
    assert torch.equal(found[1], classes[1, :4, 1::2])
    assert (found[2] == -1).all()


def test_views_follow_one_another_and_masked_places_have_no_class(classes):
    sizes = torch.full((2, 2), SIDE)
    boxes = [torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 2), torch.tensor([[0.5, 0.5, 0.5, 0.5]] * 2)]
    views = [view_of(box, torch.zeros(2).long()) for box in boxes]
    own = feature_map(4, 4)
    own.valid[3, 0] = False
    _, found = label_rows(views, own, Labels(classes[:2], sizes))

    found = found.view(2, 2, 4, 4)
    assert torch.equal(found[0], classes[:2, :4, :4])
    assert torch.equal(found[1, 0], classes[0, 4:, 4:])
    assert torch.equal(found[1, 1, 1:], classes[1, 5:, 4:])
    assert (found[1, 1, 0] == -1).all()


def test_a_view_of_fewer_cells_than_the_padded_map(classes):
    own = feature_map(2, 4)
    own.cells[1] = 2.0
    own.valid[1, 2:], own.valid[1, :, 2:] = False, False
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    labels = Labels(classes[:2], torch.full((2, 2), SIDE))
    _, found = label_rows([view_of(whole, torch.zeros(2).long())], own, labels)

    found = found.view(2, 4, 4)
    assert torch.equal(found[1, :2, :2], classes[1, 2::4, 2::4])
    assert (found[1, 2:] == -1).all()
    assert (found[1, :, 2:] == -1).all()


def test_no_labels_at_all():
    features, found = label_rows([], feature_map(2, 3), None)

    assert features.shape == (18, 2)
    assert found.dtype == torch.int64
    assert (found == -1).all()
