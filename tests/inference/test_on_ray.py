"""Actors give the bytes of one process, and the loss of one changes nothing."""

import os
import signal
import sys

import numpy as np
import pytest
from torch import nn

from skysense.hub import load, pack
from skysense.inference.embed import EmbedOptions, embed_scene
from skysense.inference.on_ray import OnRay
from skysense.inference.plan import make_plan
from skysense.inference.stores import weights_hash

NOISE = np.random.default_rng(0).integers(20, 200, (3, 160, 96)).astype(np.uint8)


@pytest.fixture
def scene(raster, opened):
    return opened(hr=raster("a.tif", NOISE))


@pytest.fixture
def model():
    made = load("v2_tiny")
    made.trained = True
    return made


@pytest.fixture
def run(scene, model, tmp_path):
    """`run(name, model, engine=None) -> bytes`; the weights are named, as the command does."""
    options = EmbedOptions(batch_size=1, weights=weights_hash(model))

    def run_(name, model=model, **engine):
        plan = make_plan(model, scene, tile=64, overlap=32)
        embed_scene(model, scene, plan, tmp_path / name, options, **engine)
        return (tmp_path / name).read_bytes()

    return run_


class Deadly(nn.Module):
    """A model whose process is killed the first time that it computes."""

    def __init__(self, inner, mark):
        super().__init__()
        self.inner, self.mark = inner, mark

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *arguments):
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(*arguments)


def test_what_cannot_be_sent_is_refused(run, model):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="a packed model cannot be sent"):
        run("map.tif", pack(model), engine=OnRay())


def test_without_ray_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'skysense\[ray\]'"):
        run("map.tif", engine=OnRay())


@pytest.mark.slow
def test_two_actors_give_the_bytes_of_one_process_and_one_may_be_killed(run, model, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        found = run("two.tif", engine=OnRay(actors=2))
        killed = run("killed.tif", Deadly(model, tmp_path / "mark"), engine=OnRay(actors=2))
    finally:
        ray.shutdown()

    assert (tmp_path / "mark").exists()
    assert found == run("here.tif", pack(model))
    assert killed == found
