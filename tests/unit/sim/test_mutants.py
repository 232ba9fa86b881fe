"""Each wrong engine breaks the one rule that it is named for, on real memory, and no other."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroaring import BitMap

from engine.cache import Cache
from engine.dirty import DirtySet, Tracker
from engine.effects import Effects
from engine.incarnation import GuestProcess, Incarnation, start_time_of
from engine.memfd import Memfd
from engine.permit import CondemnedRecords
from engine.ranges import Blocks, Chunk, chunks
from sim.mutants import MUTANTS, NAMES, DiscardSkipped, PunchBeforePublish, ResumeAfterPunch, ScanRearms

PAGE = 4096
SIZE = 16 * PAGE
SPAN = 4 * PAGE


@dataclass
class Scene:
    """A stopped guest, 64 KiB of memory that is all dirty, and the cache of its pause."""

    guest: GuestProcess
    memfd: Memfd
    chunks: list[Chunk]
    cache: Cache
    records: CondemnedRecords

    def copy(self, effects: Effects, chunk: Chunk) -> None:
        buffer = memoryview(bytearray(chunk.length))
        effects.copy_read(self.memfd, buffer, chunk.start, chunk)
        effects.copy_write(self.cache, buffer, chunk)

    def condemn(self, effects: Effects) -> None:
        effects.condemn(self.records, self.guest, "web-0.p1")

    def is_running(self) -> bool:
        return not self.guest.is_stopped() and not self.guest.is_dead()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        child = stack.enter_context(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
        stack.callback(child.kill)
        fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, SIZE)
        os.pwrite(fd, b"\1" * SIZE, 0)
        memfd = Memfd.adopt(fd, SIZE)
        stack.callback(memfd.close)
        born = Incarnation("web-0.1", child.pid, start_time_of(child.pid) or 0, memfd.inode)
        guest = GuestProcess(born, os.pidfd_open(child.pid))
        stack.callback(guest.close)
        guest.freeze()
        cut = chunks(Blocks(range(SIZE // PAGE)), SIZE, PAGE, PAGE, SPAN)
        cache = Cache(tmp_path / "builds", "web-0.p1", cut)
        cache.create()
        stack.callback(cache.close)
        yield Scene(guest, memfd, cut, cache, CondemnedRecords(tmp_path / "condemned"))


def test_each_mutant_overrides_acts_of_the_engine_and_only_those() -> None:
    assert set(MUTANTS) == NAMES
    acts = {name for name, _ in inspect.getmembers(Effects, inspect.isfunction)}
    for mutant in MUTANTS.values():
        own = {name for name, _ in inspect.getmembers(mutant, inspect.isfunction) if name in vars(mutant)}
        assert own - {"__init__"} <= acts
        assert own


def test_the_engine_itself_kills_a_condemned_guest_and_retires_its_record(scene: Scene) -> None:
    right = Effects()
    scene.condemn(right)
    right.discard(scene.cache, OSError("broken"))
    right.kill(scene.guest)
    right.retire(scene.records, scene.guest)
    assert scene.guest.is_dead()
    assert not scene.records.holds(scene.guest.incarnation)
    assert not scene.cache.folder.exists()


def test_resume_after_punch_wakes_the_condemned_guest_instead_of_killing_it(scene: Scene) -> None:
    wrong = ResumeAfterPunch()
    scene.condemn(wrong)
    wrong.kill(scene.guest)
    wrong.retire(scene.records, scene.guest)
    status = os.waitid(os.P_PIDFD, scene.guest.pidfd, os.WCONTINUED)
    assert status is not None
    assert status.si_status == signal.SIGCONT
    assert scene.is_running()
    assert scene.records.holds(scene.guest.incarnation)


def test_resume_after_punch_still_deletes_the_partial_cache(scene: Scene) -> None:
    ResumeAfterPunch().discard(scene.cache, OSError("broken"))
    assert not scene.cache.folder.exists()


def test_discard_skipped_leaves_guest_record_and_partial_cache_where_they_are(scene: Scene) -> None:
    wrong = DiscardSkipped()
    scene.condemn(wrong)
    wrong.discard(scene.cache, OSError("broken"))
    wrong.kill(scene.guest)
    wrong.retire(scene.records, scene.guest)
    assert scene.guest.is_stopped()
    assert scene.records.holds(scene.guest.incarnation)
    assert scene.cache.folder.exists()


def test_punch_before_publish_frees_a_condemned_guests_chunk_before_its_readers_may_have_it(scene: Scene) -> None:
    wrong = PunchBeforePublish()
    scene.copy(wrong, scene.chunks[0])
    assert scene.memfd.resident_bytes() == SIZE
    scene.condemn(wrong)
    scene.copy(wrong, scene.chunks[1])
    assert not scene.cache.is_published(1)
    assert scene.memfd.resident_bytes() == SIZE - SPAN
    assert os.pread(scene.memfd.fd, PAGE, SPAN) == bytes(PAGE)


def test_the_engine_itself_frees_nothing_by_copying(scene: Scene) -> None:
    right = Effects()
    scene.condemn(right)
    scene.copy(right, scene.chunks[1])
    assert scene.memfd.resident_bytes() == SIZE


class Notes:
    """A tracker that remembers whether it was asked to re-arm."""

    name = "notes"

    def __init__(self) -> None:
        self.rearmed: list[bool] = []

    def written(self, *, rearm: bool) -> Blocks | None:
        self.rearmed.append(rearm)
        return BitMap([3])

    def close(self) -> None:
        """It holds nothing."""


@pytest.mark.parametrize(("effects", "rearms"), [(Effects(), False), (ScanRearms(), True)], ids=["right", "wrong"])
def test_only_the_wrong_scan_rearms_and_both_tell_what_was_written(
    scene: Scene, effects: Effects, rearms: bool
) -> None:
    tracker: Tracker = Notes()
    found: DirtySet = effects.scan(tracker, scene.guest, scene.memfd, PAGE)
    assert isinstance(tracker, Notes)
    assert tracker.rearmed == [rearms]
    assert list(found.dirty) == [3]
