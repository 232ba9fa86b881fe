"""Copies that failed after their pause had answered: when that is known, here and in the original."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from engine.events import Event
from sim.files import original
from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report.document import scenario_document
from sim.report.late_failures import failed_late, known_after
from sim.report.text import summary
from tests.story import created, decided, run_started, settled, view_of


def lost(*, answered: bool = True, known_as: str = "here", **changes: Any) -> View:
    """One pause whose copy fails after the condemnation; `answered` first, or not."""
    told: list[Event] = [decided(), events.PauseReturned(1.0, answered)]
    told.append(settled(outcome="discarded", error="EIO", **changes))
    made = [Entry(0.0, run_started(known_as=known_as), None, None), Entry(0.5, created(), "web-0", None)]
    return view_of([*made, *(Entry(1.0 + at, event, "web-0", "web-0.p1") for at, event in enumerate(told))])


def test_a_failure_is_late_only_where_success_was_answered_and_the_sandbox_had_not_to_go_on() -> None:
    assert len(failed_late(lost().pauses)) == 1
    assert failed_late(lost(answered=False).pauses) == []
    assert failed_late(lost(checkpoint=True, consumed=True).pauses) == []


@pytest.mark.parametrize(
    ("known_as", "seconds", "words"),
    [("here", 0.0, "known at once"), ("original", 7200.0, "in the original it is known after 2 h")],
)
def test_the_profile_says_when_it_is_known(known_as: str, seconds: float, words: str) -> None:
    view = lost(known_as=known_as)
    assert known_after(view) == seconds
    assert scenario_document(view)["known_after"]["seconds"] == seconds
    said = " ".join(summary(view).split())
    assert words in said
    assert ("the build says success" in said) is (known_as == "original")
    assert "went on from" not in said  # that is a rule's to say


def test_without_such_a_failure_nothing_is_said() -> None:
    view = lost(answered=False, known_as="original")
    assert (known_after(view), scenario_document(view)["known_after"]) == (None, None)
    assert "failed late" not in summary(view)


def test_uploads_are_tried_5_to_120_seconds_apart_for_two_hours() -> None:
    tries = list(original.tries())
    waits = [later - earlier for earlier, later in pairwise([0.0, *tries])]
    assert waits[:6] == [5, 10, 20, 40, 80, 120]
    assert set(waits[6:]) == {120}
    assert tries[-1] < 7200 <= tries[-1] + 120
