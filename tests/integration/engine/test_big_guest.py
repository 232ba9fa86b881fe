"""A guest of 2 GiB, once: offsets past 31 bits, a thousand chunks, the real speed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest
import xxhash

from engine.events import ChunkPunched
from engine.pause import Outcome
from engine.plan import PauseOptions
from engine.snapshot import Header
from tests.integration.engine.rig import SHM, Guest, Guests, Pauser

GIB, MIB = 1 << 30, 1 << 20
SIZE = 2 * GIB


@pytest.fixture
def room(shm_pauser: Pauser) -> Iterator[Pauser]:
    """Builds on tmpfs, where a guest of 2 GiB, its build and its next incarnation find room."""
    if psutil.virtual_memory().available < 5 * GIB:
        pytest.skip("needs 5 GiB of available memory")
    status = os.statvfs(SHM)
    if status.f_bavail * status.f_frsize < SIZE + 64 * MIB:
        pytest.skip(f"needs {SIZE // GIB} GiB of {SHM}")
    limit = memory_limit()
    if limit is not None and limit < 5 * GIB:
        pytest.skip("needs 5 GiB below the limit of its memory cgroup")
    yield shm_pauser  # noqa: PT022 - what it holds is given back by shm_pauser, after the guests


def memory_limit() -> int | None:
    """What the kernel lets this process's cgroup have; None where that is not limited or not known."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(name, encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() else None
    return None


def digest_of(fd: int) -> str:
    """XXH3 of a whole memory; reading a hole does not allocate it."""
    whole, buffer = xxhash.xxh3_128(), bytearray(4 * MIB)
    for at in range(0, SIZE, len(buffer)):
        assert os.preadv(fd, [buffer], at) == len(buffer)
        whole.update(buffer)
    return whole.hexdigest()


def filled(guests: Guests) -> Guest:
    guest = guests.start(SIZE).track()
    guest.sock.settimeout(40)
    assert guest.ask("fill", 0x9E3779B97F4A7C15) is None
    guest.process.freeze()
    return guest


@pytest.mark.slow
def test_two_gibibytes_are_paused_punched_and_resumed_to_the_last_byte(guests: Guests, room: Pauser) -> None:
    guest = filled(guests)
    assert guest.resident() == SIZE
    before = digest_of(guest.watch)
    options = PauseOptions(background_copy=False, punch=True)
    result = room.pause(guest, options=options)
    assert (result.outcome, result.error, result.punch_error) == (Outcome.FINISHED, None, None)
    assert len(room.of(ChunkPunched)) == SIZE // (2 * MIB)
    assert (guest.resident(), result.punched_bytes) == (0, SIZE)
    assert result.peak_over is not None
    assert result.peak_over <= 8 * MIB
    assert resumed_digest(guests, room, result.header) == before


def resumed_digest(guests: Guests, pauser: Pauser, header: Header | None) -> str:
    assert header is not None
    assert header.length == SIZE
    return digest_of(guests.from_header(pauser.builds, header).watch)
