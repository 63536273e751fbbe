"""The whole objective: views to losses, student against teacher.

Legend: B samples of this rank, G global views, L local views, D width, K codes, E experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from skysense.engine.clock import Clock
from skysense.layers.moe import RouterStatistics
from skysense.pretrain.dense import (
    DenseRows,
    align_modalities,
    pair_objects,
    pair_pixels,
    pair_queries,
)
from skysense.pretrain.image_level import (
    image_contrast,
    instance_level,
    variance_level,
    view_vectors,
)
from skysense.pretrain.labels import Labels, label_rows
from skysense.pretrain.losses.contrast import Centering, CodeHead, contrast, sinkhorn_targets
from skysense.pretrain.losses.image import image_vectors
from skysense.pretrain.losses.koleo import koleo
from skysense.pretrain.losses.prototypes import update_prototypes
from skysense.pretrain.losses.text_alignment import DenseTextAlignment
from skysense.pretrain.masking import predict_hidden, unfused_vectors
from skysense.pretrain.network import FUSED, Encoded, FeatureMap, Network, stack_views
from skysense.pretrain.recipe import LossConfig
from skysense.pretrain.views import Views
from skysense.pretrain.views.randomness import Choose
from skysense.sensors import MODALITIES


@dataclass(frozen=True)
class Terms:
    """What a step found."""

    total: Tensor
    """Scalar to minimize: the weighted sum of `losses`."""
    losses: Mapping[str, Tensor]
    """Each loss that has a weight, before it is weighted."""
    vectors: Tensor
    """`(G B, D)` the teacher's fused image vectors, for what is observed; of the masked loss alone
    `(B, D)` the student's, not fused. Samples without anything valid are left out."""
    entropy: Tensor
    """Mean entropy of the image level's targets, in nats; 0 where there is none."""
    routing: Mapping[str, Tensor]
    """Share of the tokens that each expert got, `(E,)`, by modality and block."""


@dataclass(frozen=True)
class _Pass:
    """What one network says of the views."""

    whole: Encoded
    """Of the global views, `G B` rows."""
    local: Encoded | None
    """Of the local views, `L B` rows (of the teacher: of those that QSACL looks at)."""


class Objective(nn.Module):
    """MGCL, cross-modal alignment, QSACL, ITA, KoLeo, load balance, GCPL; or masked pixels.

    Source: docs/sources.md 14. The student is a submodule, the teacher is not: it is neither
    trained nor wrapped with what is.
    """

    def __init__(
        self, student: Network, teacher: Network, config: LossConfig, text: Tensor | None = None
    ) -> None:
        """Join student and teacher.

        Args:
            student: trained.
            teacher: its EMA copy.
            config: weights of the losses.
            text: `(C, E)` embeddings of the class names of the shards; needed for ITA.
        """
        super().__init__()
        self.student = student
        self._teacher = (teacher,)  # in a tuple it is no submodule
        self.config = config
        self.clock = Clock()
        self.centers = nn.ModuleDict()
        self.text: Tensor | None
        self.register_buffer("text", text, persistent=False)
        self.text_alignment: DenseTextAlignment | None = None
        if config.text:
            assert text is not None
            width = student.encoder.fused_width
            self.text_alignment = DenseTextAlignment(width, text.shape[1])
        if config.targets == "centering":
            self._make_centers()

    def _make_centers(self) -> None:
        """A center for each term and kind of features."""
        for kind, head in self.student.image_heads.items():
            assert isinstance(head, CodeHead)
            self.centers[f"image_{kind}"] = Centering(head.codes)
        for kind, head in self.student.dense_heads.items():
            assert isinstance(head, CodeHead)
            for term in ("pixel", "object", "alignment", "qsacl"):
                self.centers[f"{term}_{kind}"] = Centering(head.codes)

    @property
    def teacher(self) -> Network:
        """The EMA copy."""
        return self._teacher[0]

    def forward(
        self, views: Views, choose: Choose, temperature: float, labels: Labels | None = None
    ) -> Terms:
        """Losses of a batch.

        Args:
            views: of all samples.
            choose: gives the uniform numbers by which places and blocks of the views are drawn.
            temperature: of the teacher's targets.
            labels: classes of the ground, for ITA.

        Returns:
            The terms; their gradients reach the student alone.
        """
        if not self.config.masked:
            return self._compare(views, choose, temperature, labels)
        masked = self._predict(views, choose)
        if self.config.masked_alone:
            return masked
        terms = self._compare(views, choose, temperature, labels)
        losses = {**terms.losses, **masked.losses}
        return replace(terms, total=terms.total + masked.total, losses=losses)

    def _predict(self, views: Views, choose: Choose) -> Terms:
        """The masked loss, of a pass of its own over the first global view.

        The other losses are what they are without it. Alone, it keeps the experts busy too; the
        prototypes of the geo-context, which follow a teacher, then stay where they are.
        """
        config, batch = self.config, views.global_views[0].batch
        with self.clock.part("masked"):
            blocks = (config.masked_block, config.masked_share)
            loss, features = predict_hidden(self.student, batch, choose, *blocks)
            losses = {"masked": loss}
            if config.masked_alone and config.load_balance and features.routing:
                losses["load_balance"] = _load_balance(features.routing)
            vectors = unfused_vectors(self.student, features)
            shares = {name: found.fraction for name, found in features.routing.items()}
            return Terms(self._total(losses), losses, vectors, loss.new_zeros(()), shares)

    def _compare(
        self, views: Views, choose: Choose, temperature: float, labels: Labels | None
    ) -> Terms:
        """All losses but the masked one; where none asks a teacher, the student stands in."""
        with self.clock.part("student"):
            seen = self._look(views)
        with self.clock.part("teacher"):
            taught = (
                self._teach(views) if self.config.taught else _Pass(seen.whole.detached(), None)
            )
        with self.clock.part("losses"):
            return self._contrast(views, seen, taught, choose, temperature, labels)

    def _contrast(
        self,
        views: Views,
        seen: _Pass,
        taught: _Pass,
        choose: Choose,
        temperature: float,
        labels: Labels | None,
    ) -> Terms:
        """All losses of what both networks found."""
        config, samples = self.config, len(views.global_views[0].batch)
        losses: dict[str, Tensor] = {}
        entropy = taught.whole.maps[FUSED].values.new_zeros(())
        if config.image:
            losses["image"], entropy = self._image(seen, taught, samples, temperature)
        losses.update(self._dense(self._rows(views, seen, taught, choose), temperature))
        if self.text_alignment is not None and self.text is not None:
            features, found = label_rows(views.global_views, seen.whole.maps[FUSED], labels)
            losses["text"] = self.text_alignment(features, found, self.text)
        if config.koleo:
            losses["koleo"] = _koleo(seen.whole.maps[FUSED], samples)
        passes = [part for part in (seen.whole, seen.local) if part]
        if config.instance:
            losses["instance"] = instance_level(
                self.student.instance_heads, passes, samples, config.instance_temperature
            )
        if config.variance:
            losses["variance"] = variance_level(
                self.student.part_widths, passes, config.least_spread
            )
        routing = seen.whole.routing
        if config.load_balance and routing:
            losses["load_balance"] = _load_balance(routing)
        self._move_prototypes(views, taught)
        fused = taught.whole.maps[FUSED]
        vectors, present = image_vectors(fused.values, fused.valid)
        shares = {name: found.fraction for name, found in taught.whole.routing.items()}
        return Terms(self._total(losses), losses, vectors[present], entropy, shares)

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return torch.stack(
            [getattr(self.config, name) * loss for name, loss in losses.items()]
        ).sum()

    @torch.no_grad()
    def _teach(self, views: Views) -> _Pass:
        """The teacher's features of the global views, and of the local ones that QSACL needs."""
        whole = self.teacher(stack_views([view.batch for view in views.global_views]))
        if not self.config.qsacl:
            return _Pass(whole, None)
        chosen = views.local_views[: self.config.query_locals]
        return _Pass(whole, self.teacher(stack_views([view.batch for view in chosen])))

    def _look(self, views: Views) -> _Pass:
        """The student's features of all views."""
        whole = self.student(stack_views([view.batch for view in views.global_views]))
        if not views.local_views:
            return _Pass(whole, None)
        return _Pass(whole, self.student(stack_views([view.batch for view in views.local_views])))

    def _image(
        self, seen: _Pass, taught: _Pass, samples: int, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Image level of all kinds of features: the sum of the losses, the mean entropy."""
        losses, entropies = [], []
        for kind, head in self.student.image_heads.items():
            streams = _streams(taught.whole, kind)
            ours = [[part.maps[s] for part in (seen.whole, seen.local) if part] for s in streams]
            theirs = [[taught.whole.maps[stream]] for stream in streams]
            kept = [
                own[0].valid.flatten(1).any(1).unflatten(0, (-1, samples)).any(0) for own in theirs
            ]

            def targets(logits: Tensor, weight: Tensor, kind: str = kind) -> Tensor:
                return self._targets(f"image_{kind}", logits, weight, temperature)

            loss, entropy = image_contrast(
                view_vectors(ours, samples, kept),
                view_vectors(theirs, samples, kept),
                (head, self.teacher.image_heads[kind]),
                targets,
                self.config.student_temperature,
            )
            losses.append(loss)
            entropies.append(entropy)
        return torch.stack(losses).sum(), torch.stack(entropies).mean()

    def _rows(self, views: Views, seen: _Pass, taught: _Pass, choose: Choose) -> list[DenseRows]:
        """Pairs of rows of every dense term that has a weight."""
        config, samples = self.config, len(views.global_views[0].batch)
        rows: list[DenseRows] = []
        ours, theirs = seen.whole.maps, taught.whole.maps
        choice = choose(max(max(own.shape) for own in ours.values()) ** 2)
        for kind in config.streams:
            for stream in _streams(taught.whole, kind):
                pair = (ours[stream], theirs[stream])
                if config.pixel:
                    rows.append(pair_pixels(kind, views.global_views, *pair, config.pixels, choice))
                if config.object:
                    rows.append(pair_objects(kind, samples, *pair, config.groups))
        if config.alignment:
            rows += align_modalities(ours, theirs, config.pixels, choice)
        if config.qsacl:
            assert seen.local is not None
            assert taught.local is not None
            assert self.student.queries is not None
            assert self.teacher.queries is not None
            rows += pair_queries(
                (self.student.queries, ours[FUSED], seen.local.maps[FUSED]),
                (self.teacher.queries, theirs[FUSED], taught.local.maps[FUSED]),
                samples,
            )
        return rows

    def _dense(self, rows: list[DenseRows], temperature: float) -> dict[str, Tensor]:
        """Losses of the dense terms: all rows of a kind go through its head at once."""
        losses: dict[str, Tensor] = {}
        for kind, head in self.student.dense_heads.items():
            own = [row for row in rows if row.kind == kind]
            if not own:
                continue
            sizes = [len(row.student) for row in own]
            teacher = self.teacher.dense_heads[kind]
            assert isinstance(head, CodeHead)
            assert isinstance(teacher, CodeHead)
            ours = head.mlp(torch.cat([row.student for row in own])).split(sizes)
            with torch.no_grad():
                theirs = teacher.mlp(torch.cat([row.teacher for row in own])).split(sizes)
            for term in dict.fromkeys(row.term for row in own):
                some = [i for i, row in enumerate(own) if row.term == term]
                found = [torch.cat([x[i] for i in some]) for x in (ours, theirs)]
                weight = torch.cat([own[i].weight for i in some])
                loss = self._dense_term(
                    f"{term}_{kind}", (head, teacher), found, weight, temperature
                )
                losses[term] = losses[term] + loss if term in losses else loss
        return losses

    def _dense_term(
        self,
        name: str,
        heads: tuple[CodeHead, CodeHead],
        found: Sequence[Tensor],
        weight: Tensor,
        temperature: float,
    ) -> Tensor:
        """One dense term: of student and teacher the bottleneck's vectors `(N, bottleneck)`.

        Each query of QSACL is compared and balanced by itself: otherwise a code of its own for
        each query, whatever it sees, would be a perfect answer [ours].
        """
        ours, theirs = found
        if name.startswith("qsacl"):
            assert self.student.queries is not None
            count = len(self.student.queries.queries)
            ours, theirs, weight = (
                x.unflatten(0, (-1, count)).transpose(0, 1) for x in (ours, theirs, weight)
            )  # (m, N / m, ...)
        with torch.no_grad():
            target = self._targets(name, heads[1].compare(theirs, weight), weight, temperature)
        student = heads[0].compare(ours, weight).flatten(0, -2)
        target = target.flatten(0, -2)
        return contrast(student, target, self.config.student_temperature, weight.flatten())

    @torch.no_grad()
    def _targets(self, name: str, logits: Tensor, weight: Tensor, temperature: float) -> Tensor:
        """What the teacher asks for, `(..., N, K)`."""
        if name not in self.centers:
            return sinkhorn_targets(logits, temperature, weight)
        flat = logits.flatten(0, -2)
        targets: Tensor = self.centers[name](flat, temperature, weight.flatten())
        return targets.view_as(logits)

    @torch.no_grad()
    def _move_prototypes(self, views: Views, taught: _Pass) -> None:
        """GCPL: the prototypes of student and teacher follow the teacher's fused features."""
        bank = self.student.encoder.geo_context
        if bank is None:
            return
        fused = taught.whole.maps[FUSED]
        own = bank.prototypes.shape[-1]  # what comes after it is the context itself
        location = torch.cat([view.batch.location for view in views.global_views])
        update_prototypes(
            bank,
            fused.values[:, :own].permute(0, 2, 3, 1),
            fused.valid,
            location,
            self.config.geo_momentum,
        )


def _streams(encoded: Encoded, kind: str) -> list[str]:
    """The streams of a kind of features."""
    if kind == FUSED:
        return [FUSED]
    return [key for key in MODALITIES if key in encoded.maps]


def _koleo(fused: FeatureMap, samples: int) -> Tensor:
    """KoLeo of each view apart: the nearest row of all would be the same image's other view."""
    vectors, present = image_vectors(fused.values, fused.valid)
    views = zip(vectors.split(samples), present.split(samples), strict=True)
    return torch.stack([koleo(own, here) for own, here in views]).mean()


def _load_balance(routing: Mapping[str, RouterStatistics]) -> Tensor:
    """Mean over the blocks of Switch Transformer's auxiliary loss."""
    return torch.stack([found.load_balance for found in routing.values()]).mean()
