from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sim.record.verdict import ExitCode
from sim.run.sweep import Case, result_of

Named = Callable[[str], Case]


@pytest.mark.parametrize(
    ("name", "outcome", "expected"),
    [
        ("web-0.p1/copy.write/0/errno", "rolled-back", "rolled back"),
        ("web-0.p1/copy.write/1/errno", "discarded", "discarded"),
        ("web-0.p1/copy.write/1/delay", "finished", "finished"),
        ("web-0.p1/freeze/cancel", "refused", "refused"),
        ("web-0.p1/condemn/kill-node", "rolled-back", "rolled back"),
    ],
)
def test_a_case_comes_to_what_the_pause_that_was_hit_came_to(
    case: Named, made: Any, name: str, outcome: str, expected: str
) -> None:
    hit = case(name)
    found = result_of(hit, made.unit_result(name, made.fired(hit), made.settled(hit, outcome)))
    assert (found.outcome, found.exit_code) == (expected, ExitCode.HELD)


def test_a_fault_in_a_resume_comes_to_where_the_sandbox_was_in_the_end(case: Named, made: Any) -> None:
    hit = case("web-1.i2/resume.read/short")
    assert result_of(hit, made.unit_result(hit.name, made.fired(hit))).outcome == "running"


def test_a_crash_outside_a_pause_is_recovered_from(case: Named, made: Any) -> None:
    hit = case("web-1.i2/resume.read/kill-node")
    assert result_of(hit, made.unit_result(hit.name, made.fired(hit))).outcome == "recovered"


def test_a_sandbox_whose_guest_was_killed_is_killed(case: Named, made: Any) -> None:
    hit = case("web-0.p1/freeze/kill-guest")
    entries = made.fired(hit), made.settled(hit, "rolled-back")
    assert result_of(hit, made.unit_result(hit.name, *entries, states={"web-0": "killed"})).outcome == "killed"


def test_a_fault_that_did_not_fire_was_not_reached_and_proves_nothing(case: Named, made: Any) -> None:
    hit = case("web-0.p1/copy.write/1/errno")
    entry = made.fired(hit)
    others = [replace(entry, **{key: value}) for key, value in (("sandbox", "web-1"), ("pause", "web-0.p2"))]
    for key, value in (("fault", "punch"), ("chunk", 0), ("kind", "delay")):
        others.append(replace(entry, event=replace(entry.event, **{key: value})))
    found = result_of(hit, made.unit_result(hit.name, *others, made.settled(hit, "finished")))
    assert (found.outcome, found.exit_code) == ("not reached", ExitCode.INCONCLUSIVE)


def test_a_violation_counts_whether_the_fault_fired_or_not(case: Named, made: Any) -> None:
    hit = case("web-0.p1/copy.write/1/errno")
    found = result_of(hit, made.unit_result(hit.name, made.broken(), verdict="violated"))
    assert (found.outcome, found.exit_code, found.why) == ("violated", ExitCode.VIOLATED, "it ran again")


def test_what_the_scenarios_own_faults_leave_open_is_no_verdict_of_a_case(case: Named, made: Any) -> None:
    hit = case("web-0.p1/copy.write/0/errno")
    own = made.judged("fault:copy.write", "inconclusive", 0, reason="armed at last, it never fired")
    entries = own, made.fired(hit), made.settled(hit, "rolled-back")
    assert result_of(hit, made.unit_result(hit.name, *entries, verdict="inconclusive")).outcome == "rolled back"


def test_a_case_that_ran_out_of_time_is_inconclusive(case: Named, made: Any) -> None:
    hit = case("web-0.p1/copy.write/0/errno")
    cut = made.judged("time-limit", "inconclusive", 0, reason="the time limit ended it")
    found = result_of(hit, made.unit_result(hit.name, cut, made.fired(hit)))
    assert (found.outcome, found.exit_code) == ("inconclusive", ExitCode.INCONCLUSIVE)
    assert found.why == "the time limit ended it"


def test_a_run_that_broke_is_an_internal_error(case: Named, made: Any) -> None:
    hit = case("web-0.p1/copy.write/0/errno")
    found = result_of(hit, made.unit_result(hit.name, verdict=None, error="its worker died, 2 times"))
    assert (found.outcome, found.exit_code, found.why) == ("error", ExitCode.INTERNAL, "its worker died, 2 times")
