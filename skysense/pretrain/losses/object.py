"""Object level of MGCL: groups of similar places, matched between two views.

Legend: B samples, N places, D width, G groups.
"""

import functools
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from skysense.pretrain.losses.sinkhorn import balance

MOST_GROUPS = 8
"""Groups that can be matched: all their 40320 orders are compared."""


def object_pairs(
    student: Tensor,
    student_valid: Tensor,
    teacher: Tensor,
    teacher_valid: Tensor,
    groups: int,
    iterations: int = 3,
    temperature: float = 0.05,
) -> tuple[Tensor, Tensor, Tensor]:
    """Group the places of two views, and pair each group with the other view's most like it.

    Source: the object level of SkySense, section 3.2 [paper]: a few Sinkhorn k-means iterations a
    view, groups matched by assignment.

    Args:
        student: `(B, N, D)` features of one view.
        student_valid: `(B, N)` bool.
        teacher: `(B, M, D)` features of another view.
        teacher_valid: `(B, M)` bool.
        groups: G, 1 to 8.
        iterations: of k-means.
        temperature: of the assignment by cosine.

    Returns:
        Rows of the student `(B G, D)`, of the teacher `(B G, D)` without gradient, and their
        weights `(B G,)`: 0 where a view has no valid place.
    """
    _, own = sinkhorn_kmeans(student, student_valid, groups, iterations, temperature)
    _, other = sinkhorn_kmeans(teacher, teacher_valid, groups, iterations, temperature)
    vectors = object_vectors(student, own)
    with torch.no_grad():
        theirs = object_vectors(teacher, other)
        partner = match_groups(vectors, theirs)  # (B, G)
        theirs = theirs.gather(1, partner[..., None].expand_as(theirs))
    weight = (student_valid.any(1) & teacher_valid.any(1)).float()
    return vectors.flatten(0, 1), theirs.flatten(0, 1), weight.repeat_interleave(groups)


def object_vectors(features: Tensor, assignment: Tensor) -> Tensor:
    """Mean feature of each group.

    The gradient goes through the features alone, not through the assignment, which is a target as
    SwAV's codes are (arXiv 2006.09882, section 3.1) [ours].

    Args:
        features: `(B, N, D)`, finite also where they are assigned to no group.
        assignment: `(B, N, G)` shares.

    Returns:
        `(B, G, D)` float32.
    """
    shares = assignment.detach()
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-6)
    with torch.autocast(features.device.type, enabled=False):
        return shares.transpose(1, 2) @ features.float()


@torch.no_grad()
def sinkhorn_kmeans(
    features: Tensor, valid: Tensor, groups: int, iterations: int = 3, temperature: float = 0.05
) -> tuple[Tensor, Tensor]:
    """K-means by cosine with groups of about equal mass, without gradient.

    Each iteration assigns the places to the centers in balance and moves each center to the mean
    direction of what it was given. The start is deterministic and knows no order of places:
    the place least like the mean, then each time the one least like all chosen [ours].

    Args:
        features: `(B, N, D)`.
        valid: `(B, N)` bool; other places take no part.
        groups: G.
        iterations: at least 1.
        temperature: of the assignment by cosine; 0.05 as geo-context's [ours].

    Returns:
        Unit centers `(B, G, D)`, 0 where nothing is valid, and the assignment to the centers
        before their last move `(B, N, G)`: rows sum to 1, or are 0 where not valid.
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=-1).masked_fill(~valid[..., None], 0)
        centers = _distant_places(unit, valid, groups)
        weight = valid.float()
        for _ in range(iterations):
            assignment = balance(unit @ centers.transpose(1, 2), temperature, weight)  # (B, N, G)
            centers = F.normalize(assignment.transpose(1, 2) @ unit, dim=-1)
    return centers, assignment


def _distant_places(unit: Tensor, valid: Tensor, groups: int) -> Tensor:
    """The features `(B, G, D)` of places far from one another, of unit features `(B, N, D)`."""
    mean = F.normalize(unit.sum(1, keepdim=True), dim=-1)
    likeness = (unit * mean).sum(-1).masked_fill(~valid, torch.inf)  # (B, N)
    rows = torch.arange(len(unit), device=unit.device)
    chosen: list[Tensor] = []
    for _ in range(groups):
        found = unit[rows, likeness.argmin(1)]  # (B, D)
        to_found = (unit @ found[..., None]).squeeze(-1).masked_fill(~valid, torch.inf)
        likeness = torch.maximum(likeness, to_found) if chosen else to_found
        chosen.append(found)
    return torch.stack(chosen, 1)


@torch.no_grad()
def match_groups(a: Tensor, b: Tensor) -> Tensor:
    """The one-to-one assignment with the largest sum of cosines; exact, by trying all orders.

    Args:
        a: `(B, G, D)`.
        b: `(B, G, D)`.

    Returns:
        `(B, G)` int64, for each group of `a` its partner's place in `b`.

    Raises:
        ValueError: more than 8 groups.
    """
    groups = a.shape[1]
    if groups > MOST_GROUPS:
        raise ValueError(f"{groups} groups cannot be matched: ask for at most {MOST_GROUPS}")
    orders = _orders(groups).to(a.device)  # (G!, G)
    with torch.autocast(a.device.type, enabled=False):
        cosine = F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).transpose(1, 2)
        chosen = F.one_hot(orders, groups).flatten(1).float()  # (G!, G G)
        total = cosine.flatten(1) @ chosen.T  # (B, G!)
    return orders[total.argmax(1)]


@functools.cache
def _orders(groups: int) -> Tensor:
    """All orders of the groups, `(G!, G)`."""
    return torch.tensor(list(itertools.permutations(range(groups))))
