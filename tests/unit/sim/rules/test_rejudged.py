"""Today's judgement beside the run's own: who says what, what differs, and the verdict of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sim.record import events
from sim.record.verdict import Verdict
from sim.report import rejudged as told
from sim.report.table import markdown
from sim.rules import JUDGES, Rejudged, rejudge, verdict_of

if TYPE_CHECKING:
    from tests.unit.sim.rules.conftest import Story

REASON = {"sandbox": "web-0", "reason": "page 3 is not what it was", "pause": "web-0.p1"}


def saw(name: str, verdict: str, checked: int = 1) -> events.Judged:
    return events.Judged(f"invariant:{name}", verdict, checked, [] if verdict == "held" else [REASON])


def everything_held(*but: str) -> tuple[events.Judged, ...]:
    return tuple(saw(name, "held") for name in JUDGES if name not in but)


def of(story: Story, name: str) -> Rejudged:
    return next(each for each in rejudge(story.entries) if each.name == name)


def verdict(story: Story) -> Verdict:
    complete = any(isinstance(each.event, events.RunEnded) for each in story.entries)
    return verdict_of(rejudge(story.entries), complete=complete)


@pytest.fixture
def judged(story: Story) -> Story:
    """A sound run that judged everything itself."""
    story.pause()
    story.end(judged=everything_held())
    return story


def test_what_the_run_saw_of_reality_is_evidence(judged: Story) -> None:
    assert verdict(judged) is Verdict.HELD
    assert of(judged, "bytes_exact").ledger.verdict == "inconclusive"
    assert of(judged, "bytes_exact").verdict is Verdict.HELD


def test_without_it_the_ledger_is_inconclusive(sound: Story) -> None:
    assert verdict(sound) is Verdict.INCONCLUSIVE
    assert of(sound, "bytes_exact").run is None


def test_a_violation_that_only_reality_showed_counts_and_is_a_difference(story: Story) -> None:
    story.pause()
    story.end(judged=(*everything_held("never_resumed"), saw("never_resumed", "violated")))
    assert verdict(story) is Verdict.VIOLATED
    assert of(story, "never_resumed").differs
    said = markdown(told.sections(rejudge(story.entries)))
    assert "never_resumed violated, by the run\n\n- web-0 (web-0.p1): page 3 is not what it was" in said
    assert "never_resumed: the run saw a violation in reality that its ledger does not show" in said


def test_a_violation_that_only_the_ledger_shows_counts_and_is_a_difference(story: Story) -> None:
    story.pause()
    story.tell(events.GuestThawed("web-0.1"))
    story.end(judged=everything_held())
    assert verdict(story) is Verdict.VIOLATED
    said = markdown(told.sections(rejudge(story.entries)))
    assert "never_resumed violated, by the ledger alone\n\n- web-0 (web-0.p1): a condemned guest was thawed" in said
    assert "never_resumed: its own ledger contradicts it, though the run saw nothing wrong" in said


def test_a_canary_that_was_caught_is_no_violation_of_the_run(story: Story) -> None:
    story.pause()
    story.tell(events.GuestThawed("web-0.1"))
    canary = events.Judged("verdict:violated:invariant:never_resumed", "held", 1)
    story.end(judged=(*everything_held("never_resumed"), saw("never_resumed", "violated"), canary))
    assert verdict(story) is Verdict.HELD
    assert "never_resumed violated, by the run, as the scenario expects" in markdown(
        told.sections(rejudge(story.entries))
    )


def test_a_ledger_without_an_end_is_at_best_inconclusive(judged: Story) -> None:
    assert verdict(judged.without(events.RunEnded)) is Verdict.INCONCLUSIVE


def test_a_ledger_that_exercises_nothing_is_inconclusive(story: Story) -> None:
    story.entries = [each for each in story.entries if isinstance(each.event, events.RunStarted)]
    story.end()
    assert verdict(story) is Verdict.INCONCLUSIVE


def test_the_document_says_who_found_what_and_what_is_missing(sound: Story) -> None:
    found = rejudge(sound.entries)
    document = told.document("trace.jsonl", found, Verdict.INCONCLUSIVE, len(sound.entries), {"other": 2})
    assert (document["verdict"], document["exit_code"], document["unknown_events"]) == ("inconclusive", 3, {"other": 2})
    by_name = {each["name"]: each for each in document["invariants"]}
    assert list(by_name) == list(JUDGES)
    assert by_name["failed_copy_discards"]["verdict"] == "not exercised"
    assert by_name["bytes_exact"]["run"] is None
    assert by_name["bytes_exact"]["ledger"]["missing"][-1]["reason"].startswith("a ledger holds no hash")
