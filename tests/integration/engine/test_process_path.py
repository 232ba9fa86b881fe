"""Memory read out of the guest's process: nothing is owned, nothing is punched, a failure anywhere rolls back."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import signal
from collections.abc import Callable, Sequence

import pytest

from engine import dirty, linux
from engine.events import ChunkPublished, ChunkPunched, CopyFailed, Planned, Retried, Scanned
from engine.memfd import ProcessMemory
from engine.pause import Outcome
from engine.plan import DedupOptions, PauseOptions
from engine.ranges import Blocks, chunks
from tests.integration.engine.rig import BOTH, CHUNKS, MIB, PAGE, Faults, Guest, Guests, Pauser

REAL = linux.read_process
Runs = Sequence[tuple[int, int]]


class Reads:
    """Stands for process_vm_readv: counts the calls, and fails or falls short where it is told to."""

    def __init__(self, before: Callable[[int], None] = lambda _: None, most: Callable[[], int] | None = None) -> None:
        self.before = before
        self.most = most
        self.calls = 0
        self.runs: list[int] = []

    def __call__(self, pid: int, buffer: memoryview, address: int, runs: Runs) -> int:
        self.calls += 1
        self.runs.append(len(runs))
        self.before(self.calls)
        left = self.most() if self.most else sum(length for _, length in runs)
        some = []
        for offset, length in runs:
            if left > 0:
                some.append((offset, min(length, left)))
            left -= length
        return REAL(pid, buffer, address, some)


def fail(number: int) -> Callable[[int], None]:
    def act(call: int) -> None:
        raise OSError(number, os.strerror(number))

    return act


@BOTH
def test_memory_read_out_of_a_process_is_resumed_byte_by_byte(guests: Guests, pauser: Pauser, background: bool) -> None:
    guest = guests.fresh()
    guest.write([5, 6, 7, 900], seed=0)
    before = guest.memory()
    result = pauser.pause(guest, by_process=True, background=background, punch=True)
    pauser.assert_finished(guest, result, before)
    assert result.condemned  # success was answered: the guest may never run again


def test_five_generations_with_holes_zeros_and_clean_pages_are_exact(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=[*range(300), *range(1000, 1100, 7)])
    parent, kept = None, []
    for generation in range(5):
        kept.append(guest.memory())
        build = f"g{generation}"
        result = pauser.pause(guest, build=build, parent=parent, by_process=True)
        pauser.assert_finished(guest, result, kept[-1], build)
        parent = result.header
        assert parent is not None
        guest = guests.from_header(pauser.builds, parent)
        guest.write(range(generation * 200, generation * 200 + 90, 1 + generation), seed=generation + 2)
        guest.write(range(20 * generation, 20 * generation + 15), seed=0)
    assert [pauser.restored(f"g{n}") for n in range(5)] == kept


def test_there_is_no_peak_and_nothing_to_punch_where_there_is_no_memfd(guest: Guest, pauser: Pauser) -> None:
    options = PauseOptions(False, punch=True, dedup=DedupOptions(True), inflight_serve=True)
    resident = guest.resident()
    result = pauser.pause(guest, options=options, by_process=True)
    assert (result.peak_over, result.peak_ratio, result.punched_bytes, result.punch_error) == (None, None, 0, None)
    assert guest.resident() == resident
    assert not pauser.of(ChunkPunched)
    assert {event.source_resident for event in pauser.of(ChunkPublished)} == {None}
    planned = pauser.of(Planned)[-1]
    assert (planned.path, planned.punch, planned.punch_reason) == ("process", False, "there is no memfd to punch")
    assert [note.split(" ")[0] for note in planned.notes] == [
        "memfd-punch-on-snapshot",
        "memfd-background-copy",
        "memfile-diff-dedup",
        "memfd-dedup-inflight-serve",
    ]


def test_reading_allocates_none_of_the_guests_holes(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(0, 2048, 3))
    before, resident = guest.memory(), guest.resident()
    assert resident == 683 * PAGE
    result = pauser.pause(guest, by_process=True)
    pauser.assert_finished(guest, result, before)
    assert guest.resident() == resident
    assert result.header is not None
    assert result.header.length == resident


@pytest.mark.parametrize("most", [1, 7, 256])
def test_more_runs_than_a_call_takes_are_read_by_several(
    guests: Guests, pauser: Pauser, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    guest = guests.fresh(pages=range(0, 2048, 2))
    before, reads = guest.memory(), Reads()
    monkeypatch.setattr(linux, "read_process", reads)
    monkeypatch.setattr(linux, "IOV_MAX", most)
    pauser.assert_finished(guest, pauser.pause(guest, by_process=True), before)
    assert max(reads.runs) == most
    assert sum(reads.runs) == 1024


@pytest.mark.parametrize("seed", range(3))
def test_reads_that_fall_short_are_made_up_for(
    guests: Guests, pauser: Pauser, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    guest = guests.fresh(pages=[*range(0, 900, 2), *range(1000, 1400)])
    before, stream = guest.memory(), random.Random(seed)
    reads = Reads(most=lambda: stream.choice([1, PAGE - 1, PAGE, 5 * PAGE + 3, 300 * PAGE]))
    monkeypatch.setattr(linux, "read_process", reads)
    pauser.assert_finished(guest, pauser.pause(guest, by_process=True), before)
    assert reads.calls > CHUNKS


def test_a_call_that_has_no_memory_is_tried_again(
    sparse_guest: Guest, pauser: Pauser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: dict[int, int] = {}

    def scarce(pid: int, buffer: memoryview, address: int, runs: Runs) -> int:
        tried[address] = tried.get(address, 0) + 1
        if tried[address] < 4:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return REAL(pid, buffer, address, runs)

    before = sparse_guest.memory()
    monkeypatch.setattr(linux, "read_process", scarce)
    pauser.assert_finished(sparse_guest, pauser.pause(sparse_guest, by_process=True), before)
    assert len(pauser.of(Retried)) == 3 * CHUNKS
    assert list(tried.values()) == [4] * CHUNKS


def test_a_call_that_never_has_memory_is_given_up_after_a_bounded_number_of_times(
    sparse_guest: Guest, pauser: Pauser, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, reads = sparse_guest.memory(), Reads(fail(errno.ENOMEM))
    with monkeypatch.context() as patch:
        patch.setattr(linux, "read_process", reads)
        result = pauser.pause(sparse_guest, by_process=True)
    pauser.assert_rolled_back(sparse_guest, result, before)
    assert reads.calls == 5
    pauser.assert_nothing_was_forgotten(sparse_guest, by_process=True)


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EPERM, errno.ESRCH, errno.EFAULT])
def test_a_chunk_that_cannot_be_read_rolls_back_whichever_it_is(
    sparse_guest: Guest, pauser: Pauser, faults: Faults, chunk: int, number: int
) -> None:
    before = sparse_guest.memory()
    result = pauser.pause(sparse_guest, by_process=True, effects=faults.failing("copy_read", number, chunk=chunk))
    assert result.failed_chunk == chunk
    pauser.assert_rolled_back(sparse_guest, result, before)
    pauser.assert_nothing_was_forgotten(sparse_guest, by_process=True)


@pytest.mark.parametrize("call", ["copy_read", "copy_write", "publish"])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_guest_that_dies_during_the_copy_leaves_no_build(
    sparse_guest: Guest, pauser: Pauser, faults: Faults, call: str, chunk: int
) -> None:
    effects = faults.at_chunk(call, chunk, sparse_guest.process.kill)
    result = pauser.pause(sparse_guest, by_process=True, effects=effects)
    assert (result.outcome, result.condemned, result.header) == (Outcome.ROLLED_BACK, False, None)
    assert pauser.names() == []
    assert list(pauser.condemned.records()) == []


def test_a_process_that_took_a_dead_guests_pid_is_not_copied_for_it(
    guests: Guests, pauser: Pauser, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, other = guests.fresh(pages=range(0, 2048, 16)), guests.fresh(pages=range(0, 2048, 16))
    other.write(range(0, 2048, 16), seed=9)

    def from_the_other(pid: int, buffer: memoryview, address: int, runs: Runs) -> int:
        with contextlib.suppress(ProcessLookupError):
            return REAL(pid, buffer, address, runs)
        return REAL(other.pid, buffer, address - guest.address + other.address, runs)

    monkeypatch.setattr(linux, "read_process", from_the_other)
    result = pauser.pause(guest, by_process=True, effects=faults.at_chunk("copy_read", 2, guest.process.kill))
    assert result.outcome is Outcome.ROLLED_BACK
    assert "is dead, by no act of ours" in str(result.error)
    assert pauser.names() == []


def test_a_guest_whose_dirty_pages_are_unknown_is_read_whole(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(0, 2048, 5), bitmap=True)
    os.ftruncate(guest.notes, 100)
    before = guest.memory()
    result = pauser.pause(guest, by_process=True)
    pauser.assert_finished(guest, result, before)
    scanned = pauser.of(Scanned)[-1]
    assert (scanned.tracker, scanned.dirty_bytes, scanned.resident_bytes) == (dirty.RESIDENT, 8 * MIB, None)


def test_a_guest_that_unmapped_its_memory_cannot_be_read_and_is_rolled_back(
    sparse_guest: Guest, pauser: Pauser
) -> None:
    before = sparse_guest.memory()
    sparse_guest.ask("unmap")
    result = pauser.pause(sparse_guest, by_process=True)
    assert "Bad address" in str(result.error)
    assert [event.chunk for event in pauser.of(CopyFailed)] == [0]
    assert (result.outcome, sparse_guest.memory()) == (Outcome.ROLLED_BACK, before)


def test_a_cancel_is_honoured_until_the_copy_is_done(sparse_guest: Guest, pauser: Pauser, faults: Faults) -> None:
    before, said = sparse_guest.memory(), list[bool]()
    effects = faults.at_chunk("copy_write", 3, lambda: said.append(pause.cancel()))
    pause = pauser.prepare(sparse_guest, by_process=True, effects=effects)
    pause.begin()
    assert said == [True]
    pauser.assert_rolled_back(sparse_guest, pause.settle(20), before)
    pauser.assert_nothing_was_forgotten(sparse_guest, by_process=True)


def test_a_checkpoint_by_process_lets_the_same_guest_go_on(sparse_guest: Guest, pauser: Pauser) -> None:
    before, resident = sparse_guest.memory(), sparse_guest.resident()
    result = pauser.pause(sparse_guest, by_process=True, checkpoint=True)
    assert (result.outcome, result.condemned) == (Outcome.FINISHED, False)
    assert pauser.of(Planned)[-1].path == "process"
    assert (sparse_guest.memory(), sparse_guest.resident()) == (before, resident)
    assert pauser.restored() == before
    sparse_guest.process.thaw(pauser.condemned)
    sparse_guest.write([3], seed=4)
    before = sparse_guest.memory()
    second = pauser.pause(sparse_guest, build="b2", parent=result.header, by_process=True)
    pauser.assert_finished(sparse_guest, second, before, "b2")
    assert second.header is not None
    assert second.header.length == PAGE


def read_a_child_as(user: int) -> str:
    """In a process that has given up every privilege: fork, and read what the child alone wrote."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    linux._libc.prctl(linux.PR_SET_DUMPABLE, 1, 0, 0, 0)  # a change of user had made this process unreadable
    memory = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        linux.allow_tracer(os.getppid())
        memory[:] = bytes(range(256)) * (MIB // 256)
        os.write(tell, b"x")
        signal.pause()
    os.read(ready, 1)
    try:
        buffer = bytearray(MIB)
        for chunk in chunks(Blocks(range(0, 256, 2)), MIB, PAGE, PAGE):
            ProcessMemory(pid, linux.address_of(memory), MIB, PAGE).read_span(memoryview(buffer), chunk.start, chunk)
        odd = bytes(PAGE)
        exact = bytes(buffer) == (bytes(range(256)) * (PAGE // 256) + odd) * 128
        return f"exact {exact} uid {os.getuid()}"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_process_of_the_same_user_is_read_without_privileges() -> None:
    user = 65534 if os.getuid() == 0 else os.getuid()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, read_a_child_as(user).encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent, which fails
            os.write(writer, repr(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    assert said == f"exact True uid {user}"
