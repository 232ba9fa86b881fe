"""Every path in lockstep: the same writes, paused each in its own way, must resume to the same memory as the model.

The memories live in this process, so that a generation costs a millisecond and no guest.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from engine import linux, resume
from engine.dirty import DirtySet, Tracker
from engine.effects import Before, Effects
from engine.incarnation import CondemnedRecords, GuestProcess, Incarnation, PunchPermit
from engine.memfd import Memfd, ProcessMemory
from engine.pause import Outcome, Pause, PauseResult
from engine.plan import DedupOptions, PauseOptions
from engine.prepare import PauseRequest
from engine.ranges import Blocks
from engine.snapshot import Build, Header, template

PAGE = 4096
MIB = 1 << 20
SIZE = 5 * MIB
PAGES = SIZE // PAGE
Write = tuple[int, int, int]


class SaidToBeDead(GuestProcess):
    """So that the permit opens: nothing runs that could see what is punched."""

    def is_dead(self) -> bool:
        return True


class SelfEffects(Effects):
    """The guest is this very process: it counts as stopped, is told what is dirty, and is not killed."""

    def __init__(self, dirty: Blocks) -> None:
        self.dirty = dirty

    def look(self, guest: GuestProcess, before: Before) -> None: ...

    def scan(self, tracker: Tracker, guest: GuestProcess, memory: object, block_size: int) -> DirtySet:
        dirty = BitMap({page * PAGE // block_size for page in self.dirty})
        return DirtySet(dirty, BitMap(), "model", 0.0)

    def kill(self, guest: GuestProcess) -> None: ...

    def await_death(self, guest: GuestProcess, permit: PunchPermit | None) -> None:
        if permit is not None:
            permit.open(SaidToBeDead(guest.incarnation, -1))

    def retire(self, records: CondemnedRecords, guest: GuestProcess) -> None: ...


class Silent:
    """Nothing to ask, nothing to begin anew: the model knows."""

    name = "model"

    def written(self, *, rearm: bool) -> Blocks | None:
        return None

    def close(self) -> None: ...


@dataclass
class Way:
    """One sandbox that is paused in one way, generation after generation."""

    name: str
    folder: Path
    options: dict[str, Any]
    block: int = PAGE

    def __post_init__(self) -> None:
        self.builds = self.folder / self.name / "builds"
        self.builds.mkdir(parents=True)
        self.condemned = CondemnedRecords(self.folder / self.name / "condemned")
        self.header = template(SIZE, self.block)
        self.memfd = fresh()

    def write(self, writes: Sequence[Write]) -> None:
        for start, count, kind in writes:
            for page in range(start, min(start + count, PAGES)):
                os.pwrite(self.memfd.fd, content(kind, page), page * PAGE)

    def pause(self, dirty: Blocks, generation: int, punch: bool) -> PauseResult:
        options = dict(self.options)
        by_process, checkpoint = options.pop("by_process", False), options.pop("checkpoint", False)
        incarnation = Incarnation(self.name, os.getpid(), generation, self.memfd.inode)
        mapping = mmap.mmap(self.memfd.fd, SIZE) if by_process else None
        process = ProcessMemory(os.getpid(), linux.address_of(mapping), SIZE, PAGE) if mapping is not None else None
        request = PauseRequest(
            guest=GuestProcess(incarnation, -1),
            memory=process or self.memfd,
            tracker=Silent(),
            block_size=self.block,
            parent=self.header,
            build=f"g{generation}",
            builds=self.builds,
            condemned=self.condemned,
            options=PauseOptions(use_memfd=not by_process, punch=punch, **options),
            borrowed=checkpoint,
        )
        pause = Pause(request, SelfEffects(dirty))
        pause.begin()
        result = pause.settle(20)
        if mapping is not None:
            mapping.close()
        return result

    def next_generation(self, result: PauseResult) -> None:
        """A new incarnation from the build, unless the same one goes on."""
        assert (result.outcome, result.error, result.punch_error) == (Outcome.FINISHED, None, None), self.name
        assert result.header is not None
        self.header = result.header
        if self.options.get("checkpoint"):
            return
        self.memfd.close()
        self.memfd = fresh()
        resume.fill(self.memfd, self.builds, self.header)

    def memory(self) -> bytes:
        return os.pread(self.memfd.fd, SIZE, 0)

    def restored(self, generation: int) -> bytes:
        """The build's memory, resumed anew."""
        build = Build.open(self.builds, f"g{generation}")
        build.close()
        memfd = fresh()
        try:
            resume.fill(memfd, self.builds, build.header)
            return os.pread(memfd.fd, SIZE, 0)
        finally:
            memfd.close()

    def stored(self, generation: int) -> bytes:
        return (self.builds / f"g{generation}" / "memfile").read_bytes()


def fresh() -> Memfd:
    fd = os.memfd_create("lockstep", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    return Memfd.adopt(fd, SIZE)


def content(kind: int, page: int) -> bytes:
    """Kind 0 is zeros; the others differ by page, so that no page can stand in for another."""
    return (kind.to_bytes(8, "little") + page.to_bytes(8, "little")) * (PAGE // 16) if kind else bytes(PAGE)


def ways(folder: Path) -> list[Way]:
    dedup = DedupOptions(True)
    return [
        Way("sync", folder, {"background_copy": False}),
        Way("background", folder, {"background_copy": True}),
        Way("process", folder, {"by_process": True}),
        Way("in-place", folder, {"checkpoint": True}),
        Way("dedup", folder, {"dedup": dedup}),
        Way("dedup-large-blocks", folder, {"dedup": dedup}, block=MIB),
        Way("sync-large-blocks", folder, {"background_copy": False}, block=MIB),
    ]


WRITES = st.lists(
    st.tuples(st.integers(0, PAGES - 1), st.sampled_from([1, 2, 40, 600]), st.integers(0, 3)), min_size=0, max_size=5
)
GENERATIONS = st.lists(st.tuples(WRITES, st.booleans()), min_size=1, max_size=3)


@settings(max_examples=10, deadline=None)
@given(generations=GENERATIONS)
def test_all_paths_resume_to_the_memory_of_the_model(generations: list[tuple[list[Write], bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        every = ways(Path(folder))
        try:
            run_in_lockstep(every, generations)
        finally:
            for way in every:
                way.memfd.close()


def run_in_lockstep(every: list[Way], generations: list[tuple[list[Write], bool]]) -> None:
    by_name = {way.name: way for way in every}
    model, kept = bytearray(SIZE), list[bytes]()
    for number, (writes, punch) in enumerate(generations):
        dirty = apply(model, writes)
        headers: dict[str, Header] = {}
        for way in every:
            way.write(writes)
            way.next_generation(way.pause(dirty, number, punch))
            assert way.memory() == model, (way.name, number)
            headers[way.name] = way.header
        kept.append(bytes(model))
        plain = ["sync", "background", "process", "in-place"]
        assert len({by_name[name].stored(number) for name in plain}) == 1
        assert len({headers[name].content_hash for name in plain}) == 1
        assert len({header.generation for header in headers.values()}) == 1
        assert headers["dedup"].length <= headers["sync"].length
        assert headers["dedup-large-blocks"].length == headers["dedup"].length  # pages are what is stored, either way
    for way in every:
        assert [way.restored(number) for number in range(len(kept))] == kept, way.name


def apply(model: bytearray, writes: Sequence[Write]) -> Blocks:
    """Write to the model; gives the pages written."""
    dirty = Blocks()
    for start, count, kind in writes:
        for page in range(start, min(start + count, PAGES)):
            model[page * PAGE : (page + 1) * PAGE] = content(kind, page)
            dirty.add(page)
    return dirty


@pytest.mark.parametrize("punch", [False, True], ids=["kept", "punched"])
def test_sync_and_background_store_the_same_file_under_the_same_hash_whatever_is_written(
    tmp_path: Path, punch: bool
) -> None:
    dirty = Blocks([*range(0, PAGES, 3), *range(600, 700)])
    made = []
    for way in (Way("sync", tmp_path, {"background_copy": False}), Way("background", tmp_path, {})):
        way.write([(page, 1, 7) for page in dirty])
        way.next_generation(way.pause(dirty, 0, punch))
        made.append((way.stored(0), way.header.content_hash, way.header.digests))
        way.memfd.close()
    assert made[0] == made[1]
