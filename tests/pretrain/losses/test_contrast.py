"""Head, targets and cross-entropy: parity with loops, balance, and rows that do not count."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.models.geo_context import sinkhorn
from skysense.pretrain.losses.contrast import (
    Centering,
    CodeHead,
    contrast,
    sinkhorn_targets,
    standardize,
)
from skysense.pretrain.losses.sinkhorn import balance


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def cosines(n, k):
    return 2 * torch.rand(n, k) - 1


def literal_targets(logits, temperature, iterations):
    """SwAV's pseudo-code in double precision: all to one, then columns and rows in turn."""
    q = (logits.double() / temperature).exp()
    q = q / q.sum()
    n, k = q.shape
    for _ in range(iterations):
        for j in range(k):
            q[:, j] /= q[:, j].sum() * k
        for i in range(n):
            q[i] /= q[i].sum() * n
    return (q * n).float()


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 7), (40, 12)])
@pytest.mark.parametrize("temperature", [0.04, 0.5])
@pytest.mark.parametrize("iterations", [1, 3])
def test_targets_are_parity_with_the_pseudo_code(shape, temperature, iterations):
    logits = cosines(*shape)

    got = sinkhorn_targets(logits, temperature, iterations=iterations)

    expected = literal_targets(logits, temperature, iterations)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_targets_are_those_of_geo_context():
    logits = cosines(30, 8)

    torch.testing.assert_close(sinkhorn_targets(logits, 0.05), sinkhorn(logits, 0.05))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 1000))
def test_targets_are_shares_and_balanced(n, k, seed):
    torch.manual_seed(seed)

    targets = sinkhorn_targets(cosines(n, k), 0.3, iterations=200)

    torch.testing.assert_close(targets.sum(1), torch.ones(n))
    torch.testing.assert_close(targets.sum(0), torch.full((k,), n / k), atol=2e-2 * n, rtol=2e-2)


def test_rows_without_weight_take_no_part():
    logits, weight = cosines(20, 6), torch.ones(20)
    weight[::3] = 0

    targets = sinkhorn_targets(logits, 0.05, weight)

    assert (targets[::3] == 0).all()
    torch.testing.assert_close(targets[weight > 0], sinkhorn_targets(logits[weight > 0], 0.05))


def test_a_row_of_weight_two_is_two_rows():
    logits = cosines(5, 3)
    double = torch.cat([logits, logits[:1]])

    got = sinkhorn_targets(logits, 0.1, torch.tensor([2.0, 1, 1, 1, 1]))

    torch.testing.assert_close(got, sinkhorn_targets(double, 0.1)[:5])


def test_permutations_go_along():
    logits, rows, codes = cosines(9, 4), torch.randperm(9), torch.randperm(4)

    got = sinkhorn_targets(logits[rows][:, codes], 0.05)

    torch.testing.assert_close(got, sinkhorn_targets(logits, 0.05)[rows][:, codes])


@pytest.mark.parametrize("temperature", [1e-3, 0.01])
def test_small_temperatures_do_not_overflow(temperature):
    targets = sinkhorn_targets(cosines(50, 9), temperature)

    assert targets.isfinite().all()
    torch.testing.assert_close(targets.sum(1), torch.ones(50))


def test_no_weight_at_all_is_no_target():
    assert (sinkhorn_targets(cosines(4, 3), 0.05, torch.zeros(4)) == 0).all()
    assert sinkhorn_targets(torch.zeros(0, 3), 0.05).shape == (0, 3)


def test_balance_of_a_batch_is_that_of_each():
    logits, weight = cosines(12, 5).view(2, 6, 5), torch.ones(2, 6)
    weight[1, 4:] = 0

    got = balance(logits, 0.05, weight)

    for i in range(2):
        torch.testing.assert_close(got[i], balance(logits[i], 0.05, weight[i]))


def test_the_input_stays():
    logits = cosines(6, 3)
    before = logits.clone()

    sinkhorn_targets(logits, 1.0)

    assert torch.equal(logits, before)


def literal_contrast(student, target, temperature, weight):
    total = 0.0
    for i in range(len(student)):
        exponents = [math.exp(value / temperature) for value in student[i].tolist()]
        for j, share in enumerate(target[i].tolist()):
            total -= weight[i].item() * share * math.log(exponents[j] / sum(exponents))
    return total / weight.sum().item()


def test_contrast_is_parity_with_a_double_loop():
    student, target = cosines(8, 5), cosines(8, 5).softmax(-1)
    weight = torch.tensor([1.0, 0, 2, 1, 1, 0, 0.5, 1])

    got = contrast(student, target, 0.1, weight)

    assert got.item() == pytest.approx(literal_contrast(student, target, 0.1, weight), rel=1e-5)


def test_contrast_is_least_where_the_student_agrees():
    target = cosines(8, 5).div(0.1).softmax(-1)
    entropy = -(target * target.log()).sum(-1).mean()

    torch.testing.assert_close(contrast(target.log() * 0.3, target, 0.3), entropy)
    assert contrast(cosines(8, 5), target, 0.3) > entropy


def test_gradient_flows_to_the_student_alone():
    student, teacher = cosines(6, 4).requires_grad_(), cosines(6, 4).requires_grad_()
    weight = torch.tensor([1.0, 1, 1, 1, 0, 0])

    contrast(student, sinkhorn_targets(teacher, 0.05), 0.1, weight).backward()

    assert teacher.grad is None
    assert (student.grad[:4] != 0).any(1).all()
    assert (student.grad[4:] == 0).all()


def test_contrast_without_weight_is_zero_with_a_graph():
    student = cosines(3, 4).requires_grad_()

    loss = contrast(student, torch.zeros(3, 4), 0.1, torch.zeros(3))
    loss.backward()

    assert loss == 0
    assert (student.grad == 0).all()


def test_contrast_and_head_are_float32_under_autocast():
    head, x = CodeHead(8, 16, 12, 6), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(x)
        loss = contrast(logits.bfloat16(), torch.full((5, 16), 1 / 16), 0.1)

    assert logits.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(logits, head(x), atol=0.05, rtol=0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_head_gives_cosines(layers):
    head, x = CodeHead(8, 16, 12, 6, layers), torch.randn(5, 8)

    logits = head(x)

    assert head.codes == 16
    for i in range(5):
        for code in range(16):
            expected = F.cosine_similarity(head.mlp(x[i]), head.directions[code], dim=0)
            torch.testing.assert_close(logits[i, code], expected)


def test_head_does_not_see_the_length_of_codes():
    head, x = CodeHead(8, 16, 12, 6), torch.randn(5, 8)
    before = head(x)
    with torch.no_grad():
        head.directions.mul_(7)

    torch.testing.assert_close(head(x), before)


def test_centering_is_the_formula():
    centering, logits = Centering(4, momentum=0.8), cosines(6, 4)
    weight = torch.tensor([1.0, 1, 0, 1, 0, 1])

    first = centering(logits, 0.1, weight)
    second = centering(logits, 0.1, weight)

    torch.testing.assert_close(first, (logits / 0.1).softmax(-1))
    center = 0.2 * logits[weight > 0].mean(0)
    torch.testing.assert_close(second, ((logits - center) / 0.1).softmax(-1))
    torch.testing.assert_close(centering.center, (0.8 + 1) * center)


def test_center_stays_in_evaluation_and_without_rows():
    centering = Centering(4)
    centering(cosines(6, 4), 0.1)
    before = centering.center.clone()

    centering(cosines(6, 4), 0.1, torch.zeros(6))
    centering.eval()(cosines(6, 4), 0.1)

    assert torch.equal(centering.center, before)
    assert list(centering.state_dict()) == ["center"]


def test_a_standard_head_knows_no_common_part_and_no_scale():
    head, x = CodeHead(8, 16, 12, 6, standard=True), torch.randn(3, 20, 6)
    weight = (torch.rand(3, 20) > 0.3).float()

    found = head.compare(x, weight)
    for i in range(3):
        kept = weight[i] > 0
        own = x[i][kept]
        plain = (own - own.mean(0)) / own.std(0, correction=0)
        codes = torch.nn.functional.normalize(head.directions, dim=-1)
        expected = torch.nn.functional.normalize(plain, dim=-1) @ codes.T
        torch.testing.assert_close(found[i][kept], expected)
    torch.testing.assert_close(head.compare(7 * x + 5, weight), found, rtol=1e-4, atol=1e-5)


def test_rows_of_no_weight_change_no_other_and_no_gradient():
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0])
    found = []
    for value in (0.0, 1e6):
        x = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5], [value, value]], requires_grad=True)
        standardize(x, weight)[:3, 0].square().mul(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        found.append(x.grad[:3])
    torch.testing.assert_close(found[0], found[1])
    assert found[0].any()
