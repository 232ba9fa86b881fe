"""Each invariant judged by a ledger alone: what is told wrong is violated, what is not told is inconclusive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine import events as copying
from engine.events import Event
from sim.record import events
from sim.record.verdict import Verdict
from sim.rules import JUDGES, judge

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Story

MIB = 1 << 20
NEEDS_BYTES = {"bytes_exact", "rollback_intact"}


def test_a_sound_ledger_holds_but_for_what_only_bytes_can_show(sound: Story) -> None:
    verdicts = {name: sound.found(name).verdict for name in JUDGES}
    assert {name for name, verdict in verdicts.items() if verdict is not Verdict.HELD} == NEEDS_BYTES
    assert {verdicts[name] for name in NEEDS_BYTES} == {Verdict.INCONCLUSIVE}
    assert [name for name in JUDGES if not sound.found(name).checked] == ["failed_copy_discards"]


def test_a_judgement_is_an_event_like_any_other(sound: Story) -> None:
    judged = judge(sound.entries)
    assert [each.subject for each in judged] == [f"invariant:{name}" for name in JUDGES]
    assert judged[1] == events.Judged("invariant:failed_copy_discards", "held", 0)


# -- never_resumed


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (events.GuestThawed("web-0.1"), "a condemned guest was thawed"),
        (events.Resumed("web-0.1", "web-0.p1", 1, 1.0), "a condemned incarnation was resumed"),
        (events.StateChanged("paused", "running", ""), "the sandbox runs again without a new incarnation"),
        (events.GuestFrozen("web-0.1", 0.1), "a condemned guest was paused once more, so it had run on"),
        (
            events.GuestSpawned("web-0.1", 21, 2, 31, 3, 4, "none", 1.0, None),
            "a condemned incarnation was started again",
        ),
    ],
)
def test_a_condemned_guest_that_runs_again_is_caught(story: Story, event: Event, reason: str) -> None:
    story.pause()
    story.tell(event, pause="web-0.p2" if isinstance(event, events.GuestFrozen) else None)
    assert story.reasons("never_resumed") == [reason]
    assert story.found("never_resumed").violations[0]["incarnation"] == "web-0.1"


def test_another_sandbox_or_a_new_incarnation_may_run(story: Story) -> None:
    story.pause()
    story.tell(events.GuestThawed("web-1.1"), "web-1")
    story.resume()
    story.tell(events.GuestFrozen("web-0.2", 0.1), pause="web-0.p2")
    story.end("web-0.2")
    assert story.found("never_resumed").verdict is Verdict.HELD


def test_a_punch_before_the_condemned_record_is_caught(sound: Story) -> None:
    early = sound.swapped(copying.Condemned, copying.ChunkPunched)
    assert early.reasons("never_resumed") == [
        "it was punched before it was condemned: a crash in between would have let it run again"
    ]


def test_a_condemned_guest_whose_end_is_not_told_is_inconclusive(sound: Story) -> None:
    silent = sound.without(events.GuestEnded)
    assert silent.found("never_resumed").verdict is Verdict.INCONCLUSIVE
    assert "no guest_ended tells the end of web-0.1, which was condemned or punched" in silent.missing("never_resumed")


def test_whom_a_pause_froze_is_known_by_the_latest_guest_else_missing(sound: Story) -> None:
    assert sound.without(events.GuestFrozen).found("never_resumed").verdict is Verdict.HELD
    nobody = sound.without(events.GuestFrozen).without(events.GuestSpawned)
    assert nobody.missing("never_resumed")[0] == "neither guest_frozen nor guest_spawned tells whom web-0.p1 took"


# -- failed_copy_discards


def failed(story: Story) -> Story:
    story.begin_pause()
    story.copy()
    story.discard()
    story.end()
    return story


def test_a_discarded_copy_holds(story: Story) -> None:
    found = failed(story).found("failed_copy_discards")
    assert (found.verdict, found.checked) == (Verdict.HELD, 1)


def test_a_failed_copy_that_is_told_as_finished_is_caught(story: Story) -> None:
    assert failed(story).changed(events.PauseSettled, outcome="finished").reasons("failed_copy_discards") == [
        "the pause failed past the point of no return, and its outcome is finished"
    ]


def test_a_failed_copy_whose_sandbox_goes_on_is_caught(story: Story) -> None:
    told = failed(story).changed(events.StateChanged, new="running")
    assert told.reasons("failed_copy_discards") == ["the sandbox is running, not discarded"]


def test_a_cache_that_is_left_is_caught_unless_the_teller_died(story: Story) -> None:
    left = failed(story).without(copying.CacheDeleted)
    assert left.reasons("failed_copy_discards") == ["the cache of a failed copy was not deleted"]
    at = next(at for at, each in enumerate(left.entries) if isinstance(each.event, copying.CopyFailed))
    left.entries.insert(at, left.entries[0].__class__(0.0, events.NodeCrashed(10), None, None))
    assert left.reasons("failed_copy_discards") == []
    assert left.missing("failed_copy_discards") == [
        "the node died, and nothing tells that the partial cache was deleted"
    ]


def test_a_failed_copy_with_no_end_told_is_inconclusive(story: Story) -> None:
    story.begin_pause()
    story.copy()
    story.tell(copying.CopyFailed(1, "copy.write", "EIO", condemned=True), pause="web-0.p1")
    assert story.found("failed_copy_discards").verdict is Verdict.INCONCLUSIVE


# -- rollback_intact


def test_a_roll_back_to_anything_but_a_running_guest_is_caught(story: Story) -> None:
    story.begin_pause()
    story.roll_back()
    story.entries.pop()
    story.go("pausing", "paused")
    assert story.reasons("rollback_intact") == ["the pause was rolled back, and the sandbox became paused"]


def test_a_roll_back_after_which_nothing_runs_is_caught_once_the_run_has_ended(story: Story) -> None:
    story.begin_pause()
    story.roll_back()
    story.entries.pop()
    assert story.missing("rollback_intact")[0] == "no state_changed follows the roll-back"
    story.end()
    assert story.reasons("rollback_intact") == ["the pause was rolled back, and the sandbox is never told to run on"]


def test_a_condemned_pause_that_is_told_as_rolled_back_is_caught(story: Story) -> None:
    story.begin_pause()
    story.copy()
    story.roll_back()
    assert story.reasons("rollback_intact") == ["it was condemned and told as rolled back"]


def test_a_roll_back_without_a_thaw_lacks_evidence(sound: Story) -> None:
    assert "no guest_thawed tells that web-0.2 runs on" in sound.without(events.GuestThawed).missing("rollback_intact")


def test_a_roll_back_that_forgets_dirty_blocks_shows_in_the_next_scan(story: Story) -> None:
    story.begin_pause()
    story.roll_back()
    story.begin_pause("web-0.p2")
    assert story.reasons("rollback_intact") == []
    scan = copying.Scanned("none", 3 * MIB, 0, 8 * MIB, 0.1)
    told = [
        each for each in story.entries if not (each.pause == "web-0.p2" and isinstance(each.event, copying.Scanned))
    ]
    story.entries[:] = told
    story.tell(scan, pause="web-0.p2")
    expected = f"{4 * MIB} bytes were dirty at the roll-back, and {3 * MIB} at the next scan of the same guest"
    assert story.reasons("rollback_intact") == [expected]


def test_scans_by_different_trackers_are_not_compared(story: Story) -> None:
    story.begin_pause()
    story.roll_back()
    story.tell(copying.Scanned("write-protect-scan", 0, 0, 8 * MIB, 0.1), pause="web-0.p2")
    assert story.reasons("rollback_intact") == []


# -- bytes_exact


def test_a_build_with_two_contents_is_caught(sound: Story) -> None:
    two = sound.changed(events.PauseSettled, content_hash="bb")
    assert two.reasons("bytes_exact")[0] == "build web-0.p1 was told with two contents: aa and bb"


def test_a_resume_from_a_build_that_was_never_finished_is_caught(story: Story) -> None:
    story.begin_pause()
    story.roll_back()
    story.resume(build="web-0.p1")
    assert story.reasons("bytes_exact") == ["it was resumed from build web-0.p1, which was never finished"]


def test_a_resume_from_a_build_that_nobody_told_of_lacks_evidence(story: Story) -> None:
    story.resume(build="web-9.p1")
    assert "nothing tells where build web-9.p1 comes from" in story.missing("bytes_exact")


# -- peak_bounded


@pytest.mark.parametrize(
    ("changes", "violated"),
    [
        ({"peak_over": 8 * MIB}, False),
        ({"peak_over": 8 * MIB + 1}, True),
        ({"peak_over": 12 * MIB, "punch": False}, False),
        ({"peak_over": 12 * MIB + 1, "punch": False}, True),
        ({"peak_over": 12 * MIB, "punch_error": "EPERM"}, False),
    ],
)
def test_a_peak_beyond_its_bound_is_caught(story: Story, changes: dict[str, Any], violated: bool) -> None:
    story.begin_pause()
    story.finish(**changes)
    assert bool(story.reasons("peak_bounded")) is violated


def test_a_peak_that_is_not_told_is_looked_for_at_the_chunks(story: Story) -> None:
    story.begin_pause()
    story.copy()
    story.finish(peak_over=None)
    assert story.missing("peak_bounded") == ["the peak of web-0.p1 is told by its chunks only"]
    high = story.changed(copying.ChunkPublished, cache_resident=20 * MIB)
    assert "beyond its guest" in high.reasons("peak_bounded")[0]
    none = story.without(copying.ChunkPublished)
    assert none.missing("peak_bounded") == ["no peak is told of web-0.p1"]


def test_a_pause_without_a_memfd_has_no_peak(story: Story) -> None:
    story.settle(peak_over=None, path="process")
    story.settle("web-0.p2", peak_over=None, path=None, outcome="refused")
    assert (story.found("peak_bounded").checked, story.missing("peak_bounded")) == (0, [])


# -- decision_pinned


def test_a_pause_with_two_decisions_is_caught(story: Story) -> None:
    story.begin_pause()
    story.decide("web-0.p1")
    assert story.reasons("decision_pinned") == ["the pause has 2 decisions, not one"]


def test_a_pause_without_a_decision_lacks_evidence(sound: Story) -> None:
    blind = sound.without(events.Decided)
    assert blind.reasons("decision_pinned") == []
    assert blind.missing("decision_pinned")[0] == "no decided tells what the flags said for web-0.p1"


def test_an_evaluation_that_says_other_than_the_decision_is_caught(sound: Story) -> None:
    punching = {"feature_flag.key": "memfd-punch-on-snapshot", "feature_flag.result.value": True}
    assert sound.changed(events.Decided, evaluations=[punching]).reasons("decision_pinned") == []
    other = sound.changed(events.Decided, evaluations=[{**punching, "feature_flag.result.value": False}])
    assert other.reasons("decision_pinned")[0] == (
        "memfd-punch-on-snapshot was decided true, and its evaluation says false"
    )


@pytest.mark.parametrize("path", ["memfd-background", "dedup", "in-place", "process"])
def test_a_path_that_does_not_follow_from_the_decision_is_caught(sound: Story, path: str) -> None:
    wrong = sound.changed(copying.Planned, path=path).changed(events.PauseSettled, path=path)
    assert wrong.reasons("decision_pinned")[0] == f"the path was {path}, which is not what the flags said"


def test_a_guest_that_gave_no_memfd_goes_by_its_process(story: Story) -> None:
    story.entries.clear()
    story.begin(use_memfd=False)
    story.decide("web-0.p1", punch=True)
    story.tell(copying.Planned("process", False, "there is no memfd to punch", 1, MIB), pause="web-0.p1")
    assert story.found("decision_pinned").verdict is Verdict.HELD
    story.tell(copying.Planned("process", True, "whatever", 1, MIB), pause="web-0.p1")
    assert story.reasons("decision_pinned") == ["it was to punch, and there is no memfd to punch"]


# -- no_leaks


def test_a_guest_whose_end_is_not_told_is_left(story: Story) -> None:
    reason = "web-0.1 is never told to have ended"
    assert story.missing("no_leaks") == [f"the ledger does not tell the run's end, and {reason}"]
    story.end()
    assert story.reasons("no_leaks") == [reason]


def test_what_a_dead_node_could_not_tell_is_missing(story: Story) -> None:
    story.begin_pause()
    story.tell(events.NodeCrashed(10), None)
    story.end()
    assert story.reasons("no_leaks") == []
    assert story.missing("no_leaks") == [
        "the node died, and web-0.1 is never told to have ended",
        "the node died, and the cache of web-0.p1 was neither finished nor deleted",
    ]


def test_a_cache_that_was_neither_finished_nor_deleted_is_left(story: Story) -> None:
    failed(story)
    assert story.found("no_leaks").verdict is Verdict.HELD
    assert story.without(copying.CacheDeleted).reasons("no_leaks") == [
        "the cache of web-0.p1 was neither finished nor deleted"
    ]


# -- legal_transitions


def test_an_edge_that_the_lifecycle_does_not_have_is_caught(story: Story) -> None:
    story.go("running", "paused")
    assert story.reasons("legal_transitions") == ["it went from running to paused"]


def test_a_step_that_begins_elsewhere_than_the_last_ended_is_caught(story: Story) -> None:
    story.go("paused", "resuming")
    assert story.reasons("legal_transitions") == ["it was running and left paused"]


def test_a_ledger_that_begins_in_the_middle_may_begin_anywhere(story: Story) -> None:
    late = story.without(events.SandboxCreated)
    late.entries = [each for each in late.entries if not isinstance(each.event, events.StateChanged)]
    late.go("paused", "resuming")
    assert late.found("legal_transitions").verdict is Verdict.HELD


# -- no_unpublished


def test_a_chunk_punched_before_it_was_published_is_caught(story: Story) -> None:
    story.begin_pause()
    story.tell(copying.ChunkPunched(0, 4 * MIB), pause="web-0.p1")
    story.copy()
    assert story.reasons("no_unpublished") == ["chunk 0 was punched before it was published"]


def test_memory_that_was_gone_before_it_was_published_is_caught(story: Story) -> None:
    story.begin_pause()
    story.tell(copying.ChunkPublished(0, 2 * MIB, 4 * MIB, 6 * MIB, 2 * MIB), pause="web-0.p1")
    assert "2097152 bytes were freed from the guest before they were published" in story.reasons("no_unpublished")[0]


def test_a_ledger_that_tells_no_publishing_at_all_lacks_evidence(sound: Story) -> None:
    silent = sound.without(copying.ChunkPublished)
    assert silent.reasons("no_unpublished") == []
    assert silent.missing("no_unpublished")[0] == "it punched, and no chunk_published tells what was published"


def test_a_scan_that_knows_no_resident_bytes_is_no_reason(sound: Story) -> None:
    assert sound.changed(copying.Scanned, resident_bytes=None).reasons("no_unpublished") == []
