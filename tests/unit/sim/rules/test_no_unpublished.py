"""`no_unpublished`: what st_blocks lost by the time a chunk is published was clean, or published before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine import events as copying
from tests.story import MEMORY, MIB, Story, created, decided, planned

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Scene

NAME = "no_unpublished"
CHUNK = MEMORY // 4


def test_punching_what_is_published_and_what_is_clean_is_right(story: Story) -> None:
    story.freeze().scan().publish(0, span=CHUNK)
    story.tell(copying.CleanPagesPunched(CHUNK, CHUNK), pause="web-0.p1")
    story.tell(copying.ChunkPunched(0, 2 * CHUNK), pause="web-0.p1")
    story.publish(2, span=CHUNK, resident=MEMORY - 2 * CHUNK).publish(1, span=CHUNK, resident=MEMORY - 3 * CHUNK)
    found = story.settle().found(NAME)
    assert (found.checked, found.violations) == (1, [])


def test_a_chunk_that_was_freed_before_it_was_published_is_caught(story: Story) -> None:
    story.freeze().scan().publish(0, span=CHUNK).publish(1, span=CHUNK, resident=MEMORY - 2 * CHUNK).settle()
    assert story.found(NAME).violations == [
        {
            "sandbox": "web-0",
            "code": "freed-early",
            "reason": f"{CHUNK} bytes were freed from the guest before they were published (seen at chunk 1)",
            "incarnation": "web-0.1",
            "pause": "web-0.p1",
        }
    ]


def test_the_very_first_chunk_may_find_nothing_freed(story: Story) -> None:
    (reason,) = story.scan().publish(0, resident=MEMORY - 4096).reasons(NAME)
    assert "4096 bytes were freed" in reason


def test_blocks_smaller_than_a_page_allow_the_pages_that_hold_them(story: Story) -> None:
    story.scan().publish(0, length=4096, span=CHUNK).publish(1, resident=MEMORY - CHUNK)
    assert story.reasons(NAME) == []


def test_a_pause_that_published_nothing_is_not_judged(story: Story) -> None:
    assert story.freeze().scan().settle().found(NAME).checked == 0


def test_the_chunks_of_another_pause_allow_nothing(story: Story) -> None:
    story.tell(created(), "web-1").publish(0, "web-1.p1")
    assert len(story.scan().publish(0, resident=MEMORY - CHUNK).reasons(NAME)) == 1


def test_a_chunk_punched_before_it_was_published_is_caught(story: Story) -> None:
    story.begin_pause().tell(copying.ChunkPunched(0, 4 * MIB), pause="web-0.p1").copy()
    assert story.reasons(NAME) == ["chunk 0 was punched before it was published"]


def test_a_ledger_without_any_publishing_lacks_evidence(story: Story) -> None:
    silent = story.pause().end().without(copying.ChunkPublished)
    assert silent.reasons(NAME) == []
    assert silent.missing(NAME) == [
        "missing evidence: it punched, and no `chunk_published` event says what was published"
    ]


def test_a_pause_with_nothing_to_copy_may_punch_all_of_its_clean_pages(story: Story) -> None:
    story.tell(planned(chunks=0, dirty_bytes=0), pause="web-0.p1")
    story.tell(copying.CleanPagesPunched(MEMORY, MEMORY), pause="web-0.p1").settle(dirty_bytes=0)
    found = story.end().found(NAME)
    assert (found.checked, found.violations, found.missing) == (1, [], [])


def test_a_chunk_that_is_punched_though_there_is_none_to_copy_is_caught(story: Story) -> None:
    story.tell(planned(chunks=0, dirty_bytes=0), pause="web-0.p1")
    story.tell(copying.ChunkPunched(0, MEMORY), pause="web-0.p1")
    assert story.reasons(NAME) == ["chunk 0 was punched before it was published"]


def test_a_scan_that_knows_no_resident_bytes_is_no_reason(story: Story) -> None:
    assert story.pause().changed(copying.Scanned, resident_bytes=None).reasons(NAME) == []


def test_a_build_that_has_its_final_name_before_it_is_whole_is_caught_once(scene: Scene) -> None:
    scene.build("web-0.p1")
    (scene.reality.builds / "web-0.p2.partial").mkdir()
    (scene.reality.builds / "web-0.p3").mkdir()
    scene.found(NAME)
    (violation,) = scene.found(NAME).violations
    assert (violation["sandbox"], violation["pause"]) == ("web-0", "web-0.p3")
    assert violation["reason"].startswith("a reader finds an unfinished build: ")


def test_a_build_without_the_end_of_its_memory_is_caught(scene: Scene) -> None:
    memfile = scene.build("web-0.p1") / "memfile"
    memfile.write_bytes(memfile.read_bytes()[:-1])
    assert len(scene.found(NAME).violations) == 1


def test_each_pause_that_punched_without_a_word_of_publishing_lacks_evidence() -> None:
    story = Story().begin("web-0", "web-1")
    for pause, incarnation in (("web-0.p1", "web-0.1"), ("web-1.p1", "web-1.1")):
        story.begin_pause(pause, incarnation).copy(pause)
    silent = story.end().without(copying.ChunkPublished)
    assert (silent.found(NAME).checked, len(silent.missing(NAME))) == (2, 2)


@pytest.mark.parametrize(("at_freeze", "resident"), [(None, 0), (8 * MIB, None), (None, None)])
def test_what_no_account_covers_was_not_seen_to_go(ledger: Story, at_freeze: int | None, resident: int | None) -> None:
    ledger.go("running", "pausing").tell(decided(), pause="web-0.p1").freeze()
    ledger.scan(resident=at_freeze).publish(0, resident=resident)
    found = ledger.found(NAME)
    assert (found.checked, found.violations) == (1, [])
