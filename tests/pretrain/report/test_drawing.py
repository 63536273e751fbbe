"""Pictures: whole PNGs whatever the numbers, heat where attention is, means of blocks."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skysense.pretrain.report.charts import (
    Reference,
    draw_bars,
    draw_curve,
    draw_heat,
    encode,
    running_mean,
    seconds_text,
    shorten,
)
from skysense.pretrain.report.metrics import Series
from skysense.pretrain.report.sheets import agreement, overlap, overlay, relative, shrink

pytest.importorskip("matplotlib", reason="matplotlib, the extra `plots`, is not installed")

PNG = b"\x89PNG\r\n\x1a\n"


def decoded(png):
    """`(H, W, channels)` of 0 to 255."""
    from matplotlib.image import imread

    return np.round(255 * imread(io.BytesIO(png), format="png")).astype(np.uint8)


def series(*values):
    return Series(np.arange(float(len(values))), np.array(values, np.float64))


@pytest.mark.parametrize(
    ("values", "log"),
    [
        ([0.3], False),
        ([0.0, 0.0, 0.0], True),
        ([1e-9, 1e9], True),
        ([1.0] * 100, False),
        ([-1e300, 1e300], False),
    ],
)
def test_any_curve_is_drawn(values, log):
    level = Reference("level", series(0.5))
    line = Reference("line $x$", series(*values))
    assert draw_curve(series(*values), [level, line], smooth=True, log=log).startswith(PNG)


def test_a_curve_is_blue_on_white():
    picture = decoded(draw_curve(series(1, 2, 3), smooth=False, log=False))[..., :3]
    assert (picture[[0, -1]] == 255).all()
    assert (np.abs(picture.astype(int) - [0x1F, 0x5F, 0xA8]).sum(-1) < 9).sum() > 500


@given(values=arrays(np.float64, st.integers(1, 130), elements=st.floats(-1e6, 1e6)))
@settings(deadline=None, max_examples=50)
def test_running_mean_is_that_of_a_plain_loop(values):
    reach = max(len(values) // 40, 1)
    expected = [values[max(i - reach, 0) : i + reach + 1].mean() for i in range(len(values))]
    np.testing.assert_allclose(running_mean(values), expected, atol=1e-6)


@pytest.mark.parametrize("parts", [{"mm": 0.0}, {"$a_b$ " * 20: 1e-7, "b": 3.0}])
def test_any_bars_are_drawn(parts):
    assert draw_bars(parts).startswith(PNG)


@pytest.mark.parametrize("shape", [(1, 1), (30, 8), (2, 64)])
def test_any_heat_map_is_drawn(shape):
    values = np.full(shape, np.nan)
    values.flat[0] = 1.0
    assert draw_heat(values, 2.0).startswith(PNG)


def test_encoding_keeps_every_pixel(images):
    image = images(1, (5, 7))[0]
    np.testing.assert_array_equal(decoded(encode(image))[..., :3].transpose(2, 0, 1), image)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 8), (8, 8)), ((10, 21), (3, 7)), ((1, 100), (1, 10)), ((25, 25), (8, 8))],
)
def test_shrinking_takes_means_of_blocks(images, shape, expected):
    image = images(1, shape)[0]
    small = shrink(image, 10)
    assert small.shape == (3, *expected)
    step = -(-max(shape) // 10)
    assert small[1, 0, 0] == np.round(image[1, :step, :step].mean())


def test_color_lies_where_attention_is():
    scene = np.full((3, 8, 12), 100, np.uint8)
    shown = overlay(scene, np.array([[4.0, 0.0], [0.0, np.nan]])).astype(int)
    colored = np.ptp(shown, 0) > 20
    expected = np.zeros((8, 12), bool)
    expected[:4, :6] = True
    np.testing.assert_array_equal(colored, expected)


@pytest.mark.parametrize("heat", [np.ones((2, 2)), np.full((2, 2), np.nan), np.zeros((3, 1))])
def test_flat_attention_stays_gray(heat):
    assert np.ptp(overlay(np.full((3, 6, 6), 100, np.uint8), heat).astype(int), 0).max() == 0


def test_relative_attention_has_mean_one_over_the_cells_that_are_there():
    values = np.array([[[1.0, 3.0, np.nan]], [[0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(relative(values), [[[0.5, 1.5, np.nan]], [[0, 0, 0]]])


def test_overlap(attention):
    alike = np.tile(np.random.default_rng(1).uniform(size=(2, 1, 2, 2)), (1, 3, 1, 1))
    assert overlap(attention(attention=alike)) == pytest.approx(1)
    opposed = np.array([[1.0, 0, 0, 1], [0, 1, 1, 0]]).reshape(1, 2, 2, 2)
    assert overlap(attention(attention=np.tile(opposed, (2, 1, 1, 1)))) == pytest.approx(-1)
    assert overlap(attention(attention=np.ones((2, 3, 2, 2)))) == 0, "flat maps"


def test_agreement(neighbors):
    assert agreement(neighbors()) == 2 / 4


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1500, "1.5k"), (2_500_000, "2.5M"), (-2000, "-2k")]
)
def test_short_counts(value, text):
    assert shorten(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(1.234, "1.23 s"), (0.0305, "30.5 ms"), (0, "0 ms")])
def test_short_times(seconds, text):
    assert seconds_text(seconds) == text
