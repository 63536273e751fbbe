"""Encoder, heads, queries: which are made, what they say, and the blocks they consist of."""

import copy

import pytest
import torch

from skysense.engine.parallel import ema_update
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.pretrain.network import FUSED, FeatureMap, Network, blocks_of, stack_views
from skysense.pretrain.recipe import HeadConfig, LossConfig
from skysense.sample import Sample, collate
from skysense.sensors import MODALITIES

HEADS = HeadConfig(codes=8, dense_codes=6, hidden=16, bottleneck=8, layers=2)
OFF = {"image": 0, "pixel": 0, "object": 0, "alignment": 0, "qsacl": 0}
SMALL = {"depths": (1, 1, 1, 1), "fusion_depth": 1, "moe_blocks": 2}


@pytest.fixture(scope="module")
def encoders(shared):
    """Name to a model that is shared."""
    v1 = SkySenseV1(V1_CONFIGS["v1_tiny"], "v1_tiny").eval()
    v1.trained = True
    return {"v2": shared("v2_tiny", **SMALL), "v1": v1}


@pytest.fixture(scope="module")
def batch(series):
    """Everything, hr alone, no hr."""
    return collate([
        Sample({
            "hr": series("hr", 1, (32, 32)),
            "s2": series("s2", 2, (16, 16), 1),
            "s1": series("s1", 2, (16, 16), 2, masked=0.3),
        }),
        Sample({"hr": series("hr", 1, (32, 24), 3)}),
        Sample({"s2": series("s2", 3, (12, 16), 4), "s1": series("s1", 1, (12, 16), 5)}),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "image", "dense", "queries"),
    [
        ({"image": 1}, {"modality", "fused"}, set(), False),
        ({"image": 1, "streams": ["fused"]}, {"fused"}, set(), False),
        ({"pixel": 1}, set(), {"modality", "fused"}, False),
        ({"object": 1, "streams": ["modality"]}, set(), {"modality"}, False),
        ({"alignment": 1}, set(), {"modality"}, False),
        ({"qsacl": 1}, set(), {"fused"}, True),
        ({"alignment": 1, "qsacl": 1, "streams": ["fused"]}, set(), {"modality", "fused"}, True),
        ({"koleo": 1}, set(), set(), False),
    ],
)
def test_heads_that_no_loss_asks_for_are_not_made(encoders, losses, image, dense, queries):
    network = Network(encoders["v2"], HEADS, LossConfig(**{**OFF, **losses}))

    assert set(network.image_heads) == image
    assert set(network.dense_heads) == dense
    assert (network.queries is not None) == queries


def test_heads_have_the_sizes_asked_for(encoders):
    network = Network(encoders["v2"], HEADS, LossConfig(queries=5))

    assert network.image_heads["fused"].directions.shape == (8, 8)
    assert network.dense_heads["modality"].directions.shape == (6, 8)
    assert network.queries.queries.shape == (5, encoders["v2"].fused_width)


@pytest.mark.parametrize("name", ["v2", "v1"])
@torch.no_grad()
def test_maps_are_those_of_the_encoder(encoders, batch, name):
    encoder = encoders[name]
    network = Network(encoder, HEADS, LossConfig())
    encoded, features = network(batch), encoder(batch)

    assert list(encoded.maps) == [*MODALITIES, FUSED]
    for key in MODALITIES:
        level, own = features.pyramid[key][3], encoded.maps[key]
        for row in range(3):
            seen = level.valid[row].any(0)
            assert torch.equal(own.valid[row], seen)
            for r, c in seen.nonzero().tolist()[:4]:
                dates = level.values[row, level.valid[row, :, r, c], :, r, c]
                expected = network.adapters[key](dates.mean(0))
                torch.testing.assert_close(own.values[row, :, r, c], expected)
    torch.testing.assert_close(encoded.maps[FUSED].values, features.fused)
    assert torch.equal(encoded.maps[FUSED].valid, features.fused_valid)


@pytest.mark.parametrize("name", ["v2", "v1"])
@torch.no_grad()
def test_cells_are_what_a_row_spans(encoders, batch, name):
    network = Network(encoders[name], HEADS, LossConfig())
    maps = network(batch).maps

    for key, own in maps.items():
        assert own.cells.shape == (3, 2)
        inside = [torch.arange(n) < own.cells.ceil()[:, i, None] for i, n in enumerate(own.shape)]
        within = inside[0][:, :, None] & inside[1][:, None]
        assert not (own.valid & ~within).any(), key
        assert (own.cells <= torch.tensor(own.shape)).all()
    assert not maps["s2"].cells[1].any()
    assert not maps["hr"].cells[2].any()
    assert maps["hr"].cells[0].tolist() == [32 / network.encoder.stride("hr", 4)] * 2
    assert maps[FUSED].cells.all(), "each sample has a fused map"


@torch.no_grad()
def test_the_schedule_is_the_recipes(encoders, batch):
    schedule = {"hr": ("merge", "keep", "keep")}
    maps = Network(encoders["v2"], HEADS, LossConfig(), schedule)(batch).maps

    assert maps["hr"].shape == (4, 4)
    assert maps["hr"].cells[:2].tolist() == [[4, 4], [4, 3]]


def test_some_rows_of_a_map():
    own = FeatureMap(
        torch.randn(4, 3, 2, 5), torch.rand(4, 2, 5) > 0.5, torch.tensor([[2.0, 5.0]] * 4)
    )
    index = torch.tensor([1, 2])

    for some in (own.rows(1, 3), own.chosen(index)):
        assert torch.equal(some.values, own.values[1:3])
        assert torch.equal(some.valid, own.valid[1:3])
        assert torch.equal(some.cells, own.cells[1:3])
    tokens, valid = own.tokens()
    assert own.shape == (2, 5)
    assert torch.equal(tokens[3, 7], own.values[3, :, 1, 2])
    assert valid[3, 7] == own.valid[3, 1, 2]


@pytest.mark.parametrize("name", ["v2", "v1"])
def test_no_block_holds_another(encoders, name):
    network = Network(encoders[name], HEADS, LossConfig())
    blocks = blocks_of(network)

    assert blocks
    for block in blocks:
        inside = [other for other in blocks if other is not block and other in block.modules()]
        assert not inside, type(block).__name__
    assert len({id(block) for block in blocks}) == len(blocks)


@pytest.mark.parametrize("name", ["v2", "v1"])
@torch.no_grad()
def test_a_teacher_that_moved_keeps_nothing_of_what_it_was(encoders, batch, name):
    """In evaluation layers keep what they derive from their weights."""
    network = Network(encoders[name], HEADS, LossConfig())
    teacher, student = copy.deepcopy(network).eval(), copy.deepcopy(network)
    for parameter in student.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    teacher(batch)
    ema_update(teacher, student, 0.3)
    fresh = copy.deepcopy(network).eval()
    fresh.load_state_dict(teacher.state_dict())

    found, expected = teacher(batch).maps, fresh(batch).maps
    for key in expected:
        torch.testing.assert_close(found[key].values, expected[key].values)


def test_one_batch_is_stacked_as_it_is(batch):
    assert stack_views([batch]) is batch
    assert len(stack_views([batch, batch])) == 6
