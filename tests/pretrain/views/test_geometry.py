"""Places and correspondences against views of images that show their own coordinates."""

import pytest
import torch
import torch.nn.functional as F

from skysense.pretrain.views import View, correspond, make_views, places
from skysense.pretrain.views.resampling import crop

ROWS = 64


def all_views(batch, config, seed=0):
    views = make_views(batch, config, seed, 0, torch.arange(len(batch)))
    return [*views.global_views, *views.local_views]


def shown(view):
    """`(B, h, w, 2)` coordinates that a view of a coordinate image shows."""
    return view.batch.modalities["hr"].pixels[:, 0, :2].movedim(1, -1)


@pytest.mark.parametrize("shape", [(16, 16), (12, 20)])
def test_places_are_what_the_view_shows(coordinate_batch, plain_config, shape):
    config = plain_config(hr={"global_size": 40, "local_size": 28})
    assert config.turns

    for view in all_views(coordinate_batch(shape, ROWS), config):
        size = view.batch.modalities["hr"].pixels.shape[-1]
        found = places(view, torch.full((ROWS, 2), float(size)), (size, size))

        half = 0.5 / torch.tensor(shape)  # beyond the outermost centres, the edge is repeated
        expected = torch.minimum(torch.maximum(found, half), 1 - half)
        torch.testing.assert_close(shown(view), expected, atol=2e-6, rtol=0)
        assert set(view.turn.tolist()) == set(range(8))


def test_places_of_shrunk_crops_are_within_a_tenth_of_a_pixel(coordinate_batch, plain_config):
    config = plain_config(hr={"global_size": 10, "local_size": 10}, global_scale=(0.5, 0.8))

    for view in all_views(coordinate_batch((64, 64), ROWS), config)[:2]:
        found = places(view, torch.full((ROWS, 2), 10.0), (10, 10))

        inner = slice(2, -2)  # where no kernel is cut off by the edge of the image
        error = (shown(view) - found)[:, inner, inner].abs().max()
        assert error < 0.1 / 10


@pytest.mark.parametrize("turn", range(8))
def test_turn_is_rotation_then_mirror(turn):
    pixels = torch.randn(1, 1, 2, 9, 9)
    whole, sizes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[9, 9]])
    expected = torch.rot90(pixels, turn % 4, (3, 4))
    expected = expected.flip(4) if turn >= 4 else expected

    found, _ = crop(pixels, None, sizes, whole, torch.tensor([turn]), 9)

    torch.testing.assert_close(found, expected)


def test_place_of_a_padded_map_by_hand(mixed_batch):
    box = torch.tensor([[0.2, 0.4, 0.5, 0.3]]).expand(5, 4)
    cells = torch.tensor([[2.0, 2.0]]).expand(5, 2)
    straight = View(mixed_batch, box, torch.zeros(5, dtype=torch.int64))
    mirrored = View(mixed_batch, box, torch.full((5,), 4))

    found, other = (places(view, cells, (2, 3))[0] for view in (straight, mirrored))

    torch.testing.assert_close(found[0, 0], torch.tensor([0.2 + 0.125, 0.4 + 0.075]))
    torch.testing.assert_close(found[1, 2], torch.tensor([0.2 + 0.375, 0.4 + 0.375]))  # padding
    torch.testing.assert_close(other[0, 0], torch.tensor([0.2 + 0.125, 0.4 + 0.225]))


@pytest.mark.parametrize("cells", [(16.0, 16.0), (11.0, 13.0)])
def test_correspondences_meet_on_the_same_ground(coordinate_batch, plain_config, cells):
    views = all_views(coordinate_batch((16, 16), ROWS), plain_config())
    span, shape = torch.tensor(cells).expand(ROWS, 2), (16, 17)

    for a, b in [(views[0], views[1]), (views[1], views[0]), (views[0], views[3])]:
        grid, inside = correspond(a, b, span, shape, span, shape)
        ground_b = places(b, span, shape).movedim(-1, 1)  # (B, 2, h, w)
        looked_up = F.grid_sample(ground_b, grid, align_corners=False, padding_mode="border")
        here = places(a, span, shape)
        error = (looked_up.movedim(1, -1) - here).abs().amax(-1)

        corner = b.box[:, None, None, :2]
        expected = ((here >= corner) & (here <= corner + b.box[:, None, None, 2:])).all(-1)
        rows, cols = torch.arange(shape[0]) < cells[0], torch.arange(shape[1]) < cells[1]
        expected &= rows[:, None] & cols
        assert (inside != expected).float().mean() < 1e-3  # but for rounding at the very edge
        edge = 0.5 * b.box[:, 2:].amax(1) / min(cells)  # repeated beyond the outermost centres
        assert (error <= edge[:, None, None] + 1e-5)[inside].all()
        assert error[inside].median() < 1e-5


def test_global_views_share_ground(coordinate_batch, plain_config):
    views = all_views(coordinate_batch((16, 16), 64), plain_config())
    span = torch.full((64, 2), 8.0)

    _, inside = correspond(views[0], views[1], span, (8, 8), span, (8, 8))

    assert inside.flatten(1).sum(1).min() >= 4


def test_a_view_corresponds_to_itself(coordinate_batch, plain_config):
    view = all_views(coordinate_batch((16, 16), ROWS), plain_config())[0]
    span = torch.full((ROWS, 2), 4.0)

    grid, inside = correspond(view, view, span, (4, 4), span, (4, 4))

    centres = (2 * torch.arange(4) + 1) / 4 - 1
    expected = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)
    torch.testing.assert_close(grid, expected.expand(ROWS, 4, 4, 2), atol=1e-5, rtol=0)
    assert inside.all()
