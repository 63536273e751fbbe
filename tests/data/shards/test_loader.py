"""The order is the same for everyone, every sample comes once an epoch, any number is a start."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skysense.data.shards import ShardLoader
from skysense.data.shards.order import draw_dates, epoch_order

KINDS = (("hr",), ("s2",), ("s2", "s1"), ("hr", "s2", "s1"))


@pytest.fixture
def folder(build, sample):
    """Thirteen samples of mixed modalities in five shards."""
    return build([sample(i, KINDS[i % 4]) for i in range(13)], samples_per_shard=3)


def take(loader, count, start=0):
    batches = loader.batches(start)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_same(first, second):
    assert (first.number, first.epoch, first.keys) == (second.number, second.epoch, second.keys)
    assert torch.equal(first.positions, second.positions)
    assert first.batch.modalities.keys() == second.batch.modalities.keys()
    for key, part in first.batch.modalities.items():
        for name in ("pixels", "mask", "days", "sizes"):
            assert torch.equal(getattr(part, name), getattr(second.batch.modalities[key], name))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(sum),
    st.integers(0, 2**31),
    st.integers(0, 1000),
)
def test_an_epoch_has_every_sample_once(counts, seed, epoch):
    order = epoch_order(np.array(counts), seed, epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(sum(counts)))
    np.testing.assert_array_equal(order, epoch_order(np.array(counts), seed, epoch))


def test_epochs_and_seeds_differ():
    counts = np.full(40, 5)
    orders = [epoch_order(counts, *pair) for pair in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3


def test_an_epoch_reads_few_shards_at_a_time():
    order = epoch_order(np.full(64, 10), 0, 0)
    assert all(len(set(order[i : i + 160] // 10)) == 16 for i in range(0, 640, 160))


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 99))
def test_drawn_dates_are_some_of_them_in_order(available, most, sample):
    dates = np.arange(available) * 3
    drawn = draw_dates(dates, most, (1, 2, sample, 0))
    assert len(drawn) == min(available, most)
    assert set(drawn) <= set(dates)
    assert (np.diff(drawn) > 0).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(0, 5))
def test_every_sample_comes_once_an_epoch(shared_folder, batch_size, seed):
    loader = ShardLoader(shared_folder, batch_size, seed=seed)
    count = -(-2 * len(loader) // batch_size)
    keys = [key for loaded in take(loader, count) for key in loaded.keys]
    for epoch in (keys[:13], keys[13:26]):
        assert sorted(epoch) == [f"{i:09d}" for i in range(13)]


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory, sample):
    from skysense.data.shards import Draft, build_shards

    folder = tmp_path_factory.mktemp("shared") / "shards"
    drafts = [Draft(str(i), lambda i=i: [sample(i, ("s2",))]) for i in range(13)]
    build_shards(drafts, folder, samples_per_shard=4)
    return folder


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_share_the_same_global_batches(folder, world):
    whole = take(ShardLoader(folder, 6, seed=4), 4)
    parts = [take(ShardLoader(folder, 6, seed=4, rank=r, world=world), 4) for r in range(world)]
    for number, loaded in enumerate(whole):
        own = [part[number] for part in parts]
        assert sum((part.keys for part in own), ()) == loaded.keys
        assert torch.equal(torch.cat([part.positions for part in own]), torch.arange(6))
        assert {part.epoch for part in own} == {loaded.epoch}


@pytest.mark.parametrize("start", [1, 2, 5, 40])
def test_any_number_is_a_start(folder, start):
    dates = {"s2": 2, "s1": 1}
    whole = take(ShardLoader(folder, 4, seed=1, max_dates=dates), start + 2)[start:]
    resumed = take(ShardLoader(folder, 4, seed=1, max_dates=dates), 2, start)
    for first, second in zip(whole, resumed, strict=True):
        assert_same(first, second)


def test_nothing_before_the_start_is_read(folder, monkeypatch):
    loader = ShardLoader(folder, 1)
    read = []
    library = loader._reader.library
    monkeypatch.setattr(
        library,
        "read",
        lambda number, *rest: read.append(number) or type(library).read(library, number, *rest),
    )
    take(loader, 1, 5)
    order = epoch_order(library.counts, 0, 0).tolist()
    assert read == order[5 : 5 + len(read)]


@pytest.mark.slow
def test_processes_give_the_same_batches_and_leave_the_random_state_alone(folder):
    options = {"seed": 2, "max_dates": {"s2": 2}}
    alone = take(ShardLoader(folder, 4, **options), 5, 1)
    state = torch.get_rng_state()
    shared = take(ShardLoader(folder, 4, workers=2, **options), 5, 1)
    assert torch.equal(torch.get_rng_state(), state)
    for first, second in zip(alone, shared, strict=True):
        assert_same(first, second)


def test_dates_are_drawn_anew_each_epoch(build, sample):
    folder = build([sample(0, ("s2",), shape=(9, 4, 4))])
    batches = take(ShardLoader(folder, 1, max_dates={"s2": 5}), 6)
    days = [tuple(loaded.batch.modalities["s2"].days[0].tolist()) for loaded in batches]
    assert all(len(own) == 5 and list(own) == sorted(own) for own in days)
    assert len(set(days)) > 1


def test_modalities_mix_in_a_batch(folder):
    (loaded,) = take(ShardLoader(folder, 13), 1)
    parts = loaded.batch.modalities
    assert list(parts) == ["hr", "s2", "s1"]
    have = {key: (part.sizes[:, 0] > 0).tolist() for key, part in parts.items()}
    kinds = [tuple(key for key in parts if have[key][row]) for row in range(13)]
    assert kinds == [KINDS[int(key) % 4] for key in loaded.keys]
    assert not parts["s1"].mask[[not one for one in have["s1"]]].any()
    assert loaded.classes is None


def test_chosen_modalities_leave_the_rest_out(folder):
    loader = ShardLoader(folder, 2, modalities=["s1"])
    assert (len(loader), loader.modalities) == (6, ("s1",))
    assert list(take(loader, 1)[0].batch.modalities) == ["s1"]


def test_a_modality_that_no_sample_has(build, sample):
    folder = build([sample(0)])
    with pytest.raises(ValueError, match="no sample has s1; the shards hold hr"):
        ShardLoader(folder, 1, modalities=["hr", "s1"])
    with pytest.raises(ValueError, match=r"unknown modalities \['dem'\]"):
        ShardLoader(folder, 1, modalities=["dem"])


def test_folders_mix_and_their_classes_keep_their_names(build, sample):
    maps = [np.array([[0, 1, -1]], np.int16), np.array([[0], [1]], np.int16)]
    names = [("water", "forest"), ("forest", "town")]
    folders = [
        build([sample(i, classes=m, names=n)], name=f"folder{i}")
        for i, (m, n) in enumerate(zip(maps, names, strict=True))
    ]
    plain = build([sample(2)], name="plain")
    loader = ShardLoader([*folders, plain], 3)
    assert loader.class_names == ("water", "forest", "town")
    (loaded,) = take(loader, 1)
    rows = {
        round(float(lat) * 1000) - 51250: row for row, lat in enumerate(loaded.batch.location[:, 1])
    }
    assert loaded.classes[rows[0]].tolist() == [[0, 1, -1], [-1, -1, -1]]
    assert loaded.classes[rows[1]].tolist() == [[1, -1, -1], [2, -1, -1]]
    assert loaded.class_sizes[[rows[i] for i in range(3)]].tolist() == [[1, 3], [2, 1], [0, 0]]
    assert (loaded.classes[rows[2]] == -1).all()


def test_dates_and_modalities_of_which_nothing_was_measured_are_dropped(build, sample):
    one = sample(0, ("hr", "s2", "s1"))
    s2 = one.series["s2"]
    pixels = s2.pixels.copy()
    pixels[[0, 2]] = 0
    nothing = np.full_like(one.series["s1"].pixels, np.nan)
    series = {
        **one.series,
        "s2": replace(s2, pixels=pixels),
        "s1": replace(one.series["s1"], pixels=nothing),
    }
    (loaded,) = take(ShardLoader(build([replace(one, series=series)]), 1), 1)
    assert list(loaded.batch.modalities) == ["hr", "s2"]
    assert loaded.batch.modalities["s2"].days.tolist() == [[90, 150]]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 6, "world": 4}, "batch size 6 does not divide by the 4 processes"),
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": 2, "rank": 2, "world": 2}, "rank 2 of 2"),
        ({"batch_size": 2, "max_dates": {"s3": 1}}, "`max_dates` {'s3': 1}"),
    ],
)
def test_options_that_do_not_fit(folder, options, match):
    with pytest.raises(ValueError, match=match):
        ShardLoader(folder, **options)
