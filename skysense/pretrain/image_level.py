"""Image level of MGCL: every view of the student against the other global views of the teacher.

Beside it the instance level and the variance term, of the student alone.

Legend: B samples, G global views, V all views, R rows of all streams of a kind, D width, K codes.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from skysense.engine.distributed import sum_over_ranks, world_size
from skysense.pretrain.losses.contrast import contrast
from skysense.pretrain.losses.image import image_vectors
from skysense.pretrain.losses.instance import InstanceHead, instance_loss
from skysense.pretrain.losses.variance import variance_loss
from skysense.pretrain.network import FUSED, Encoded, FeatureMap

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


def instance_level(
    heads: nn.ModuleDict, passes: Sequence[Encoded], samples: int, temperature: float
) -> Tensor:
    """Instance discrimination on every part of every modality's vector.

    Each modality by itself, for between two of them their difference would be all there is to see;
    a modality counts by how many rows show it [ours].

    Args:
        heads: modality to a head for each part.
        passes: what the student says of the global and of the local views.
        samples: B.
        temperature: of the softmax.

    Returns:
        Scalar: the mean over the parts, and over the rows of all modalities.
    """
    own = {key: [_instance_head(head) for head in heads[key].children()] for key in heads}
    widths = {key: [head.first.in_features for head in found] for key, found in own.items()}

    def term(key: str, parts: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        pairs = zip(own[key], parts, strict=True)
        return [
            instance_loss(head(part, present), present, samples, temperature)
            for head, part in pairs
        ]

    return _over_modalities(term, widths, passes)


def variance_level(
    widths: Mapping[str, Sequence[int]], passes: Sequence[Encoded], least: float
) -> Tensor:
    """The variance term on the means of every level and of the fused map, of each modality.

    Args:
        widths: modality to the widths of its parts, each of means and as many spreads.
        passes: what the student says of the global and of the local views.
        least: standard deviation over the rows that is enough.

    Returns:
        Scalar: the mean over the parts, and over the rows of all modalities.
    """

    def term(key: str, parts: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        means = [part[:, : part.shape[1] // 2] for part in parts]
        return [variance_loss(mean, present, least) for mean in means]

    return _over_modalities(term, widths, passes)


def _over_modalities(
    term: Callable[[str, Sequence[Tensor], Tensor], list[Tensor]],
    widths: Mapping[str, Sequence[int]],
    passes: Sequence[Encoded],
) -> Tensor:
    """Mean of a term over the parts, and over the rows of all modalities."""
    losses, shares = [], []
    for key, own in widths.items():
        if world_size() == 1 and not any(key in found.parts for found in passes):
            continue  # of several ranks another may have it, and all exchange the same
        parts, present = _rows(own, passes, key)
        losses.append(torch.stack(term(key, parts, present)).mean())
        shares.append(sum_over_ranks(present.sum()))
    share = torch.stack(shares)
    return (torch.stack(losses) * share).sum() / share.sum().clamp(min=1)


def _instance_head(head: nn.Module) -> InstanceHead:
    """A head, by its type."""
    assert isinstance(head, InstanceHead)
    return head


def _rows(
    widths: Sequence[int], passes: Sequence[Encoded], key: str
) -> tuple[list[Tensor], Tensor]:
    """The parts `(V B, D)` of a modality over all passes, and which rows are there `(V B,)`."""
    parts: list[list[Tensor]] = [[] for _ in widths]
    present = []
    for found in passes:
        rows = len(found.maps[FUSED].valid)
        if key in found.parts:
            present.append(found.maps[key].valid.flatten(1).any(1).float())
            for all_of, part in zip(parts, found.parts[key], strict=True):
                all_of.append(part)
        else:
            some = found.maps[FUSED].values
            # With a graph: in the backward pass all ranks must exchange the same.
            nothing = some.flatten(1).sum(1, keepdim=True) * 0  # (V B, 1)
            present.append(some.new_zeros(rows))
            for all_of, width in zip(parts, widths, strict=True):
                all_of.append(nothing.expand(-1, width))
    return [torch.cat(part) for part in parts], torch.cat(present)
