"""Image level: presence, targets of other views, and the loss against a plain loop."""

import pytest
import torch
from torch import nn

from skysense.pretrain.image_level import image_contrast, other_views, view_vectors
from skysense.pretrain.network import FeatureMap

G, V, R, D, K = 3, 5, 6, 4, 7


class Head(nn.Linear):
    """A head whose rows do not depend on one another."""

    def forward(self, x, weight=None):
        assert weight is None or weight.shape == x.shape[:-1]
        return super().forward(x)


def feature_map(rows, side, seed):
    """Random features, some cells without."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(rows, side, side, generator=generator) > 0.4
    valid[1] = False
    values = torch.randn(rows, D, side, side, generator=generator)
    return FeatureMap(values, valid, torch.full((rows, 2), float(side)))


def test_vectors_are_those_of_each_view_and_stream():
    streams = [[feature_map(4, 3, 0), feature_map(6, 2, 1)], [feature_map(4, 1, 2)] * 2]
    streams[1][1] = feature_map(6, 2, 3)
    kept = [torch.tensor([True, True]), torch.tensor([False, True])]
    vectors, present = view_vectors(streams, 2, kept)

    assert vectors.shape == (5, 3, D)  # 2 and 3 views; 2 rows of one stream, 1 of the other
    for column, (stream, sample) in enumerate([(0, 0), (0, 1), (1, 1)]):
        for view in range(5):
            own, first = (streams[stream][0], 0) if view < 2 else (streams[stream][1], 2)
            row = (view - first) * 2 + sample
            cells = own.values[row][:, own.valid[row]]
            assert present[view, column] == float(cells.numel() > 0)
            expected = cells.mean(1) if cells.numel() else torch.zeros(D)
            torch.testing.assert_close(vectors[view, column], expected)


def test_targets_are_the_mean_of_the_other_views():
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(G, R, K, generator=generator)
    weight = (torch.rand(G, R, generator=generator) > 0.4).float()
    weight[:, 0], weight[1:, 1] = 0, 0
    mixed, number = other_views(targets, weight, V)

    for v in range(V):
        for r in range(R):
            some = [targets[g, r] for g in range(G) if g != v and weight[g, r]]
            assert number[v, r] == len(some)
            expected = torch.stack(some).mean(0) if some else torch.zeros(K)
            torch.testing.assert_close(mixed[v, r], expected)


def test_the_loss_is_the_mean_over_pairs_of_each_row():
    generator = torch.Generator().manual_seed(1)
    heads = Head(D, K), Head(D, K).requires_grad_(False)
    student = torch.randn(V, R, D, generator=generator, requires_grad=True)
    taught = torch.randn(G, R, D, generator=generator, requires_grad=True)
    present = (torch.rand(V, R, generator=generator) > 0.3).float()
    weight = (torch.rand(G, R, generator=generator) > 0.3).float()
    weight[:, 2] = 0

    def softmax(logits, weight):
        return logits.softmax(-1) * weight[:, None]

    loss, entropy = image_contrast((student, present), (taught, weight), heads, softmax, 0.2)
    targets = heads[1](taught).softmax(-1)
    rows = []
    for v in range(V):
        for r in range(R):
            log = (heads[0](student[v, r]) / 0.2).log_softmax(0)
            pairs = [-targets[g, r] @ log for g in range(G) if g != v and weight[g, r]]
            if pairs and present[v, r]:
                rows.append(sum(pairs) / len(pairs))
    torch.testing.assert_close(loss, sum(rows) / len(rows))
    each = torch.distributions.Categorical(targets).entropy()
    torch.testing.assert_close(entropy, each[weight > 0].mean())

    loss.backward()
    assert taught.grad is None
    assert heads[1].weight.grad is None
    assert not student.grad[present == 0].any()


def test_nothing_seen_is_zero():
    heads = Head(D, K), Head(D, K)
    student = torch.randn(V, R, D), torch.zeros(V, R)
    taught = torch.randn(G, R, D), torch.zeros(G, R)
    loss, entropy = image_contrast(student, taught, heads, lambda x, _: x.softmax(-1), 0.1)

    assert (loss, entropy) == (0, 0)
    loss.backward()


@pytest.mark.parametrize("rows", [0, 1])
def test_no_sample_has_the_stream(rows):
    heads = Head(D, K), Head(D, K)
    student = torch.randn(V, rows, D), torch.ones(V, rows)
    taught = torch.randn(G, rows, D), torch.ones(G, rows)
    loss, _ = image_contrast(student, taught, heads, lambda x, _: x.softmax(-1), 0.1)

    assert loss.isfinite()
    assert (loss == 0) == (rows == 0)
