"""How a guest is looked at and ended: what is reported of it, in which order, with which figures."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine import ending
from engine.effects import Effects, Memory
from engine.ending import Ending
from engine.errors import EngineError, FreezeError, GuestRanError
from engine.events import Event, GuestDied, GuestKilled, GuestLooked, KillFailed
from engine.incarnation import GuestProcess, PunchPermit
from engine.plan import SalvageCode
from engine.prepare import PauseRequest
from engine.strand import Strand, UnsalvageableError
from engine.writing import Writing

SEEN = {7: (1, 20)}
AS_JSON = {"7": [1, 20]}


class Acts(Effects):
    """Notes each act; raises what it is given, once for each."""

    def __init__(self, **raised: BaseException) -> None:
        self.raised = raised
        self.done: list[Any] = []

    def _act(self, name: str, *what: object) -> None:
        self.done.append((name, *what))
        if name in self.raised:
            raise self.raised.pop(name)

    def look(self, guest: GuestProcess, before: str) -> None:
        self._act("look", guest, before)

    def kill(self, guest: GuestProcess) -> None:
        self._act("kill", guest)

    def await_death(self, guest: GuestProcess, permit: PunchPermit | None) -> None:
        self._act("await_death", guest, permit)


GUEST = cast("GuestProcess", SimpleNamespace(seen=SEEN))
RAN = GuestRanError("it ran", "ran")


def ended(monkeypatch: pytest.MonkeyPatch, **raised: BaseException) -> tuple[Ending, Acts, list[Event]]:
    """By a clock that goes on by 1.2345678 ms at each look at it."""
    ticks = itertools.count(4000)
    monkeypatch.setattr(ending, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * 1.2345678e-3))
    acts, told = Acts(**raised), list[Event]()
    return Ending(GUEST, acts, told.append), acts, told


def test_a_guest_is_killed_once_and_its_death_is_timed_from_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, acts, told = ended(monkeypatch)
    assert (guest.killed, guest.dead, guest.await_death()) == (False, False, False)
    assert acts.done == []
    assert (guest.kill(), guest.kill(), guest.killed) == (None, None, True)
    guest.permit = permit = cast("PunchPermit", object())
    assert (guest.await_death(), guest.await_death(), guest.dead) == (True, True, True)
    assert acts.done == [("kill", GUEST), ("await_death", GUEST, permit)]
    assert told == [GuestLooked("kill", AS_JSON, None), GuestKilled(), GuestDied(1.235)]
    assert (guest.error, guest.torn) == (None, None)


def test_a_guest_that_had_run_is_killed_all_the_same_and_said_to_be_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, _, told = ended(monkeypatch, kill=RAN)
    assert guest.kill() is RAN
    assert (guest.torn, guest.killed, guest.kill()) == (RAN, True, None)
    assert told == [GuestLooked("kill", AS_JSON, "ran"), GuestKilled()]


@pytest.mark.parametrize("error", [PermissionError(1, "no"), TimeoutError()])
def test_a_guest_that_cannot_be_killed_lives_until_it_can(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    guest, acts, told = ended(monkeypatch, kill=error)
    words = str(error) or type(error).__name__
    assert (guest.kill(), guest.killed, guest.error) == (None, False, words)
    assert told == [KillFailed(words, "not-sent")]
    assert guest.await_death() is False
    guest.kill()
    assert (guest.killed, guest.error, len(acts.done)) == (True, None, 2)


def test_a_guest_that_does_not_die_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, _, told = ended(monkeypatch, await_death=FreezeError("it lives"))
    guest.kill()
    assert (guest.await_death(), guest.dead, guest.error) == (False, False, "it lives")
    assert (guest.await_death(), guest.dead, guest.error) == (True, True, None)
    assert told[-2:] == [KillFailed("it lives", "lives"), GuestDied(1.235)]


def test_a_look_is_reported_where_it_shows_something_and_before_a_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, acts, told = ended(monkeypatch)
    guest.look("scan")
    guest.look("condemn")
    assert told == []
    guest.look("finish")
    assert told == [GuestLooked("finish", AS_JSON, None)]
    guest.kill()
    del told[:]
    guest.look("finish")
    assert told == []
    acts.raised["look"] = RAN
    with pytest.raises(GuestRanError):
        guest.look("condemn")
    assert told == [GuestLooked("condemn", AS_JSON, "ran")]
    assert acts.done[:3] == [("look", GUEST, before) for before in ("scan", "condemn", "finish")]


# -- what is kept of a copy that failed


@pytest.mark.parametrize(
    ("raised", "error", "code", "words"),
    [
        ({"kill": RAN}, OSError(5, "disk"), SalvageCode.TORN, "it ran"),
        ({}, GuestRanError("it ran before", "ran"), SalvageCode.TORN, "it ran before"),
        ({}, KeyboardInterrupt(), SalvageCode.INTERRUPTED, "KeyboardInterrupt"),
        ({"kill": PermissionError(1, "no")}, OSError(5, "disk"), SalvageCode.LIVES, "no"),
        ({"await_death": FreezeError("slow")}, OSError(5, "disk"), SalvageCode.LIVES, "slow"),
        ({}, OSError(5, "disk"), SalvageCode.NO_MEMFD, ""),
    ],
)
def test_a_failed_copy_that_cannot_be_kept_says_why_by_a_code(
    raised: dict[str, BaseException],
    error: BaseException,
    code: SalvageCode,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest, acts, _ = ended(monkeypatch, **raised)
    with pytest.raises(UnsalvageableError) as refused:
        Strand.of(error, cast("Memory", object()), None, None, guest)
    assert refused.value.code is code
    assert words in str(refused.value)
    assert acts.done[0] == ("kill", GUEST)


def test_a_guest_that_was_seen_torn_before_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    guest, _, _ = ended(monkeypatch, kill=RAN)
    guest.kill()
    with pytest.raises(UnsalvageableError) as refused:
        Strand.of(OSError(5, "disk"), cast("Memory", object()), None, None, guest)
    assert (refused.value.code, str(refused.value)) == (SalvageCode.TORN, "it ran")


# -- what is recorded as it is written


def test_a_chunk_is_recorded_where_there_are_records_and_in_no_other_case() -> None:
    told: list[tuple[object, ...]] = []
    effects = SimpleNamespace(record=lambda *what: told.append(what))
    writing = Writing(cast("PauseRequest", None), cast("Effects", effects))
    records, cache, chunk = (cast("Any", object()) for _ in range(3))
    writing._record(chunk)
    writing.records = records
    writing._record(chunk)
    writing.cache = cache
    writing._record(chunk)
    assert told == [(records, cache, chunk)]
    with pytest.raises(EngineError):
        writing.parts()
    with pytest.raises(EngineError):
        writing.finish()
    assert (writing.plan, writing.header, writing.finished_after_all()) == (None, None, None)
