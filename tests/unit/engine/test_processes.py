from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import processes


def test_a_process_is_listed_with_this_one_until_it_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as sleeper:
        assert {str(os.getpid()), str(sleeper.pid)} <= set(processes.with_memory())
        sleeper.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and not reaped
        assert str(sleeper.pid) not in set(processes.with_memory())


def test_what_is_not_listed_opens_and_maps_nothing() -> None:
    before = [each for each in Path("/proc").iterdir() if each.name.isdecimal()]  # one that starts later is in neither
    listed = set(processes.with_memory())
    for each in (each for each in before if each.name not in listed):
        try:
            assert os.listdir(each / "fd") == []
            assert (each / "maps").read_bytes() == b""
        except OSError:  # it has ended, or may not be looked into
            continue


def test_one_that_may_not_be_looked_into_is_listed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> str:
        raise PermissionError

    monkeypatch.setattr(os, "readlink", refused)
    assert str(os.getpid()) in set(processes.with_memory())
