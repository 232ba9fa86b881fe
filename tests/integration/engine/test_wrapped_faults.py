"""An errno from a wrapped effect ends a pause as the kernel's own does: full disks, limits, seals, no memory left."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import linux
from engine.effects import Effects
from engine.pause import Outcome, PauseResult
from sim.files.faults import AtChunk, FaultPoint
from sim.node.armed_faults import ArmedFaults, Fault, FaultyEffects, Passage
from sim.node.cgroup import MemoryCgroup
from tests.integration.engine.rig import BOTH, MIB, Faults, Guest, Guests, Pauser, fill_up
from tests.story import harm


def wrapped(point: FaultPoint, error: str, chunk: int = 0) -> FaultyEffects:
    armed = ArmedFaults()
    armed.arm(Fault(1, point, harm(error), AtChunk(chunk), "*"))
    return FaultyEffects(Effects(), armed, Passage("web-0", 1, lambda _: None))


def fate(guest: Guest, result: PauseResult) -> dict[str, Any]:
    """How a pause ended, for the guest and for its memory; the words of the error are the kernel's or ours."""
    return {
        "outcome": result.outcome.value,
        "condemned": result.condemned,
        "failed chunk": result.failed_chunk,
        "punching ended": result.punch_error is not None,
        "guest": "dead" if guest.process.is_dead() else "stopped" if guest.process.is_stopped() else "running",
        "memory": guest.memory() if result.outcome is Outcome.ROLLED_BACK else None,
    }


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """RLIMIT_FSIZE of this process; CPython ignores SIGXFSZ, so that writes fail with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@BOTH
def test_a_file_size_limit_on_disk(pauser: Pauser, guests: Guests, background: bool) -> None:
    first, second = guests.fresh(), guests.fresh()
    with file_size_limit(5 * MIB):
        real = pauser.pause(first, background=background)
    ours = pauser.pause(second, background=background, effects=wrapped("reserve", "EFBIG"))
    assert real.outcome is Outcome.ROLLED_BACK
    assert fate(first, real) == fate(second, ours)


@BOTH
def test_a_file_size_limit_on_tmpfs(shm_pauser: Pauser, guests: Guests, background: bool) -> None:
    first, second = guests.fresh(), guests.fresh()
    with file_size_limit(7 * MIB):
        real = shm_pauser.pause(first, background=background)
    ours = shm_pauser.pause(second, background=background, effects=wrapped("copy.write", "EFBIG", 3))
    assert (real.outcome, real.failed_chunk) == (Outcome.DISCARDED, 3)
    assert fate(first, real) == fate(second, ours)


@BOTH
def test_a_tmpfs_that_is_too_small(pauser: Pauser, small_tmpfs: Path, guests: Guests, background: bool) -> None:
    first, second = guests.fresh(), guests.fresh()
    real = type(pauser)(small_tmpfs / "node").pause(first, background=background)
    ours = pauser.pause(second, background=background, effects=wrapped("reserve", "ENOSPC"))
    assert real.outcome is Outcome.ROLLED_BACK
    assert fate(first, real) == fate(second, ours)


def test_a_tmpfs_that_fills_up_meanwhile(pauser: Pauser, small_tmpfs: Path, guests: Guests, faults: Faults) -> None:
    pages = range(0, 2048, 4)
    first, second = guests.fresh(pages=pages), guests.fresh(pages=pages)
    effects = faults.at_chunk("copy_read", 1, lambda: fill_up(small_tmpfs / "somebody-else"))
    real = type(pauser)(small_tmpfs / "node").pause(first, effects=effects)
    assert real.outcome is Outcome.DISCARDED
    assert real.failed_chunk is not None
    ours = pauser.pause(second, effects=wrapped("copy.write", "ENOSPC", real.failed_chunk))
    assert fate(first, real) == fate(second, ours)


@BOTH
def test_a_seal_that_comes_after_the_plan(pauser: Pauser, guests: Guests, faults: Faults, background: bool) -> None:
    first, second = guests.fresh(), guests.fresh()
    effects = faults.at_chunk("publish", 3, lambda: linux.add_seals(first.watch, linux.SEAL_FUTURE_WRITE))
    real = pauser.pause(first, background=background, effects=effects)
    ours = pauser.pause(second, build="b2", background=background, effects=wrapped("punch", "EPERM", 3))
    assert (real.outcome, real.punch_error is None) == (Outcome.FINISHED, False)
    assert fate(first, real) == fate(second, ours)


# -- the kernel takes a guest when memory runs out

HOG = """
import sys
sys.stdin.readline()
kept = [bytearray(b"x" * (1 << 20)) for _ in range(512)]
"""


@pytest.fixture
def small_cgroup() -> Iterator[MemoryCgroup]:
    """A memory cgroup of 32 MiB, without swap."""
    made = MemoryCgroup.make(f"test-{secrets.token_hex(4)}", 32 * MIB)
    if made is None:
        pytest.skip("needs a memory cgroup: run as root, or in a delegated cgroup")
    for name, value in (("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", str(32 * MIB))):
        with contextlib.suppress(OSError):
            (made.folder / name).write_text(value)
    yield made
    made.remove()


class OutOfMemory:
    """A process that shares a cgroup with a guest, and takes more than there is until the kernel has killed the guest.

    The guest is the one to go: its oom_score_adj is the highest there is.
    """

    def __init__(self, cgroup: MemoryCgroup, guest: Guest) -> None:
        self._guest = guest
        self._hog = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE)
        for pid in (guest.pid, self._hog.pid):
            (cgroup.folder / "cgroup.procs").write_text(str(pid))
        Path(f"/proc/{guest.pid}/oom_score_adj").write_text("1000")

    def strike(self) -> None:
        assert self._hog.stdin
        self._hog.stdin.write(b"\n")
        self._hog.stdin.flush()
        self._hog.wait(30)  # the guest's memory is held by its memfd: the next one to be killed is the hog
        assert self._guest.process.is_dead()

    def end(self) -> None:
        self._hog.kill()
        self._hog.communicate()


@pytest.mark.privileged
@BOTH
@pytest.mark.parametrize(("call", "chunk"), [("copy_write", 0), ("copy_read", 2)], ids=["uncondemned", "condemned"])
def test_a_guest_that_the_out_of_memory_killer_takes_ends_as_one_that_is_killed_by_us(
    small_cgroup: MemoryCgroup,
    pauser: Pauser,
    guests: Guests,
    faults: Faults,
    background: bool,
    call: str,
    chunk: int,
) -> None:
    first, second = guests.fresh(), guests.fresh()
    before = first.memory()
    memory = OutOfMemory(small_cgroup, first)
    try:
        real = pauser.pause(first, background=background, effects=faults.at_chunk(call, chunk, memory.strike))
    finally:
        memory.end()
        os.waitpid(first.pid, os.WNOHANG)  # a zombie would keep its cgroup
    ours = pauser.pause(
        second, build="b2", background=background, effects=faults.at_chunk(call, chunk, second.process.kill)
    )
    assert fate(first, real) == fate(second, ours)
    assert real.outcome is (Outcome.ROLLED_BACK if call == "copy_write" else Outcome.FINISHED)
    if real.outcome is Outcome.FINISHED:
        assert pauser.restored() == before
