"""`no_unpublished`: what st_blocks lost by the time a chunk is published was clean, or published before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.events import ChunkPublished, ChunkPunched, CleanPagesPunched, Scanned
from sim.rules.no_unpublished import NoUnpublished

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Scene

CHUNK = 1 << 20
RESIDENT = 4 * CHUNK


def scanned(scene: Scene) -> None:
    scene.freeze()
    scene.tell(Scanned("write-protect-scan", 3 * CHUNK, 0, RESIDENT, 0.1), "web-0", "web-0.p1")


def published(scene: Scene, chunk: int, *, resident: int) -> None:
    scene.tell(ChunkPublished(chunk, CHUNK, CHUNK, resident, 0), "web-0", "web-0.p1")


def judged(scene: Scene) -> NoUnpublished:
    scene.settle()
    checker = NoUnpublished()
    for _ in range(2):
        checker.observe(scene.evidence())
    checker.conclude(scene.evidence())
    return checker


def test_punching_what_is_published_and_what_is_clean_is_right(scene: Scene) -> None:
    scanned(scene)
    published(scene, 0, resident=RESIDENT)
    scene.tell(CleanPagesPunched(CHUNK, CHUNK), "web-0", "web-0.p1")
    scene.tell(ChunkPunched(0, 2 * CHUNK), "web-0", "web-0.p1")
    published(scene, 2, resident=RESIDENT - 2 * CHUNK)
    published(scene, 1, resident=RESIDENT - 3 * CHUNK)
    checker = judged(scene)
    assert (checker.checked, checker.violations) == (1, [])


def test_a_chunk_that_was_freed_before_it_was_published_is_caught(scene: Scene) -> None:
    scanned(scene)
    published(scene, 0, resident=RESIDENT)
    published(scene, 1, resident=RESIDENT - 2 * CHUNK)
    (violation,) = judged(scene).violations
    assert violation == {
        "sandbox": "web-0",
        "reason": f"{CHUNK} bytes were freed from the guest before they were published (seen at chunk 1)",
        "incarnation": "web-0.1",
        "pause": "web-0.p1",
    }


def test_the_very_first_chunk_may_find_nothing_freed(scene: Scene) -> None:
    scanned(scene)
    published(scene, 0, resident=RESIDENT - 4096)
    (violation,) = judged(scene).violations
    assert "4096 bytes were freed" in violation["reason"]


def test_blocks_smaller_than_a_page_allow_the_pages_that_hold_them(scene: Scene) -> None:
    scanned(scene)
    scene.tell(ChunkPublished(0, 4096, CHUNK, RESIDENT, 0), "web-0", "web-0.p1")
    published(scene, 1, resident=RESIDENT - CHUNK)
    assert judged(scene).violations == []


def test_a_pause_that_published_nothing_is_not_judged(scene: Scene) -> None:
    scanned(scene)
    assert judged(scene).checked == 0


def test_a_pause_under_way_is_not_judged_yet(scene: Scene) -> None:
    scanned(scene)
    published(scene, 0, resident=0)
    checker = NoUnpublished()
    checker.observe(scene.evidence())
    assert (checker.checked, checker.violations) == (0, [])


def test_the_chunks_of_another_pause_allow_nothing(scene: Scene) -> None:
    scene.tell(ChunkPublished(0, CHUNK, CHUNK, RESIDENT, 0), "web-1", "web-1.p1")
    scanned(scene)
    published(scene, 0, resident=RESIDENT - CHUNK)
    assert len(judged(scene).violations) == 1


def test_a_build_that_has_its_final_name_before_it_is_whole_is_caught_once(scene: Scene) -> None:
    scene.build("web-0.p1")
    (scene.builds / "web-0.p2.partial").mkdir()
    (scene.builds / "web-0.p3").mkdir()
    checker = NoUnpublished()
    checker.observe(scene.evidence())
    checker.observe(scene.evidence())
    (violation,) = checker.violations
    assert (violation["sandbox"], violation["pause"]) == ("web-0", "web-0.p3")
    assert violation["reason"].startswith("a reader finds an unfinished build: ")


def test_a_build_without_the_end_of_its_memory_is_caught(scene: Scene) -> None:
    memfile = scene.build("web-0.p1") / "memfile"
    memfile.write_bytes(memfile.read_bytes()[:-1])
    checker = NoUnpublished()
    checker.observe(scene.evidence())
    assert len(checker.violations) == 1
