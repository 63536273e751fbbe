"""Bringing maps onto one grid: parity with interpolation, and masks that stay masks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.models.alignment import align

D = 4


def call(values, valid, cells, common, shape):
    cells, common = (torch.as_tensor(x, dtype=torch.float32) for x in (cells, common))
    return align(values, valid, cells, common, shape)


def everywhere(values):
    return torch.ones(values.shape[:-1], dtype=torch.bool)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(6, 20)] * 2))
def test_parity_with_bilinear_interpolation(small, large):
    values = torch.randn(2, 3, *small, D)

    out, mask = call(values, everywhere(values), [small] * 2, [large] * 2, large)

    plain = F.interpolate(
        values.flatten(0, 1).permute(0, 3, 1, 2), large, mode="bilinear", align_corners=False
    )
    expected = plain.permute(0, 2, 3, 1).unflatten(0, (2, 3))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    assert mask.all()


def test_worked_example():
    values = torch.tensor([0.0, 8.0]).view(1, 1, 1, 2, 1)

    out, _ = call(values, everywhere(values), [[1, 2]], [[1, 4]], (1, 4))

    assert out.flatten().tolist() == [0, 2, 6, 8]


def test_the_same_grid_is_left_alone():
    values = torch.randn(2, 1, 3, 4, D)
    valid = torch.rand(2, 1, 3, 4) < 0.5

    out, mask = call(values, valid, [[3, 4], [2, 2]], [[3, 4], [2, 2]], (3, 4))

    assert torch.equal(out, values)
    assert torch.equal(mask[0], valid[0])
    assert torch.equal(mask[1, :, :2, :2], valid[1, :, :2, :2])
    assert not mask[1, :, 2:].any()  # beyond the second sample's footprint
    assert not mask[1, :, :, 2:].any()


def test_each_sample_has_its_own_scale():
    """In one batch, each sample comes out as it does alone, and its padding is not valid."""
    first, second = torch.randn(1, 2, 2, 3, D), torch.randn(1, 2, 5, 1, D)
    padded = torch.zeros(2, 2, 5, 3, D)
    valid = torch.zeros(2, 2, 5, 3, dtype=torch.bool)
    padded[0, :, :2, :3], padded[1, :, :5, :1] = first[0], second[0]
    valid[0, :, :2, :3], valid[1, :, :5, :1] = True, True
    common = [[8, 6], [5, 4]]

    out, mask = call(padded, valid, [[2, 3], [5, 1]], common, (8, 6))

    for i, (values, cells) in enumerate(((first, (2, 3)), (second, (5, 1)))):
        h, w = common[i]
        alone, _ = call(values, everywhere(values), [cells], [common[i]], (h, w))
        torch.testing.assert_close(out[i, :, :h, :w], alone[0], atol=1e-6, rtol=1e-5)
        assert mask[i, :, :h, :w].all()
        assert mask[i].sum() == 2 * h * w


def test_footprints_that_are_not_whole_cells():
    """10 pixels at stride 4 span 2.5 tokens, held by 3, and 1.25 cells of 8 pixels, held by 2."""
    values = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3, 1)

    out, mask = call(values, everywhere(values), [[1, 2.5]], [[1, 1.25]], (1, 2))
    assert out.flatten().tolist() == [1.5, 3.0]
    assert mask.all()

    same, _ = call(values, everywhere(values), [[1, 2.5]], [[1, 2.5]], (1, 4))
    assert same.flatten().tolist() == [1, 2, 3, 0]


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 12)] * 2), st.integers(0, 99)
)
def test_a_constant_stays_constant_where_it_is_valid(small, large, seed):
    torch.manual_seed(seed)
    valid = torch.rand(1, 1, *small) < 0.6
    values = torch.where(valid[..., None], 7.0, 0.0).expand(-1, -1, -1, -1, D)

    out, mask = call(values, valid, [small], [large], large)

    torch.testing.assert_close(out[mask], torch.full_like(out[mask], 7.0))
    assert not (mask.any() and not valid.any())


def test_invalid_tokens_have_no_influence():
    values, valid = torch.randn(1, 1, 4, 4, D), torch.rand(1, 1, 4, 4) < 0.5
    other = torch.where(valid[..., None], values, 1e6)

    (first, mask), (second, again) = (
        call(x, valid, [[4, 4]], [[8, 8]], (8, 8)) for x in (values, other)
    )

    torch.testing.assert_close(first[mask], second[mask])
    assert torch.equal(mask, again)


def test_valid_where_half_of_the_weight_is():
    values = torch.ones(1, 1, 1, 2, 1)
    valid = torch.tensor([True, False]).view(1, 1, 1, 2)

    _, mask = call(values, valid, [[1, 2]], [[1, 6]], (1, 6))

    assert mask.flatten().tolist() == [True, True, True, False, False, False]


def test_a_modality_the_sample_lacks_is_nowhere_valid():
    values = torch.zeros(1, 1, 3, 3, D)

    out, mask = call(values, ~everywhere(values), [[0, 0]], [[3, 3]], (3, 3))

    assert not mask.any()
    assert (out == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_type_and_gradient(dtype):
    values = torch.randn(1, 1, 2, 2, D, dtype=dtype, requires_grad=True)

    out, _ = call(values, everywhere(values), [[2, 2]], [[5, 5]], (5, 5))
    out.sum().backward()

    assert out.dtype == dtype
    assert values.grad.isfinite().all()
