"""Checkpoints on one process: complete or absent, few, and of the right model alone."""

import os
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

from skysense.engine.checkpoint import checkpoints, latest, read_facts, restore, save
from skysense.engine.optim import build_adamw, parameter_groups
from skysense.engine.random import random_state, seed_everything, set_random_state

FACTS = {"architecture": {"dim": 4, "heads": (1, 2)}, "recipe": "abc"}


def make_state(seed=0, dim=4, steps=1):
    torch.manual_seed(seed)
    student, teacher = (nn.Sequential(nn.Linear(dim, 3), nn.BatchNorm1d(3)) for _ in range(2))
    optimizer = build_adamw(parameter_groups(student, 0.1), 1e-2)
    for _ in range(steps):
        student[0].weight.grad = torch.randn(3, dim)  # the others never get a step
        optimizer.step()
    center = torch.randn(3)
    return {"student": student, "teacher": teacher, "optimizer": optimizer, "center": center}


def same(a, b):
    for name in ("student", "teacher"):
        for key, value in a[name].state_dict().items():
            assert torch.equal(value, b[name].state_dict()[key]), f"{name}.{key}"
    assert torch.equal(a["center"], b["center"])
    states = [list(s["optimizer"].state_dict()["state"].items()) for s in (a, b)]
    for (i, mine), (j, theirs) in zip(*states, strict=True):
        assert (i, mine.keys()) == (j, theirs.keys())
        for key, value in mine.items():
            assert torch.equal(value, theirs[key]), key
            assert value.dtype == theirs[key].dtype


def test_restores_what_was_saved(tmp_path):
    state, other = make_state(), make_state(seed=1, steps=3)
    where = other["center"].data_ptr()

    path = save(tmp_path / "run", 20, state | {"scaler": {"scale": 2.0}}, FACTS)
    described = restore(path, other, {"architecture": FACTS["architecture"]})

    same(state, other)
    assert other["center"].data_ptr() == where
    assert path.name == "step-00000020"
    assert described["step"] == 20
    assert described["facts"]["recipe"] == "abc"
    assert described["values"] == {"scaler": {"scale": 2.0}}
    assert described == read_facts(path)


def test_restores_a_part_alone(tmp_path):
    state, other = make_state(), make_state(seed=1)

    restore(save(tmp_path, 1, state, FACTS), {"teacher": other["teacher"]}, {})

    assert torch.equal(state["teacher"][0].weight, other["teacher"][0].weight)
    assert not torch.equal(state["student"][0].weight, other["student"][0].weight)


def test_random_generators_continue(tmp_path):
    normal = np.random.normal
    seed_everything(3)
    path = save(tmp_path, 1, make_state(), FACTS)
    random.gauss(0, 1), normal()  # leave a second number waiting
    state = random_state()
    expected = [random.random(), random.gauss(0, 1), normal(), torch.rand(2)]

    set_random_state(state)
    assert [random.random(), random.gauss(0, 1), normal()] == expected[:3]
    assert torch.equal(torch.rand(2), expected[3])

    restore(path, make_state(seed=9), {})
    first = torch.rand(2)
    restore(path, make_state(seed=8), {})
    assert torch.equal(first, torch.rand(2))


def test_only_the_last_few_remain(tmp_path):
    state = make_state()

    for step in (5, 10, 100, 15):
        save(tmp_path, step, state, FACTS, keep_last=2)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000015", "step-00000100"]
    assert latest(tmp_path).name == "step-00000100"
    assert len(list(tmp_path.iterdir())) == 2
    assert latest(tmp_path / "nowhere") is None


def test_saving_the_same_step_again_replaces_it(tmp_path):
    state, other = make_state(seed=1), make_state(seed=2)
    save(tmp_path, 5, make_state(), FACTS)

    restore(save(tmp_path, 5, state, FACTS), other, FACTS)

    same(state, other)
    assert len(list(tmp_path.iterdir())) == 1


def test_leftovers_are_ignored_and_cleaned(tmp_path):
    state = make_state()
    path = save(tmp_path, 5, state, FACTS)
    (tmp_path / ".step-00000006.part").mkdir()
    (tmp_path / "step-00000007").mkdir()  # of something else, without facts
    os.replace(path, tmp_path / ".step-00000005.old")  # killed between two renames
    assert latest(tmp_path) is None

    save(tmp_path, 8, state, FACTS)

    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005", "step-00000008"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"architecture": {"dim": 8, "heads": [1, 2]}}, "`architecture.dim` is 4 there and 8 here"),
        ({"family": "v1"}, "`family` is None there and 'v1' here"),
    ],
)
def test_other_facts_are_refused(tmp_path, facts, message):
    path = save(tmp_path, 1, make_state(), FACTS)
    other = make_state(seed=1)
    before = other["student"][0].weight.clone()

    with pytest.raises(ValueError, match=message):
        restore(path, other, facts)
    assert torch.equal(other["student"][0].weight, before)


def test_other_parameters_are_refused(tmp_path):
    path = save(tmp_path, 1, make_state(), FACTS)

    with pytest.raises(ValueError, match=r"`student.0.weight` is \(3, 4\) there and \(3, 8\) here"):
        restore(path, make_state(dim=8), FACTS)
    with pytest.raises(ValueError, match=r"`student.1.bias` is not wanted"):
        restore(path, {"student": make_state()["student"][:1]}, FACTS)
    with pytest.raises(ValueError, match=r"`other.weight` is missing"):
        restore(path, {"other": nn.Linear(1, 1)}, FACTS)


def test_full_disk_loses_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    state = make_state()
    path = save(tmp_path, 1, state, FACTS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ValueError, match="step-00000002 could not be written") as caught:
            save(tmp_path, 2, state, FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]
    restore(path, make_state(seed=1), FACTS)


def test_a_file_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "run").write_text("")

    with pytest.raises(ValueError, match=r"could not be written: .*File exists"):
        save(tmp_path / "run", 1, make_state(), FACTS)


@pytest.mark.parametrize("name", ["facts.json", ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("share", [0, 0.5])
def test_damage_is_a_clear_error(tmp_path, name, share):
    path = save(tmp_path, 1, make_state(), FACTS)
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: int(len(content) * share)])

    with pytest.raises(ValueError, match="checkpoint") as caught:
        restore(path, make_state(), FACTS)
    assert "\n" not in str(caught.value)


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_an_index_that_would_run_code_is_refused(tmp_path):
    path = save(tmp_path, 1, make_state(), FACTS)
    trap = Trap()
    trap.path = str(tmp_path / "sprung")
    (path / ".metadata").write_bytes(pickle.dumps(trap))

    with pytest.raises(ValueError, match=r"names .*mkdir, which it may not"):
        restore(path, make_state(), FACTS)
    assert not (tmp_path / "sprung").exists()
