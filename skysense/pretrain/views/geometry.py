"""Where a view lies on the ground, and where the places of one view lie in another.

Coordinates of the ground are shares of a sample's footprint, `(row, col)` from its upper left
corner, so that they hold for every modality whatever its pixel size.

Legend: B samples, h w a view's map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from skysense.sample import Batch

_TRANSPOSED = (0, 1, 0, 1, 0, 1, 0, 1)
_ROW_REVERSED = (0, 0, 1, 1, 0, 1, 1, 0)
_COL_REVERSED = (0, 1, 1, 0, 1, 1, 0, 0)


@dataclass(frozen=True)
class View:
    """One crop of each sample of a batch."""

    batch: Batch
    """The crops: each modality of one size, all masked where a sample lacks it."""
    box: Tensor
    """`(B, 4)` float32 row, col, height, width of the crop in shares of the footprint."""
    turn: Tensor
    """`(B,)` int64 0...7: the crop turned by `turn % 4` quarters counter-clockwise, then mirrored
    left to right where `turn >= 4`."""


@dataclass(frozen=True)
class Views:
    """All views of a batch."""

    global_views: tuple[View, ...]
    """Large crops."""
    local_views: tuple[View, ...]
    """Small crops."""


def reversals(turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a turn does to the axes of a crop: `(B,)` bool each.

    Returns:
        Whether its rows run backwards, whether its columns do, and whether they then change
        places. `out[i, j] = crop[row, col]` with `(row, col) = (i, j)`, or `(j, i)` if they do.
    """
    tables = torch.tensor((_ROW_REVERSED, _COL_REVERSED, _TRANSPOSED), device=turn.device)
    rows, cols, transposed = tables[:, turn].bool()
    return rows, cols, transposed


def _turned(places_: Tensor, turn: Tensor, back: bool) -> Tensor:
    """Shares `(B, h, w, 2)` of a crop to those of the turned crop, or back."""
    rows, cols, transposed = (flag[:, None, None] for flag in reversals(turn))
    backwards = torch.stack([rows, cols], -1)  # (B, 1, 1, 2)
    swap = transposed[..., None]
    if back:
        places_ = torch.where(swap, places_.flip(-1), places_)
        return torch.where(backwards, 1 - places_, places_)
    places_ = torch.where(backwards, 1 - places_, places_)
    return torch.where(swap, places_.flip(-1), places_)


def _centres(cells: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Numbers of the cells' centres, `(h, w, 2)`, and which are cells of a row, `(B, h, w)`."""
    rows, cols = (torch.arange(n, device=cells.device) for n in shape)
    index = torch.stack(torch.meshgrid(rows, cols, indexing="ij"), -1)  # (h, w, 2)
    return index + 0.5, (index < cells.ceil()[:, None, None]).all(-1)


def places(view: View, cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """Where on the ground the cells of a view's map have their centres.

    Args:
        view: the view.
        cells: `(B, 2)` float cells that the view spans in each row's map, not rounded.
        shape: `(h, w)` of the map, padding included.

    Returns:
        `(B, h, w, 2)` `(row, col)` in shares of the footprint; padding lies beyond the view.
    """
    centres, _ = _centres(cells, shape)
    shares = centres / cells.clamp(min=1e-6)[:, None, None]  # (B, h, w, 2)
    box = view.box[:, None, None]
    return box[..., :2] + _turned(shares, view.turn, back=True) * box[..., 2:]


def correspond(
    a: View,
    b: View,
    cells_a: Tensor,
    shape_a: tuple[int, int],
    cells_b: Tensor,
    shape_b: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Where the cells of one view's map lie in another's.

    Args:
        a: the view whose cells are looked up.
        b: another view of the same samples.
        cells_a: `(B, 2)` float cells that `a` spans in each row's map.
        shape_a: `(h, w)` of that map, padding included.
        cells_b: the same of `b`.
        shape_b: the same of `b`.

    Returns:
        `(B, h, w, 2)` `(x, y)` for `grid_sample(..., align_corners=False)` on the padded map of
        `b`, and `(B, h, w)` bool: this is a cell of `a`, and its centre lies inside `b`. Within
        half a cell of the edge, interpolation reaches beyond the map: weigh by its mask.
    """
    _, own = _centres(cells_a, shape_a)
    box = b.box[:, None, None]
    shares = (places(a, cells_a, shape_a) - box[..., :2]) / box[..., 2:].clamp(min=1e-6)
    shares = _turned(shares, b.turn, back=False)  # (B, h, w, 2)
    inside = ((shares >= 0) & (shares <= 1)).all(-1)
    extent = cells_b / cells_b.new_tensor(shape_b)  # (B, 2)
    return (2 * shares * extent[:, None, None] - 1).flip(-1), inside & own
