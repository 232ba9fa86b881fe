"""All rules in one loop: over a run that is being made, over its ledger, over one that somebody else made."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sim.files.expectations import Invariant
from sim.record import events
from sim.record.verdict import Verdict
from sim.rules import RULES
from tests.story import Story, created, settled

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Guests, Scene

NEEDS_BYTES = {"bytes_exact", "rollback_intact"}


def test_every_invariant_that_a_scenario_may_name_has_its_rule_and_every_rule_its_name() -> None:
    assert sorted(RULES) == sorted(get_args(Invariant))


def test_a_sound_ledger_holds_except_for_what_only_bytes_can_show(sound: Story) -> None:
    findings = sound.findings()
    assert {name for name, each in findings.items() if each.verdict is not Verdict.HELD} == NEEDS_BYTES
    assert {findings[name].verdict for name in NEEDS_BYTES} == {Verdict.INCONCLUSIVE}
    idle = sorted(name for name, each in findings.items() if not each.checked)
    assert idle == ["decision_pinned", "dirty_agrees", "failed_copy_discards", "off_arrives"]


def test_a_finding_is_recorded_as_an_event_with_its_reasons(sound: Story) -> None:
    findings = sound.findings()
    assert findings["failed_copy_discards"].judged("failed_copy_discards") == events.Judged(
        "invariant:failed_copy_discards", "held", 0
    )
    inconclusive = findings["bytes_exact"].judged("bytes_exact")
    assert (inconclusive.verdict, inconclusive.violations) == ("inconclusive", findings["bytes_exact"].missing)


def test_a_good_run_violates_nothing_while_it_goes_on(scene: Scene, guests: Guests) -> None:
    guest = guests.start()
    scene.go("created", "running")
    assert [each.verdict for each in scene.findings().values()] == [Verdict.HELD] * len(RULES)
    guest.kill()
    scene.go("running", "killed")
    assert [each.verdict for each in scene.findings().values()] == [Verdict.HELD] * len(RULES)


def test_what_was_seen_at_a_barrier_is_still_known_after_teardown(scene: Scene, guests: Guests) -> None:
    guest = guests.start()
    guest.punch(4)
    scene.go("created", "paused")
    (seen,) = scene.found("never_resumed").violations
    guest.kill()
    scene.end()
    assert scene.found("never_resumed").violations == [seen]
    assert scene.reasons("legal_transitions") == ["it went from created to paused"]
    assert f"{scene.reality.builds} is still there" in scene.reasons("no_leaks")


def test_what_is_seen_to_be_wrong_has_the_place_of_the_step_that_was_under_way(scene: Scene, guests: Guests) -> None:
    guests.start().punch(4)
    scene.tell(events.StepStarted(0, "tick", 14, 5), None)
    scene.found("never_resumed")
    scene.tell(events.StepStarted(1, "tick", 15, 5), None)
    (seen,) = scene.found("never_resumed").violations
    assert (seen["line"], seen["column"]) == (14, 5)


def test_what_a_ledger_shows_has_the_place_of_the_step_in_which_its_pause_settled(story: Story) -> None:
    story.tell(events.StepStarted(0, "pause", 14, 5), None)
    story.begin_pause()
    story.tell(events.StepStarted(1, "tick", 15, 5, "base.yaml"), None)
    story.finish(peak_over=1 << 30)
    story.tell(events.StepStarted(2, "tick", 16, 5), None)
    (found,) = story.found("peak_bounded").violations
    assert (found["line"], found["column"], found["file"]) == (15, 5, "base.yaml")


def test_evidence_is_not_missing_while_the_run_goes_on(story: Story) -> None:
    story.tell(created(), "web-1").settle("web-1.p1", path="memfd", peak_over=None)
    missing = story.missing("peak_bounded")
    assert (missing == []) == (story.reality is not None)
    story.end()
    assert story.missing("peak_bounded") == ["missing evidence: no peak of web-1.p1"]


def test_a_pause_that_has_not_settled_has_the_place_of_the_step_of_its_last_entry(story: Story) -> None:
    steps = [events.StepStarted(index, "pause", 14 + index, 5) for index in range(3)]
    story.tell(steps[0], None).begin_pause().tell(steps[1], None).publish(0).tell(steps[2], None)
    assert story.evidence().step_of("web-0.p1") == steps[1]


def test_a_pause_that_settled_twice_in_a_ledger_is_taken_by_its_first(ledger: Story) -> None:
    ledger.tell(events.StepStarted(0, "pause", 14, 5), None).settle()
    ledger.tell(events.StepStarted(1, "pause", 15, 5), None).tell(settled(), pause="web-0.p1")
    assert ledger.evidence().step_of("web-0.p1") == events.StepStarted(0, "pause", 14, 5)


def test_of_what_the_ledger_does_not_know_there_is_nothing(ledger: Story) -> None:
    evidence = ledger.evidence()
    assert (evidence.of_pause("web-9.p1"), evidence.events_of("web-9.p1"), evidence.of_sandbox("web-9")) == ([], [], [])
    assert (evidence.of_kind(events.Judged), evidence.crashes, evidence.ended) == ([], [], {})
    assert (evidence.spawned("web-9.1"), evidence.settled_at("web-9.p1"), evidence.step_of("web-9.p1")) == (None,) * 3
    assert (evidence.crashed_after(-1), evidence.crashed_within("web-9.p1"), evidence.states_of("web-9")) == (
        False, False, [],
    )  # fmt: skip
