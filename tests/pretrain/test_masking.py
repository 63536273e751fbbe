"""The masked loss of a view: nothing leaks, nothing is computed that is not needed, it trains."""

import copy
import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

import skysense
from skysense.config import read_recipe
from skysense.engine.distributed import Ranks
from skysense.models.normalize import normalize
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.pretrain import objective as module
from skysense.pretrain.losses.masked import draw_hidden
from skysense.pretrain.masking import hide, predict_hidden, unfused_vectors
from skysense.pretrain.network import Network
from skysense.pretrain.objective import Objective
from skysense.pretrain.preparation import prepare
from skysense.pretrain.recipe import HeadConfig, LossConfig, Recipe
from skysense.pretrain.run import pretrain
from skysense.pretrain.views import ViewConfig, make_views
from skysense.pretrain.views.randomness import Draws
from skysense.sample import Sample, collate
from skysense.sensors import MODALITIES, get_sensor

HEADS = HeadConfig(codes=8, dense_codes=6, hidden=16, bottleneck=8, layers=2)
OFF = {"image": 0, "pixel": 0, "object": 0, "alignment": 0, "qsacl": 0, "load_balance": 0}
MASKED = LossConfig(**OFF, masked=1)
SMALL = {"depths": (1, 1, 1, 1), "fusion_depth": 1, "moe_blocks": 2}
BLOCK, SHARE = MASKED.masked_block, MASKED.masked_share
VIEWS = ViewConfig(
    drop_modality=0.3,
    local_count=2,
    hr={"global_size": 32, "local_size": 16},
    s2={"global_size": 20, "local_size": 8},  # the last blocks are cut
    s1={"global_size": 16, "local_size": 8},
)


def make_objective(encoder, config=MASKED):
    """A student with a teacher of its own."""
    torch.manual_seed(1)
    student = Network(copy.deepcopy(encoder), HEADS, config).requires_grad_(True)
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    return Objective(student, teacher, config)


@pytest.fixture(scope="module")
def encoders(shared):
    """Name to a model that is shared."""
    torch.manual_seed(0)
    v1 = SkySenseV1(V1_CONFIGS["v1_tiny"], "v1_tiny").eval()
    v1.trained = True
    return {"v2": shared("v2_tiny", **SMALL), "v1": v1}


@pytest.fixture(scope="module")
def samples(series):
    """Everything, hr of three bands alone, no hr, holes in all; s2 without some bands."""
    return [
        Sample({"hr": series("hr", 1, (32, 32)), "s2": series("s2", 2, (16, 16), 1)}),
        Sample({"hr": series("rgb8", 1, (24, 32), 2)}),
        Sample({"s2": series("s2", 3, (16, 16), 3), "s1": series("s1", 1, (16, 16), 4)}),
        Sample({
            "hr": series("hr", 1, (32, 32), 5, masked=0.4),
            "s2": series("landsat_c2_l2", 2, (16, 16), 6, masked=0.4),
            "s1": series("s1", 2, (16, 16), 7, masked=0.3),
        }),
    ]  # fmt: skip


def look(samples, order=None, step=7):
    """Views of samples, and the numbers, each of a sample's place in the batch."""
    positions = torch.arange(len(samples)) if order is None else torch.tensor(order)
    views = make_views(collate([samples[i] for i in positions]), VIEWS, 3, step, positions)
    draws = [Draws(3, step, view, positions) for view in range(VIEWS.global_count)]

    def choose(count, purpose="places"):
        return torch.cat([draw.uniform(purpose, count) for draw in draws])

    return views, choose


@pytest.fixture(scope="module")
def seen(samples):
    """Views of all samples, with the numbers."""
    return look(samples)


def hidden_of(key, part, choose):
    """Hidden pixels of a modality."""
    samples, dates, _, height, width = part.pixels.shape
    blocks = -(-height // BLOCK) * -(-width // BLOCK)
    choice = choose(dates * blocks, f"masked {key}")[:samples]
    return draw_hidden(choice, (dates, height, width), BLOCK, SHARE)


def test_hidden_pixels_are_the_mean_and_still_valid(seen):
    for key, part in seen[0].global_views[0].batch.modalities.items():
        hidden = hidden_of(key, part, seen[1])
        found = hide(part, hidden)

        before, after = normalize(part).movedim(2, -1), normalize(found).movedim(2, -1)
        assert not after[hidden].any()
        assert torch.equal(after[~hidden], before[~hidden])
        assert torch.equal(found.mask, part.mask)
        assert hidden.any()
        assert not hidden.all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["v2", "v1"])
def test_a_hidden_patch_is_the_same_token_everywhere(encoders, seen, name):
    for key, part in seen[0].global_views[0].batch.modalities.items():
        model = encoders[name]
        tokenizer = model.tokenizers[key] if name == "v2" else model.backbone(key).tokenizer
        hidden = hidden_of(key, part, seen[1]).flatten(0, 1)
        pixels = normalize(hide(part, hidden.view(part.mask.shape))).flatten(0, 1)
        tokens, _ = tokenizer(pixels, part.mask.flatten(0, 1))

        patches = hidden[:, :: tokenizer.patch, :: tokenizer.patch]
        nothing = tokenizer(torch.zeros(1, pixels.shape[1], 4, 4), None)[0][0, 0, 0]
        torch.testing.assert_close(tokens[patches], nothing.expand(int(patches.sum()), -1))
        assert (tokens[~patches] - nothing).abs().amax(-1).gt(1e-3).any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["v2", "v1"])
def test_the_loss_is_the_plain_loop(encoders, seen, name):
    made = make_objective(encoders[name]).eval()
    (views, choose), student = seen, made.student
    batch, total = views.global_views[0].batch, 0.0
    parts, hidden = {}, {}
    for key, part in batch.modalities.items():
        hidden[key] = hidden_of(key, part, choose)
        pixels = part.pixels.clone()
        for b, sensor in enumerate(part.sensors):
            card = get_sensor(sensor)
            for channel, band in zip(card.channels, card.bands, strict=True):
                pixels[b, :, channel][hidden[key][b]] = band.mean
        parts[key] = dataclasses.replace(part, pixels=pixels)
    features = student.encoder(dataclasses.replace(batch, modalities=parts))
    for key, part in batch.modalities.items():
        level, stride = features.pyramid[key][3], student.encoder.stride(key, 4)
        errors = []
        for b, t, r, c in (part.mask & hidden[key]).nonzero().tolist():
            cell = level.values[b, t, :, r // stride, c // stride]
            table = student.pixel_heads[key].proj(cell).view(-1, stride, stride)
            card = get_sensor(part.sensors[b])
            for channel, band in zip(card.channels, card.bands, strict=True):
                wanted = (part.pixels[b, t, channel, r, c] - band.mean) / band.std
                errors.append((table[channel, r % stride, c % stride] - wanted).abs())
        total += torch.stack(errors).mean()

    terms = made(views, choose, 0.05)

    assert set(terms.losses) == {"masked"}
    torch.testing.assert_close(terms.losses["masked"], total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(terms.total, total, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["v2", "v1"])
def test_what_is_hidden_cannot_be_seen(encoders, seen, name):
    network = Network(encoders[name], HEADS, MASKED)
    views, choose = seen
    batch = views.global_views[0].batch
    noise = {
        key: torch.where(
            hidden_of(key, part, choose).unsqueeze(2), 100 * torch.randn(part.pixels.shape), 0
        )
        for key, part in batch.modalities.items()
    }

    def changed(sign):
        return dataclasses.replace(batch, modalities={
            key: dataclasses.replace(part, pixels=part.pixels + sign * noise[key])
            for key, part in batch.modalities.items()
        })  # fmt: skip

    found = [predict_hidden(network, changed(s), choose, BLOCK, SHARE) for s in (0, 1)]

    assert found[0][0] != found[1][0]
    for key in MODALITIES:
        before, after = (features.pyramid[key][-1].values for _, features in found)
        assert torch.equal(before, after)
        unhidden = network.look_unfused(changed(1)).pyramid[key][-1].values
        assert not torch.allclose(before, unhidden)


def test_blocks_depend_on_the_place_in_the_batch_alone(encoders, samples):
    """Some samples in another order, as another rank has them, are hidden as they were."""
    views, choose = look(samples)
    order = (3, 0, 2)
    others, choose_others = look(samples, order)
    for key, part in views.global_views[0].batch.modalities.items():
        own = others.global_views[0].batch.modalities[key]
        hidden = hidden_of(key, part, choose)
        assert torch.equal(hidden_of(key, own, choose_others), hidden[list(order)])
        assert not torch.equal(hidden_of(key, part, look(samples, step=8)[1]), hidden)

    made = make_objective(encoders["v2"]).eval()
    expected = made(views, choose, 0.05).total
    torch.testing.assert_close(made(*look(samples, (2, 3, 0, 1)), 0.05).total, expected)


def test_gradients_reach_what_predicts(encoders, seen):
    made = make_objective(encoders["v2"])
    made(*seen, 0.05).total.backward()

    lacking = {name for name, p in made.student.named_parameters() if p.grad is None}
    unused = ("encoder.fusion.", "encoder.backbone.norms.")  # of the latter levels 1 to 3
    assert lacking
    assert all(name.startswith(unused) for name in lacking)
    assert "encoder.backbone.norms.3.weight" not in lacking
    assert all(p.grad is None for p in made.teacher.parameters())
    for key in MODALITIES:
        assert made.student.encoder.tokenizers[key].projection.bias.grad.any(), "the mask token"
        assert made.student.pixel_heads[key].proj.weight.grad.any()


def test_one_modality_trains_its_own_parts(encoders, samples):
    made = make_objective(encoders["v1"])
    views, choose = look(samples[1:2])
    made(views, choose, 0.05).total.backward()

    for key, head in made.student.pixel_heads.items():
        assert (head.proj.weight.grad is not None) == (key == "hr")


def test_alone_it_looks_at_one_view_and_needs_no_teacher(encoders, seen, samples):
    made = make_objective(encoders["v2"])
    calls = []

    def never(*_):
        raise AssertionError("computed")

    made.teacher.register_forward_pre_hook(never)
    made.teacher.encoder.register_forward_pre_hook(never)
    made.student.encoder.fusion.register_forward_pre_hook(never)
    made.student.encoder.register_forward_pre_hook(lambda _, batch: calls.append(len(batch[0])))
    terms = made(*seen, 0.05)

    assert calls == [len(samples)]
    assert terms.vectors.shape == (len(samples), 256)
    assert not terms.vectors.requires_grad
    assert terms.entropy == 0
    assert terms.total.requires_grad


@torch.no_grad()
def test_what_is_observed_is_the_mean_of_the_modalities(encoders, seen):
    for name in ("v2", "v1"):
        network = Network(encoders[name], HEADS, MASKED)
        features = network.look_unfused(seen[0].global_views[0].batch)
        vectors = unfused_vectors(network, features)

        rows = []
        for b in range(len(seen[0].global_views[0].batch)):
            found = []
            for key, levels in features.pyramid.items():
                mean, valid = levels[-1].over_dates()
                if valid[b].any():
                    found.append(network.adapters[key](mean[b][:, valid[b]].mean(1)))
            rows += [torch.stack(found).mean(0)] if found else []
        torch.testing.assert_close(vectors, torch.stack(rows))


def test_a_weight_of_zero_makes_and_computes_nothing(encoders, seen, monkeypatch):
    plain = make_objective(encoders["v2"], LossConfig(queries=3))
    assert not list(plain.student.pixel_heads.parameters())
    with monkeypatch.context() as patch:
        patch.setattr(module, "predict_hidden", None)
        expected = plain(*seen, 0.05)
    made = make_objective(encoders["v2"], LossConfig(queries=3, masked=0.5))
    found = made(*seen, 0.05)

    assert "masked" not in expected.losses
    assert list(found.losses) == [*expected.losses, "masked"]
    for name, loss in expected.losses.items():
        assert torch.equal(found.losses[name], loss), f"{name} is another beside it"
    torch.testing.assert_close(found.total, expected.total + 0.5 * found.losses["masked"])
    assert torch.equal(found.vectors, expected.vectors)
    alone = make_objective(encoders["v2"])
    alone.student.pixel_heads.load_state_dict(made.student.pixel_heads.state_dict())
    torch.testing.assert_close(alone(*seen, 0.05).total, found.losses["masked"])
    found.total.backward()
    fused = made.student.encoder.fusion.parameters()
    assert all(p.grad is not None for p in fused)


def test_experts_are_kept_busy(shared, seen):
    encoder = shared("v2_tiny_moe", **SMALL, experts=2)
    alone = make_objective(encoder, LossConfig(**{**OFF, "load_balance": 0.5}, masked=2))
    terms = alone(*seen, 0.05)

    assert set(terms.losses) == {"masked", "load_balance"}
    expected = 2 * terms.losses["masked"] + 0.5 * terms.losses["load_balance"]
    torch.testing.assert_close(terms.total, expected)
    assert terms.routing
    both = make_objective(encoder, LossConfig(queries=3, masked=1))(*seen, 0.05)
    without = make_objective(encoder, LossConfig(queries=3))(*seen, 0.05)
    torch.testing.assert_close(both.losses["load_balance"], without.losses["load_balance"])


ALONE = tuple(f"losses.{name}=0" for name in ("image", "pixel", "object", "alignment", "qsacl"))
ALONE += ("losses.masked=1",)


def test_blocks_that_do_not_fit_are_refused(recipe, root, tmp_path):
    with pytest.raises(ValueError, match=r"masked_block` is 16.*views\.s2\.global_size"):
        recipe(tmp_path, *ALONE, "losses.masked_block=16")
    recipe(tmp_path, "losses.masked_block=16")  # nobody asks
    recipe(tmp_path, *ALONE, "losses.masked_block=16", "data.modalities=[hr]")
    with pytest.raises(ValueError, match="less than 1"):
        recipe(tmp_path, "losses.masked_share=1")
    with pytest.raises(ValueError, match="there is nothing to learn from"):
        recipe(tmp_path, *ALONE, "losses.masked=0")
    for base in ("v2_tiny", "v1_tiny"):
        made = recipe(
            tmp_path, *ALONE, "losses.masked_block=6", "model_changes={}",
            base=f"recipes/pretrain/{base}.yaml",
        )  # fmt: skip
        with pytest.raises(ValueError, match="patches of 4: choose a multiple of 4"):
            prepare(made, Ranks())


def test_views_that_nobody_looks_at_are_not_drawn(recipe, tmp_path, samples):
    made = recipe(tmp_path, *ALONE)
    views = made.drawn_views
    assert (views.global_count, views.local_count) == (1, 0)
    assert recipe(tmp_path, *ALONE, "losses.koleo=0.1").drawn_views.global_count == 2
    assert recipe(tmp_path, "losses.masked=1").drawn_views.local_count == 2

    batch, positions = collate(samples), torch.arange(len(samples))
    one, all_of_them = (make_views(batch, v, 0, 3, positions) for v in (views, made.views))
    assert len(one.global_views) == 1
    for key, part in one.global_views[0].batch.modalities.items():
        assert torch.equal(part.pixels, all_of_them.global_views[0].batch.modalities[key].pixels)


def lines(folder):
    """What the log says of each step."""
    text = (folder / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if "loss" in line]


def test_a_run_of_it_alone(recipe, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("computed")

    monkeypatch.setattr(Network, "forward", never)
    outcome = pretrain(recipe(tmp_path / "run", *ALONE))
    start = prepare(recipe(tmp_path / "again", *ALONE), Ranks()).objective.student.encoder

    steps = lines(tmp_path / "run")
    assert len(steps) == 4
    assert steps[-1].keys() >= {"losses.masked", "seconds.masked", "feature_std", "effective_rank"}
    assert not {"losses.image", "losses.koleo", "seconds.teacher"} & steps[-1].keys()
    trained = skysense.load(outcome.model).state_dict()
    moved = {name for name, value in start.state_dict().items() if (value != trained[name]).any()}
    assert {"tokenizers.hr.projection.weight", "backbone.norms.3.weight"} <= moved


def test_beside_the_others_and_in_v1_it_runs_too(recipe, tmp_path):
    pretrain(recipe(tmp_path / "both", "steps=2", "losses.masked=1"))
    v1 = {"base": "recipes/pretrain/v1_tiny.yaml"}
    pretrain(recipe(tmp_path / "v1", "steps=2", "model_changes={}", *ALONE, **v1))

    assert {"losses.masked", "losses.image", "losses.qsacl"} <= lines(tmp_path / "both")[-1].keys()
    assert lines(tmp_path / "v1")[-1]["losses.masked"] > 0


def test_a_wider_stride_of_a_checkpoint_is_refused(recipe, tmp_path):
    pretrain(recipe(tmp_path, "steps=2", *ALONE))

    with pytest.raises(ValueError, match="does not fit"):
        pretrain(recipe(tmp_path, "steps=4", *ALONE, "schedule={s2: [merge, keep, keep]}"), "auto")


@pytest.mark.slow
def test_it_learns(recipe, tmp_path):
    """Better than the card's mean, which is where a fresh head starts."""
    pretrain(recipe(tmp_path, *ALONE, "steps=150", "optimizer.lr=3.0e-3", "save_every=150"))

    found = [line["losses.masked"] for line in lines(tmp_path)]
    assert sum(found[-20:]) / 20 < 0.9 * sum(found[:10]) / 10


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(root, shards, tmp_path):
    for mode, processes in (("one", 1), ("ddp", 2), ("fsdp", 2)):
        python = [sys.executable]
        if processes > 1:
            python += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
            python += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
        parallel = "ddp" if mode == "one" else mode
        settings = [f"data.shards=[{shards}]", f"output={tmp_path / mode}", "report=false"]
        settings += ["steps=4", "data.batch_size=4", "optimizer.warmup_steps=2", "device=cpu"]
        settings += [f"parallel={parallel}", *ALONE]
        command = [*python, "-m", "skysense", "pretrain", "recipes/pretrain/v2_tiny.yaml"]
        command += [part for setting in settings for part in ("--set", setting)]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
        subprocess.run(command, cwd=root, env=variables, check=True, timeout=300)

    one, *others = (
        torch.tensor([line["loss"] for line in lines(tmp_path / mode)])
        for mode in ("one", "ddp", "fsdp")
    )
    for other in others:
        torch.testing.assert_close(other, one, rtol=0, atol=1e-4)


def test_every_recipe_knows_it(root):
    for path in sorted((root / "recipes/pretrain").glob("*.yaml")):
        losses = read_recipe(Recipe, path).losses
        assert (losses.masked, losses.masked_block, losses.masked_share) == (0, 8, 0.6)
