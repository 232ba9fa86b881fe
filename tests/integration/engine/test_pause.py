from __future__ import annotations

import os
import threading

import pytest

from engine import resume
from engine.dirty import SharedBitmap
from engine.effects import Effects
from engine.errors import CondemnedError, CorruptBuildError, EngineError
from engine.events import (
    BuildFinished,
    ChunkPublished,
    ChunkPunched,
    CleanPagesPunched,
    Condemned,
    GuestDied,
    GuestKilled,
    GuestLooked,
    Planned,
    Scanned,
)
from engine.incarnation import CondemnedRecord, CondemnedRecords
from engine.pause import Outcome, PauseResult
from engine.snapshot import Build
from tests.integration.engine.rig import BOTH, MIB, PAGE, PUNCH, Faults, Guest, Guests, Pauser, hold, is_settled


@pytest.fixture(params=["disk", "tmpfs"])
def anywhere(request: pytest.FixtureRequest) -> Pauser:
    found: Pauser = request.getfixturevalue("pauser" if request.param == "disk" else "shm_pauser")
    return found


@BOTH
@PUNCH
def test_a_paused_memory_is_resumed_byte_by_byte(anywhere: Pauser, guest: Guest, background: bool, punch: bool) -> None:
    guest.write([5, 6, 7, 900], seed=0)  # zeros among the data
    before = guest.memory()
    result = anywhere.pause(guest, background=background, punch=punch)
    anywhere.assert_finished(guest, result, before)
    assert guest.resident() == (0 if punch else 8 * MIB)
    assert result.punched_bytes == (8 * MIB if punch else 0)


@BOTH
def test_a_punched_pause_of_a_full_guest_peaks_at_what_the_guest_held(
    anywhere: Pauser, guests: Guests, background: bool
) -> None:
    guest = guests.fresh(24 * MIB)
    result = anywhere.pause(guest, background=background, punch=True)
    assert result.peak_over is not None
    assert 0 < result.peak_over <= 8 * MIB
    assert result.peak_ratio == (24 * MIB + result.peak_over) / (24 * MIB)


@BOTH
def test_a_pause_that_keeps_the_memory_peaks_at_the_dirty_bytes_more(
    anywhere: Pauser, guests: Guests, background: bool
) -> None:
    guest = guests.fresh(24 * MIB)
    result = anywhere.pause(guest, background=background, punch=False)
    assert result.peak_over is not None
    assert 24 * MIB <= result.peak_over <= 32 * MIB


def test_every_way_to_copy_stores_the_same_file_under_the_same_hash(guests: Guests, pauser: Pauser) -> None:
    hashes, files = set(), set()
    ways = [(False, False), (False, True), (True, False), (True, True)]
    for number, (background, punch) in enumerate(ways):
        guest = guests.fresh(pages=[*range(0, 2048, 3), *range(600, 1400)])
        pauser.pause(guest, build=f"b{number}", background=background, punch=punch)
        header = pauser.header(f"b{number}")
        hashes.add(header.content_hash)
        files.add((pauser.builds / f"b{number}" / "memfile").read_bytes())
    assert len(hashes) == len(files) == 1


def test_different_memory_gets_a_different_hash(guests: Guests, pauser: Pauser) -> None:
    one, other = guests.fresh(pages=[1, 2, 3]), guests.fresh(pages=[1, 2])
    other.write([3], seed=9)
    pauser.pause(one, build="one")
    pauser.pause(other, build="other")
    assert pauser.header("one").content_hash != pauser.header("other").content_hash


@BOTH
@PUNCH
def test_five_generations_with_holes_zeros_and_clean_pages_are_exact(
    guests: Guests, pauser: Pauser, background: bool, punch: bool
) -> None:
    guest = guests.fresh(pages=[*range(300), *range(1000, 1100, 7)])
    parent, kept = None, []
    for generation in range(5):
        kept.append(guest.memory())
        build = f"g{generation}"
        result = pauser.pause(guest, build=build, parent=parent, background=background, punch=punch)
        pauser.assert_finished(guest, result, kept[-1], build)
        parent = result.header
        assert parent is not None
        guest = guests.from_header(pauser.builds, parent)
        assert guest.memory() == kept[-1]
        guest.write(range(generation * 200, generation * 200 + 90, 1 + generation), seed=generation + 2)
        guest.write(range(20 * generation, 20 * generation + 15), seed=0)
    assert [pauser.restored(f"g{n}") for n in range(5)] == kept
    assert parent is not None
    assert parent.generation == 5


def test_what_is_zero_stays_a_hole_when_it_is_resumed(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=range(1000))
    guest.write(range(100, 300), seed=0)
    result = pauser.pause(guest)
    assert result.header is not None
    assert guests.from_header(pauser.builds, result.header).resident() == 800 * PAGE


def test_a_build_is_not_resumed_into_a_memory_of_another_size(guests: Guests, pauser: Pauser) -> None:
    result = pauser.pause(guests.fresh(pages=[1]))
    assert result.header is not None
    other = guests.start(4 * MIB)
    with pytest.raises(EngineError, match="the memfd has"):
        resume.fill(other.memfd, pauser.builds, result.header)


@pytest.mark.parametrize("generation", [0, 1])
def test_a_chain_with_a_damaged_build_is_refused_before_a_byte_is_used(
    guests: Guests, pauser: Pauser, generation: int
) -> None:
    first = pauser.pause(guests.fresh(pages=range(100)), build="g0")
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write(range(50, 60), seed=2)
    second = pauser.pause(guest, build="g1", parent=first.header)
    assert second.header is not None
    with open(pauser.builds / f"g{generation}" / "memfile", "r+b") as file:
        file.seek(PAGE)
        file.write(b"damage")
    other = guests.start()
    with pytest.raises(CorruptBuildError, match=f"build g{generation}: chunk 0"):
        resume.fill(other.memfd, pauser.builds, second.header)
    assert other.resident() == 0


def test_a_later_generation_stores_only_what_was_written_since(guests: Guests, pauser: Pauser) -> None:
    first = pauser.pause(guests.fresh())
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    guest.write([3, 1500], seed=2)
    second = pauser.pause(guest, build="b2", parent=first.header)
    assert second.header is not None
    assert second.header.length == 2 * PAGE
    assert second.punched_bytes == 8 * MIB
    assert pauser.of(CleanPagesPunched)


def test_a_guest_that_wrote_nothing_is_condemned_and_then_punched(guests: Guests, pauser: Pauser) -> None:
    first = pauser.pause(guests.fresh(pages=range(100)))
    assert first.header is not None
    guest = guests.from_header(pauser.builds, first.header)
    before = guest.memory()
    pauser.events.clear()
    result = pauser.pause(guest, build="b2", parent=first.header)
    pauser.assert_finished(guest, result, before, "b2")
    assert guest.resident() == 0
    kinds = [type(event) for event in pauser.events]
    ended = [Condemned, GuestLooked, GuestKilled, GuestDied]
    assert kinds == [Scanned, Planned, *ended, CleanPagesPunched, BuildFinished]


def test_nothing_is_punched_before_the_record_is_on_disk(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    held = []
    effects = faults.before("punch", lambda *_: held.append(pauser.condemned.holds(guest.process.incarnation)))
    pauser.pause(guest, effects=effects)
    assert len(held) == 4
    assert all(held)


def test_no_chunk_is_punched_before_it_is_published(guest: Guest, pauser: Pauser) -> None:
    pauser.pause(guest)
    published: set[int] = set()
    for event in pauser.events:
        if isinstance(event, ChunkPublished):
            published.add(event.chunk)
        elif isinstance(event, ChunkPunched):
            assert event.chunk in published
    assert published == {0, 1, 2, 3}
    punched = sorted((each.chunk, each.start, each.length) for each in pauser.of(ChunkPunched))
    assert punched == [(chunk, chunk * 2 * MIB, 2 * MIB) for chunk in range(4)]


def test_the_record_of_a_pause_in_flight_survives_its_writer_and_forbids_to_thaw(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    seen: list[CondemnedRecord] = []

    def look() -> None:
        after_a_restart = CondemnedRecords(pauser.folder / "condemned")
        seen.extend(after_a_restart.records())
        with pytest.raises(CondemnedError):
            guest.process.thaw(after_a_restart)
        assert not pauser.retire()
        assert guest.process.is_dead()

    result = pauser.pause(guest, effects=faults.at_chunk("copy_write", 2, look))
    assert result.outcome is Outcome.FINISHED
    assert [(record.incarnation, record.build) for record in seen] == [(guest.process.incarnation, "b1")]


def test_a_build_that_is_being_written_cannot_be_opened(guest: Guest, pauser: Pauser, faults: Faults) -> None:
    names = []

    def look(*_: object) -> None:
        names.extend(pauser.names())
        for name in ("b1", "b1.partial"):
            with pytest.raises(Exception, match="not finished"):
                Build.open(pauser.builds, name)

    assert pauser.pause(guest, effects=faults.before("finish", look)).outcome is Outcome.FINISHED
    assert names == ["b1.partial"]


def test_a_build_of_a_taken_name_is_rolled_back_and_the_older_one_stays(guests: Guests, pauser: Pauser) -> None:
    first, second = guests.fresh(), guests.fresh(pages=[1])
    before = first.memory()
    pauser.pause(first)
    result = pauser.pause(second)
    assert result.outcome is Outcome.ROLLED_BACK
    assert "File exists" in str(result.error)
    assert pauser.restored() == before


def test_a_second_pause_into_the_same_build_leaves_the_first_alone(
    guests: Guests, pauser: Pauser, faults: Faults
) -> None:
    first, second = guests.fresh(), guests.fresh(pages=[1])
    before = first.memory()
    results: list[PauseResult] = []
    effects = faults.at_chunk("copy_write", 2, lambda: results.append(pauser.pause(second)))
    result = pauser.pause(first, effects=effects)
    assert [other.outcome for other in results] == [Outcome.ROLLED_BACK]
    pauser.assert_finished(first, result, before)


def test_a_build_may_not_stand_on_an_unfinished_parent(guests: Guests, pauser: Pauser, faults: Faults) -> None:
    guest = guests.fresh()
    child = guests.fresh(pages=[7])
    before = child.memory()
    results: list[PauseResult] = []

    def pause_the_child() -> None:
        parent = pause.header
        assert parent is not None
        results.append(pauser.pause(child, build="b2", parent=parent))

    pause = pauser.prepare(guest, effects=faults.at_chunk("copy_write", 1, pause_the_child))
    pause.begin()
    assert pause.settle(20).outcome is Outcome.FINISHED
    assert [result.outcome for result in results] == [Outcome.ROLLED_BACK]
    assert "b1 is not finished" in str(results[0].error)
    assert child.memory() == before


def test_attachments_get_their_name_with_the_build(guest: Guest, pauser: Pauser) -> None:
    pauser.pause(guest, attachments={"generations": b"\1\2\3"})
    build = Build.open(pauser.builds, "b1")
    assert build.attachment("generations") == b"\1\2\3"
    build.close()


def test_a_guest_tracked_by_its_own_bitmap_is_paused_exactly(guests: Guests, pauser: Pauser) -> None:
    guest = guests.fresh(pages=[0, 5, 700, 2047], bitmap=True)
    before = guest.memory()
    result = pauser.pause(guest)
    pauser.assert_finished(guest, result, before)
    assert pauser.of(Scanned)[0].tracker == SharedBitmap.name
    assert result.header is not None
    assert result.header.length == 4 * PAGE


def test_the_answer_of_a_background_pause_comes_before_its_copy_ends(
    guest: Guest, pauser: Pauser, faults: Faults
) -> None:
    answered = threading.Event()
    effects = faults.at_chunk("copy_read", 3, lambda: hold(answered))
    before = guest.memory()
    pause = pauser.prepare(guest, background=True, effects=effects)
    pause.begin()
    assert not is_settled(pause)
    assert pause.header is not None
    assert pauser.condemned.holds(guest.process.incarnation)
    with pytest.raises(TimeoutError):
        pause.settle(0)
    answered.set()
    pauser.assert_finished(guest, pause.settle(20), before)


def test_the_peak_is_no_less_than_what_each_published_chunk_was_told_with(guest: Guest, shm_pauser: Pauser) -> None:
    result = shm_pauser.pause(guest, punch=True)
    worst = max(event.source_resident + event.cache_resident for event in shm_pauser.of(ChunkPublished))
    assert result.peak_over is not None
    assert result.peak_over >= worst - 8 * MIB


def test_no_descriptor_is_left_by_any_outcome(guests: Guests, pauser: Pauser, faults: Faults) -> None:
    def descriptors_after(effects: Effects | None, build: str) -> int:
        guest = guests.fresh(pages=range(1100))
        pauser.pause(guest, build=build, effects=effects)
        guest.memfd.close()  # a roll-back leaves it to the caller
        return len(os.listdir("/proc/self/fd"))

    start = descriptors_after(None, "b0")
    a_guest = descriptors_after(None, "b1") - start
    outcomes = [None, faults.failing("copy_write", 5, chunk=0), faults.failing("copy_write", 5, chunk=1)]
    for number, effects in enumerate(outcomes, 2):
        assert descriptors_after(effects, f"b{number}") == start + a_guest * number


@pytest.mark.privileged
@BOTH
def test_a_hugetlb_guest_is_paused_punched_and_resumed_exactly(
    huge_pages: int, guests: Guests, pauser: Pauser, background: bool
) -> None:
    guest = guests.start(8 * MIB, huge=True).track(block_size=2 * MIB)
    guest.write([0, 5, 600, 1999], seed=1)  # the first, the second and the last of four pages
    before = guest.memory()
    assert guest.resident() == 6 * MIB
    result = pauser.pause(guest, block_size=2 * MIB, background=background)
    pauser.assert_finished(guest, result, before)
    assert guest.resident() == 0
    assert result.header is not None
    assert (result.header.file_length, result.header.length) == (6 * MIB, 4 * PAGE)  # the rest of each page is zero
    again = guests.from_header(pauser.builds, result.header, huge=True)
    assert again.memory() == before
    again.write([1025], seed=2)
    before = again.memory()
    result = pauser.pause(again, build="b2", parent=result.header, block_size=2 * MIB, background=background)
    pauser.assert_finished(again, result, before, "b2")
    assert result.header is not None
    assert (result.header.file_length, result.header.length) == (2 * MIB, PAGE)
