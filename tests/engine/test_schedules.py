"""Schedules at their ends, and between them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skysense.engine.schedules import cosine, linear, warmup_cosine

value = st.floats(0, 10)


def test_learning_rate_by_hand():
    rates = [warmup_cosine(step, total=7, warmup=2, peak=2.0, last=0.4) for step in range(8)]

    half = [0.4 + 1.6 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(5)]
    assert rates == pytest.approx([0.0, 1.0, *half, 0.4])


@given(total=st.integers(2, 500), first=value, last=value, step=st.integers(-5, 600))
@pytest.mark.parametrize("schedule", [cosine, linear])
def test_starts_and_ends_where_it_says_and_stays_between(schedule, total, first, last, step):
    assert schedule(0, total, first, last) == first
    assert schedule(total - 1, total, first, last) == last
    now, then = schedule(step, total, first, last), schedule(step + 1, total, first, last)
    slack = 1e-9
    assert min(first, last) - slack <= now <= max(first, last) + slack
    assert (then - now) * (last - first) >= -slack  # never turns back


@given(total=st.integers(1, 50), step=st.integers(0, 60), same=value)
def test_constant_where_both_ends_are_the_same(total, step, same):
    assert cosine(step, total, same, same) == same


@given(total=st.integers(1, 100), warmup=st.integers(0, 150), peak=st.floats(0.1, 5))
def test_warmup_rises_to_the_peak_and_falls_to_the_end(total, warmup, peak):
    rates = [warmup_cosine(step, total, warmup, peak, last=0.05) for step in range(total)]
    top = min(warmup, total - 1)

    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
    assert max(rates) == rates[top] == peak
    assert rates[-1] == (peak if top == total - 1 else 0.05)


def test_one_step_has_the_final_value():
    assert cosine(0, 1, 5.0, 3.0) == linear(0, 1, 5.0, 3.0) == 3.0
