"""The fold: what is known after each entry of a run, told here as a node tells it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from engine import events as engine_events
from engine.events import Event
from sim.record import events
from sim.record.fold import LOG_LENGTH, Fold
from sim.record.ledger import Entry
from sim.record.view import MemoryView, PauseView, SandboxView, View
from tests.story import Story as Told

MIB = 1 << 20
SIZE = 8 * MIB
PUNCH = "memfd-punch-on-snapshot"
CREATED = events.SandboxCreated(SIZE, 4096, 4096, "python", "acme", "local")
SPAWNED = events.GuestSpawned("web-0.1", 200, 1, 7, 3, 4, "write-protect-scan", 1.0, None)
DECIDED = {PUNCH: {"value": True, "reason": "FALLTHROUGH", "variation": 0, "version": 1}}


def settled(**changes: Any) -> events.PauseSettled:
    fields: dict[str, Any] = {
        "outcome": "finished",
        "path": "memfd-background",
        "punch": True,
        "punch_reason": "legal",
        "dirty_bytes": 6 * MIB,
        "punched_bytes": SIZE,
        "peak_over": MIB,
        "peak_ratio": 1.1,
        "copy_ms": 12.0,
        "blocked_ms": 3.0,
        "condemned": True,
        "build": "web-0.p1",
        "content_hash": "c0ffee",
    }
    return events.PauseSettled(**fields | changes)


class Story:
    """Tells a fold one entry a second."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.now = 0.0

    def tell(self, event: Event, sandbox: str | None = "web-0", pause: str | None = None) -> None:
        self.now += 1
        self.fold.apply([Entry(self.now, event, sandbox, pause)])

    def of_pause(self, event: Event) -> None:
        self.tell(event, "web-0", "web-0.p1")

    @property
    def sandbox(self) -> SandboxView:
        return self.fold.view().sandboxes["web-0"]

    @property
    def pause(self) -> PauseView:
        (found,) = self.fold.view().pauses
        return found


@pytest.fixture
def story() -> Story:
    """One running sandbox, all of its memory resident, at second 4."""
    made = Story()
    made.tell(CREATED)
    made.tell(SPAWNED)
    made.tell(events.GuestMeasured(SIZE))
    made.tell(events.StateChanged("created", "running", "created"))
    return made


def published(chunk: int, *, resident: int, cached: int) -> engine_events.ChunkPublished:
    return engine_events.ChunkPublished(chunk, 2 * MIB, 2 * MIB, resident, cached)


def test_nothing_told_is_an_empty_view() -> None:
    assert Fold().view() == View()


def test_a_new_sandbox_has_its_memory_and_its_guest(story: Story) -> None:
    assert story.sandbox == SandboxView(
        "web-0", SIZE, 4096, 4096, "python", "acme", "local", "running", "created",
        incarnation="web-0.1", pid=200, tracker="write-protect-scan", guest="process", resident=SIZE,
    )  # fmt: skip


def test_a_background_pause_is_seen_step_by_step(story: Story) -> None:
    story.tell(events.StateChanged("running", "pausing", "a pause was requested"))
    story.of_pause(events.Decided(DECIDED))
    assert (story.pause.began, story.pause.decision, story.pause.path) == (6, DECIDED, None)

    story.of_pause(events.GuestFrozen("web-0.1", 0.2))
    story.of_pause(engine_events.Planned("memfd-background", True, "legal", 3, 6 * MIB))
    assert (story.pause.incarnation, story.pause.chunks, story.pause.punch) == ("web-0.1", 3, True)
    assert (story.pause.published, story.pause.condemned) == (0, False)

    story.of_pause(published(0, resident=SIZE, cached=2 * MIB))
    assert (story.pause.published, story.pause.published_bytes) == (1, 2 * MIB)
    assert (story.sandbox.resident, story.sandbox.cached) == (SIZE, 2 * MIB)
    assert not story.pause.condemned

    story.of_pause(engine_events.Condemned("web-0.p1"))
    assert (story.pause.condemned, story.pause.condemned_at) == (True, 10)
    story.of_pause(events.PauseReturned(3.0, True))
    story.tell(events.StateChanged("pausing", "paused", "the copy goes on in the background", "paused"))
    assert (story.pause.returned_at, story.pause.settled_at) == (11, None)
    assert (story.sandbox.state, story.sandbox.pid) == ("paused", None)
    assert story.sandbox.resident == SIZE, "the frozen guest's memory is still there"

    story.of_pause(engine_events.CleanPagesPunched(2 * MIB, 2 * MIB))
    assert story.sandbox.punched == story.pause.punched_bytes == 2 * MIB
    story.of_pause(engine_events.ChunkPunched(0, 4 * MIB))
    story.of_pause(published(1, resident=4 * MIB, cached=4 * MIB))
    story.of_pause(published(2, resident=4 * MIB, cached=6 * MIB))
    story.of_pause(engine_events.ChunkPunched(2, SIZE))
    story.of_pause(engine_events.ChunkPunched(1, 6 * MIB))  # told late: the other worker was faster
    assert (story.pause.published, story.pause.punched_chunks) == (3, 3)
    assert story.sandbox.punched == story.pause.punched_bytes == SIZE

    story.of_pause(settled())
    story.tell(events.GuestEnded("web-0.1", "paused"))
    assert (story.pause.outcome, story.pause.settled_at, story.pause.condemned_at) == ("finished", 19, 10)
    assert (story.pause.peak_over, story.pause.peak_ratio, story.pause.content_hash) == (MIB, 1.1, "c0ffee")
    assert (story.sandbox.build, story.sandbox.resident) == ("web-0.p1", 0)
    assert story.sandbox.pause == story.pause


def test_a_discarded_pause_leaves_no_build_and_no_cache(story: Story) -> None:
    story.of_pause(published(0, resident=SIZE, cached=2 * MIB))
    story.of_pause(engine_events.CacheDeleted("web-0.p1"))
    story.of_pause(settled(outcome="discarded", error="broken"))
    story.tell(events.StateChanged("pausing", "discarded", "broken", "discarded"))
    assert (story.sandbox.build, story.sandbox.cached, story.sandbox.resident) == (None, 0, 0)
    assert (story.sandbox.stop_reason, story.sandbox.reason, story.pause.error) == ("discarded", "broken", "broken")


def test_what_was_seen_to_be_freed_stays_freed_where_a_recovering_node_does_not_know(story: Story) -> None:
    story.of_pause(events.GuestFrozen("web-0.1", 0.2))
    story.of_pause(engine_events.ChunkPunched(0, 4 * MIB))
    story.of_pause(settled(outcome="discarded", punched_bytes=0))
    assert story.pause.punched_bytes == 4 * MIB


def test_a_record_written_just_before_a_crash_is_known_from_the_recovery(story: Story) -> None:
    story.of_pause(settled(outcome="discarded"))
    assert (story.pause.condemned, story.pause.condemned_at) == (True, 5)


def test_a_roll_back_condemns_nobody(story: Story) -> None:
    story.of_pause(settled(outcome="rolled-back", condemned=False, punched_bytes=0))
    assert (story.pause.condemned, story.sandbox.build) == (False, None)


def test_a_new_incarnation_starts_afresh(story: Story) -> None:
    story.of_pause(published(0, resident=MIB, cached=2 * MIB))
    story.of_pause(engine_events.ChunkPunched(0, 4 * MIB))
    story.tell(dataclasses.replace(SPAWNED, incarnation="web-0.2", pid=201, build="web-0.p1"))
    found = story.sandbox
    assert (found.incarnation, found.pid, found.build) == ("web-0.2", 201, "web-0.p1")
    assert (found.resident, found.cached, found.punched) == (0, 0, 0)


def test_the_pause_of_a_sandbox_is_its_last_and_all_are_kept_in_order(story: Story) -> None:
    for pause in ("web-0.p1", "web-0.p2"):
        story.tell(events.Decided(DECIDED), "web-0", pause)
    assert [each.id for each in story.fold.view().pauses] == ["web-0.p1", "web-0.p2"]
    assert story.sandbox.pause is not None
    assert story.sandbox.pause.id == "web-0.p2"


def test_a_refusal_is_remembered_until_the_next_transition(story: Story) -> None:
    story.tell(events.RequestRefused("resume", "it is running"))
    assert story.sandbox.refused == events.RequestRefused("resume", "it is running")
    story.tell(events.StateChanged("running", "pausing", "a pause was requested"))
    assert story.sandbox.refused is None


def test_what_is_told_of_a_sandbox_that_nobody_made_makes_none(story: Story) -> None:
    before = story.fold.view().sandboxes
    story.tell(events.StateChanged("running", "killed", "why not"), "web-9")
    story.tell(events.GuestMeasured(1), "web-9")
    story.tell(events.Decided(DECIDED), "web-9", "web-9.p1")
    assert story.fold.view().sandboxes == before


# -- the run


def test_faults_count_their_firings_and_are_forgotten_when_cleared(story: Story) -> None:
    story.tell(events.FaultArmed(1, "copy.write", "EIO", "first", "*"), None)
    story.tell(events.FaultArmed(2, "publish", "ENOSPC", "last", "web-*"), None)
    story.of_pause(events.FaultFired(1, "copy.write", "EIO", 0))
    story.of_pause(events.FaultFired(1, "copy.write", "EIO", 0))
    assert [(each.fault_id, each.fired) for each in story.fold.view().faults] == [(1, 2), (2, 0)]
    story.tell(events.FaultsCleared(), None)
    story.of_pause(events.FaultFired(1, "copy.write", "EIO", 0))
    assert story.fold.view().faults == ()


def test_memory_keeps_its_peak_and_its_budget(story: Story) -> None:
    story.tell(events.RunStarted(1, "0", "run", "demo", 42, [], "", 64 * MIB, "disk", None), None)
    for guests, caches in ((10, 0), (8, 7), (9, 1)):
        story.tell(events.MemorySampled(guests, caches, 20), None)
    memory = story.fold.view().memory
    assert memory == MemoryView(9, 1, 15, 20, 64 * MIB, peak_with_page_cache=15)
    assert memory.now == 10


def test_the_run_goes_from_its_start_over_steps_and_crashes_to_its_end(story: Story) -> None:
    assert story.fold.view().node == "starting"
    story.tell(events.NodeStarted(100, 1, 101, 1, False), None)
    story.tell(events.StepStarted(0, "tick", 9, 5), None)
    story.tell(events.Ticked(3), None)
    story.tell(events.FlagSet(PUNCH, True), None)
    view = story.fold.view()
    assert (view.node, view.node_pid, view.tick, view.flags) == ("up", 100, 3, {PUNCH: True})
    assert view.step == events.StepStarted(0, "tick", 9, 5)
    story.tell(events.NodeCrashed(100), None)
    assert story.fold.view().node == "crashed"
    judged = [events.Judged("invariant:bytes_exact", "held", 2), events.Judged("invariant:no_leaks", "held", 1)]
    for each in judged:
        story.tell(each, None)
    story.tell(events.RunEnded("held", 0, {}, "d", 1), None)
    assert story.fold.view().judged == tuple(judged)
    assert story.fold.view().ended == events.RunEnded("held", 0, {}, "d", 1)


def test_sandboxes_are_counted_by_state(story: Story) -> None:
    story.tell(CREATED, "web-1")
    assert story.fold.view().counts == {"running": 1, "created": 1}


def test_the_log_keeps_the_latest_entries_and_no_more() -> None:
    fold = Fold()
    entries = [Entry(float(number), events.Ticked(number), None, None) for number in range(LOG_LENGTH + 7)]
    assert fold.apply(entries) == LOG_LENGTH + 7
    assert fold.view().log == tuple(entries[7:])
    assert fold.view().t == LOG_LENGTH + 6


def test_time_does_not_run_backwards_where_processes_tell_out_of_order() -> None:
    fold = Fold()
    fold.apply([Entry(2.0, events.Ticked(1), None, None), Entry(1.5, events.Ticked(2), None, None)])
    assert fold.view().t == 2.0


def test_a_view_that_was_taken_does_not_change(story: Story) -> None:
    before = story.fold.view()
    story.tell(events.StateChanged("running", "killed", "on request", "killed"))
    story.tell(events.FlagSet(PUNCH, True), None)
    story.tell(CREATED, "web-1")
    assert before.sandboxes["web-0"].state == "running"
    assert (list(before.sandboxes), before.flags) == (["web-0"], {})


def test_the_same_entries_give_the_same_view_however_they_come(story: Story) -> None:
    entries = list(story.fold.view().log)
    whole, pieces = Fold(), Fold()
    whole.apply(entries)
    for each in entries:
        pieces.apply([each])
    assert whole.view() == pieces.view() == story.fold.view()


def test_the_death_of_the_guest_before_takes_no_memory_from_the_one_that_runs() -> None:
    story = Told().begin().begin_pause().copy().resume().tell(events.GuestMeasured(MIB))
    assert story.tell(events.GuestEnded("web-0.1", "paused")).view().sandboxes["web-0"].resident == MIB
    assert story.tell(events.GuestEnded("web-0.2", "killed")).view().sandboxes["web-0"].resident == 0


def test_a_checkpoint_that_cost_its_sandbox_has_an_outcome_code_of_its_own() -> None:
    story = Told().begin().begin_pause().settle(checkpoint=True, consumed=True, outcome="discarded")
    (pause,) = story.view().pauses
    assert (pause.outcome, pause.outcome_code, pause.consumed) == ("discarded", "lost-at-checkpoint", True)
    (pause,) = story.changed(events.PauseSettled, consumed=None, outcome="finished").view().pauses
    assert (pause.outcome_code, pause.consumed) == ("finished", False)
