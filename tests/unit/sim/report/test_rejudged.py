"""Today's judgement beside the run's own: who says what, what differs, and the verdict of both."""

from __future__ import annotations

import pytest

from sim.record import events
from sim.record.verdict import Verdict
from sim.report import rejudged as told
from sim.report.rejudged import Rejudged, verdict_of
from sim.report.table import markdown
from sim.rules import RULES, judge
from tests.story import Story, judged

REASON = {"sandbox": "web-0", "reason": "page 3 is not what it was", "pause": "web-0.p1"}


def everything_held(*but: str) -> tuple[events.Judged, ...]:
    return tuple(judged(name) for name in RULES if name not in but)


def broken(name: str) -> events.Judged:
    return judged(name, "violated", 1, REASON)


def rejudged(story: Story) -> list[Rejudged]:
    evidence = story.evidence()
    return told.beside_the_run(judge(evidence), evidence.view)


def of(story: Story, name: str) -> Rejudged:
    return next(each for each in rejudged(story) if each.name == name)


def verdict(story: Story) -> Verdict:
    return verdict_of(rejudged(story), complete=story.evidence().complete)


@pytest.fixture
def story() -> Story:
    return Story().begin()


@pytest.fixture
def sound(story: Story) -> Story:
    """A sound run that judged everything itself."""
    return story.pause().end(*everything_held())


def test_what_the_run_saw_of_reality_is_evidence(sound: Story) -> None:
    assert verdict(sound) is Verdict.HELD
    assert of(sound, "bytes_exact").ledger.verdict == "inconclusive"
    assert of(sound, "bytes_exact").verdict is Verdict.HELD


def test_without_it_the_ledger_is_inconclusive(story: Story) -> None:
    story.pause().end()
    assert verdict(story) is Verdict.INCONCLUSIVE
    assert of(story, "bytes_exact").run is None


def test_a_violation_that_only_reality_showed_counts_and_is_a_difference(story: Story) -> None:
    story.pause()
    story.end(*everything_held("never_resumed"), broken("never_resumed"))
    assert verdict(story) is Verdict.VIOLATED
    assert of(story, "never_resumed").differs
    said = markdown(told.sections(rejudged(story)))
    assert "never_resumed violated, by the run\n\n- web-0 (web-0.p1): page 3 is not what it was" in said
    assert "never_resumed: the run itself saw a violation that its ledger does not show" in said


def test_a_violation_that_only_the_ledger_shows_counts_and_is_a_difference(story: Story) -> None:
    story.pause()
    story.tell(events.GuestThawed("web-0.1"))
    story.end(*everything_held())
    assert verdict(story) is Verdict.VIOLATED
    said = markdown(told.sections(rejudged(story)))
    assert "never_resumed violated, by the ledger alone\n\n- web-0 (web-0.p1): a condemned guest was thawed" in said
    assert "never_resumed: the ledger shows a violation that the run itself did not see" in said


def test_a_canary_that_was_caught_is_no_violation_of_the_run(story: Story) -> None:
    story.pause()
    story.tell(events.GuestThawed("web-0.1"))
    canary = events.Judged("verdict:violated:invariant:never_resumed", "held", 1)
    story.end(*everything_held("never_resumed"), broken("never_resumed"), canary)
    assert verdict(story) is Verdict.HELD
    assert "never_resumed violated, by the run, as the scenario expects" in markdown(told.sections(rejudged(story)))


def test_a_ledger_without_an_end_is_at_best_inconclusive(sound: Story) -> None:
    assert verdict(sound.without(events.RunEnded)) is Verdict.INCONCLUSIVE


def test_a_ledger_that_exercises_nothing_is_inconclusive(story: Story) -> None:
    story.entries = [each for each in story.entries if isinstance(each.event, events.RunStarted)]
    story.end()
    assert verdict(story) is Verdict.INCONCLUSIVE


def test_the_document_says_who_found_what_and_what_is_missing(story: Story) -> None:
    found = rejudged(story.pause().end())
    document = told.document("trace.jsonl", found, Verdict.INCONCLUSIVE, len(story.entries), {"other": 2})
    assert (document["verdict"], document["exit_code"], document["unknown_events"]) == ("inconclusive", 3, {"other": 2})
    by_name = {each["name"]: each for each in document["invariants"]}
    assert list(by_name) == [name for name in RULES if name != "dirty_agrees"]  # no guest is a machine
    assert by_name["failed_copy_discards"]["verdict"] == "not exercised"
    assert by_name["bytes_exact"]["run"] is None
    assert by_name["bytes_exact"]["ledger"]["missing"][-1]["reason"].startswith("a ledger holds no hash")
