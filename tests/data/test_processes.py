"""Whether a process is there."""

import os
import subprocess
import sys

from skysense.data import processes


def test_a_process_is_alive_until_it_has_ended():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert processes.is_alive(child.pid)
    child.communicate(b"")
    assert not processes.is_alive(child.pid)


def test_this_process_is_no_other():
    assert not processes.is_alive(os.getpid())


def test_a_process_of_another_user_is_alive(monkeypatch):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(processes.os, "kill", forbidden)
    assert processes.is_alive(1)
