"""`punched_after_kill`: pauses that punched although they were decided after the kill switch had had its time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.events import Event
from sim.files.expectations import MetricExpectation
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report.text import summary
from sim.run.judging import HELD, INCONCLUSIVE, VIOLATED, judge_metric

PUNCH = "memfd-punch-on-snapshot"
MIB = 1 << 20
PLACE = (9, 5)
STEP = events.StepStarted(0, "tick", 5, 5)
Told = tuple[float, Event, str | None, str | None]


def switch(t: float, value: object, *, took_ms: float | None = None) -> Told:
    return t, events.FlagSet(PUNCH, value, took_ms is not None, took_ms), None, None


def pause(sandbox: str, decided: float, *, punched: int = MIB, punch: bool = True) -> list[Told]:
    settled = events.PauseSettled(
        outcome="finished",
        path="memfd",
        punch=punch,
        punch_reason="",
        dirty_bytes=MIB,
        punched_bytes=punched,
        peak_over=0,
        peak_ratio=1.0,
        copy_ms=1.0,
        blocked_ms=1.0,
        condemned=True,
        build="b",
    )
    name = f"{sandbox}.p1"
    return [(decided, events.Decided({}), sandbox, name), (decided + 60.0, settled, sandbox, name)]


def view(*told: Told) -> View:
    fold = Fold()
    begun: list[Told] = [(0.0, events.FlagSet(PUNCH, True), None, None), (0.5, STEP, None, None)]
    fold.apply(Entry(*each) for each in sorted([*begun, *told], key=lambda each: each[0]))
    return fold.view()


def judge(seen: View, *, within: float = 1.0, whole_fleet: bool = True, **bounds: float) -> events.Judged:
    expected = MetricExpectation.model_validate(
        {"metric": "punched_after_kill", "within": within, **(bounds or {"max": 0.0})}
    )
    return judge_metric(expected, seen, PLACE, whole_fleet=whole_fleet)


def test_a_pause_that_punched_too_late_is_named_with_how_late_it_was_decided() -> None:
    found = judge(view(switch(2.0, False), *pause("web-0", 3.5), *pause("web-1", 2.9)))
    assert (found.subject, found.verdict, found.checked) == ("metric:punched_after_kill", VIOLATED, 1)
    (violation,) = found.violations
    reason = "it punched, decided 1.500 s after the kill switch; 1 s are allowed"
    assert violation == {
        "line": 9,
        "column": 5,
        "sandbox": "web-0",
        "pause": "web-0.p1",
        "code": "late",
        "reason": reason,
    }


def test_those_decided_before_or_within_the_allowed_time_may_punch_however_late_they_end() -> None:
    found = judge(
        view(
            switch(2.0, False),
            *pause("web-0", 1.9),
            *pause("web-1", 3.0),
            *pause("web-2", 3.1, punched=0, punch=False),
        )
    )
    assert (found.verdict, found.checked) == (HELD, 1)


def test_a_pause_that_meant_to_punch_and_freed_nothing_did_not_punch() -> None:
    assert judge(view(switch(2.0, False), *pause("web-0", 9.0, punched=0))).verdict == HELD


def test_without_a_kill_switch_nothing_is_proved() -> None:
    found = judge(view(*pause("web-0", 9.0)))
    assert (found.verdict, found.checked) == (INCONCLUSIVE, 0)
    assert found.violations[0]["reason"] == "no kill switch was thrown"
    assert judge(view(*pause("web-0", 9.0)), whole_fleet=False).verdict == HELD


def test_without_a_pause_after_it_nothing_is_proved() -> None:
    found = judge(view(switch(2.0, False), *pause("web-0", 2.9)))
    assert found.verdict == INCONCLUSIVE
    assert found.violations[0]["reason"] == "no pause was decided later than 1 s after the kill switch"


@pytest.mark.parametrize("value", [False, {"rollout": "0%", "by": "team"}])
def test_off_for_everybody_is_a_kill_switch_however_it_is_written(value: object) -> None:
    assert judge(view(switch(2.0, value), *pause("web-0", 9.0))).verdict == VIOLATED


def test_less_of_a_rollout_is_none() -> None:
    found = judge(view(switch(2.0, {"rollout": "1%", "by": "sandbox"}), *pause("web-0", 9.0)))
    assert found.violations[0]["reason"] == "no kill switch was thrown"


def test_a_flag_that_is_turned_on_again_lets_pauses_punch() -> None:
    seen = view(switch(2.0, False), switch(5.0, True), *pause("web-0", 4.0, punch=False), *pause("web-1", 9.0))
    assert (judge(seen).verdict, judge(seen).checked) == (HELD, 1)


def test_thrown_twice_it_counts_from_the_first() -> None:
    assert judge(view(switch(2.0, False), switch(4.9, False), *pause("web-0", 5.0))).verdict == VIOLATED


def test_it_counts_from_when_it_was_thrown_not_from_when_it_was_in_force() -> None:
    assert judge(view(switch(4.5, False, took_ms=2500.0), *pause("web-0", 5.0))).verdict == VIOLATED


def test_a_flag_that_was_off_before_the_first_step_was_not_turned_off() -> None:
    fold = Fold()
    fold.apply([Entry(0.0, events.FlagSet(PUNCH, False), None, None)])
    assert [each for each in fold.view().switches if not each.on] == []


def test_a_flag_of_a_file_is_turned_off_by_a_step_although_its_value_before_is_not_known() -> None:
    fold = Fold()
    fold.apply([Entry(0.5, STEP, None, None), Entry(2.0, events.FlagSet(PUNCH, False), None, None)])
    assert [each.t for each in fold.view().switches if not each.on] == [2.0]


def test_more_may_be_allowed_or_wanted() -> None:
    seen = view(switch(2.0, False), *pause("web-0", 9.0), *pause("web-1", 9.0))
    assert (judge(seen, max=2.0).verdict, judge(seen, max=1.0).verdict) == (HELD, VIOLATED)
    assert (judge(seen, min=2.0).verdict, judge(seen, min=3.0).verdict) == (HELD, VIOLATED)
    assert judge(seen, min=3.0).violations[0]["reason"] == "punched_after_kill is 2, less than 3"


def test_the_report_says_what_flags_over_sockets_promise() -> None:
    started = events.RunStarted(
        version=1, snapdrill="0", run="r", name="n", seed=1, only=[], started="", budget=0, cache="disk", mutant=None
    )
    ended = events.RunEnded("held", 0, {}, "0123456789abcdef", 0)
    promise = "0123456789ab; the flags came over sockets, so another run has equal outcomes but may have another digest"
    for source, promised in (("relay", True), ("inline", False)):
        fold = Fold()
        fold.apply(Entry(1.0, each, None, None) for each in (replace(started, flag_source=source), ended))
        assert (promise in " ".join(summary(fold.view()).split())) is promised


def test_the_report_says_how_long_the_kill_switch_took() -> None:
    text = summary(view(switch(2.0, False, took_ms=1.94), switch(3.0, True), switch(4.0, False)))
    text = " ".join(text.split())
    assert "kill switch at the node after 1.9 ms by request (measured); once not awaited in the outage" in text
