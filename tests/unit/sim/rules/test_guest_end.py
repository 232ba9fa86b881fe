"""`never_resumed` by the ledger: a guest that ran since its freeze, or was never seen dead, is not punched or kept."""

from __future__ import annotations

import pytest

from engine import events as copying
from engine.events import Event
from sim.record import events
from sim.record.verdict import Verdict
from tests.story import MEMORY, Story, planned

NAME, PAUSE = "never_resumed", "web-0.p1"
STOOD = {"20": [3, 90_000], "21": [1, 5_000]}
RAN = {**STOOD, "21": [2, 7_000]}
LOOKED = copying.GuestLooked("kill", STOOD)
KILLED, DIED = copying.GuestKilled(), copying.GuestDied(1.5)
LIVES = copying.KillFailed("it does not die", "lives")
CONDEMNED, PUNCHED = copying.Condemned(PAUSE), copying.ChunkPunched(0, MEMORY // 2)
FINISHED = copying.BuildFinished(PAUSE, MEMORY // 2, "aa", 1.0)
SOUND = (CONDEMNED, LOOKED, KILLED, DIED, PUNCHED, FINISHED)
EARLY = "it was punched before it was seen dead"
UNSEEN = "it was punched, and was never seen dead"
UNENDED = "it was punched, though it could not be ended"
NO_DEATH = "missing evidence: it was punched, and no `guest_died` event says that it was dead by then"
NO_LOOK = "missing evidence: no `guest_looked` event says what its threads did between its freeze and its kill"


def ran(before: str, kept: str) -> str:
    return f"the look before {before} shows that it may have run since its freeze, and {kept}"


def told(*happened: Event, asks_keeper: bool = True, threads: dict[str, list[int]] | None = None) -> Story:
    """The ledger of a pause by today's version, with these events between its plan and its end."""
    story = Story().begin().go("running", "pausing").tell(events.GuestFrozen("web-0.1", 0.1, threads), pause=PAUSE)
    story.scan().tell(planned(), pause=PAUSE)
    for event in happened:
        story.tell(event, pause=None if isinstance(event, events.LinesLost | events.NodeCrashed) else PAUSE)
    story.settle().tell(events.GuestEnded("web-0.1", "paused")).go("pausing", "paused").end()
    return story.changed(events.RunStarted, asks_keeper=asks_keeper)


def judged(*happened: Event, asks_keeper: bool = True) -> tuple[Verdict, list[str]]:
    """The verdict, and why: violations, else what is missing."""
    found = told(*happened, asks_keeper=asks_keeper, threads=STOOD).found(NAME)
    return found.verdict, [each["reason"] for each in found.violations or found.missing]


@pytest.mark.parametrize("asks_keeper", [True, False])
def test_a_guest_that_did_not_run_was_killed_and_seen_dead_may_be_punched(asks_keeper: bool) -> None:
    assert judged(*SOUND, asks_keeper=asks_keeper) == (Verdict.HELD, [])


@pytest.mark.parametrize("look", [copying.GuestLooked("kill", RAN), copying.GuestLooked("kill", STOOD, "not-stopped")])
@pytest.mark.parametrize(
    ("happened", "kept"),
    [
        ((PUNCHED, FINISHED), "its memory was punched"),
        ((PUNCHED,), "its memory was punched"),
        ((copying.CleanPagesPunched(4096, 4096),), "its memory was punched"),
        ((FINISHED,), "its build was finished"),
    ],
)
def test_a_guest_that_a_look_shows_to_have_run_is_neither_punched_nor_its_copy_finished(
    look: Event, happened: tuple[Event, ...], kept: str
) -> None:
    assert judged(CONDEMNED, look, KILLED, DIED, *happened) == (Verdict.VIOLATED, [ran("kill", kept)])


@pytest.mark.parametrize("threads", [{}, {"20": [3, 90_000]}, {**STOOD, "22": [1, 1]}, {**STOOD, "20": [3, 90_001]}])
def test_another_set_of_threads_or_a_nanosecond_of_run_time_is_a_run(threads: dict[str, list[int]]) -> None:
    look = copying.GuestLooked("kill", threads)
    assert judged(CONDEMNED, look, KILLED, DIED, PUNCHED)[1] == [ran("kill", "its memory was punched")]


def test_a_look_before_the_finish_that_shows_a_run_forbids_it_too() -> None:
    look = copying.GuestLooked("finish", RAN)
    assert judged(look, FINISHED, CONDEMNED, LOOKED, KILLED, DIED)[1] == [ran("finish", "its build was finished")]


@pytest.mark.parametrize(
    "happened",
    [
        (FINISHED, CONDEMNED, copying.GuestLooked("kill", RAN, "ran"), KILLED, DIED),
        (CONDEMNED, copying.GuestLooked("kill", None, "dead"), KILLED, DIED, copying.CacheDeleted(PAUSE)),
        (copying.GuestLooked("condemn", RAN, "ran"), copying.CopyFailed(0, "x", "it ran", condemned=False)),
        (CONDEMNED, LIVES, copying.GuestLooked("finish", STOOD), FINISHED, LOOKED, KILLED, DIED),
    ],
    ids=["seen late", "discarded", "rolled back", "not ended and not punched"],
)
def test_a_guest_that_ran_may_be_discarded_rolled_back_or_seen_late(happened: tuple[Event, ...]) -> None:
    assert told(*happened, threads=STOOD).reasons(NAME) == []


def test_a_guest_that_ran_late_was_not_punched_before() -> None:
    late = copying.GuestLooked("kill", RAN, "ran")
    assert judged(*SOUND, late)[1] == [ran("kill", "its memory was punched")]


@pytest.mark.parametrize(
    ("happened", "why"),
    [
        ((LOOKED, KILLED, PUNCHED, DIED), EARLY),
        ((LOOKED, KILLED, PUNCHED), UNSEEN),
        ((PUNCHED,), UNSEEN),
        ((LOOKED, LIVES, PUNCHED), UNENDED),
        ((LOOKED, KILLED, LIVES, PUNCHED, DIED), UNENDED),
        ((LOOKED, copying.KillFailed("EPERM", "not-sent"), DIED, PUNCHED), UNENDED),
    ],
)
def test_a_guest_that_was_not_seen_dead_may_not_be_punched(happened: tuple[Event, ...], why: str) -> None:
    assert judged(CONDEMNED, *happened, FINISHED) == (Verdict.VIOLATED, [why])


@pytest.mark.parametrize("lost", [events.LinesLost(1), events.NodeCrashed(10)])
def test_where_lines_may_be_lost_a_death_that_has_none_is_missing_and_a_late_one_is_late(lost: Event) -> None:
    assert judged(CONDEMNED, LOOKED, KILLED, PUNCHED, FINISHED, lost) == (Verdict.INCONCLUSIVE, [NO_DEATH])
    assert judged(CONDEMNED, LOOKED, KILLED, PUNCHED, DIED, lost) == (Verdict.VIOLATED, [EARLY])
    assert judged(CONDEMNED, LOOKED, LIVES, PUNCHED, lost) == (Verdict.VIOLATED, [UNENDED])


def test_a_ledger_that_begins_in_the_middle_of_a_pause_lacks_its_end() -> None:
    story = told(CONDEMNED, PUNCHED, FINISHED).without(events.GuestFrozen)
    assert (story.reasons(NAME), story.missing(NAME)) == ([], [NO_DEATH, NO_LOOK])


@pytest.mark.parametrize("look", [None, copying.GuestLooked("finish", STOOD), copying.GuestLooked("kill", None)])
def test_a_punch_without_a_last_look_at_the_threads_lacks_evidence(look: Event | None) -> None:
    looks = [] if look is None else [look]
    assert judged(CONDEMNED, *looks, KILLED, DIED, PUNCHED, FINISHED) == (Verdict.INCONCLUSIVE, [NO_LOOK])


def test_a_freeze_without_a_reading_of_the_threads_lacks_evidence() -> None:
    assert told(*SOUND, threads=None).missing(NAME) == [NO_LOOK]


def test_ledgers_from_before_there_were_such_lines_are_judged_without() -> None:
    assert judged(CONDEMNED, PUNCHED, FINISHED, asks_keeper=False) == (Verdict.HELD, [])
    (why,) = judged(CONDEMNED, LOOKED, PUNCHED, asks_keeper=False)[1]
    assert why == UNSEEN, "one such line says that its version writes them"


def test_a_pause_that_punches_nothing_needs_no_death() -> None:
    assert told(CONDEMNED, FINISHED).found(NAME).verdict is Verdict.HELD
