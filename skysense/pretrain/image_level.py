"""Image level of MGCL: every view of the student against the other global views of the teacher.

Legend: B samples, G global views, V all views, R rows of all streams of a kind, D width, K codes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skysense.pretrain.losses.contrast import contrast
from skysense.pretrain.losses.image import image_vectors
from skysense.pretrain.network import FeatureMap

Targets = Callable[[Tensor, Tensor], Tensor]
"""Logits `(N, K)` and weights `(N,)` to targets `(N, K)`."""


def view_vectors(
    maps: Sequence[Sequence[FeatureMap]], samples: int, kept: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Image vectors by view, of the samples that have a stream, streams side by side.

    Args:
        maps: for each stream its maps, each of some views after one another.
        samples: B.
        kept: for each stream which samples `(B,)` have it.

    Returns:
        `(V, R, D)` and their presence `(V, R)` as 0 or 1.
    """
    vectors, present = [], []
    for stream, chosen in zip(maps, kept, strict=True):
        found = [image_vectors(own.values, own.valid) for own in stream]
        mean, seen = (torch.cat(x) for x in zip(*found, strict=True))  # (V B, D), (V B,)
        vectors.append(mean.unflatten(0, (-1, samples))[:, chosen])
        present.append(seen.unflatten(0, (-1, samples))[:, chosen])
    return torch.cat(vectors, 1), torch.cat(present, 1).float()


def other_views(targets: Tensor, weight: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """The mean target of the teacher's views other than one's own.

    Cross-entropy is linear in its target, so that the mean of targets gives the mean of the losses.

    Args:
        targets: `(G, R, K)`.
        weight: `(G, R)`, 0 where the teacher saw nothing.
        views: V; the first G of them are the global ones.

    Returns:
        `(V, R, K)` and `(V, R)`, how many targets there are.
    """
    count = targets.shape[0]
    weighed = targets * weight[..., None]
    total, number = weighed.sum(0), weight.sum(0)  # (R, K), (R,)
    others = torch.cat([total - weighed, total.expand(views - count, -1, -1)])
    numbers = torch.cat([number - weight, number.expand(views - count, -1)])
    return others / numbers.clamp(min=1)[..., None], numbers


def image_contrast(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    heads: tuple[torch.nn.Module, torch.nn.Module],
    targets_of: Targets,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """The image level of one kind of features.

    Args:
        student: vectors `(V, R, D)` and presence `(V, R)` of `view_vectors`.
        teacher: the same of the G global views.
        heads: of student and teacher.
        targets_of: makes targets of the teacher's logits.
        temperature: of the student.

    Returns:
        The loss, and the mean entropy of the targets.
    """
    vectors, present = student
    taught, weight = teacher
    with torch.no_grad():
        asked = heads[1](taught.flatten(0, 1), weight.flatten())
        targets = targets_of(asked, weight.flatten())
        entropy = -(targets * targets.clamp(min=1e-12).log()).sum(-1)
        entropy = (entropy * weight.flatten()).sum() / weight.sum().clamp(min=1)
        mixed, number = other_views(targets.unflatten(0, taught.shape[:2]), weight, len(vectors))
        kept = present * (number > 0)
    logits = heads[0](vectors.flatten(0, 1), present.flatten())
    return contrast(logits, mixed.flatten(0, 1), temperature, kept.flatten()), entropy
