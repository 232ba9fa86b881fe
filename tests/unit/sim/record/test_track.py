"""What the sandbox screen draws of a pause: ranges, stages, samples."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.stages import NO_TRACK, Pace, Ranges, Sample, Track, joined, next_track, thinned

MIB = 1 << 20
SETTLED: dict[str, Any] = dict.fromkeys(events.PauseSettled.__dataclass_fields__)


def told(*happened: Event) -> Track:
    track = NO_TRACK
    for number, event in enumerate(happened):
        track = next_track(track, Entry(float(number), event, "web-0", "web-0.p1"))
    return track


def published(chunk: int, source: int = 32 * MIB) -> engine_events.ChunkPublished:
    return engine_events.ChunkPublished(chunk, MIB, 2 * MIB, source, chunk * MIB, chunk * 2 * MIB)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8))))
def test_joined_ranges_cover_what_was_put_in_and_stay_apart(spans: list[tuple[int, int]]) -> None:
    ranges: Ranges = ()
    for start, length in spans:
        ranges = joined(ranges, start, start + length)
    covered = {at for start, end in ranges for at in range(start, end)}
    assert covered == {at for start, length in spans for at in range(start, start + length)}
    assert all(one[1] < other[0] for one, other in pairwise(ranges))


@given(st.lists(st.integers(0, 1000), max_size=300))
def test_thinned_samples_keep_the_peak(sums: list[int]) -> None:
    samples = thinned(tuple(Sample(float(at), size, 0) for at, size in enumerate(sums)), 100)
    assert len(samples) <= max(100, (len(sums) + 1) // 2)
    assert max((each.sum for each in samples), default=0) == max(sums, default=0)


def test_a_stage_is_when_it_was_reached_first() -> None:
    track = told(events.Decided({}), published(0), published(1))
    assert track.stages == {"decided": 0.0, "published": 1.0}


def test_chunks_that_touch_are_one_copied_range() -> None:
    assert told(published(0), published(2), published(1)).copied == ((0, 6 * MIB),)


def test_a_punched_chunk_says_where() -> None:
    assert told(engine_events.ChunkPunched(1, 2 * MIB, 2 * MIB, 2 * MIB)).punched == ((2 * MIB, 4 * MIB),)


def test_a_chunk_is_under_a_copier_from_its_boundary_until_it_is_published() -> None:
    reached = events.BoundaryReached("chunk", 3, 6 * MIB, 2 * MIB)
    assert told(reached).under == {3: (6 * MIB, 8 * MIB)}
    assert told(reached, published(3)).under == {}


def test_who_reached_a_boundary_was_slowed_or_held() -> None:
    assert not told(published(0)).paced
    assert told(events.BoundaryReached("condemn")).paced


def test_a_settled_pause_tells_it_as_well() -> None:
    settled = events.PauseSettled(**{**SETTLED, "outcome": "finished", "paced": True})
    assert told(settled).paced


def test_when_all_is_over_a_finished_pause_holds_its_cache_and_a_discarded_one_nothing() -> None:
    scanned = engine_events.Scanned("test", MIB, 0, 32 * MIB, 1.0)
    for outcome, left in (("finished", (0, MIB)), ("discarded", (0, 0)), ("rolled-back", (31 * MIB, 0))):
        settled = events.PauseSettled(**{**SETTLED, "outcome": outcome, "paced": False})
        last = told(scanned, published(1, 31 * MIB), settled).samples[-1]
        assert (last.source, last.cache) == left


def test_what_tells_nothing_leaves_the_same_object() -> None:
    assert next_track(NO_TRACK, Entry(0.0, events.GuestMeasured(1), "web-0", None)) is NO_TRACK


def test_a_crash_of_the_node_lets_every_copy_go() -> None:
    fold = Fold()
    made = events.SandboxCreated(MIB, 4096, 4096, "python", "acme", "local")
    fold.apply([Entry(0.0, made, "web-0", None), Entry(1.0, events.PaceSet(200.0, True), "web-0", None)])
    assert fold.view().sandboxes["web-0"].pace == Pace(200.0, held=True)
    fold.apply([Entry(2.0, events.NodeCrashed(1), None, None)])
    assert not fold.view().sandboxes["web-0"].pace.set
