"""Signals at random moments to runner, node, zygote and guests: the run reports what happened, or the observer agrees.

`SNAPDRILL_MOMENTS=100` runs as many moments; the number of a test is its seed. `SNAPDRILL_MOMENTS_GUEST=vm`: guests of
one kind alone.
"""

from __future__ import annotations

import os
import pathlib
import signal

import pytest

from tests.observer import disturb

COUNT = int(os.environ.get("SNAPDRILL_MOMENTS", "12"))
GUEST = os.environ.get("SNAPDRILL_MOMENTS_GUEST")
QUIET = 4
"""SIGCONT to the runner: it changes nothing. The two agree on it in the test that then flips a byte."""


@pytest.mark.parametrize("number", [each for each in range(COUNT) if GUEST or each != QUIET])
def test_the_run_and_the_observer_agree_on_what_a_signal_did(number: int, tmp_path: pathlib.Path) -> None:
    seen = disturb(number, tmp_path, kind=GUEST)
    assert seen.disagreement() == "", f"{seen.sent.name} to {seen.victim or seen.target}: {seen.output}"


@pytest.mark.slow
def test_the_observer_sees_a_guest_that_was_not_stopped(tmp_path: pathlib.Path) -> None:
    seen = disturb(QUIET, tmp_path, "one-thread-stopped")
    assert (seen.sent, seen.target, seen.code) == (signal.SIGCONT, "runner", 1)
    assert any(each.endswith("ran on") for each in seen.wrong())
    assert seen.disagreement() == ""
    seen.code = 0
    assert seen.disagreement().startswith("it held, and web-")


@pytest.mark.slow
def test_the_observer_sees_one_byte_that_is_not_as_it_was_paused(tmp_path: pathlib.Path) -> None:
    seen = disturb(QUIET, tmp_path)
    assert (seen.wrong(), seen.disagreement()) == ([], "")
    resumed = seen.guests["web-0.3"]
    resumed.pages = bytes([resumed.pages[0] ^ 1]) + resumed.pages[1:]
    assert "web-0.3: 1 pages are not what was paused" in seen.wrong()
    assert seen.disagreement().startswith("it held, and web-0.3: 1 pages")
