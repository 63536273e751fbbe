"""Dates are a random subset of the valid ones; days wrap; the last modality stays."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.pretrain.views.dates import choose_dates, jitter_days, keep_modalities
from skysense.pretrain.views.randomness import Draws


def draws(seed=0, count=64):
    return Draws(seed, 0, 0, torch.arange(count))


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 8),
    fewest=st.integers(1, 5),
    more=st.integers(0, 4),
)
@settings(max_examples=40, deadline=None)
def test_chosen_dates_are_valid_distinct_and_in_order(seed, count, fewest, more):
    valid = torch.rand(64, count, generator=torch.Generator().manual_seed(seed)) < 0.6

    index, meant = choose_dates(draws(seed), "s2", valid, fewest, fewest + more)

    assert index.shape == meant.shape == (64, min(count, fewest + more))
    for row in range(64):
        chosen = index[row][meant[row]].tolist()
        known = int(valid[row].sum())
        assert chosen == sorted(set(chosen))
        assert valid[row, chosen].all()
        assert min(known, fewest) <= len(chosen) <= min(known, fewest + more)
        assert not meant[row, len(chosen) :].any()


def test_every_date_and_every_number_of_dates_occurs():
    index, meant = choose_dates(draws(count=512), "s2", torch.ones(512, 6) > 0, 1, 3)

    numbers = meant.sum(1).bincount(minlength=4)
    assert numbers[0] == 0
    assert numbers[1:].min() > 512 / 3 * 0.7
    assert index[meant].bincount(minlength=6).min() > 512 * 2 / 6 * 0.7


def test_padded_dates_change_nothing():
    valid = torch.rand(64, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    padded = torch.nn.functional.pad(valid, (0, 3))

    index, meant = choose_dates(draws(), "s2", valid, 2, 3)
    other, same = choose_dates(draws(), "s2", padded, 2, 3)

    assert torch.equal(meant, same)
    assert torch.equal(index[meant], other[meant])


def test_days_move_by_a_little_and_wrap():
    days = torch.tensor([[1, 183, 366, 0]]).expand(512, 4)

    moved = jitter_days(draws(count=512), "s2", days, 5)

    shift = (moved - days)[:, :3]
    shift = (shift + 183) % 366 - 183  # around the year
    assert shift.min() == -5
    assert shift.max() == 5
    assert moved[:, :3].min() == 1
    assert moved.max() == 366
    assert not moved[:, 3].any()  # unknown stays unknown
    assert jitter_days(draws(count=512), "s2", days, 0) is days


def test_modalities_are_dropped_but_never_the_last():
    present = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]]).bool()
    present = present.repeat_interleave(512, 0)

    kept = keep_modalities(draws(count=2048), present, 0.6)

    assert not (kept & ~present).any()
    assert torch.equal(kept.any(1), present.any(1))
    assert kept[1024:1536, 2].all()
    alone = 0.6**3 / 3  # one of three is left because all were to go
    share = kept[:512].float().mean(0)
    assert (share - 0.4 - alone).abs().max() < 0.08
    assert keep_modalities(draws(count=2048), present, 0.0) is present
