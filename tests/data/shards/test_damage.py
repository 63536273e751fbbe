"""What is cut off, overwritten or gone is named once and counted; the rest is read."""

import io
import itertools
import json
import tarfile
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest

from skysense.data.shards import Draft, ShardLoader, Skipped, build_shards
from skysense.data.shards.ahead import _Numbered, read_ahead
from skysense.data.shards.index import open_shards, scan
from skysense.data.shards.members import encode


@pytest.fixture
def folder(build, sample):
    """Twelve samples in two shards."""
    return build([sample(i) for i in range(12)], samples_per_shard=6)


def keys(loader, count=12):
    batches = loader.batches()
    found = [loaded.keys[0] for loaded in itertools.islice(batches, count)]
    batches.close()
    return found


def spoil(path, offset, content=b"\xff" * 64):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def loader_of(folder, *matches, **options):
    """A loader, and each warning that is expected on the way to it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader = ShardLoader(folder, 1, **options)
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == len(matches)
    for text, match in zip(sorted(texts), matches, strict=True):
        assert match in text
    return loader


@pytest.mark.parametrize("index", [True, False])
def test_a_shard_cut_in_half(folder, index):
    path = folder / "shard-000001.tar"
    if not index:
        (folder / "index.json").unlink()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    loader = loader_of(folder, f"{path} breaks off; what can be read of it is used")
    assert 6 < len(loader) < 12
    lost = 12 - len(loader) if index else 1
    assert loader.skipped == Skipped(shards=1, samples=lost)
    assert len(set(keys(loader, len(loader)))) == len(loader)


@pytest.mark.parametrize("size", [0, 1, 100, 512, 700])
def test_a_shard_of_which_nothing_is_left(folder, size):
    path = folder / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:size])
    loader = loader_of(folder, str(path))
    assert (len(loader), loader.skipped) == (6, Skipped(1, 6))


def test_garbage_in_a_shard_without_index(folder):
    (folder / "index.json").unlink()
    path = folder / "shard-000000.tar"
    second = scan(path).entries[1]
    spoil(path, second.offset, b"\xff" * 512)
    loader = loader_of(folder, f"{path} holds garbage")
    assert len(loader) == 11
    assert second.key not in keys(loader, 11)


def test_a_file_that_is_no_archive(folder):
    (folder / "notes.tar").write_bytes(bytes(range(256)) * 40)
    assert len(loader_of(folder, "notes.tar holds no samples")) == 12


def test_an_overwritten_sample_is_replaced_by_the_next_good_one(folder):
    before = keys(ShardLoader(folder, 1), 12)
    index = json.loads((folder / "index.json").read_text())
    names = [name for shard in index["shards"] for name, *_ in shard["samples"]]
    key, offset, *_ = index["shards"][0]["samples"][2]
    spoil(folder / "shard-000000.tar", offset + 2000)
    for _ in range(2):
        loader = loader_of(folder)
        with pytest.warns(UserWarning, match="does not match its checksum; another") as caught:
            after = keys(loader, 24)
        assert len(caught) == 1
        assert loader.skipped == Skipped(shards=0, samples=1)
        following = names[names.index(key) + 1]
        assert after[:12] == [following if name == key else name for name in before]


def test_a_sample_without_one_of_its_arrays_is_replaced(tmp_path, sample):
    whole = encode("1", sample(1, ("hr", "s2")))
    piece = encode("0", replace(sample(0, ("hr", "s2")), series=sample(0).series))
    facts = json.loads(whole[512 : whole.index(b"\0", 512)])
    text = json.dumps(facts).encode()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.json", text), ("0.hr.npy", piece[1536:])):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (tmp_path / "b.tar").write_bytes(whole + bytes(1024))
    loader = ShardLoader(tmp_path, 1)
    with pytest.warns(UserWarning, match=r"is incomplete \(KeyError: 's2.npy'\)"):
        assert keys(loader, 2) == ["1", "1"]


def test_masked_samples_are_left_out_when_read(build, sample):
    """Such as those whose only valid modality is not wanted."""
    one = sample(0, ("hr", "s2"))
    dark = replace(one.series["s2"], pixels=np.zeros_like(one.series["s2"].pixels))
    folder = build([replace(one, series={**one.series, "s2": dark}), sample(1, ("hr", "s2"))])
    loader = ShardLoader(folder, 1, modalities=["s2"])
    with pytest.warns(UserWarning, match="holds no valid pixel"):
        assert keys(loader, 2) == ["000000001"] * 2


def test_a_shard_that_is_gone(folder):
    (folder / "shard-000001.tar").unlink()
    loader = loader_of(folder, "shard-000001.tar is missing")
    assert (len(loader), loader.skipped) == (6, Skipped(1, 6))


def test_a_shard_that_changed_after_it_was_listed(folder):
    loader = ShardLoader(folder, 1)
    for path in folder.glob("*.tar"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of 12 samples can be read any more"):
        keys(loader)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "shards": [3]}'])
def test_a_damaged_index_is_done_without(folder, text):
    (folder / "index.json").write_text(text)
    assert len(loader_of(folder, "index.json is damaged")) == 12


def test_an_index_of_a_newer_version(folder):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"version": 2}))
    with pytest.raises(ValueError, match="is of version 2; this release reads 1"):
        ShardLoader(folder, 1)


def test_index_and_scan_agree(build, sample):
    names = ("water", "wood")
    maps = np.array([[0, 1]], np.int16)
    folder = build([sample(i, ("hr", "s1"), maps, names) for i in range(7)], samples_per_shard=3)
    indexed = open_shards(folder)
    (folder / "index.json").unlink()
    for first, second in zip(indexed, open_shards(folder), strict=True):
        assert second == replace(
            first, entries=tuple(replace(entry, crc=None) for entry in first.entries)
        )


def test_nothing_to_read(tmp_path, folder):
    with pytest.raises(ValueError, match="there is no such folder of shards"):
        ShardLoader(tmp_path / "none", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no shards .* `skysense shards build SOURCE"):
        ShardLoader(tmp_path / "empty", 1)
    for path in folder.glob("*.tar"):
        path.write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"none of 2 shards holds a sample .* build them anew"):
        ShardLoader(folder, 1)


def test_errors_reach_the_caller_and_threads_end():
    before = threading.active_count()

    def read(number):
        if number == 5:
            raise ValueError("five")
        return number

    found = []
    with pytest.raises(ValueError, match="five"):
        found.extend(iter(read_ahead(read, 2)))
    assert threading.active_count() == before
    items = read_ahead(lambda number: number, 0)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    items.close()
    assert threading.active_count() == before
    assert str(_Numbered(read)[5].error) == "five"
    assert _Numbered(read)[4] == 4


def test_what_cannot_be_built(tmp_path, sample):
    def broken():
        yield sample(1)
        raise ValueError("breaks off")

    def gone():
        raise ValueError("is gone")

    dark = replace(sample(0).series["hr"], mask=np.zeros((1, 16, 16), bool))
    empty = replace(sample(0), series={"hr": dark})
    drafts = [Draft("bad", broken), Draft("dark", lambda: [empty])]
    built = build_shards(drafts, tmp_path / "shards")
    assert (built.samples, built.empty) == (1, ("place 0",))
    assert built.bad == (("bad", "breaks off"),)
    for own, match in (
        (drafts[1:], "all pixels of all 1 samples are masked"),
        ([Draft("x", gone)], r"none of 1 files .* x: is gone"),
        ([], "no samples"),
    ):
        with pytest.raises(ValueError, match=match):
            build_shards(own, tmp_path / "other")
        assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_what_is_there_is_replaced_only_if_it_is_shards(tmp_path, build, sample):
    folder = build([sample(i) for i in range(4)], samples_per_shard=1)
    assert len(list(folder.glob("*.tar"))) == 4
    stale = tmp_path / ".shards.999999999.part"
    stale.mkdir()
    build([sample(9)])
    assert sorted(p.name for p in folder.iterdir()) == ["index.json", "shard-000000.tar"]
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    (folder / "thesis.docx").touch()
    with pytest.raises(ValueError, match=r"is not a folder of shards \(it holds thesis.docx\)"):
        build([sample(9)])
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file"):
        build([sample(9)], name="file")


def test_a_failing_disk_leaves_what_was_there(tmp_path, build, sample, monkeypatch):
    folder = build([sample(0)])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skysense.data.shards.build.write_index", full)
    with pytest.raises(OSError, match="No space left"):
        build([sample(1)])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_the_same_drafts_give_the_same_bytes(build, sample):
    samples = [sample(i, ("hr", "s1")) for i in range(9)]
    first, second = (build(samples, name=name, samples_per_shard=4) for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    other = build(samples, name="c", samples_per_shard=4, seed=1)
    assert (other / "index.json").read_bytes() != (first / "index.json").read_bytes()
