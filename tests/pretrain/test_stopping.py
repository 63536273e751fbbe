"""Signals ask; the second one insists; what was there before comes back."""

import os
import signal

import pytest
import torch

from skysense.engine.distributed import Ranks
from skysense.pretrain import stopping
from skysense.pretrain.stopping import Stopped, StopRequest, stop_requests

KINDS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def usual_handlers():
    """The suite may run where signals are ignored."""
    before = {kind: signal.signal(kind, signal.default_int_handler) for kind in KINDS}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_is_remembered(kind):
    with stop_requests() as request:
        assert not request.agreed(Ranks())
        os.kill(os.getpid(), kind)
        assert request.agreed(Ranks())
        assert request.number == kind
    assert signal.getsignal(kind) is signal.default_int_handler


def test_the_second_signal_ends_at_once():
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert request.number == signal.SIGTERM


def test_handlers_come_back_whatever_happens():
    with pytest.raises(RuntimeError), stop_requests():
        raise RuntimeError
    assert all(signal.getsignal(kind) is signal.default_int_handler for kind in KINDS)


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert request.number is None


@pytest.mark.parametrize("number", [None, signal.SIGUSR1])
def test_ranks_agree(monkeypatch, number):
    monkeypatch.setattr(stopping, "sum_over_ranks", lambda x: x + signal.SIGINT)
    request = StopRequest()
    request.number = number

    assert request.agreed(Ranks(world=2))
    assert request.number == (number or signal.SIGTERM)


def test_no_rank_was_asked(monkeypatch):
    monkeypatch.setattr(stopping, "sum_over_ranks", torch.Tensor.detach)
    request = StopRequest()

    assert not request.agreed(Ranks(world=2))
    assert request.number is None


def test_a_stop_is_an_interruption():
    assert issubclass(Stopped, KeyboardInterrupt)
