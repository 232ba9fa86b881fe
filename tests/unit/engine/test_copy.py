from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cache import Cache
from engine.copy import ChunkCopier
from engine.effects import Effects
from engine.events import ChunkPublished, Event
from engine.memfd import Memfd
from engine.meter import PeakMeter
from engine.plan import MemoryFacts, PauseOptions, PausePlan, plan
from engine.ranges import Blocks

PAGE, MIB = 4096, 1 << 20
SIZE = 128 * MIB


@pytest.fixture
def memory() -> Iterator[Memfd]:
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    memfd = Memfd.adopt(fd, SIZE)
    yield memfd
    memfd.close()


def planned(memory: Memfd, seed: int) -> PausePlan:
    """A quarter of its pages, all different."""
    dirty = sorted(random.Random(seed).sample(range(SIZE // PAGE), SIZE // PAGE // 4))
    for page in dirty:
        memory.write_from(memoryview(page.to_bytes(4, "little") * (PAGE // 4)), page * PAGE)
    facts = MemoryFacts(SIZE, PAGE, PAGE, 0, consumed=True, parent_finished=True)
    return plan(PauseOptions(), facts, Blocks(dirty))


@pytest.mark.parametrize("seed", range(2))
def test_whatever_readers_want_first_huge_pages_hold_little_more_than_what_is_published(
    huge_folder: Path, memory: Memfd, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = planned(memory, seed)
    cache = Cache(huge_folder, "b1", work.chunks)
    cache.create()
    beyond, published = 0, 0

    def note(event: Event) -> None:
        nonlocal beyond, published
        if isinstance(event, ChunkPublished):
            published += event.length
            beyond = max(beyond, event.cache_resident - published)

    wanted = list(range(1, len(work.chunks)))
    random.Random(seed).shuffle(wanted)
    monkeypatch.setattr(cache, "take_wanted", lambda: wanted.pop() if wanted else None)
    copier = ChunkCopier(memory, work, cache, PeakMeter(memory, cache), Effects(), note)
    copier.copy_first(lambda: None)
    copier.copy_rest(lambda: None)
    assert beyond <= 6 * MIB
    assert cache.resident_bytes() == cache.length == published
    pages = os.pread(cache.fd, cache.length, 0)
    assert pages == b"".join(page.to_bytes(4, "little") * (PAGE // 4) for page in sorted(work.dirty))
    cache.close()
