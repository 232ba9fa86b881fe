"""`failed_copy_discards`: whatever is left of a condemned pause that failed is found, thing by thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine import events as copying
from engine.events import CopyFailed, Event
from sim.record import events
from sim.record.ledger import Entry
from sim.record.verdict import Verdict
from sim.record.view import SALVAGE
from tests.story import Story, run_started

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, LivingGuest, Scene

NAME = "failed_copy_discards"
FAILED = CopyFailed(3, "copy.write", "No space left", condemned=True)


# -- by the ledger, with a fleet or without


def failed(story: Story) -> Story:
    return story.begin_pause().copy().discard().end()


def test_a_discarded_copy_holds(story: Story) -> None:
    found = failed(story).found(NAME)
    assert (found.verdict, found.checked) == (Verdict.HELD, 1)


def test_a_failed_copy_that_is_recorded_as_finished_is_caught(story: Story) -> None:
    assert failed(story).changed(events.PauseSettled, outcome="finished").reasons(NAME) == [
        "the pause failed past the point of no return, and its outcome is finished"
    ]


@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_sandbox_that_is_anything_but_discarded_in_the_end_is_caught(story: Story, state: str) -> None:
    (found,) = failed(story).changed(events.StateChanged, new=state).found(NAME).violations
    assert (found["reason"], found["pause"]) == (f"the sandbox is {state}, not discarded", "web-0.p1")


def test_a_state_that_is_recorded_right_after_the_pause_has_settled_is_waited_for(story: Story) -> None:
    story.begin_pause().copy().tell(FAILED, pause="web-0.p1").tell(copying.CacheDeleted("web-0.p1"), pause="web-0.p1")
    story.settle(outcome="discarded")
    assert story.reasons(NAME) == []
    assert story.go("pausing", "discarded").end().reasons(NAME) == []


def test_a_discarded_pause_is_judged_without_any_failure_in_the_ledger(story: Story) -> None:
    story.freeze().settle(outcome="discarded").go("running", "pausing", "running").end()
    assert story.reasons(NAME) == ["the sandbox is running, not discarded"]


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (CopyFailed(0, "copy.write", "broken", condemned=False), "rolled-back"),
        (CopyFailed(None, "teardown", "it does not die", condemned=True), "finished"),
        (None, "finished"),
    ],
    ids=["before the point of no return", "after the copy", "no failure"],
)
def test_what_is_no_failure_past_the_point_of_no_return_is_not_judged(
    story: Story, failure: CopyFailed | None, outcome: str
) -> None:
    story.freeze()
    if failure is not None:
        story.tell(failure, pause="web-0.p1")
    found = story.settle(outcome=outcome).end().found(NAME)
    assert (found.checked, found.violations) == (0, [])


def test_a_failed_copy_without_an_end_is_inconclusive(story: Story) -> None:
    story.begin_pause().copy().tell(FAILED, pause="web-0.p1").tell(events.NodeCrashed(10), None).end()
    assert story.found(NAME).verdict is Verdict.INCONCLUSIVE
    assert story.missing(NAME)[:2] == [
        "missing evidence: no `pause_settled` event gives its outcome",
        "missing evidence: the sandbox's last state is not in the ledger",
    ]


def test_a_ledger_that_shows_no_deleted_cache_is_caught_unless_the_node_died(sound: Story) -> None:
    sound.entries.clear()
    left = failed(sound.begin()).without(copying.CacheDeleted)
    assert left.reasons(NAME) == ["the cache of a failed copy was not deleted"]
    at = next(at for at, each in enumerate(left.entries) if isinstance(each.event, copying.CopyFailed))
    left.entries.insert(at, Entry(0.0, events.NodeCrashed(10), None, None))
    assert left.reasons(NAME) == []
    assert left.missing(NAME) == [
        "missing evidence: the node died, and no event says that the partial cache was deleted"
    ]


def killed_from_outside(story: Story, *, resumed: bool = True, when: str = "before", reason: str = "crashed") -> Story:
    """A guest that was resumed from the unfinished build dies by another's hand, and then the copy of that fails."""
    story.begin_pause().publish(0).tell(copying.Condemned("web-0.p1"), pause="web-0.p1").go("pausing", "paused")
    if resumed:
        story.resume("web-0.2")
    dies = events.ProcessDied("guest", 21, "web-0.2", "running")
    killed = events.StateChanged("running", "killed", "its guest died", reason)

    def end() -> None:
        story.tell(dies).tell(events.GuestEnded("web-0.2", "died")).tell(killed)

    if when == "before":
        end()
    story.tell(FAILED, pause="web-0.p1").tell(copying.CacheDeleted("web-0.p1"), pause="web-0.p1")
    story.settle(outcome="discarded").tell(events.GuestEnded("web-0.1", "discarded"))
    if when == "a step later":
        story.tell(events.StepStarted(1, "tick", 9, 5), None)
    if when != "before":
        end()
    return story.end()


@pytest.mark.parametrize("when", ["before", "in the same step"])
def test_a_sandbox_whose_next_guest_was_killed_from_outside_has_nothing_left_to_discard(
    story: Story, when: str
) -> None:
    found = killed_from_outside(story, when=when).found(NAME)
    assert (found.verdict, found.checked) == (Verdict.HELD, 1)


@pytest.mark.parametrize(
    "otherwise", [{"resumed": False}, {"when": "a step later"}, {"reason": "killed"}, {"reason": None}], ids=str
)
def test_a_failed_copy_whose_sandbox_is_killed_otherwise_is_caught(story: Story, otherwise: dict[str, Any]) -> None:
    assert killed_from_outside(story, **otherwise).reasons(NAME) == ["the sandbox is killed, not discarded"]


# -- where salvage was decided

STRANDED = copying.Stranded("web-0.p1", 2, 4 << 20)
FINISHED = copying.BuildFinished("web-0.p1", 8 << 20, "c0ffee", 12.0)
TORN = copying.NotSalvaged("web-0.p1", "torn", "the guest ran")


def asked(story: Story, *events_of_the_pause: Event, option: str = "salvage", flag: bool | None = None) -> Story:
    """A pause whose copy failed, and what happened then, with salvage by option or by flag."""
    story.begin_pause().copy()
    for event in (FAILED, *events_of_the_pause):
        story.tell(event, pause="web-0.p1")
    if flag is not None:
        story = story.changed(
            events.Decided, flags={SALVAGE: {"value": flag, "reason": "FALLTHROUGH", "variation": 0, "version": 1}}
        )
    return story.changed(events.RunStarted, on_copy_failure=option)


def test_a_build_that_is_stranded_to_the_end_holds(story: Story) -> None:
    found = asked(story, STRANDED).go("pausing", "paused").end().found(NAME)
    assert (found.verdict, found.checked) == (Verdict.HELD, 1)


def test_a_stranded_build_that_is_completed_holds_and_its_sandbox_goes_on(story: Story) -> None:
    made = asked(story, STRANDED, FINISHED).settle(outcome="finished", salvage="whole")
    assert made.go("pausing", "paused", "resuming", "running").end().reasons(NAME) == []


@pytest.mark.parametrize(
    "happened",
    [(STRANDED,), (FINISHED, STRANDED), (FINISHED,)],
    ids=["never finished", "finished before it was stranded", "never stranded"],
)
def test_a_stranded_build_that_is_named_finished_and_was_not_is_caught(
    story: Story, happened: tuple[Event, ...]
) -> None:
    made = asked(story, *happened).settle(outcome="finished", salvage="whole").go("pausing", "paused").end()
    assert "the pause failed past the point of no return, and its outcome is finished" in made.reasons(NAME)


def test_what_cannot_be_salvaged_is_discarded_with_a_code(story: Story) -> None:
    made = asked(story, TORN).tell(copying.CacheDeleted("web-0.p1"), pause="web-0.p1").settle(outcome="discarded")
    made.go("pausing", "discarded").tell(events.GuestEnded("web-0.1", "discarded")).end()
    assert made.reasons(NAME) == []
    assert made.without(copying.NotSalvaged).reasons(NAME) == [
        "salvage was decided, and no event says why the copy could not be salvaged"
    ]


@pytest.mark.parametrize(("code", "held"), [("given-up", True), ("torn", False), (None, False)])
def test_a_stranded_build_ends_with_its_sandbox_killed_only_where_it_was_given_up_for_that(
    story: Story, code: str | None, held: bool
) -> None:
    given_up = copying.NotSalvaged("web-0.p1", code or "given-up", "its sandbox was killed")
    made = asked(story, STRANDED, given_up, copying.CacheDeleted("web-0.p1"))
    made.settle(outcome="discarded", salvage=code).go("pausing", "paused", "killed").end()
    assert made.reasons(NAME) == ([] if held else ["the sandbox is killed, not discarded"])


KEPT = copying.KeeperAsked("web-0.p1")
LOST = copying.NotSalvaged("web-0.p1", "lost", "both are gone")


@pytest.mark.parametrize(("before", "is_caught"), [((KEPT, LOST), False), ((KEPT,), True), ((), False)])
def test_a_copy_that_its_node_s_death_cut_off_needs_a_code_where_its_memory_was_kept(
    story: Story, before: tuple[Event, ...], is_caught: bool
) -> None:
    made = asked(story, *before).tell(events.NodeCrashed(4242)).tell(events.NodeStarted(4243, 1, 4000, 1, True))
    made.settle(outcome="discarded").go("pausing", "discarded").tell(events.GuestEnded("web-0.1", "crashed"))
    why = "salvage was decided, and no event says why the copy could not be salvaged"
    assert made.end().reasons(NAME) == ([why] if is_caught else [])


def completed_by_the_next_node(story: Story, left_out: type[Event] | None = None, *, late: bool = False) -> Story:
    """The node died after its copy had failed, and before the build was stranded; the next one completes it."""
    story.begin_pause().copy()
    happened: list[Event] = [KEPT, FAILED, events.NodeCrashed(4242), FINISHED]
    for event in (*happened[:1], FINISHED, *happened[1:3]) if late else happened:
        if not isinstance(event, left_out or ()):
            story.tell(event, pause=None if isinstance(event, events.NodeCrashed) else "web-0.p1")
    story.tell(events.NodeStarted(4243, 1, 4000, 1, recovered=True), None)
    story.settle(outcome="finished", salvage="whole").tell(events.GuestEnded("web-0.1", "the node crashed"))
    return story.go("pausing", "paused").end().changed(events.RunStarted, on_copy_failure="salvage")


def test_a_failed_copy_that_the_next_node_completes_is_salvaged_though_it_was_never_stranded(story: Story) -> None:
    found = completed_by_the_next_node(story).found(NAME)
    assert (found.verdict, found.checked) == (Verdict.HELD, 1)


@pytest.mark.parametrize("left_out", [copying.KeeperAsked, events.NodeCrashed, copying.BuildFinished])
def test_a_failed_copy_is_salvaged_without_being_stranded_only_by_a_keeper_after_a_crash(
    story: Story, left_out: type[Event]
) -> None:
    why = "the pause failed past the point of no return, and its outcome is finished"
    assert why in completed_by_the_next_node(story, left_out).reasons(NAME)


def test_a_build_that_finished_before_its_copy_failed_is_not_salvaged(story: Story) -> None:
    assert completed_by_the_next_node(story, late=True).reasons(NAME) != []


UNKEPT = "salvage was decided, and its guest was condemned before another process was asked to hold its memory"


def condemned(story: Story, *happened: Event, **of_the_run: Any) -> Story:
    """A finished pause with these events around the condemnation of its guest."""
    story.begin_pause()
    for event in happened:
        story.tell(event, pause=None if isinstance(event, events.LinesLost) else "web-0.p1")
    story.settle().tell(events.GuestEnded("web-0.1", "paused")).go("pausing", "paused").end()
    return story.changed(events.RunStarted, **{"on_copy_failure": "salvage", "asks_keeper": True, **of_the_run})


RECORDED = copying.Condemned("web-0.p1")


@pytest.mark.parametrize(
    ("happened", "caught"),
    [
        ((KEPT, RECORDED, FINISHED), False),
        ((copying.KeeperAsked("web-0.p1", "no answer"), RECORDED, FINISHED), False),
        ((FINISHED, RECORDED), False),
        ((RECORDED, FINISHED), True),
        ((RECORDED, KEPT, FINISHED), True),
    ],
    ids=["asked", "asked in vain", "copied by then", "not asked", "asked late"],
)
def test_a_guest_is_condemned_in_mid_copy_only_after_a_keeper_was_asked(
    story: Story, happened: tuple[Event, ...], caught: bool
) -> None:
    found = condemned(story, *happened).found(NAME)
    assert [each["reason"] for each in found.violations] == ([UNKEPT] if caught else [])


@pytest.mark.parametrize("of_the_run", [{"asks_keeper": False}, {"on_copy_failure": "discard"}])
def test_no_keeper_is_asked_by_an_older_version_or_without_salvage(story: Story, of_the_run: dict[str, Any]) -> None:
    assert condemned(story, RECORDED, FINISHED, **of_the_run).reasons(NAME) == []


def test_where_lines_were_lost_the_keeper_may_have_been_asked(story: Story) -> None:
    found = condemned(story, RECORDED, events.LinesLost(1), FINISHED).found(NAME)
    assert found.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("option", "flag", "held"),
    [("salvage", False, False), ("discard", True, True), ("discard", None, False), ("salvage", None, True)],
)
def test_the_flag_decides_where_it_is_served_and_the_option_else(
    story: Story, option: str, flag: bool | None, held: bool
) -> None:
    made = asked(story, STRANDED, option=option, flag=flag).go("pausing", "paused").end()
    assert (made.reasons(NAME) == []) is held


# -- in reality


def failed_in_reality(scene: Scene) -> Scene:
    scene.freeze().tell(FAILED, pause="web-0.p1").settle(outcome="discarded", error="copy.write of chunk 3 failed")
    scene.go("created", "running", "pausing", "discarded")
    return scene


@pytest.fixture
def dead(guests: Guests) -> LivingGuest:
    guest = guests.start()
    guest.kill()
    return guest


@pytest.mark.parametrize("stopped", [True, False])
def test_a_guest_that_is_still_there_is_caught_stopped_or_not(scene: Scene, guests: Guests, stopped: bool) -> None:
    guest = guests.start()
    if stopped:
        guest.stop()
    (reason,) = failed_in_reality(scene).reasons(NAME)
    assert reason.startswith("the copy failed past the point of no return, and its guest is still there (state ")
    assert ("state T" in reason) == stopped


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize("name", ["web-0.p1.partial", "web-0.p1"])
def test_a_cache_that_is_still_there_is_caught_under_either_name(scene: Scene, name: str) -> None:
    (scene.reality.builds / name).mkdir()
    assert failed_in_reality(scene).reasons(NAME) == [f"the cache of a failed copy is still there: {name}"]


@pytest.mark.usefixtures("dead")
def test_what_is_left_in_the_spill_is_caught(scene: Scene) -> None:
    scene.reality.spill = scene.folder / "spill"
    scene.reality.spill.mkdir()
    (scene.reality.spill / "web-0.p1.spill").touch()
    assert failed_in_reality(scene).reasons(NAME) == ["the cache of a failed copy is still there: web-0.p1.spill"]


@pytest.mark.usefixtures("dead")
def test_a_record_that_was_not_retired_is_caught_once(scene: Scene) -> None:
    (scene.reality.condemned / "web-0.1-4711-99.json").write_text("{}")
    (scene.reality.condemned / "web-0.10-4711-99.json").write_text("{}")
    failed_in_reality(scene).found(NAME)
    assert scene.reasons(NAME) == ["its condemned record is still there: web-0.1-4711-99.json"]


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize("crashed", [True, False])
def test_a_build_that_the_next_node_completed_keeps_its_cache(scene: Scene, crashed: bool) -> None:
    (scene.reality.builds / "web-0.p1").mkdir()
    scene.tell(run_started(on_copy_failure="salvage"), None).freeze().tell(KEPT, pause="web-0.p1")
    scene.tell(FAILED, pause="web-0.p1")
    if crashed:
        scene.tell(events.NodeCrashed(4242), None)
    scene.tell(FINISHED, pause="web-0.p1").settle(outcome="finished", salvage="whole")
    scene.go("created", "running", "pausing", "paused")
    assert ("the cache of a failed copy is still there: web-0.p1" in scene.reasons(NAME)) is not crashed


def test_a_pause_under_way_is_not_looked_at_yet(scene: Scene, guests: Guests) -> None:
    guests.start()
    scene.freeze().tell(FAILED, pause="web-0.p1")
    assert scene.reasons(NAME) == []


@pytest.mark.usefixtures("dead")
def test_a_copy_that_is_to_be_looked_at_is_found_behind_one_that_is_not(scene: Scene) -> None:
    (scene.reality.builds / "web-0.p2").mkdir()
    scene.settle("web-0.p0", outcome="rolled-back", condemned=False)
    scene.freeze("web-0.p1").tell(FAILED, pause="web-0.p1").settle("web-0.p1", outcome="discarded", error="EIO")
    scene.found(NAME)  # from now on the first ones are known
    scene.freeze("web-0.p2").tell(FAILED, pause="web-0.p2").settle("web-0.p2", outcome="discarded", error="EIO")
    assert [(each["code"], each["pause"]) for each in scene.found(NAME).violations if each["code"] == "cache"] == [
        ("cache", "web-0.p2")
    ]
