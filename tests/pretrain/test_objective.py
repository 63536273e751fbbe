"""The objective against plain loops, what it may cost, what it must not depend on."""

import dataclasses
import functools
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skysense.models.geo_context import region_of
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.models.skysense_v2 import V2_CONFIGS, SkySenseV2
from skysense.pretrain import objective as module
from skysense.pretrain.labels import Labels
from skysense.pretrain.losses.object import object_pairs
from skysense.pretrain.network import FUSED, Network, stack_views
from skysense.pretrain.objective import Objective
from skysense.pretrain.recipe import HeadConfig, LossConfig
from skysense.pretrain.views import ViewConfig, make_views
from skysense.pretrain.views.randomness import Draws
from skysense.sample import Sample, collate
from skysense.sensors import MODALITIES

KEEP = ("keep", "keep", "keep")
HEADS = HeadConfig(codes=8, dense_codes=6, hidden=16, bottleneck=8, layers=2, standard=False)
VIEWS = ViewConfig(
    drop_modality=0.3,
    local_count=2,
    hr={"global_size": 16, "local_size": 8},  # 4 x 4 cells
    s2={"global_size": 12, "local_size": 8},  # 3 x 3 cells
    s1={"global_size": 8, "local_size": 4},  # 2 x 2 cells
)
OFF = {"image": 0, "pixel": 0, "object": 0, "alignment": 0, "qsacl": 0, "load_balance": 0}
SIZES = {"pixels": 16, "groups": 2, "queries": 3}
EVERYTHING = LossConfig(**SIZES, koleo=0.1)
COLD, WARM = 0.05, 0.1  # temperatures of teacher and student


@functools.cache
def encoder(name, seed, **changes):
    """A small model whose weights are all noise."""
    if name.startswith("v1"):
        made = SkySenseV1(V1_CONFIGS[name], name)
    else:
        small = {"depths": (1, 1, 1, 1), "fusion_depth": 1, "moe_blocks": 2}
        made = SkySenseV2(V2_CONFIGS[name].model_copy(update={**small, **changes}), name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    made.trained = True
    return made


def network(config, name="v2_tiny", seed=0, **changes):
    """An encoder with heads that are all noise."""
    schedule = {"hr": KEEP} if name.startswith("v2") else None
    made = Network(encoder(name, seed, **changes), HEADS, config, schedule)
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if not key.startswith("encoder."):  # the same whatever other heads there are
                generator = torch.Generator().manual_seed(zlib.crc32(f"{key} {seed}".encode()))
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return made


def objective(config=EVERYTHING, text=None, **options):
    """Student and a teacher of its own."""
    teacher = network(config, seed=5, **options).requires_grad_(False).eval()
    return Objective(network(config, **options).requires_grad_(True), teacher, config, text)


@pytest.fixture(scope="module")
def samples(series):
    """Five places: everything, hr alone, no hr, hr that is masked, holes in all."""
    place = {"location": (11.0, 48.0)}
    hr, s2, s1 = (functools.partial(series, key) for key in MODALITIES)
    return [
        Sample({"hr": hr(1, (32, 32), 1), "s2": s2(2, (16, 16), 2), "s1": s1(2, (16, 16), 3)}),
        Sample({"hr": hr(1, (24, 32), 4)}, **place),
        Sample({"s2": s2(3, (16, 16), 5), "s1": s1(1, (16, 16), 6)}, location=(-70.0, -30.0)),
        Sample({"hr": hr(1, (32, 32), 7, masked=1.0), "s1": s1(1, (16, 16), 8)}, **place),
        Sample({
            "hr": hr(1, (32, 32), 9, masked=0.45),
            "s2": s2(2, (12, 12), 10, masked=0.4),
            "s1": s1(2, (16, 16), 11, masked=0.3),
        }),
    ]  # fmt: skip


def look(samples, order=None, config=VIEWS):
    """Views of samples, and the numbers that draw places, each of a sample's place in the batch."""
    positions = torch.arange(len(samples)) if order is None else torch.tensor(order)
    views = make_views(collate([samples[i] for i in positions]), config, 3, 7, positions)
    draws = [Draws(3, 7, view, positions) for view in range(config.global_count)]
    return views, lambda count: torch.cat([draw.uniform("places", count) for draw in draws])


@pytest.fixture(scope="module")
def seen(samples):
    """Views of all samples, with the numbers."""
    return look(samples)


def sinkhorn(logits, weight):
    """Targets in balance, entry by entry as in SwAV, with a mass for each row."""
    mass = weight.double()[:, None]
    table = torch.where(mass > 0, (logits.double() / COLD).exp() * mass, 0)
    for _ in range(3):
        table = table / table.sum(0) * mass.sum() / table.shape[1]
        table = torch.where(mass > 0, table / table.sum(1, keepdim=True) * mass, 0)
    return torch.where(mass > 0, table / mass, 0)


def cross_entropy(logits, target):
    """Of one row."""
    return -(target * (logits.double() / WARM).log_softmax(0)).sum()


def mean_vector(values, valid):
    """Over valid cells, one after the other; `None` where there is none."""
    cells = [values[:, r, c] for r, c in valid.nonzero().tolist()]
    return torch.stack(cells).mean(0) if cells else None


def encode(made, views):
    """Stream to the maps of each view: `values, valid, cells` of B rows."""
    with torch.no_grad():
        encoded = made(stack_views([view.batch for view in views]))
    count = len(views[0].batch)
    return {
        key: [found.rows(i * count, (i + 1) * count) for i in range(len(views))]
        for key, found in encoded.maps.items()
    }


def kinds(maps):
    """Kind to its streams."""
    return {"modality": [key for key in MODALITIES if key in maps], "fused": [FUSED]}


@torch.no_grad()
def image_loop(made, views, samples):
    """Each view of the student with each other global view of the teacher."""
    total = 0.0
    student = [encode(made.student, views.global_views), encode(made.student, views.local_views)]
    teacher = encode(made.teacher, views.global_views)
    for kind, streams in kinds(teacher).items():
        taught = {
            (stream, b, g): mean_vector(own.values[b], own.valid[b])
            for stream in streams
            for g, own in enumerate(teacher[stream])
            for b in range(samples)
        }
        taught = {key: vector for key, vector in taught.items() if vector is not None}
        logits = made.teacher.image_heads[kind](torch.stack(list(taught.values())))
        table = sinkhorn(logits, torch.ones(len(logits)))
        targets = dict(zip(taught, table, strict=True))
        rows = []
        for stream in streams:
            for v, own in enumerate(student[0][stream] + student[1][stream]):
                for b in range(samples):
                    vector = mean_vector(own.values[b], own.valid[b])
                    others = [
                        target
                        for (name, row, g), target in targets.items()
                        if (name, row) == (stream, b) and g != v
                    ]
                    if vector is not None and others:
                        found = made.student.image_heads[kind](vector[None])[0]
                        rows.append(sum(cross_entropy(found, t) for t in others) / len(others))
        total += sum(rows) / len(rows)
    return total


def contrast_loop(made, kind, pairs):
    """Mean contrast of pairs of rows."""
    own, other = (torch.stack(list(side)) for side in zip(*pairs, strict=True))
    targets = sinkhorn(made.teacher.dense_heads[kind](other), torch.ones(len(other)))
    logits = made.student.dense_heads[kind](own)
    rows = [cross_entropy(a, b) for a, b in zip(logits, targets, strict=True)]
    return sum(rows) / len(rows)


def ground(view, row, cells):
    """`(n, n, 2)` where the cells of a square map have their centres: NumPy's own turning."""
    top, left, height, width = view.box[row].double().numpy()
    steps = (np.arange(cells) + 0.5) / cells
    table = np.stack(np.meshgrid(top + steps * height, left + steps * width, indexing="ij"), -1)
    turn = int(view.turn[row])
    table = np.rot90(table, turn % 4)
    return np.fliplr(table) if turn >= 4 else table


def bilinear(values, valid, place):
    """Feature at a place in cells, over valid cells alone, and how much of it is valid."""
    size = values.shape[-1]
    row, col = (min(max(x - 0.5, 0.0), size - 1.0) for x in place)
    total, cover = 0.0, 0.0
    for r in {int(row), min(int(row) + 1, size - 1)}:
        for c in {int(col), min(int(col) + 1, size - 1)}:
            share = (1 - abs(row - r)) * (1 - abs(col - c)) * float(valid[r, c])
            total, cover = total + share * values[:, r, c], cover + share
    return total, cover


def square(own, row):
    """A row's map and mask without padding."""
    side = int(own.cells[row, 0])
    return own.values[row, :, :side, :side], own.valid[row, :side, :side]


def same_places(view, after, own, other, row):
    """Pairs of features of a view's cells and of what the view after it has there."""
    (values, valid), (theirs, seen_there) = square(own, row), square(other, row)
    if not values.numel() or not theirs.numel():
        return
    side = theirs.shape[-1]
    corner = ground(after, row, 2)  # an affine map of cells, by three of its points
    steps = np.stack([corner[1, 0] - corner[0, 0], corner[0, 1] - corner[0, 0]], 1) / 0.5
    for r, c in valid.nonzero().tolist():
        here = ground(view, row, values.shape[-1])[r, c]
        there = np.linalg.solve(steps, here - corner[0, 0]) + 0.25  # in shares of the view
        if (there >= 0).all() and (there <= 1).all():
            feature, cover = bilinear(theirs, seen_there, there * side)
            if cover >= 0.5:
                yield values[:, r, c], feature / cover


@torch.no_grad()
def pixel_loop(made, views, samples):
    """Each cell of each global view, and the same place in the next one."""
    student, teacher = (encode(x, views.global_views) for x in (made.student, made.teacher))
    total, count = 0.0, len(views.global_views)
    for kind, streams in kinds(teacher).items():
        pairs = []
        for stream in streams:
            for i, view in enumerate(views.global_views):
                j = (i + 1) % count
                after, maps = views.global_views[j], (student[stream][i], teacher[stream][j])
                for row in range(samples):
                    pairs += same_places(view, after, *maps, row)
        total += contrast_loop(made, kind, pairs)
    return total


@torch.no_grad()
def object_loop(made, views, samples):
    """The groups of each sample by itself."""
    student, teacher = (encode(x, views.global_views) for x in (made.student, made.teacher))
    total, count = 0.0, len(views.global_views)
    for kind, streams in kinds(teacher).items():
        pairs = []
        for stream in streams:
            for i in range(count):
                own, other = student[stream][i], teacher[stream][(i + 1) % count]
                for row in range(samples):
                    some = [x.chosen(torch.tensor([row])).tokens() for x in (own, other)]
                    ours, theirs, weight = object_pairs(*some[0], *some[1], SIZES["groups"])
                    pairs += [*zip(ours, theirs, strict=True)] if weight.all() else []
        total += contrast_loop(made, kind, pairs)
    return total


@torch.no_grad()
def alignment_loop(made, views, samples):
    """Every two modalities of a view on the coarser of their grids, both ways."""
    student, teacher = (encode(x, views.global_views) for x in (made.student, made.teacher))
    pairs = []
    for a in MODALITIES:
        for b in MODALITIES:
            for i in range(len(views.global_views)):
                for row in range(samples if a != b else 0):
                    own, other = student[a][i], teacher[b][i]
                    side = int(min(own.cells[row, 0], other.cells[row, 0]))
                    if side:
                        first, second = (coarser(*square(x, row), side) for x in (own, other))
                        both = first[1] & second[1]
                        for r, c in both.nonzero().tolist():
                            pairs.append((first[0][:, r, c], second[0][:, r, c]))
    return contrast_loop(made, "modality", pairs)


def coarser(values, valid, side):
    """A map on another grid, by PyTorch's interpolation of what is valid."""
    size = functools.partial(F.interpolate, size=(side, side), mode="bilinear")
    share = size(valid[None, None].float())[0]
    return size((values * valid)[None])[0] / share.clamp(min=1e-6), share[0] >= 0.5 - 1e-6


@torch.no_grad()
def qsacl_loop(made, views, samples):
    """1 / (2 m) sum_i [CL(z_i^g, z_i^l') + CL(z_i^l, z_i^g')], each query in balance by itself.

    Of the local views one is looked at, with the first global view.
    """
    found = {}
    for name, net in (("student", made.student), ("teacher", made.teacher)):
        for scale in ("global", "local"):
            for v, own in enumerate(encode(net, getattr(views, f"{scale}_views"))[FUSED]):
                for row in range(samples):
                    tokens = [x[row : row + 1] for x in own.tokens()]
                    if tokens[1].any():
                        found[name, scale, v, row] = net.queries(*tokens)[0]  # (m, D)
    entropies = []
    for query in range(SIZES["queries"]):
        own, other = [], []
        for row in range(samples):
            ends = (("global", 0, row), ("local", 0, row))
            if all(("student", *end) in found for end in ends):
                for here, there in (ends, ends[::-1]):
                    own.append(found["student", *here][query])
                    other.append(found["teacher", *there][query])
        targets = made.teacher.dense_heads["fused"](torch.stack(other))
        targets = sinkhorn(targets, torch.ones(len(other)))
        logits = made.student.dense_heads["fused"](torch.stack(own))
        entropies += [cross_entropy(a, b) for a, b in zip(logits, targets, strict=True)]
    return sum(entropies) / len(entropies)


LOOPS = {
    "image": image_loop,
    "pixel": pixel_loop,
    "object": object_loop,
    "alignment": alignment_loop,
    "qsacl": qsacl_loop,
}


@pytest.fixture(scope="module")
def everything():
    return objective()


@pytest.fixture(scope="module")
def found(everything, seen):
    """All terms of all samples, once."""
    return everything(*seen, COLD)


def test_the_samples_try_everything(seen):
    views, _ = seen
    modalities = [view.batch.modalities for view in (*views.global_views, *views.local_views)]
    present = torch.stack([torch.stack([m[key].mask.flatten(1).any(1) for key in MODALITIES])
                           for m in modalities])  # fmt: skip
    assert not present[:, 0, 2:4].any(), "hr is absent and masked"
    some = present.any(0) & ~present.all(0)
    assert some.any(), "no view lacks a modality that another has"
    assert any(not m["hr"].mask[4].all() for m in modalities), "no holes"


@pytest.mark.parametrize("term", LOOPS)
def test_a_term_is_the_plain_loop(everything, seen, found, samples, term):
    expected = LOOPS[term](everything, seen[0], len(samples))

    assert found.losses[term].item() == pytest.approx(float(expected), abs=2e-4, rel=1e-5)


def test_the_total_is_the_weighted_sum(found):
    weights = EVERYTHING.model_dump()
    total = sum(weights[name] * loss for name, loss in found.losses.items())

    assert set(found.losses) == {*LOOPS, "koleo"}
    torch.testing.assert_close(found.total, total)


@pytest.mark.parametrize("term", [*LOOPS, "koleo"])
def test_a_term_alone_is_what_it_is_among_others(seen, found, term):
    alone = objective(LossConfig(**{**OFF, term: 2.0}, **SIZES))(*seen, COLD)

    assert set(alone.losses) == {term}
    torch.testing.assert_close(alone.losses[term], found.losses[term], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone.total, 2 * found.losses[term], rtol=1e-5, atol=1e-5)


def test_the_streams_add_up(seen, found):
    terms = ("image", "pixel", "object")
    weights = {**OFF, **dict.fromkeys(terms, 1.0)}
    parts = [
        objective(LossConfig(**weights, **SIZES, streams=[kind]))(*seen, COLD).losses
        for kind in ("modality", "fused")
    ]

    for term in terms:
        torch.testing.assert_close(
            parts[0][term] + parts[1][term], found.losses[term], rtol=1e-5, atol=1e-5
        )


def test_three_global_views(samples):
    views, choose = look(samples, config=VIEWS.model_copy(update={"global_count": 3}))
    made = objective()
    terms = made(views, choose, COLD)

    for term in LOOPS:
        expected = LOOPS[term](made, views, len(samples))
        assert terms.losses[term].item() == pytest.approx(float(expected), abs=2e-4, rel=1e-5)


def test_gradients_reach_the_student_alone(seen):
    made = objective(LossConfig(**SIZES, koleo=0.1))
    terms = made(*seen, COLD)
    terms.total.backward()

    lacking = {name for name, p in made.student.named_parameters() if p.grad is None}
    assert all(name.startswith("encoder.backbone.norms.") for name in lacking)  # levels 1 to 3
    assert all(p.grad is None for p in made.teacher.parameters())
    assert not terms.vectors.requires_grad
    assert not terms.entropy.requires_grad
    assert not any("teacher" in name for name, _ in made.named_parameters())
    made.student.zero_grad(set_to_none=True)


@pytest.mark.parametrize("config", [LossConfig(**SIZES), LossConfig(**{**SIZES, "pixels": 2})])
def test_the_order_of_samples_changes_nothing(samples, config):
    made = objective(config)
    expected = made(*look(samples), COLD)
    found = made(*look(samples, (3, 0, 4, 2, 1)), COLD)

    for name, loss in expected.losses.items():
        torch.testing.assert_close(found.losses[name], loss, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("term", "calls"),
    [
        ("image", ["image_contrast"]),
        ("pixel", ["pair_pixels"]),
        ("object", ["pair_objects"]),
        ("alignment", ["align_modalities"]),
        ("qsacl", ["pair_queries"]),
        ("koleo", ["koleo"]),
    ],
)
def test_a_weight_of_zero_computes_nothing(seen, monkeypatch, term, calls):
    def never(*_):
        raise AssertionError("computed")

    for name in calls:
        monkeypatch.setattr(module, name, never)
    others = objective(LossConfig(**{**SIZES, "koleo": 0.1, term: 0}))
    assert term not in others(*seen, COLD).losses
    with pytest.raises(AssertionError, match="computed"):
        objective(LossConfig(**{**OFF, **SIZES, term: 1.0}))(*seen, COLD)


def test_the_networks_look_no_more_than_they_must(seen, samples):
    calls = []

    def count(name):
        return lambda _, arguments: calls.append((name, len(arguments[0])))

    b = len(samples)
    for weight, expected in ((0, 2 * b), (1, 2 * b + b)):
        calls.clear()
        made = objective(LossConfig(**{**SIZES, "qsacl": weight}))
        made.teacher.register_forward_pre_hook(count("teacher"))
        made.student.register_forward_pre_hook(count("student"))
        made(*seen, COLD)
        assert sum(n for name, n in calls if name == "student") == 4 * b
        assert sum(n for name, n in calls if name == "teacher") == expected


def test_one_modality(samples):
    views, choose = look(samples[1:2])
    terms = objective()(views, choose, COLD)

    assert terms.losses["alignment"] == 0
    assert terms.total.isfinite()
    terms.total.backward()


def test_one_sample_of_which_each_view_lacks_another_modality(samples):
    config = VIEWS.model_copy(update={"drop_modality": 0.9})
    made = objective()
    for step in range(4):
        positions = torch.tensor([0])
        views = make_views(collate(samples[:1]), config, 1, step, positions)
        terms = made(views, lambda count: torch.rand(2, count), COLD)
        assert terms.total.isfinite()
        terms.total.backward()


def test_what_a_masked_row_holds_is_never_looked_at(samples):
    made = objective()
    expected = made(*look(samples), COLD)
    series = samples[3].series["hr"]
    other = dataclasses.replace(series, pixels=series.pixels + 100)
    changed = [*samples[:3], Sample({**samples[3].series, "hr": other}, (11.0, 48.0)), samples[4]]
    found = made(*look(changed), COLD)

    torch.testing.assert_close(found.total, expected.total, rtol=1e-5, atol=1e-5)


def text_loss(labels, seen, weight=1.0):
    torch.manual_seed(0)
    config = LossConfig(**{**OFF, "text": weight}, **SIZES)
    made = objective(config, torch.randn(4, 10))
    return made, made(*seen, COLD, labels)


def test_text_with_labels(seen, samples):
    classes = torch.randint(0, 4, (len(samples), 8, 8), generator=torch.Generator().manual_seed(0))
    classes[1] = -1
    sizes = torch.full((len(samples), 2), 8)
    made, terms = text_loss(Labels(classes, sizes), seen)

    rows, views = [], seen[0].global_views
    with torch.no_grad():
        maps = encode(made.student, views)[FUSED]
        names = F.normalize(made.text, dim=-1)
        for view, own in zip(views, maps, strict=True):
            for b in range(len(samples)):
                values, valid = square(own, b)
                for r, c in valid.nonzero().tolist():
                    row, col = (ground(view, b, values.shape[-1])[r, c] * 8).astype(int)
                    label = int(classes[b, row, col])
                    if label >= 0:
                        unit = F.normalize(made.text_alignment.proj(values[:, r, c]), dim=0)
                        logits = names @ unit / 0.07
                        rows.append(-logits.log_softmax(0)[label])
    torch.testing.assert_close(terms.losses["text"], torch.stack(rows).mean(), rtol=1e-4, atol=1e-4)


def test_text_without_labels_is_zero_and_no_error(seen, samples):
    unknown = Labels(torch.full((len(samples), 8, 8), -1), torch.full((len(samples), 2), 8))
    none = Labels(torch.full((len(samples), 1, 1), -1), torch.zeros(len(samples), 2).long())
    for labels in (None, unknown, none):
        made, terms = text_loss(labels, seen)
        assert terms.losses["text"] == 0
        terms.total.backward()
        assert not made.text_alignment.proj.weight.grad.any()


def test_centering(seen):
    made = objective(LossConfig(**SIZES, targets="centering"))
    assert not any(key.startswith("teacher") for key in made.state_dict())
    made.eval()
    first = made(*seen, COLD).losses
    assert not any(center.center.any() for center in made.centers.values())
    made.train()
    second = made(*seen, COLD).losses
    third = made(*seen, COLD).losses

    used = {"image_modality", "image_fused", "alignment_modality", "qsacl_fused"}
    used |= {f"{term}_{kind}" for term in ("pixel", "object") for kind in ("modality", "fused")}
    moved = {name for name, center in made.centers.items() if center.center.any()}
    assert moved == used
    for name in LOOPS:
        assert first[name] == second[name]
        assert third[name] != second[name]


def test_v1(seen):
    made = objective(name="v1_tiny")
    terms = made(*seen, COLD)
    terms.total.backward()

    assert terms.total.isfinite()
    widths = {key: made.student.encoder.level_width(key, 4) for key in MODALITIES}
    for key, adapter in made.student.adapters.items():
        same = widths[key] == widths["hr"]
        assert not list(adapter.parameters()) if same else adapter.weight.grad.any()
    made.student.zero_grad(set_to_none=True)


def test_experts_are_kept_busy(seen):
    config = LossConfig(**{**OFF, "image": 1.0, "load_balance": 0.5}, **SIZES)
    made = objective(config, name="v2_tiny_moe", experts=2)
    terms = made(*seen, COLD)
    with torch.no_grad():
        batch = stack_views([view.batch for view in seen[0].global_views])
        routing = made.student(batch).routing
    expected = torch.stack([own.load_balance for own in routing.values()]).mean()

    torch.testing.assert_close(terms.losses["load_balance"], expected)
    torch.testing.assert_close(terms.total, terms.losses["image"] + 0.5 * expected)
    assert set(terms.routing) == set(routing)
    for share in terms.routing.values():
        assert share.sum().item() == pytest.approx(1)


def test_prototypes_follow_the_teacher_without_gradient(seen, samples):
    config = LossConfig(**{**OFF, "image": 1.0}, **SIZES, geo_momentum=0.5)
    made = objective(config, geo_regions=16, geo_prototypes=3)
    bank = made.student.encoder.geo_context
    before = bank.prototypes.clone()
    theirs = made.teacher.encoder.geo_context.prototypes.clone()
    made(*seen, COLD).total.backward()

    places = torch.tensor([sample.location for sample in samples if sample.location])
    moved = (bank.prototypes != before).flatten(1).any(1).nonzero().flatten().tolist()
    assert moved == sorted(set(region_of(places, 16).tolist()))
    assert bank.prototypes.isfinite().all()
    assert not bank.prototypes.requires_grad
    assert torch.equal(made.teacher.encoder.geo_context.prototypes, theirs)
    bank.prototypes.copy_(before)
