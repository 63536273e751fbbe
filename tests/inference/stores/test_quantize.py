import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skysense.inference.stores.quantize import (
    INT8_NODATA,
    Coding,
    cosine_loss,
    decode,
    make_coding,
    quantize,
)

NUMBERS = st.floats(-1e4, 1e4, width=32)
VECTORS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5)), elements=NUMBERS
)


@given(VECTORS)
@settings(max_examples=60, deadline=None)
def test_error_is_at_most_half_a_step_where_nothing_is_clipped(source, values):
    made = quantize(source(values))
    back = made.decode(made.encode(values))

    step = made.scale[:, None, None]
    inside = np.abs(values) <= 127.0001 * step
    assert (np.abs(back - values) <= step * 0.5002)[inside].all()
    assert (np.abs(back) <= 127 * step * 1.00001).all()
    assert inside.all() or made.quantile < 1


@given(VECTORS)
@settings(max_examples=40, deadline=None)
def test_codes_survive_a_round_trip(source, values):
    made = quantize(source(values))
    codes = made.encode(values)

    assert (made.encode(made.decode(codes)) == codes).all()
    assert codes.dtype == np.int8
    assert (codes != INT8_NODATA).all()


@given(VECTORS)
@settings(max_examples=40, deadline=None)
def test_loss_is_that_of_a_plain_loop(source, values):
    made = quantize(source(values))
    losses = []
    for original, stored in zip(
        values.reshape(len(values), -1).T.astype(np.float64),
        made.decode(made.encode(values)).reshape(len(values), -1).T.astype(np.float64),
        strict=True,
    ):
        lengths = np.linalg.norm(original) * np.linalg.norm(stored)
        both = not original.any() and not stored.any()
        losses.append(1 - original @ stored / lengths if lengths > 0 else float(not both))

    assert made.cells == len(losses)
    assert made.mean_loss == pytest.approx(np.mean(losses), abs=1e-6)
    assert made.worst_loss == pytest.approx(np.max(losses), abs=1e-6)


def test_missing_cells_are_kept_apart_from_zero(source, values):
    map_ = values()
    made = quantize(source(map_))
    codes = made.encode(map_)

    assert (codes[:, np.isnan(map_[0])] == INT8_NODATA).all()
    assert (np.isnan(made.decode(codes)) == np.isnan(map_)).all()
    assert made.cells == np.isfinite(map_[0]).sum()


def test_loss_of_noise_is_small_and_the_largest_magnitude_wins(source, values):
    made = quantize(source(values(channels=64, shape=(40, 40))))

    assert made.quantile == 1
    assert made.worst_loss < 2e-4
    assert made.trials[0].worst_loss == pytest.approx(made.worst_loss)  # the sample holds all
    assert made.trials[0].worst_loss < 2 * made.trials[1].worst_loss
    assert made.as_dict()["cosine_loss"]["cells"] == made.cells


def test_an_outlier_makes_a_quantile_win(source, values, monkeypatch):
    monkeypatch.setattr("skysense.inference.stores.quantize._SAMPLE_CELLS", 4000)
    map_ = values(channels=8, shape=(120, 120), missing=0)
    map_[:, 1, 1] = 1e6  # not among the cells of a sample that takes every second

    made = quantize(source(map_))

    assert made.quantile < 1
    assert made.mean_loss < 1e-2
    assert made.trials[0].worst_loss == 1  # all codes 0


def test_a_single_valid_cell_off_the_sample_is_measured(source, values, monkeypatch):
    monkeypatch.setattr("skysense.inference.stores.quantize._SAMPLE_CELLS", 4)
    map_ = np.full((5, 23, 17), np.nan, np.float32)
    map_[:, 21, 13] = [1, -2, 3, 0, 0.5]

    made = quantize(source(map_))

    assert made.cells == 1
    assert made.decode(made.encode(map_))[:, 21, 13] == pytest.approx([1, -2, 3, 0, 0.5], rel=1e-6)


def test_a_vector_stored_as_zeros_is_a_whole_loss():
    vectors = np.array([[1e-3, 0.0, 3.0]], np.float32)

    assert cosine_loss(vectors, np.ones(1, np.float32)).tolist() == [1, 0, 0]


def test_extreme_magnitudes_do_not_overflow():
    vectors = np.array([[1e30, 1e-30], [-2e30, 1e-30]], np.float32)

    losses = cosine_loss(vectors, np.full(2, 2e30 / 127, np.float32))

    assert losses[0] < 1e-4
    assert losses[1] == 1


def test_decode_takes_any_shape():
    codes = np.array([[-128, 127], [-127, 0]], np.int8)

    values = decode(codes, np.array([2, 0.5], np.float32))

    assert np.isnan(values[0, 0])
    assert (values[0, 1], values[1, 0], values[1, 1]) == (254, -63.5, 0)
    assert values.dtype == np.float32


def test_a_map_without_a_vector_is_refused(source):
    with pytest.raises(ValueError, match="no cell of the map holds a vector"):
        quantize(source(np.full((2, 3, 4), np.nan, np.float32)))


def test_half_precision_that_does_not_reach_is_refused():
    coding = Coding("float16", None)

    with pytest.raises(ValueError, match="reaches 7e\\+04, half precision only 65504"):
        coding.encode(np.array([[7e4]], np.float32))


def test_an_unknown_type_is_refused(source):
    with pytest.raises(ValueError, match="float16, float32 or int8, not 'int16'"):
        make_coding(source(), "int16")


def test_bands_cover_the_map_once(source, small_bands):
    from skysense.inference.stores.source import bands

    map_ = source()
    parts = list(bands(map_))

    assert len(parts) == 8
    assert [first for first, _ in parts] == list(range(0, 23, 3))
    assert np.array_equal(np.concatenate([v for _, v in parts], axis=1), map_.rows(0, 23), True)
