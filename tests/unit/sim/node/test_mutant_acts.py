"""Each wrong engine breaks the one rule that it is named for, on real memory, and no other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroaring import BitMap

from engine import mapping as maps
from engine.cache import Cache
from engine.dirty import DirtySet, Tracker
from engine.effects import Effects
from engine.errors import CondemnedError, GuestRanError
from engine.incarnation import CondemnedRecords, GuestProcess, Incarnation, PunchPermit, start_time_of
from engine.memfd import Memfd
from engine.ranges import Blocks, Chunk, chunks
from engine.snapshot import HEADER, Header, from_bytes, template
from sim.node import wrong_acts
from sim.node.armed_faults import ArmedFaults, FaultyEffects, Passage

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

    def condemn(self, effects: Effects) -> PunchPermit:
        return effects.condemn(self.records, self.guest, "web-0.p1")

    def condemn_and_kill(self, effects: Effects) -> PunchPermit:
        permit = self.condemn(effects)
        effects.kill(self.guest)
        effects.await_death(self.guest, permit)
        return permit

    def is_running(self) -> bool:
        return not self.guest.is_stopped() and not self.guest.is_dead()


def made(kind: type[FaultyEffects]) -> FaultyEffects:
    return kind(Effects(), ArmedFaults(), Passage("web-0", 1, lambda _event: None))


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


def test_the_engine_itself_kills_a_condemned_guest_and_retires_its_record(scene: Scene) -> None:
    right = made(FaultyEffects)
    scene.condemn_and_kill(right)
    assert scene.guest.is_dead()
    right.discard(scene.cache, OSError("broken"))
    right.close(None, None)
    right.retire(scene.records, scene.guest)
    assert not scene.records.holds(scene.guest.incarnation)
    assert not scene.cache.folder.exists()


def test_resume_after_punch_wakes_the_condemned_guest_instead_of_killing_it(scene: Scene) -> None:
    wrong = made(wrong_acts.ResumeAfterPunch)
    scene.condemn_and_kill(wrong)
    wrong.discard(scene.cache, OSError("broken"))
    wrong.close(None, None)
    with pytest.raises(CondemnedError):
        wrong.retire(scene.records, scene.guest)
    status = os.waitid(os.P_PIDFD, scene.guest.pidfd, os.WCONTINUED)
    assert status is not None
    assert status.si_status == signal.SIGCONT
    assert scene.is_running()
    assert scene.records.holds(scene.guest.incarnation)


def test_resume_after_punch_still_deletes_the_partial_cache(scene: Scene) -> None:
    made(wrong_acts.ResumeAfterPunch).discard(scene.cache, OSError("broken"))
    assert not scene.cache.folder.exists()


def test_discard_skipped_leaves_guest_record_and_partial_cache_where_they_are(scene: Scene) -> None:
    wrong = made(wrong_acts.DiscardSkipped)
    scene.condemn_and_kill(wrong)
    wrong.discard(scene.cache, OSError("broken"))
    wrong.close(None, None)
    with pytest.raises(CondemnedError):
        wrong.retire(scene.records, scene.guest)
    assert scene.guest.is_stopped()
    assert scene.records.holds(scene.guest.incarnation)
    assert scene.cache.folder.exists()


def test_punch_before_publish_frees_a_condemned_guests_chunk_before_its_readers_may_have_it(scene: Scene) -> None:
    wrong = made(wrong_acts.PunchBeforePublish)
    scene.copy(wrong, scene.chunks[0])
    assert scene.memfd.resident_bytes() == SIZE
    scene.condemn_and_kill(wrong)
    scene.copy(wrong, scene.chunks[1])
    with pytest.raises(TimeoutError):
        scene.cache.read(SPAN, SPAN, 0)
    assert scene.memfd.resident_bytes() == SIZE - SPAN
    assert os.pread(scene.memfd.fd, PAGE, SPAN) == bytes(PAGE)


def test_the_engine_itself_frees_nothing_by_copying(scene: Scene) -> None:
    right = made(FaultyEffects)
    scene.condemn_and_kill(right)
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


@pytest.mark.parametrize(
    ("effects", "rearms"), [(made(FaultyEffects), False), (made(wrong_acts.ScanRearms), True)], ids=["right", "wrong"]
)
def test_only_the_wrong_scan_rearms_and_both_tell_what_was_written(
    scene: Scene, effects: Effects, rearms: bool
) -> None:
    tracker: Tracker = Notes()
    found: DirtySet = effects.scan(tracker, scene.guest, scene.memfd, PAGE)
    assert isinstance(tracker, Notes)
    assert tracker.rearmed == [rearms]
    assert list(found.dirty) == [3]


@pytest.mark.parametrize("kind", [wrong_acts.KillsLate, wrong_acts.ResumeAfterPunch, wrong_acts.DiscardSkipped])
def test_a_pause_that_does_not_fail_ends_as_it_should(scene: Scene, kind: type[FaultyEffects]) -> None:
    wrong = made(kind)
    scene.condemn_and_kill(wrong)
    assert scene.guest.is_stopped()
    wrong.close(None, None)
    wrong.retire(scene.records, scene.guest)
    assert scene.guest.is_dead()
    assert not scene.records.holds(scene.guest.incarnation)


def test_record_after_punch_gives_a_permit_that_no_record_stands_behind_until_the_header(scene: Scene) -> None:
    wrong = made(wrong_acts.RecordAfterPunch)
    permit = scene.condemn_and_kill(wrong)
    wrong.punch(scene.memfd, 0, SPAN, permit, scene.chunks[0])
    assert scene.memfd.resident_bytes() == SIZE - SPAN
    assert not scene.records.holds(scene.guest.incarnation)
    wrong.write_header(template(SIZE, PAGE), scene.cache.folder)
    assert scene.records.holds(scene.guest.incarnation)


def test_record_retired_early_forgets_a_guest_that_lives(scene: Scene) -> None:
    wrong = made(wrong_acts.RecordRetiredEarly)
    scene.condemn(wrong)
    assert scene.records.holds(scene.guest.incarnation)
    wrong.discard(scene.cache, OSError("broken"))
    assert scene.guest.is_stopped()
    assert not scene.records.holds(scene.guest.incarnation)


def test_unfinished_visible_writes_in_the_folder_that_has_the_final_name(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "web-0.p1", [])
    made(wrong_acts.UnfinishedVisible).create_cache(cache)
    cache.close()
    assert [path.name for path in tmp_path.iterdir()] == ["web-0.p1"]


class Wrote:
    """A tracker of a guest that wrote these blocks."""

    name = "wrote"

    def __init__(self, *blocks: int) -> None:
        self._blocks = BitMap(blocks)

    def written(self, *, rearm: bool) -> Blocks | None:
        return self._blocks

    def close(self) -> None:
        """It holds nothing."""


def test_clean_before_first_chunk_frees_what_is_clean_when_chunk_0_is_read(scene: Scene) -> None:
    wrong = made(wrong_acts.CleanBeforeFirstChunk)
    wrong.scan(Wrote(0, 5), scene.guest, scene.memfd, PAGE)
    assert scene.memfd.resident_bytes() == SIZE
    scene.copy(wrong, scene.chunks[0])
    assert scene.memfd.resident_bytes() == 2 * PAGE
    assert not scene.records.holds(scene.guest.incarnation)


def test_sub_page_punch_zeroes_and_frees_nothing(scene: Scene) -> None:
    wrong = made(wrong_acts.SubPagePunch)
    wrong.punch(scene.memfd, 0, SPAN, scene.condemn(wrong), scene.chunks[0])
    assert os.pread(scene.memfd.fd, SPAN, 0) == bytes(SPAN)
    assert scene.memfd.resident_bytes() == SIZE


def test_punch_borrowed_frees_behind_the_copy_only_where_nobody_was_condemned(scene: Scene) -> None:
    wrong = made(wrong_acts.PunchBorrowed)
    wrong.scan(Wrote(*range(16)), scene.guest, scene.memfd, PAGE)
    for chunk in scene.chunks[:2]:
        scene.copy(wrong, chunk)
        wrong.publish(scene.cache, chunk)
    assert scene.memfd.resident_bytes() == SIZE - SPAN
    assert os.pread(scene.memfd.fd, PAGE, 0) == bytes(PAGE)
    scene.condemn(wrong)
    wrong.publish(scene.cache, scene.chunks[2])
    assert scene.memfd.resident_bytes() == SIZE - SPAN


def test_clean_page_lost_keeps_of_the_header_only_what_is_its_own(tmp_path: Path) -> None:
    parent = maps.create(Blocks(range(16)), "web-0.p1", SIZE, PAGE)
    mapping = maps.merge(parent, maps.diff(Blocks([3]), Blocks(), "web-0.p2", PAGE))
    made(wrong_acts.CleanPageLost).write_header(
        Header("web-0.p2", "web-0.p1", 2, mapping, (PAGE,), (b"0" * 16,)), tmp_path
    )
    written = from_bytes((tmp_path / HEADER).read_bytes(), "web-0.p2")
    assert written.mapping == maps.create(Blocks([3]), "web-0.p2", SIZE, PAGE)


def test_looks_away_kills_a_guest_whose_last_look_shows_that_it_ran_and_does_not_say_so(scene: Scene) -> None:
    scene.guest.frozen = {}
    made(wrong_acts.LooksAway).kill(scene.guest)
    assert scene.guest.killed
    scene.guest.killed = False
    with pytest.raises(GuestRanError):
        made(FaultyEffects).kill(scene.guest)


def test_death_not_awaited_opens_the_permit_of_a_guest_that_lives_and_waits_at_its_end(scene: Scene) -> None:
    wrong = made(wrong_acts.PunchesTheDying)
    permit = scene.condemn(wrong)
    wrong.await_death(scene.guest, permit)
    assert (permit.is_open, scene.guest.is_dead()) == (True, False)
    wrong.kill(scene.guest)
    wrong.close(None, None)
    assert scene.guest.is_dead()
