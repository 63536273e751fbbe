"""Rows for the dense levels: pixels, objects, other modalities, queries.

Each takes maps of student and teacher and gives pairs of rows to contrast; all rows of a kind then
go through its head at once.

Legend: B samples, G global views, N rows, D width, h w cells, m queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from skysense.models.alignment import align
from skysense.pretrain.losses.alignment import aligned_pairs
from skysense.pretrain.losses.object import object_pairs
from skysense.pretrain.losses.pixel import pixel_pairs
from skysense.pretrain.losses.qsacl import SemanticQueries, query_pairs
from skysense.pretrain.network import FUSED, FeatureMap
from skysense.pretrain.views import View, correspond
from skysense.sensors import MODALITIES


@dataclass(frozen=True)
class DenseRows:
    """Pairs of rows of one term and one kind of features."""

    term: str
    """`pixel`, `object`, `alignment`, `qsacl`."""
    kind: str
    """`modality` or `fused`: whose head."""
    student: Tensor
    """`(N, D)`."""
    teacher: Tensor
    """`(N, D)`."""
    weight: Tensor
    """`(N,)`, 0 where a pair is padding."""


def drop_padding(student: Tensor, teacher: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of weight above 0: the others would cost as much and count for nothing."""
    kept = weight.nonzero().squeeze(1)
    if len(kept) == len(weight):
        return student, teacher, weight
    return student[kept], teacher[kept], weight[kept]


def next_view(own: FeatureMap, samples: int) -> FeatureMap:
    """The map whose rows are, for each view, those of the view after it (the last: the first)."""
    return FeatureMap(*(x.roll(-samples, 0) for x in (own.values, own.valid, own.cells)))


def pair_pixels(
    kind: str,
    views: Sequence[View],
    student: FeatureMap,
    teacher: FeatureMap,
    count: int,
    choice: Tensor,
) -> DenseRows:
    """The same places in each global view of the student and the next one of the teacher.

    Args:
        kind: `modality` or `fused`.
        views: G global views.
        student: their map, `G B` rows.
        teacher: the same of the teacher.
        count: places of a view at most.
        choice: `(G B, n)` uniform numbers.
    """
    samples = len(views[0].batch)
    other = next_view(teacher, samples)
    coordinates, inside = _match_views(views, student, other)
    kept = _present(student, other)
    rows = pixel_pairs(
        student.values[kept],
        student.valid[kept],
        other.values[kept],
        other.valid[kept],
        coordinates[kept],
        inside[kept],
        count,
        choice[kept],
    )
    return DenseRows("pixel", kind, *drop_padding(*rows))


def _match_views(
    views: Sequence[View], own: FeatureMap, other: FeatureMap
) -> tuple[Tensor, Tensor]:
    """Where each cell of a view lies in the next view: `(G B, h, w, 2)` and `(G B, h, w)` bool."""
    samples, found = len(views[0].batch), []
    for i, view in enumerate(views):
        rows = slice(i * samples, (i + 1) * samples)
        after = views[(i + 1) % len(views)]
        cells, others = own.cells[rows], other.cells[rows]
        coordinates, inside = correspond(view, after, cells, own.shape, others, other.shape)
        found.append((_within(coordinates, others, other.shape), inside))
    placed, seen = zip(*found, strict=True)
    return torch.cat(placed), torch.cat(seen)


def _within(coordinates: Tensor, cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """Coordinates at least half a cell away from the padding of each row's map.

    How much padding there is depends on the other rows of a rank; interpolation must not see it.

    Args:
        coordinates: `(B, h, w, 2)` of `correspond`.
        cells: `(B, 2)` float cells that each row spans.
        shape: of the padded map.
    """
    most = (2 * cells.ceil() - 1) / cells.new_tensor(shape) - 1  # (B, 2)
    return coordinates.minimum(most.flip(-1)[:, None, None])


def _present(first: FeatureMap, second: FeatureMap) -> Tensor:
    """Indices of the rows in which both maps see something."""
    seen = first.valid.flatten(1).any(1) & second.valid.flatten(1).any(1)
    return seen.nonzero().squeeze(1)


def align_modalities(
    student: Mapping[str, FeatureMap],
    teacher: Mapping[str, FeatureMap],
    count: int,
    choice: Tensor,
) -> list[DenseRows]:
    """The same places of the same views, in two modalities; every pair of them, both ways.

    Args:
        student: stream to its map of the global views.
        teacher: the same of the teacher.
        count: places of a view at most.
        choice: `(G B, n)` uniform numbers.

    Returns:
        At least one, so that all ranks exchange the same; without rows where no sample has two
        modalities.
    """
    keys = [key for key in MODALITIES if key in student]
    found = []
    for i, first in enumerate(keys):
        for second in keys[i + 1 :]:
            kept = _present(student[first], student[second])
            if len(kept):
                pair = [student[key].chosen(kept) for key in (first, second)]
                taught = [teacher[key].chosen(kept) for key in (first, second)]
                found.append(_aligned(pair, taught, count, choice[kept]))
    if not found:
        some = student[keys[0]].values
        none = some.flatten(2).transpose(1, 2).flatten(0, 1)[:0]
        found.append(DenseRows("alignment", "modality", none, none.detach(), none.new_zeros(0)))
    return found


def _aligned(
    student: Sequence[FeatureMap], teacher: Sequence[FeatureMap], count: int, choice: Tensor
) -> DenseRows:
    """Two modalities on the coarser of their grids."""
    spans = torch.stack([own.cells for own in student])  # (2, R, 2)
    coarsest = spans.prod(-1).argmin(0)  # (R,)
    common = spans.gather(0, coarsest[None, :, None].expand(1, -1, 2)).squeeze(0)
    height, width = common.ceil().max(0).values.long().tolist()
    ours, valid = zip(*(_on(own, common, (height, width)) for own in student), strict=True)
    theirs, _ = zip(*(_on(own, common, (height, width)) for own in teacher), strict=True)
    both = valid[0] & valid[1]
    rows = aligned_pairs((ours[0], ours[1]), (theirs[0], theirs[1]), both, count, choice)
    return DenseRows("alignment", "modality", *drop_padding(*rows))


def _on(own: FeatureMap, common: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """A map on another grid: `(R, D, H, W)` and `(R, H, W)` bool."""
    values = own.values.permute(0, 2, 3, 1).unsqueeze(1)  # (R, 1, h, w, D)
    values, valid = align(values, own.valid.unsqueeze(1), own.cells, common, shape)
    return values.squeeze(1).permute(0, 3, 1, 2), valid.squeeze(1)


def pair_objects(
    kind: str, samples: int, student: FeatureMap, teacher: FeatureMap, groups: int
) -> DenseRows:
    """Groups of places in each global view of the student and in the next one of the teacher.

    Args:
        kind: `modality` or `fused`.
        samples: B.
        student: map of the global views, `G B` rows.
        teacher: the same of the teacher.
        groups: of a view.
    """
    other = next_view(teacher, samples)
    kept = _present(student, other)
    rows = object_pairs(*student.chosen(kept).tokens(), *other.chosen(kept).tokens(), groups)
    return DenseRows("object", kind, *rows)


def pair_queries(
    student: tuple[SemanticQueries, FeatureMap, FeatureMap],
    teacher: tuple[SemanticQueries, FeatureMap, FeatureMap],
    samples: int,
) -> list[DenseRows]:
    """What the queries find in the local views that are looked at, and in a global view each.

    Args:
        student: its queries, and its fused maps of the global views (`G B` rows) and of the local
            ones, of which the first are looked at.
        teacher: the same of the teacher; its local map has just those that are looked at.
        samples: B.
    """
    looked = len(teacher[2].valid) // samples
    local = student[2].rows(0, looked * samples)
    used = min(looked * samples, len(student[1].valid))  # rows of the global views
    whole, taught = student[1].rows(0, used), teacher[1].rows(0, used)
    ours = _found(student[0], whole, samples), _found(student[0], local, samples)
    with torch.no_grad():
        theirs = _found(teacher[0], taught, samples), _found(teacher[0], teacher[2], samples)
    seen = [m.valid.flatten(1).any(1).unflatten(0, (-1, samples)) for m in (whole, local)]
    rows = []
    for i in range(looked):
        j = i % len(ours[0])
        weight = (seen[0][j] & seen[1][i]).float()
        own, other = (ours[0][j], ours[1][i]), (theirs[0][j], theirs[1][i])
        rows.append(DenseRows("qsacl", FUSED, *query_pairs(own, other, weight)))
    return rows


def _found(queries: SemanticQueries, own: FeatureMap, samples: int) -> Tensor:
    """`(views, B, m, D)` of a map of several views."""
    found: Tensor = queries(*own.tokens())
    by_view: Tensor = found.unflatten(0, (-1, samples))
    return by_view
