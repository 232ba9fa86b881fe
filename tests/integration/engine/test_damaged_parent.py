"""A parent build that cannot be read is found out while the guest still holds everything."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import resume
from engine.dirty import Forgotten
from engine.errors import CorruptBuildError
from engine.events import BuildFinished, Condemned
from engine.snapshot import Header, delete_build
from tests.failing_reads import FailingReads
from tests.integration.engine.rig import BOTH, MIB, PAGE, Guest, Guests, Pauser, turn_over


def later(path: Path) -> None:
    """As if the clock had ticked since: what is written here is written at once."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**8))


def turn_over_a_byte_of_the_header(build: Path) -> None:
    turn_over(build / "header", 40)


def turn_over_a_byte_of_the_cache(build: Path) -> None:
    turn_over(build / "memfile", 5 * MIB)
    later(build / "memfile")


def cut_the_header(build: Path) -> None:
    os.truncate(build / "header", 50)


def cut_the_cache(build: Path) -> None:
    os.truncate(build / "memfile", PAGE)


def remove_the_cache(build: Path) -> None:
    (build / "memfile").unlink()


UNREAD = "build g0 cannot be read:"
DAMAGES = [
    turn_over_a_byte_of_the_header,
    turn_over_a_byte_of_the_cache,
    cut_the_header,
    cut_the_cache,
    remove_the_cache,
    shutil.rmtree,
]


@pytest.fixture
def first(guests: Guests, pauser: Pauser) -> Header:
    """The build `g0`, of 8 MiB; the second one stands on it."""
    header = pauser.pause(guests.fresh(), build="g0").header
    assert header is not None
    return header


@pytest.fixture
def second(guests: Guests, pauser: Pauser, first: Header) -> Header:
    guest = guests.from_header(pauser.builds, first)
    guest.write([3, 700], seed=2)
    header = pauser.pause(guest, build="g1", parent=first).header
    assert header is not None
    pauser.events.clear()
    return header


@pytest.fixture
def guest(guests: Guests, pauser: Pauser, second: Header) -> Guest:
    """Of two builds, most of it clean."""
    guest = guests.from_header(pauser.builds, second)
    guest.write([5, 1999], seed=3)
    return guest


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_build_anywhere_in_the_chain_is_found_before_anything_is_freed(
    guest: Guest, pauser: Pauser, second: Header, damage: Callable[[Path], None]
) -> None:
    before = guest.memory()
    damage(pauser.builds / "g0")
    left = pauser.names()
    result = pauser.pause(guest, build="g2", parent=second)
    assert result.parent_damaged
    assert str(result.error).startswith("build g0")
    assert not pauser.of(Condemned)
    pauser.assert_rolled_back(guest, result, before, left)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_a_parent_that_the_host_fails_to_read_once_rolls_back_and_is_stood_on_by_the_next_pause(
    guest: Guest, pauser: Pauser, second: Header, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before, left, nth = guest.memory(), pauser.names(), 1
    while True:
        with monkeypatch.context() as patched:
            reads = FailingReads(pauser.builds / "g0", nth, number).install(patched)
            result = pauser.pause(guest, build="g2", parent=second)
        if not reads.has_failed:
            break
        assert (result.parent_damaged, str(result.error)) == (False, f"[Errno {number}] {UNREAD} {os.strerror(number)}")
        assert not pauser.of(Condemned)
        pauser.assert_rolled_back(guest, result, before, left)
        nth += 1
    assert nth >= 3
    pauser.assert_finished(guest, result, before, "g2")


@BOTH
def test_the_pause_after_it_keeps_everything_and_stands_alone(
    guests: Guests, guest: Guest, pauser: Pauser, second: Header, background: bool
) -> None:
    turn_over_a_byte_of_the_header(pauser.builds / "g1")
    assert pauser.pause(guest, build="g2", parent=second).parent_damaged
    assert guest.tracker is not None
    guest.tracker.close()
    guest.tracker = Forgotten()
    before = guest.memory()
    header = pauser.assert_finished(guest, pauser.pause(guest, build="g3", background=background), before, "g3")
    for name in ("g1", "g0"):
        shutil.rmtree(pauser.builds / name)
    again = guests.start()
    resume.fill(again.memfd, pauser.builds, header)
    assert again.memory() == before


@pytest.mark.parametrize("damage", [turn_over_a_byte_of_the_header, cut_the_cache])
def test_a_checkpoint_on_a_damaged_parent_is_refused_too(
    guest: Guest, pauser: Pauser, second: Header, damage: Callable[[Path], None]
) -> None:
    before = guest.memory()
    damage(pauser.builds / "g1")
    result = pauser.pause(guest, build="g2", parent=second, checkpoint=True)
    assert result.parent_damaged
    pauser.assert_rolled_back(guest, result, before, ["g0", "g1"])


def test_what_only_a_resume_can_find_out_is_refused_by_it(
    guests: Guests, guest: Guest, pauser: Pauser, second: Header
) -> None:
    """A byte that changed without a write to the file, as a disk may do it."""
    memfile = pauser.builds / "g0" / "memfile"
    written = memfile.stat().st_mtime_ns
    turn_over(memfile, 5 * MIB)
    os.utime(memfile, ns=(written, written))
    result = pauser.pause(guest, build="g2", parent=second)
    assert pauser.of(BuildFinished)
    assert result.header is not None
    with pytest.raises(CorruptBuildError, match="build g0: chunk 2 does not match its digest"):
        resume.fill(guests.start().memfd, pauser.builds, result.header)


def test_a_pause_that_fails_for_another_reason_does_not_blame_its_parent(
    guest: Guest, pauser: Pauser, second: Header
) -> None:
    before = guest.memory()
    (pauser.builds / "g2").write_bytes(b"in the way")
    result = pauser.pause(guest, build="g2", parent=second)
    assert os.strerror(errno.EEXIST) in str(result.error)
    assert not result.parent_damaged
    assert guest.memory() == before


def test_a_parent_that_lost_its_own_parent_may_not_be_stood_on(guest: Guest, pauser: Pauser, second: Header) -> None:
    """A damaged header pins nothing, so what it stood on could be deleted."""
    before = guest.memory()
    turn_over(pauser.builds / "g1" / "header", PAGE % 64)
    delete_build(pauser.builds, "g0")
    result = pauser.pause(guest, build="g2", parent=second)
    assert result.parent_damaged
    pauser.assert_rolled_back(guest, result, before, ["g1"])
