"""A resume that starts before the copy ends: exact bytes in any order, or the failure of the copy."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from engine import mapping as maps
from engine import resume
from engine.cache import Cache
from engine.errors import BuildFailedError, CorruptBuildError
from engine.mapping import Extents
from engine.pause import Outcome, Pause
from engine.snapshot import Header
from tests.integration.engine.rig import (
    CHUNKS,
    MIB,
    PAGE,
    PUNCH,
    Faults,
    Guest,
    Guests,
    Pauser,
    WaitForReaders,
    fresh_memfd,
    hold,
    is_published,
    is_settled,
    wait_until,
)

PATHS = pytest.mark.parametrize("dedup", [False, True], ids=["background", "dedup"])


class Resumed:
    """A fresh memory that is filled from a pause whose copy may still run."""

    def __init__(self, pauser: Pauser, pause: Pause, header: Header | None = None) -> None:
        self.header = header or pause.header
        assert self.header is not None
        self.memfd = fresh_memfd(self.header.mapping.size)
        self._pauser = pauser
        self._pause = pause

    def fill(self) -> int:
        assert self.header is not None
        return resume.fill(self.memfd, self._pauser.builds, self.header, self._pause.cache)

    def memory(self) -> bytes:
        return os.pread(self.memfd.fd, self.memfd.size, 0)


Resume = Callable[..., Resumed]


@pytest.fixture
def resumed(pauser: Pauser) -> Iterator[Resume]:
    with contextlib.ExitStack() as stack:

        def make(pause: Pause, header: Header | None = None) -> Resumed:
            made = Resumed(pauser, pause, header)
            stack.callback(made.memfd.close)
            return made

        yield make


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(6) as made:
        yield made


@PATHS
@PUNCH
@pytest.mark.parametrize("chunk", range(1, CHUNKS))
def test_a_memory_resumed_while_a_chunk_is_missing_waits_for_it_and_is_exact(
    guest: Guest,
    pauser: Pauser,
    faults: Faults,
    resumed: Resume,
    pool: ThreadPoolExecutor,
    wait_for_readers: WaitForReaders,
    dedup: bool,
    punch: bool,
    chunk: int,
) -> None:
    guest.write([5, 6, 7, 900], seed=0)
    before, go = guest.memory(), threading.Event()
    effects = faults.at_chunk("copy_write", chunk, lambda: hold(go))
    pause = pauser.prepare(guest, background=True, punch=punch, dedup=dedup, effects=effects)
    pause.begin()
    again = resumed(pause)
    filling = pool.submit(again.fill)
    assert pause.cache is not None
    wait_for_readers(pause.cache, 1)
    assert not filling.done()
    assert not is_settled(pause)
    go.set()
    assert filling.result(20) == sum(any(before[at : at + PAGE]) for at in range(0, len(before), PAGE)) * PAGE
    assert again.memory() == before
    assert pause.settle(20).outcome is Outcome.FINISHED
    assert pauser.restored() == before


def test_what_is_zero_or_never_written_stays_a_hole(
    guests: Guests, pauser: Pauser, faults: Faults, resumed: Resume
) -> None:
    guest = guests.fresh(pages=range(0, 2048, 2))
    guest.write(range(1000, 1100), seed=0)
    before, go = guest.memory(), threading.Event()
    pause = pauser.prepare(guest, background=True, effects=faults.at_chunk("publish", 3, lambda: hold(go)))
    pause.begin()
    go.set()
    again = resumed(pause)
    again.fill()
    assert again.memory() == before
    assert again.memfd.resident_bytes() == (1024 - 50) * PAGE
    pause.settle(20)


@PATHS
@pytest.mark.parametrize("seed", range(4))
def test_readers_in_any_order_get_exact_bytes_while_the_copy_runs(
    guests: Guests, pauser: Pauser, faults: Faults, pool: ThreadPoolExecutor, dedup: bool, seed: int
) -> None:
    guest = guests.fresh(16 * MIB, pages=range(0, 4096, 3))
    stream = random.Random(seed)
    begun = threading.Barrier(5)

    def meet() -> None:
        begun.wait(20)

    pause = pauser.prepare(guest, background=True, dedup=dedup, effects=faults.at_chunk("copy_read", 1, meet))
    before = guest.memory()
    packed = b"".join(before[page * PAGE : (page + 1) * PAGE] for page in range(0, 4096, 3))
    pause.begin()
    cache = pause.cache
    assert cache is not None

    def read_all() -> None:
        places = [(at, stream.randint(1, 3 * PAGE)) for at in range(0, len(packed) - 3 * PAGE, 16 * PAGE)]
        stream.shuffle(places)
        begun.wait(20)
        for at, length in places:
            assert cache.read(at, length, 20) == packed[at : at + length]

    for reader in [pool.submit(read_all) for _ in range(4)]:
        reader.result(30)
    assert pause.settle(20).outcome is Outcome.FINISHED


def only_the_last(header: Header, bytes_wanted: int) -> Header:
    """A header that needs nothing of the build but its last bytes."""
    last = list(header.mapping.extents)[-1]
    shift = last.length - bytes_wanted
    kept = replace(last, offset=last.offset + shift, length=bytes_wanted, storage_offset=last.storage_offset + shift)
    mapping = maps.merge(maps.zero(header.mapping.size, PAGE), Extents.of([kept]))
    return replace(header, mapping=mapping)


def test_a_resume_that_needs_only_the_last_chunk_has_it_copied_next_and_waits_for_no_other(
    guests: Guests,
    pauser: Pauser,
    faults: Faults,
    resumed: Resume,
    pool: ThreadPoolExecutor,
    wait_for_readers: WaitForReaders,
) -> None:
    guest = guests.fresh(16 * MIB)
    before, begun, held = guest.memory(), list[int](), threading.Semaphore(0)
    gates = {1: threading.Event(), 2: threading.Event()}

    def note_and_hold(*arguments: Any) -> None:
        begun.append(arguments[-1].index)
        if arguments[-1].index in gates:
            held.release()
            hold(gates[arguments[-1].index])

    pause = pauser.prepare(guest, background=True, effects=faults.before("copy_read", note_and_hold))
    pause.begin()
    assert all(held.acquire(timeout=20) for _ in gates)  # both workers are busy
    assert pause.header is not None
    again = resumed(pause, only_the_last(pause.header, 2 * MIB))
    filling = pool.submit(again.fill)
    assert pause.cache is not None
    wait_for_readers(pause.cache, 1)
    gates[1].set()
    assert filling.result(20) == 2 * MIB
    assert begun[3] == 7
    assert not is_published(pause.cache, 2)  # nobody waited for that one
    assert again.memory() == bytes(14 * MIB) + before[14 * MIB :]
    gates[2].set()
    assert pause.settle(20).outcome is Outcome.FINISHED


@PATHS
@pytest.mark.parametrize("call", ["copy_read", "copy_write", "publish"])
@pytest.mark.parametrize("chunk", range(1, CHUNKS))
def test_a_copy_that_fails_wakes_the_resume_with_the_cause(
    guest: Guest,
    pauser: Pauser,
    faults: Faults,
    resumed: Resume,
    pool: ThreadPoolExecutor,
    wait_for_readers: WaitForReaders,
    dedup: bool,
    call: str,
    chunk: int,
) -> None:
    go = threading.Event()
    effects = faults.failing(call, errno.EIO, chunk=chunk)
    faults.before(call, lambda *args: hold(go) if args[-1].index == chunk else None, effects)
    pause = pauser.prepare(guest, background=True, dedup=dedup, effects=effects)
    pause.begin()
    filling: Future[int] = pool.submit(resumed(pause).fill)
    assert pause.cache is not None
    wait_for_readers(pause.cache, 1)
    go.set()
    with pytest.raises(BuildFailedError, match="Input/output error"):
        filling.result(20)
    pauser.assert_discarded(guest, pause.settle(20))


def test_a_build_that_could_not_be_finished_is_not_resumed_from(
    guest: Guest, pauser: Pauser, faults: Faults, resumed: Resume
) -> None:
    pause = pauser.prepare(guest, background=True, effects=faults.failing("write_header", errno.ENOSPC))
    pause.begin()
    wait_until(lambda: is_settled(pause))
    with pytest.raises(BuildFailedError, match="No space left"):
        resumed(pause).fill()
    pauser.assert_discarded(guest, pause.settle(20))


def test_a_copy_that_fails_between_the_wait_for_a_chunk_and_its_read_is_told_as_a_failed_build(
    guest: Guest, pauser: Pauser, faults: Faults, resumed: Resume, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    effects = faults.failing("copy_write", errno.EIO, chunk=3)
    faults.before("copy_write", lambda *args: hold(go) if args[-1].index == 3 else None, effects)
    pause = pauser.prepare(guest, background=True, effects=effects)
    pause.begin()
    real = Cache._wait_for

    def wait_and_let_it_fail(self: Cache, index: int, end: float | None) -> None:
        real(self, index, end)
        go.set()
        pause.settle(20)  # the chunk is there, and now its build is gone

    monkeypatch.setattr(Cache, "_wait_for", wait_and_let_it_fail)
    with pytest.raises(BuildFailedError, match="Input/output error"):
        resumed(pause).fill()
    pauser.assert_discarded(guest, pause.settle(20))


def test_a_resume_that_begins_before_the_end_of_the_copy_and_reads_on_after_it_is_exact(
    guest: Guest,
    pauser: Pauser,
    faults: Faults,
    resumed: Resume,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, go, at_the_end = guest.memory(), threading.Event(), threading.Event()
    real = Cache.read

    def read(self: Cache, offset: int, length: int, deadline: float | None = None) -> bytes:
        if offset >= 4 * MIB:
            go.set()
            hold(at_the_end)
        return real(self, offset, length, deadline)

    monkeypatch.setattr(Cache, "read", read)
    pause = pauser.prepare(guest, background=True, effects=faults.at_chunk("copy_read", 3, lambda: hold(go)))
    pause.begin()
    again = resumed(pause)
    filling = pool.submit(again.fill)
    assert pause.settle(20).outcome is Outcome.FINISHED  # its file is closed now
    assert not filling.done()
    at_the_end.set()
    filling.result(20)
    assert again.memory() == before


@PATHS
def test_a_resume_reads_finished_parents_at_once_and_waits_for_the_newest_build_alone(
    guests: Guests,
    pauser: Pauser,
    faults: Faults,
    resumed: Resume,
    pool: ThreadPoolExecutor,
    wait_for_readers: WaitForReaders,
    dedup: bool,
) -> None:
    first = pauser.pause(guests.fresh(), build="b0")
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write(range(1, 2048, 16), seed=2)
    guest.write(range(2, 2048, 16), seed=0)
    guest.write(range(3, 2048, 16), seed=1)
    before, go = guest.memory(), threading.Event()
    effects = faults.at_chunk("publish", 2, lambda: hold(go))
    pause = pauser.prepare(guest, parent=first.header, background=True, dedup=dedup, effects=effects)
    pause.begin()
    again = resumed(pause)
    filling = pool.submit(again.fill)
    assert pause.cache is not None
    wait_for_readers(pause.cache, 1)
    assert again.memory()[: 256 * PAGE] == before[: 256 * PAGE]
    go.set()
    filling.result(20)
    assert again.memory() == before
    assert pause.settle(20).outcome is Outcome.FINISHED


def test_a_damaged_parent_refuses_the_resume_before_a_byte_is_written(
    guests: Guests, pauser: Pauser, faults: Faults, resumed: Resume
) -> None:
    first = pauser.pause(guests.fresh(), build="b0")
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write(range(1, 2048, 16), seed=2)
    go = threading.Event()
    effects = faults.at_chunk("copy_write", 2, lambda: hold(go))
    pause = pauser.prepare(guest, parent=first.header, background=True, effects=effects)
    pause.begin()
    with open(pauser.builds / "b0" / "memfile", "r+b") as file:
        file.seek(5 * MIB)
        file.write(b"damage")
    again = resumed(pause)
    with pytest.raises(CorruptBuildError, match="build b0: chunk 2"):
        again.fill()
    assert again.memfd.resident_bytes() == 0
    go.set()
    pause.settle(20)


def test_several_resumes_of_one_copy_are_each_exact(
    guest: Guest,
    pauser: Pauser,
    faults: Faults,
    resumed: Resume,
    pool: ThreadPoolExecutor,
    wait_for_readers: WaitForReaders,
) -> None:
    before, go = guest.memory(), threading.Event()
    pause = pauser.prepare(guest, background=True, effects=faults.at_chunk("copy_write", 1, lambda: hold(go)))
    pause.begin()
    several = [resumed(pause) for _ in range(4)]
    filling = [pool.submit(each.fill) for each in several]
    assert pause.cache is not None
    wait_for_readers(pause.cache, 4)
    go.set()
    for each in filling:
        each.result(20)
    assert {each.memory() == before for each in several} == {True}
    assert pause.settle(20).outcome is Outcome.FINISHED


@pytest.mark.privileged
def test_a_hugetlb_memory_is_resumed_while_its_copy_runs(
    huge_pages: int,
    guests: Guests,
    pauser: Pauser,
    faults: Faults,
    pool: ThreadPoolExecutor,
    wait_for_readers: WaitForReaders,
) -> None:
    guest = guests.start(8 * MIB, huge=True).track(block_size=2 * MIB)
    guest.write([0, 5, 600, 1999], seed=1)
    before, go = guest.memory(), threading.Event()
    effects = faults.at_chunk("copy_write", 2, lambda: hold(go))
    pause = pauser.prepare(guest, block_size=2 * MIB, background=True, effects=effects)
    pause.begin()
    header, cache = pause.header, pause.cache
    assert header is not None
    assert cache is not None
    again = guests.start(8 * MIB, huge=True)
    filling = pool.submit(resume.fill, again.memfd, pauser.builds, header, cache)
    wait_for_readers(cache, 1)
    go.set()
    filling.result(20)
    assert again.memory() == before
    assert pause.settle(20).outcome is Outcome.FINISHED
    assert guest.resident() == 0
