"""A copy that fails past the point of no return with `salvage`: nothing is lost, or why it is has a code."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import resume
from engine.cache import Cache
from engine.effects import Effects
from engine.errors import BuildFailedError, FreezeError
from engine.events import BuildFinished, CopyFailed, NotSalvaged, Stranded
from engine.pause import Outcome, Pause
from engine.plan import PauseOptions
from tests.integration.engine.rig import (
    BOTH,
    CHUNKS,
    DEADLINE,
    MIB,
    PAGE,
    Faults,
    Guest,
    Guests,
    Pauser,
    fill_up,
    fresh_memfd,
    is_settled,
    turn_over,
    wait_until,
)

CALLS = ("copy_read", "copy_write", "publish", "write_header", "finish")
FAILURES = [(call, True, True) for call in CALLS] + [("copy_write", False, True), ("copy_write", True, False)]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pause.RETRY_SECONDS", (0.001, 0.001))


def options(*, punch: bool = True, background: bool = True) -> PauseOptions:
    return PauseOptions(punch=punch, background_copy=background, salvage=True)


class Broken(Effects):
    """Acts that fail for as long as `broken` says so, of one chunk where that matters."""

    def __init__(self, call: str, chunk: int = 2, error: BaseException | None = None) -> None:
        self.broken = True
        self._chunk = chunk
        self._error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real = getattr(self, call)

        def act(*arguments: Any) -> object:
            of = getattr(arguments[-1], "index", self._chunk)
            if self.broken and of == self._chunk:
                raise self._error
            return real(*arguments)

        setattr(self, call, act)


def stranded(pauser: Pauser, guest: Guest, effects: Effects, **how: Any) -> Pause:
    pause = pauser.prepare(guest, options=options(**how), effects=effects)
    pause.begin()
    rests = threading.Event()
    pause.when_at_rest(rests.set)
    assert rests.wait(DEADLINE)
    assert pause.stranded
    assert not is_settled(pause)
    return pause


def filled(pauser: Pauser, pause: Pause) -> bytes:
    """What a new incarnation gets of the build as it is now."""
    assert pause.header is not None
    memfd = fresh_memfd(pause.header.mapping.size)
    try:
        resume.fill(memfd, pauser.builds, pause.header, pause.cache)
        return os.pread(memfd.fd, memfd.size, 0)
    finally:
        memfd.close()


@pytest.mark.parametrize(("call", "background", "punch"), FAILURES)
def test_a_stranded_build_can_be_resumed_from_and_is_completed_once_that_is_possible(
    pauser: Pauser, guest: Guest, call: str, background: bool, punch: bool
) -> None:
    effects, before = Broken(call), guest.memory()
    pause = stranded(pauser, guest, effects, punch=punch, background=background)
    assert guest.process.is_dead()
    assert guest.memfd.fd >= 0
    assert not pause.retire()
    assert [record.build for record in pauser.condemned.records()] == ["b1"]
    assert pauser.names() == ["b1.partial"]
    assert filled(pauser, pause) == before
    assert not pause.salvage()
    effects.broken = False
    assert pause.salvage()
    result = pause.settle(0)
    assert (result.salvage, result.copy_ms) == ("whole", None)
    pauser.assert_finished(guest, result, before)


@BOTH
def test_a_failure_that_passes_is_over_with_the_next_attempt(
    pauser: Pauser, guest: Guest, faults: Faults, background: bool
) -> None:
    before = guest.memory()
    effects = faults.failing("copy_write", errno.EIO, chunk=2, times=1)
    result = pauser.pause(guest, options=options(background=background), effects=effects)
    assert result.salvage == "whole"
    (left,) = pauser.of(Stranded)
    assert (left.build, left.length, left.chunks > 0) == ("b1", left.chunks * 2 * MIB, True)
    pauser.assert_finished(guest, result, before)


def test_a_full_disk_strands_a_build_until_there_is_space(guests: Guests, small_tmpfs: Path, faults: Faults) -> None:
    guest = guests.fresh(size=4 * MIB)
    pauser, before, filled_up = Pauser(small_tmpfs / "node"), guest.memory(), list[bool]()

    def fill_first(*_: object) -> None:
        if not filled_up:
            filled_up.append(True)
            fill_up(small_tmpfs / "filler")

    pause = stranded(pauser, guest, faults.before("punch", fill_first), background=False)
    assert filled(pauser, pause) == before
    (small_tmpfs / "filler").unlink()
    assert pause.salvage()
    pauser.assert_finished(guest, pause.settle(0), before)


def test_who_waits_for_a_chunk_gets_it_from_the_memfd_once_the_build_is_stranded(pauser: Pauser, guest: Guest) -> None:
    pause = stranded(pauser, guest, Broken("copy_write", CHUNKS - 1))
    cache = pause.cache
    assert cache is not None
    offset, length = list(cache.chunks())[CHUNKS - 1]
    assert cache.read(offset + 4096, 8192, 0) == guest.memory()[-length:][4096 : 4096 + 8192]
    pause.give_up("the test is over")


def test_a_build_that_is_given_up_is_discarded_and_its_readers_fail(pauser: Pauser, guest: Guest) -> None:
    pause = stranded(pauser, guest, Broken("copy_write"))
    pause.give_up("it is not wanted any more")
    result = pause.settle(0)
    assert (result.salvage, result.error) == ("given-up", "it is not wanted any more")
    pauser.assert_discarded(guest, result)
    with pytest.raises(BuildFailedError):
        filled(pauser, pause)
    assert pause.salvage()


def discarded(pauser: Pauser, guest: Guest, effects: Effects, **how: Any) -> str | None:
    """The code of a pause that could not be salvaged."""
    result = pauser.pause(guest, options=options(**how), effects=effects)
    assert [each.code for each in pauser.of(NotSalvaged)] == [result.salvage]
    assert pauser.of(BuildFinished) == []
    pauser.assert_discarded(guest, result)
    return result.salvage


def test_a_guest_that_ran_before_its_sigkill_is_torn(pauser: Pauser, guest: Guest, faults: Faults) -> None:
    def wake(*_: object) -> None:
        os.kill(guest.pid, signal.SIGCONT)
        wait_until(lambda: not guest.process.is_stopped())
        os.kill(guest.pid, signal.SIGSTOP)
        wait_until(guest.process.is_stopped)

    assert discarded(pauser, guest, faults.before("kill", wake)) == "torn"


def damage(pauser: Pauser, page: int = 0) -> Callable[..., None]:
    """Change a byte of chunk 0 in the cache, before chunk 2 fails."""

    def act(*arguments: Any) -> None:
        if arguments[-1].index == 2:
            turn_over(pauser.builds / "b1.partial" / "memfile", page * PAGE + 100)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return act


def test_a_published_chunk_that_is_damaged_cannot_be_salvaged_once_it_was_punched(
    pauser: Pauser, guest: Guest, faults: Faults
) -> None:
    assert discarded(pauser, guest, faults.before("copy_write", damage(pauser))) == "corrupt-chunk"


HOST_ERRORS = [OSError(errno.EIO, "the disk fails"), OSError(errno.EMFILE, "too many"), MemoryError("none left")]


@pytest.mark.parametrize("error", HOST_ERRORS, ids=repr)
@pytest.mark.parametrize("punch", [True, False])
def test_a_published_chunk_that_cannot_be_read_back_just_now_is_not_taken_for_damaged(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch, error: Exception, punch: bool
) -> None:
    before, refused, read = guest.memory(), [3], Cache.read

    def read_or_fail(cache: Cache, *where: Any) -> bytes:
        if refused[0]:
            refused[0] -= 1
            raise error
        return read(cache, *where)

    monkeypatch.setattr(Cache, "read", read_or_fail)
    effects = Broken("copy_write")
    pause = stranded(pauser, guest, effects, punch=punch)
    assert refused == [0]
    assert filled(pauser, pause) == before
    effects.broken = False
    assert pause.salvage()
    pauser.assert_finished(guest, pause.settle(0), before)


def test_a_build_stays_stranded_as_long_as_it_cannot_be_read_back(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise HOST_ERRORS[0]

    effects = Broken("copy_write")
    with monkeypatch.context() as disk:
        disk.setattr(Cache, "read", fail)
        pause = stranded(pauser, guest, effects)
        effects.broken = False
        assert not pause.salvage()
        assert pause.stranded
        assert pauser.names() == ["b1.partial"]
        told = pauser.of(CopyFailed)[-1]
        assert (told.chunk, told.call, told.errno) == (0, "cache.read", "EIO")
    assert pause.salvage()
    assert pause.settle(0).salvage == "whole"


def test_a_published_chunk_that_is_gone_is_damaged(
    pauser: Pauser, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise FileNotFoundError(errno.ENOENT, "it is gone")

    monkeypatch.setattr(Cache, "read", fail)
    assert discarded(pauser, guest, Broken("copy_write")) == "corrupt-chunk"


@pytest.mark.parametrize("place", ["pauser", "shm_pauser"])
@pytest.mark.parametrize("page", [0, 8], ids=["bytes", "zeros"])
def test_a_published_chunk_that_is_damaged_is_copied_again_where_nothing_was_punched(
    request: pytest.FixtureRequest, guest: Guest, faults: Faults, place: str, page: int
) -> None:
    pauser: Pauser = request.getfixturevalue(place)
    guest.write(range(8, 16), seed=0)
    before, broken = guest.memory(), [True]
    hurt = damage(pauser, page)

    def once(*arguments: Any) -> None:
        if arguments[-1].index == 2 and broken:
            broken.clear()
            hurt(*arguments)

    result = pauser.pause(guest, options=options(punch=False), effects=faults.before("copy_write", once))
    pauser.assert_finished(guest, result, before)


def test_a_pause_that_is_interrupted_is_discarded(pauser: Pauser, guest: Guest) -> None:
    pause = pauser.prepare(guest, options=options(background=False), effects=Broken("publish", 2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        pause.begin()
    result = pause.settle(0)
    assert result.salvage == "interrupted"
    pauser.assert_discarded(guest, result)


def test_a_guest_that_does_not_die_leaves_nothing_to_salvage(pauser: Pauser, guest: Guest, faults: Faults) -> None:
    effects = Broken("copy_write")

    def not_yet(*_: object) -> None:
        raise FreezeError("it takes its time")

    faults.before("await_death", not_yet, effects)
    result = pauser.pause(guest, options=options(background=False), effects=effects)
    assert (result.outcome, result.salvage, result.punched_bytes) == (Outcome.DISCARDED, "guest-lives", 0)


def test_without_salvage_a_failed_copy_is_discarded_at_once(pauser: Pauser, guest: Guest) -> None:
    result = pauser.pause(guest, effects=Broken("copy_write"), background=True)
    assert result.salvage is None
    assert pauser.of(Stranded) == pauser.of(NotSalvaged) == []
    pauser.assert_discarded(guest, result)
