"""At 80 columns no sentence about a sandbox is cut: what there is no room for is left out whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from engine import events as copying
from sim.record import events
from sim.record.ledger import EVENT_TYPES, Entry
from sim.record.view import SandboxView
from sim.report.sentences import tell
from sim.tui import headlines
from sim.tui.screens.fleet import DETAIL
from sim.tui.screens.sandbox import WHO
from sim.tui.spans import Span, text, whole, width, wrap
from tests.story import MEMORY, Story
from tests.unit.sim.record.test_ledger import sample

LONG = "copy.write of chunk 3 failed: No space left on device (injected)"
REFUSED = events.RequestRefused("resume", f"it was discarded and can never run again: {LONG}")


def states() -> Iterator[tuple[str, SandboxView]]:
    """A sandbox in each state that its life has, with the longest words that belong to it."""
    yield "running", Story().begin().sandbox()
    for punch in (False, True):
        yield f"pausing {punch}", Story().begin().begin_pause(punch=punch).sandbox()
        yield f"condemned {punch}", Story().begin().begin_pause(punch=punch).copy(punch=punch).sandbox()
        paused = Story().begin().pause(punch=punch)
        yield f"paused {punch}", paused.sandbox()
        yield f"running again {punch}", paused.resume().sandbox()
    failed = Story().begin().begin_pause().publish(0).tell(copying.Condemned("web-0.p1"), pause="web-0.p1")
    failed.settle(outcome="discarded", error=LONG, failed_chunk=3, punched_bytes=MEMORY, content_hash=None)
    failed.tell(events.StateChanged("pausing", "discarded", LONG, "discarded"))
    yield "discarded", failed.sandbox()
    yield "refused", failed.tell(REFUSED).sandbox()
    rolled = Story().begin().begin_pause().publish(0)
    rolled.settle(outcome="rolled-back", error=LONG, condemned=False, punched_bytes=0, content_hash=None)
    yield "rolled back", rolled.tell(events.StateChanged("pausing", "running", f"it was rolled back: {LONG}")).sandbox()


STATES = dict(states())


@pytest.mark.parametrize("cells", [80, 100, 140, 200])
@pytest.mark.parametrize("state", STATES)
def test_no_line_about_a_sandbox_is_cut(state: str, cells: int) -> None:
    sandbox = STATES[state]
    short, tall = DETAIL["-short"][1], DETAIL["-tall"][1]
    for drawn in (
        headlines.detail(sandbox, cells, short),
        headlines.detail(sandbox, cells, tall),
        headlines.who(sandbox, cells, WHO[1]),
        headlines.why(sandbox, cells, WHO[1]),
        headlines.why(sandbox, cells, WHO[0]),
    ):
        assert [text(line) for line in drawn if "…" in text(line)] == []
        assert max((width(line) for line in drawn), default=0) <= cells


@pytest.mark.parametrize("state", STATES)
def test_the_state_and_its_reason_are_never_left_out(state: str) -> None:
    sandbox = STATES[state]
    said = " ".join("".join(f"{text(line)} " for line in headlines.detail(sandbox, 80, DETAIL["-short"][1])).split())
    why = sandbox.refused.reason if sandbox.refused is not None else ""
    assert said.startswith(sandbox.name)
    assert why in said
    if sandbox.pause is not None:
        assert "decision punch" in said
        assert "pause " in said


def test_the_last_sentences_become_shorter_first() -> None:
    first, second = [(Span("one two three"),), (Span("one"),)], [(Span("four five six"),), ()]
    assert [text(line) for line in whole([first, second], 14, 2)] == ["one two three", "four five six"]
    assert [text(line) for line in whole([first, second], 14, 1)] == ["one two three"]
    assert [text(line) for line in whole([first, second], 7, 1)] == ["one"]
    assert [text(line) for line in whole([second, first], 14, 1)] == ["one two three"], "nothing is shorter in vain"


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_every_sentence_of_an_event_stands_whole_at_80_columns(name: str) -> None:
    entry = Entry(1.0, sample(EVENT_TYPES[name]), "web-0", "web-0.p1")
    sentence = tell(entry)
    assert sentence is not None
    said = dataclasses.replace(sentence, fine=False).full
    lines = wrap((Span(said),), 68, indent="   ")
    assert max(map(width, lines)) <= 68
    assert " ".join(text(line).strip() for line in lines).split() == said.split()
