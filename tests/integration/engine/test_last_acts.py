"""The last acts of a pause and the first of a resume: closing, a cancel too late, bytes that are not whole."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import Any

import pytest

from engine import resume
from engine.cache import Cache
from engine.effects import Effects
from engine.errors import CorruptBuildError
from engine.events import BuildFinished, CacheDeleted, Condemned, CopyFailed
from engine.pause import Outcome, Pause
from tests.integration.engine.rig import BOTH, PAGE, PUNCH, Faults, Guest, Guests, Pauser


def caches_open(pauser: Pauser) -> list[str]:
    """Files below the folder of builds that this process holds open."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return [link for link in links if link.startswith(str(pauser.builds))]


@BOTH
def test_what_cannot_be_closed_is_told_and_keeps_nobody_waiting(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    before = guest.memory()
    result = pauser.pause(guest, background=background, effects=faults.failing("close", errno.EIO))
    assert (result.outcome, result.error) == (Outcome.FINISHED, None)
    assert [(each.call, each.error[:6]) for each in pauser.of(CopyFailed)] == [("teardown", "close:")]
    assert guest.memfd.fd == -1
    assert caches_open(pauser) == []
    assert pauser.restored() == before
    assert pauser.retire()
    assert list(pauser.condemned.records()) == []


@BOTH
@pytest.mark.parametrize(("chunk", "outcome"), [(0, Outcome.ROLLED_BACK), (2, Outcome.DISCARDED)])
def test_a_disk_that_cannot_be_asked_any_more_ends_the_pause_and_is_reported_once(
    guest: Guest, pauser: Pauser, monkeypatch: pytest.MonkeyPatch, background: bool, chunk: int, outcome: Outcome
) -> None:
    effects, real = Effects(), os.stat

    def refuse(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(pauser.builds)):
            raise OSError(errno.EIO, "the disk is gone")
        return real(path, *arguments, **options)

    def fail(*arguments: Any) -> None:
        if arguments[-1].index == chunk:
            monkeypatch.setattr(os, "stat", refuse)
            raise OSError(errno.EIO, "the disk is gone")
        Effects.copy_write(effects, *arguments)

    monkeypatch.setattr(effects, "copy_write", fail)
    pause = pauser.prepare(guest, background=background, effects=effects)
    pause.begin()
    assert pause.settle(5).outcome is outcome
    assert [each.errno for each in pauser.of(CopyFailed)] == ["EIO"]
    assert pauser.of(CacheDeleted) == []  # nobody knows
    assert not pause.retire()
    monkeypatch.undo()


@BOTH
def test_a_memfd_that_somebody_closes_meanwhile_costs_the_pause_and_keeps_nobody_waiting(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool
) -> None:
    """As a node does that ends, and has waited long enough."""

    def close(*_: object) -> None:
        if pauser.of(Condemned):
            guest.memfd.close()

    result = pauser.pause(guest, background=background, effects=faults.before("publish", close))
    assert result.outcome is Outcome.DISCARDED
    assert guest.process.is_dead()
    assert caches_open(pauser) == []
    assert pauser.retire()
    assert list(pauser.condemned.records()) == []


def test_a_roll_back_whose_cache_cannot_be_closed_is_a_roll_back(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    before = guest.memory()
    effects = faults.failing("copy_write", errno.EIO, chunk=0)
    faults.before("close", raise_eio, effects)
    result = pauser.pause(guest, effects=effects)
    pauser.assert_rolled_back(guest, result, before)
    assert caches_open(pauser) == []


def raise_eio(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@BOTH
@pytest.mark.parametrize("fails", [False, True], ids=["written", "refused"])
def test_a_cancel_while_the_record_is_written_is_refused_and_the_pause_goes_on(
    guest: Guest, pauser: Pauser, faults: Faults, background: bool, fails: bool
) -> None:
    answers: list[bool] = []
    made: list[Pause] = []

    def cancel(*_: object) -> None:
        answers.append(made[0].cancel())
        if fails:
            raise OSError(errno.ENOSPC, "no space for the record")

    made.append(pauser.prepare(guest, background=background, effects=faults.before("condemn", cancel)))
    made[0].begin()
    assert made[0].settle(30).outcome is Outcome.FINISHED
    assert not any(answers)


def flipped(at: int) -> Effects:
    """Effects whose n-th read of a build has one byte wrong."""
    reads: list[int] = []

    class Flips(Effects):
        def resume_read(self, source: Any, offset: int, length: int) -> bytes:
            data = bytearray(super().resume_read(source, offset, length))
            reads.append(offset)
            if len(reads) == at:
                data[PAGE] ^= 1
            return bytes(data)

    return Flips()


@pytest.mark.parametrize("read", [1, 4])
def test_a_byte_that_is_read_wrong_is_refused_though_the_file_is_whole(
    guest: Guest, guests: Guests, pauser: Pauser, read: int
) -> None:
    header = pauser.pause(guest).header
    assert header is not None
    with pytest.raises(CorruptBuildError, match=f"build b1: chunk {read - 1} does not match its digest"):
        resume.fill(guests.start().memfd, pauser.builds, header, effects=flipped(read))


def test_every_chunk_of_a_chain_is_read_once(guests: Guests, pauser: Pauser) -> None:
    first = pauser.pause(guests.fresh(), build="g0")
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write(range(0, 2048, 3), seed=2)
    before = guest.memory()
    second = pauser.pause(guest, build="g1", parent=first.header)
    assert second.header is not None
    reads: list[tuple[str, int]] = []

    class Counts(Effects):
        def resume_read(self, source: Any, offset: int, length: int) -> bytes:
            reads.append((source.header.build, offset))
            return super().resume_read(source, offset, length)

    resumed = guests.start()
    resume.fill(resumed.memfd, pauser.builds, second.header, effects=Counts())
    assert resumed.memory() == before
    chunks = len(first.header.digests) + len(second.header.digests)
    assert len(reads) == len(set(reads)) == chunks


def test_a_chunk_that_is_damaged_before_the_copy_s_end_is_refused(
    guest: Guest, guests: Guests, pauser: Pauser, faults: Faults
) -> None:
    """A resume from a build that is still being copied believes its digests, too."""
    found: list[BaseException] = []
    pause: list[Pause] = []

    def resume_now() -> None:
        cache, header = pause[0].cache, pause[0].header
        assert cache is not None
        assert header is not None
        os.pwrite(cache.fd, b"damage", PAGE)
        try:
            resume.fill(guests.start().memfd, pauser.builds, header, cache)
        except CorruptBuildError as error:
            found.append(error)

    effects = faults.before("write_header", lambda *_: resume_now())
    pause.append(pauser.prepare(guest, background=True, effects=effects))
    pause[0].begin()
    pause[0].settle(30)
    assert [str(each) for each in found] == ["build b1: chunk 0 does not match its digest"]


@BOTH
@PUNCH
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=["EIO", "^C"])
def test_a_build_that_has_its_name_is_finished_whatever_the_renaming_reported(
    guest: Guest, pauser: Pauser, background: bool, punch: bool, error: BaseException
) -> None:
    """As a rename on a network disk may report a failure of what it did."""
    effects, left = Effects(), [error]

    def finish(cache: Cache) -> None:
        cache.finish()
        raise left.pop()

    before = guest.memory()
    effects.finish = finish  # type: ignore[method-assign]
    pause = pauser.prepare(guest, background=background, punch=punch, effects=effects)
    with contextlib.suppress(KeyboardInterrupt):
        pause.begin()
    result = pause.settle(20)
    pauser.assert_finished(guest, result, before)
    assert len(pauser.of(BuildFinished)) == 1


@pytest.mark.parametrize("begun", [False, True], ids=["before-it-begins", "once-it-began"])
def test_an_interrupt_while_the_copier_starts_leaves_the_copy_to_one_thread(
    guest: Guest, pauser: Pauser, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    real, before = threading.Thread.start, guest.memory()
    owners: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "copier-1" and not begun:
            raise KeyboardInterrupt
        real(thread)
        if thread.name == "copier-1":
            raise KeyboardInterrupt

    def note(*_: object) -> None:
        owners.append(threading.current_thread().name)

    monkeypatch.setattr(threading.Thread, "start", start)
    effects = Faults().before("close", note)
    pause = pauser.prepare(guest, background=True, effects=effects)
    with pytest.raises(KeyboardInterrupt):
        pause.begin()
    result = pause.settle(20)
    assert len(owners) == 1
    if result.outcome is Outcome.FINISHED:
        assert owners == ["copier-1"]
        pauser.assert_finished(guest, result, before)
    else:
        pauser.assert_discarded(guest, result)
