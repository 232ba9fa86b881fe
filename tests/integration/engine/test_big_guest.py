"""A guest of more than 4 GiB, most of it never written: offsets past 31 and past 32 bits."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from engine.events import ChunkPunched
from engine.mapping import UNIT
from engine.pause import Outcome
from engine.plan import PauseOptions
from tests.integration.engine.guest_process import page_content
from tests.integration.engine.rig import SHM, Guest, Guests, Pauser

GIB, MIB = 1 << 30, 1 << 20
SIZE = 4 * GIB + 32 * MIB
WINDOWS = [(0, 32 * MIB), (2 * GIB - 16 * MIB, 32 * MIB), (4 * GIB - 32 * MIB, 64 * MIB)]
"""What it writes: (offset, length)."""
WRITTEN = sum(length for _, length in WINDOWS)
BATCH = 4096
"""Pages a request: their numbers fit into one message."""


@pytest.fixture
def room(shm_pauser: Pauser) -> Iterator[Pauser]:
    """Builds on tmpfs, where what the guest writes, its build and its next incarnation find room."""
    if psutil.virtual_memory().available < 8 * WRITTEN:
        pytest.skip(f"needs {8 * WRITTEN // GIB} GiB of available memory")
    status = os.statvfs(SHM)
    if status.f_bavail * status.f_frsize < 2 * WRITTEN:
        pytest.skip(f"needs {2 * WRITTEN // MIB} MiB of {SHM}")
    yield shm_pauser  # noqa: PT022 - what it holds is given back by shm_pauser, after the guests


def pages() -> Iterator[int]:
    for offset, length in WINDOWS:
        yield from range(offset // UNIT, (offset + length) // UNIT)


def wrong_pages(guest: Guest, seed: int) -> list[int]:
    return [page for page in pages() if os.pread(guest.watch, UNIT, page * UNIT) != page_content(seed, page)]


@pytest.mark.slow
@pytest.mark.parametrize("punch", [True, False], ids=["punched", "kept"])
def test_memory_past_four_gibibytes_is_paused_and_resumed_to_the_last_byte(
    guests: Guests, room: Pauser, punch: bool
) -> None:
    guest, numbers = guests.start(SIZE).track(), list(pages())
    for at in range(0, len(numbers), BATCH):
        guest.write(numbers[at : at + BATCH], seed=7)
    guest.process.freeze()
    assert guest.resident() == WRITTEN
    result = room.pause(guest, options=PauseOptions(background_copy=False, punch=punch))
    assert (result.outcome, result.error, result.punch_error) == (Outcome.FINISHED, None, None)
    assert (guest.resident(), result.punched_bytes) == ((0, WRITTEN) if punch else (WRITTEN, 0))
    assert len(room.of(ChunkPunched)) == (WRITTEN // (2 * MIB) if punch else 0)
    assert result.header is not None
    assert result.header.length == WRITTEN
    resumed = guests.from_header(room.builds, result.header)
    assert resumed.resident() == WRITTEN
    assert wrong_pages(resumed, seed=7) == []
