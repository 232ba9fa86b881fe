"""What the screen says of an entry: short, in a tone, and nothing of what is too fine."""

from __future__ import annotations

import pytest

from engine import events as engine_events
from engine.events import Event
from flags.catalog import BACKGROUND, PUNCH
from sim.record import events, source_events
from sim.record.ledger import Entry
from sim.report import words
from sim.report.sentences import Sentence, tell

MIB = 1 << 20


def said(event: Event, sandbox: str | None = "web-3") -> str | None:
    """On the screen; None for what it leaves out."""
    told = tell(Entry(1.0, event, sandbox, None))
    return None if told.fine else told.text


def test_the_point_of_no_return_is_said() -> None:
    assert said(engine_events.Condemned("web-3.p1")) == "web-3 condemned: point of no return"


def test_a_discard_says_what_failed() -> None:
    event = events.StateChanged("paused", "discarded", "copy.write of chunk 3 failed: ENOSPC", "discarded")
    assert said(event) == "web-3 discarded: copy.write of chunk 3 failed: ENOSPC"


def test_a_roll_back_says_that_the_guest_runs_on() -> None:
    event = events.StateChanged("pausing", "running", "the pause was rolled back: EIO")
    assert said(event) == "web-3 runs on: the pause was rolled back: EIO"


def test_a_failed_resume_costs_nothing_and_says_so() -> None:
    assert said(events.StateChanged("resuming", "paused", "the resume failed: EIO")) == (
        "web-3 stays paused: the resume failed: EIO"
    )


def test_a_refusal_is_said_with_its_reason() -> None:
    assert said(events.RequestRefused("resume", "it was discarded")) == "web-3 resume refused: it was discarded"


def test_an_outage_of_the_flags_is_said_from_its_begin_to_its_end() -> None:
    told: list[Event] = [
        source_events.OutageBegan("refuse", "HTTP 503"),
        events.FlagSet(PUNCH, False, effective=False),
        source_events.FlagSourceChanged("INTERRUPTED", "HTTP 503 from LaunchDarkly"),
        source_events.OutageEnded(),
        source_events.FlagFileEdited("off", 0.1),
        source_events.FlagFileEdited("torn", 0.1),
        source_events.FlagSourceChanged("VALID", None),
    ]
    assert [said(each, sandbox=None) for each in told] == [
        "flag source fails: refuse (HTTP 503)",
        "flag memfd-punch-on-snapshot is now off, but the change does not reach the node",
        "flag client is INTERRUPTED: HTTP 503 from LaunchDarkly",
        "flag source works again, and the node has every flag",
        "flag file edited from outside; punching there: off",
        "flag file edited from outside; punching there: torn",
        "flag client is VALID",
    ]


def test_a_decision_is_said_in_the_flags_own_words() -> None:
    flags = {
        PUNCH: {"value": True, "reason": "RULE_MATCH"},
        BACKGROUND: {"value": False, "reason": "FALLTHROUGH"},
    }
    assert said(events.Decided(flags)) == (
        "web-3 pausing, decided: punch on (rule match), background copy off (fallthrough)"
    )


def test_a_fault_is_said_where_it_waits_and_when_it_fires() -> None:
    assert said(events.FaultArmed(1, "copy.write", "ENOSPC", "chunk 3", "*"), None) == (
        "fault armed: copy.write ENOSPC at chunk 3 on every sandbox"
    )
    assert said(events.FaultFired(1, "copy.write", "ENOSPC", 3)) == "web-3 fault fired: copy.write ENOSPC at chunk 3"
    assert said(events.FaultFired(1, "condemn", "EIO", None)) == "web-3 fault fired: condemn EIO"


@pytest.mark.parametrize(
    ("at", "place"),
    [
        ("chunk 3", "at chunk 3"),
        ("first", "at the first chunk"),
        ("after_condemn", "after condemn"),
        ("50%", "at 50%"),
    ],
)
def test_a_place_is_said_in_words(at: str, place: str) -> None:
    assert words.place(at) == place


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "on"),
        (False, "off"),
        ({"rollout": "50%", "by": "sandbox"}, "on for 50% by sandbox"),
        ({"rollout": 12.5, "by": "team"}, "on for 12.5% by team"),
    ],
)
def test_a_flag_value_is_said_in_words(value: object, said: str) -> None:
    assert words.flag_value(value) == said


def test_a_judgement_is_said_with_its_first_reason() -> None:
    violations = [{"sandbox": "web-0", "reason": "ran again"}, {"sandbox": "web-1", "reason": "ran again"}]
    judged = events.Judged("invariant:never_resumed", "violated", 3, violations)
    assert said(judged, None) == "judged: never_resumed violated: web-0 ran again (and 1 more)"
    vacuous = events.Judged("invariant:bytes_exact", "inconclusive", 0, [{"sandbox": "*", "reason": "nothing ran"}])
    assert said(vacuous, None) == "judged: bytes_exact inconclusive: nothing ran"
    assert said(events.Judged("invariant:no_leaks", "held", 3), None) == "judged: no_leaks held: 3 checked"


def test_chunks_and_samples_are_too_fine_to_tell() -> None:
    assert said(engine_events.ChunkPunched(1, 2 * MIB)) is None
    assert said(events.GuestMeasured(2 * MIB)) is None
    assert said(events.MemorySampled(1, 2, 3), None) is None


def test_sentences_that_say_the_same_of_neighbours_are_one() -> None:
    first, second = Sentence(1.0, ("web-0",), "paused"), Sentence(2.0, ("web-1",), "paused")
    joined = first.joined(second)
    assert joined is not None
    assert joined.text == "web-0, web-1 paused"
    assert first.joined(Sentence(2.0, ("web-1",), "discarded")) is None
    assert Sentence(1.0, (), "tick").joined(Sentence(2.0, (), "tick")) is None


def test_many_subjects_are_counted() -> None:
    names = tuple(f"web-{number}" for number in range(100))
    assert Sentence(1.0, names, "paused").text == "web-0, web-1 … web-99 (100) paused"


@pytest.mark.parametrize(("size", "said"), [(0, "0"), (MIB, "1"), (MIB * 3 // 2, "1.5"), (int(180.4 * MIB), "180")])
def test_sizes_are_said_in_mebibytes(size: int, said: str) -> None:
    assert words.mib(size) == said


def test_an_error_is_one_line() -> None:
    assert words.one_line(ValueError("first\nsecond")) == "first"
    assert words.one_line(TimeoutError()) == "TimeoutError"


def test_a_refusal_is_said_shortly_by_its_code_else_in_its_own_words() -> None:
    long = "it was discarded and can never run again: copy.write of chunk 3 failed"
    assert words.refusal(events.RequestRefused("resume", long, "discarded")) == long.partition(": ")[0]
    assert words.refusal(events.RequestRefused("resume", "as you like it")) == "as you like it"
