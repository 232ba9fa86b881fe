"""What a scenario expects, judged on views folded from entries written here; and the verdict that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.events import Event
from sim.files.expectations import MetricExpectation, PauseFilter
from sim.files.scenario import Scenario, load_text
from sim.files.steps import StateExpectation
from sim.files.yaml import Origin
from sim.record import events
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.rules import RULES
from sim.rules.finding import Finding
from sim.run.judging import (
    HELD,
    INCONCLUSIVE,
    VIOLATED,
    conclude,
    cut_short,
    judge_expectations,
    judge_invariants,
    judge_metric,
    judge_state,
    judged,
    rollouts_without_effect,
    selected,
    unfired_faults,
)

MIB = 1 << 20
PLACE = (14, 5)
SCENARIO = """
name: judged
fleet:
  - {name: web, count: 4, memory: 4MiB}
steps:
  - tick: 1
expect:
"""


def scenario(*expect: str) -> Scenario:
    lines = "".join(f"  - {each}\n" for each in expect) or "  []\n"
    return load_text(SCENARIO.lstrip() + lines, Path("judged.yaml"))


def settled(**changes: Any) -> events.PauseSettled:
    fields: dict[str, Any] = {
        "outcome": "finished",
        "path": "memfd",
        "punch": True,
        "punch_reason": "",
        "dirty_bytes": 2 * MIB,
        "punched_bytes": 4 * MIB,
        "peak_over": MIB,
        "peak_ratio": 1.25,
        "copy_ms": 12.0,
        "blocked_ms": 3.0,
        "condemned": True,
        "build": "b1",
    }
    return events.PauseSettled(**fields | changes)


def view_of(states: dict[str, str] | None = None, *facts: tuple[Event, str | None, str | None]) -> View:
    """Sandboxes in these states, then these facts: event, sandbox, pause."""
    fold = Fold()
    for name, state in (states or {}).items():
        made = events.SandboxCreated(4 * MIB, 4096, 4096, "base", "default", "local")
        fold.apply([Entry(0.0, made, name, None)])
        fold.apply([Entry(0.1, events.StateChanged("created", state, f"why {state}"), name, None)])
    fold.apply([Entry(1.0, *fact) for fact in facts])
    return fold.view()


def view_of_pauses(*pauses: events.PauseSettled) -> View:
    """Sandboxes web-0, web-1, ... each with one settled pause, and one whose pause is still under way."""
    names = [f"web-{number}" for number in range(len(pauses) + 1)]
    facts = [(pause, name, f"{name}.p1") for name, pause in zip(names, pauses, strict=False)]
    open_pause = (events.GuestFrozen("x.1", 0.1), names[-1], f"{names[-1]}.p1")
    return view_of(dict.fromkeys(names, "paused"), *facts, open_pause)


FLEET = view_of({"web-0": "discarded", "web-1": "running", "web-2": "running", "db-0": "paused"})


def reasons(found: events.Judged) -> list[tuple[str, str]]:
    return [(each["sandbox"], each["reason"]) for each in found.violations]


def test_a_judgement_carries_its_place_in_the_scenario() -> None:
    found = judged("metric:pauses", VIOLATED, 1, PLACE, [{"sandbox": "*", "reason": "none"}])
    assert found.violations == [{"line": 14, "column": 5, "sandbox": "*", "reason": "none"}]


def test_a_violation_that_knows_its_own_place_keeps_it() -> None:
    assert judged("x", VIOLATED, 1, PLACE, [{"line": 3, "column": 1}]).violations == [{"line": 3, "column": 1}]


# -- states


def state(
    sandboxes: str = "*",
    state: tuple[str, ...] | None = None,
    counts: dict[str, str] | None = None,
    *,
    whole_fleet: bool = True,
    allow_empty: bool = False,
    view: View = FLEET,
) -> events.Judged:
    fields = {"sandboxes": sandboxes, "state": state, "counts": counts, "allow_empty": allow_empty}
    expected = StateExpectation.model_validate(fields)
    return judge_state(expected, view, PLACE, whole_fleet=whole_fleet)


def test_states_hold_where_every_match_is_in_one_of_them() -> None:
    found = state("web-*", ("discarded", "running"), {"running": ">=1", "discarded": "1", "paused": "0"})
    assert (found.subject, found.verdict, found.checked, found.violations) == ("state:web-*", HELD, 3, [])


def test_each_sandbox_in_another_state_is_named_with_why_it_is_there() -> None:
    found = state("web-*", ("paused", "discarded"))
    assert found.verdict == VIOLATED
    assert reasons(found) == [(f"web-{n}", "it is running, not paused or discarded: why running") for n in (1, 2)]


@pytest.mark.parametrize(
    ("count", "verdict"),
    [("2", HELD), (">=2", HELD), ("<3", HELD), ("!=2", VIOLATED), (">2", VIOLATED), ("0", VIOLATED), ("<=1", VIOLATED)],
)
def test_counts_are_compared_with_how_many_matches_are_in_that_state(count: str, verdict: str) -> None:
    assert state(counts={"running": count}).verdict == verdict


def test_a_wrong_count_says_how_many_there_are() -> None:
    assert reasons(state("web-*", counts={"running": ">=3"})) == [("web-*", "2 are running, expected >=3")]


def test_a_state_of_nobody_is_inconclusive_unless_that_is_allowed() -> None:
    found = state("api-*", ("running",))
    assert (found.verdict, found.checked, reasons(found)) == (INCONCLUSIVE, 0, [("api-*", "no sandbox matches")])
    allowed = state("api-*", ("running",), allow_empty=True)
    assert (allowed.verdict, allowed.violations) == (HELD, [])


def test_of_a_part_of_the_fleet_states_are_judged_and_counts_are_not() -> None:
    part = view_of({"web-1": "running"})
    assert state("web-*", ("running",), {"running": "3"}, whole_fleet=False, view=part).verdict == HELD
    assert state("web-*", ("paused",), whole_fleet=False, view=part).verdict == VIOLATED
    assert state("web-0", ("paused",), whole_fleet=False, view=part).verdict == HELD


# -- metrics


def metric(name: str, view: View, *, whole_fleet: bool = True, **more: Any) -> events.Judged:
    expected = MetricExpectation.model_validate({"metric": name, **more})
    return judge_metric(expected, view, PLACE, whole_fleet=whole_fleet)


def test_a_metric_holds_where_every_settled_pause_is_within_the_bounds() -> None:
    view = view_of_pauses(settled(peak_over=0), settled(peak_over=8 * MIB))
    found = metric("peak_over", view, min=0.0, max=8.0 * MIB)
    assert (found.subject, found.verdict, found.checked) == ("metric:peak_over", HELD, 2)


def test_each_pause_outside_is_named_with_its_figure_and_the_bound() -> None:
    view = view_of_pauses(settled(peak_over=MIB), settled(peak_over=9 * MIB), settled(peak_over=8 * MIB + 1))
    found = metric("peak_over", view, max=8.0 * MIB)
    assert found.verdict == VIOLATED
    assert reasons(found) == [
        ("web-1", "peak_over is 9MiB, more than 8MiB"),
        ("web-2", "peak_over is 8388609B, more than 8MiB"),
    ]
    assert [each["pause"] for each in found.violations] == ["web-1.p1", "web-2.p1"]


@pytest.mark.parametrize(
    ("name", "bounds", "reason"),
    [
        ("peak_ratio", {"max": 1.1}, "peak_ratio is 1.25, more than 1.1"),
        ("copy_ms", {"max": 10.0}, "copy_ms is 12, more than 10"),
        ("blocked_ms", {"min": 3.5}, "blocked_ms is 3, less than 3.5"),
        ("dirty_bytes", {"min": 4.0 * MIB}, "dirty_bytes is 2MiB, less than 4MiB"),
        ("punched_bytes", {"max": 0.0}, "punched_bytes is 4MiB, more than 0B"),
    ],
)
def test_a_figure_is_told_in_its_unit(name: str, bounds: dict[str, Any], reason: str) -> None:
    assert reasons(metric(name, view_of_pauses(settled()), **bounds)) == [("web-0", reason)]


@pytest.mark.parametrize(
    ("where", "checked"),
    [
        ({"punch": True}, 1),
        ({"punch": False}, 2),
        ({"path": "memfd-background"}, 1),
        ({"outcome": "discarded"}, 1),
        ({"sandboxes": "web-[01]"}, 2),
        ({"punch": False, "outcome": "discarded"}, 1),
        ({}, 3),
    ],
    ids=str,
)
def test_a_filter_takes_the_pauses_that_meet_all_of_it(where: dict[str, Any], checked: int) -> None:
    view = view_of_pauses(
        settled(), settled(punch=False, path="memfd-background"), settled(punch=False, outcome="discarded")
    )
    assert metric("peak_over", view, max=1e9, where=PauseFilter.model_validate(where)).checked == checked


def test_a_metric_of_no_pause_is_inconclusive_unless_that_is_allowed_or_only_a_part_was_run() -> None:
    where = PauseFilter(punch=False)
    view = view_of_pauses(settled(), settled(peak_over=None, punch=False))
    found = metric("peak_over", view, max=1.0, where=where)
    assert (found.verdict, found.checked) == (INCONCLUSIVE, 0)
    assert reasons(found) == [("*", "no pause with a peak_over passes the filter")]
    for allowed in (
        metric("peak_over", view, max=1.0, where=where, allow_empty=True),
        metric("peak_over", view, max=1.0, where=where, whole_fleet=False),
    ):
        assert (allowed.verdict, allowed.violations) == (HELD, [])


def test_pauses_are_counted_and_none_is_a_number_too() -> None:
    view = view_of_pauses(settled(), settled(outcome="discarded"))
    assert metric("pauses", view, min=2.0, max=2.0).verdict == HELD
    found = metric("pauses", view, min=1.0, where=PauseFilter(outcome="rolled-back"))
    assert (found.verdict, reasons(found)) == (VIOLATED, [("*", "pauses is 0, less than 1")])
    assert metric("pauses", view, min=9.0, whole_fleet=False).verdict == HELD


# -- the scenario's list


def test_only_metrics_and_states_are_judged_here_each_at_its_place() -> None:
    expected = scenario(
        "{invariant: bytes_exact}",
        "{metric: peak_over, max: 0KiB}",
        "{sandboxes: web-0, state: running}",
        "{verdict: violated, invariant: bytes_exact}",
    )
    found = judge_expectations(expected, view_of_pauses(settled()), whole_fleet=True)
    lines = [(each.subject, each.violations[0]["line"]) for each in found]
    assert lines == [("metric:peak_over", 8), ("state:web-0", 9)]


def findings(**seen: tuple[int, int]) -> dict[str, Finding]:
    """Findings with (checked, violations) as given."""
    made = {name: Finding() for name in RULES}
    for name, (checked, count) in seen.items():
        made[name] = Finding(checked, [{"sandbox": "web-1", "reason": "broken"}] * count)
    return made


def verdicts(found: list[events.Judged]) -> dict[str, str]:
    return {each.subject.removeprefix("invariant:"): each.verdict for each in found}


def test_every_invariant_is_judged_listed_or_not() -> None:
    found = judge_invariants(scenario(), findings(bytes_exact=(4, 1), no_leaks=(1, 0)))
    assert verdicts(found) == dict.fromkeys(RULES, HELD) | {"bytes_exact": VIOLATED}
    assert {each.subject: each.checked for each in found}["invariant:no_leaks"] == 1


def test_an_invariant_that_is_listed_must_have_been_exercised() -> None:
    listed = scenario("{invariant: rollback_intact}", "{invariant: bytes_exact}")
    found = judge_invariants(listed, findings(bytes_exact=(1, 0)))
    assert {name for name, verdict in verdicts(found).items() if verdict != HELD} == {"rollback_intact"}
    (vain,) = [each for each in found if each.verdict == INCONCLUSIVE]
    assert vain.violations == [{"sandbox": "*", "reason": "nothing exercised it", "line": 7, "column": 5}]


def test_of_a_part_of_the_fleet_an_invariant_need_not_be_exercised_but_must_hold() -> None:
    listed = scenario("{invariant: rollback_intact}", "{invariant: bytes_exact}")
    found = judge_invariants(listed, findings(bytes_exact=(1, 1)), whole_fleet=False)
    assert (verdicts(found)["rollback_intact"], verdicts(found)["bytes_exact"]) == (HELD, VIOLATED)


def test_a_violation_needs_no_exercise_to_count() -> None:
    assert (
        verdicts(judge_invariants(scenario("{invariant: no_leaks}"), findings(no_leaks=(0, 1))))["no_leaks"] == VIOLATED
    )


# -- faults

ARMED = (events.FaultArmed(1, "copy.write", "EIO", "chunk 3", "web-*"), None, None)
FIRED = (events.FaultFired(1, "copy.write", "EIO", 3), "web-0", "web-0.p1")
SECOND = (events.FaultArmed(2, "publish", "EIO", "last", "*"), None, None)


def test_an_armed_fault_that_never_fired_is_inconclusive_at_its_own_step() -> None:
    (found,) = unfired_faults(view_of({}, ARMED, FIRED, SECOND), {1: (9, 3), 2: (11, 3)})
    assert (found.subject, found.verdict) == ("fault:publish", INCONCLUSIVE)
    assert found.violations == [{"line": 11, "column": 3, "sandbox": "*", "reason": "armed at last, it never fired"}]


def test_a_fault_that_was_cleared_was_judged_then_and_is_not_judged_again() -> None:
    assert unfired_faults(view_of({}, ARMED, (events.FaultsCleared(), None, None)), {1: PLACE}) == []


def test_a_fault_that_no_step_armed_is_nobodys_expectation() -> None:
    assert unfired_faults(view_of({}, ARMED), {}) == []


# -- the verdict

CANARY = "{verdict: violated, invariant: never_resumed}"


def judgements(**found: str) -> list[events.Judged]:
    """`bytes_exact=VIOLATED` is an invariant, `metric_peak_over=HELD` a metric."""
    subjects = {name: f"metric:{name[7:]}" if name.startswith("metric_") else f"invariant:{name}" for name in found}
    return [events.Judged(subjects[name], verdict, 1) for name, verdict in found.items()]


@pytest.mark.parametrize(
    ("found", "verdict", "code"),
    [
        ((HELD, HELD), HELD, 0),
        ((HELD, INCONCLUSIVE), INCONCLUSIVE, 3),
        ((INCONCLUSIVE, VIOLATED), VIOLATED, 1),
        ((VIOLATED, HELD), VIOLATED, 1),
        ((), HELD, 0),
    ],
)
def test_the_worst_judgement_is_the_verdict_and_has_its_exit_code(
    found: tuple[str, ...], verdict: str, code: int
) -> None:
    everything = [events.Judged(f"state:{number}", each, 1) for number, each in enumerate(found)]
    assert conclude(scenario(), everything) == (verdict, [])
    assert Verdict(verdict).exit_code == code


def test_a_canary_that_was_caught_makes_the_run_hold() -> None:
    verdict, canaries = conclude(scenario(CANARY), judgements(never_resumed=VIOLATED, bytes_exact=HELD))
    assert verdict == HELD
    assert [(each.subject, each.verdict, each.violations) for each in canaries] == [
        ("verdict:violated:invariant:never_resumed", HELD, [])
    ]


def test_a_canary_that_was_not_caught_is_a_violation_at_its_place() -> None:
    verdict, (canary,) = conclude(scenario("{invariant: no_leaks}", CANARY), judgements(never_resumed=HELD))
    assert (verdict, canary.verdict) == (VIOLATED, VIOLATED)
    reason = "invariant:never_resumed was expected to be violated and was not"
    assert canary.violations == [{"line": 8, "column": 5, "sandbox": "*", "code": "not-violated", "reason": reason}]


def test_a_canary_that_could_not_be_judged_was_not_caught() -> None:
    assert conclude(scenario(CANARY), judgements(never_resumed=INCONCLUSIVE))[0] == VIOLATED


def test_a_violation_beside_the_one_expected_still_violates() -> None:
    found = judgements(never_resumed=VIOLATED, failed_copy_discards=VIOLATED)
    assert conclude(scenario(CANARY), found)[0] == VIOLATED
    both = scenario(CANARY, "{verdict: violated, invariant: failed_copy_discards}")
    assert conclude(both, found)[0] == HELD


def test_what_is_inconclusive_beside_a_caught_canary_stays_inconclusive() -> None:
    canary = scenario("{verdict: violated, metric: peak_over}", "{metric: peak_over, max: 8MiB}")
    twice = [*judgements(metric_peak_over=VIOLATED), *judgements(metric_peak_over=INCONCLUSIVE)]
    assert conclude(canary, twice)[0] == INCONCLUSIVE
    assert conclude(canary, twice[:1])[0] == HELD


def test_a_metric_canary_is_caught_by_its_metric_alone() -> None:
    canary = scenario("{verdict: violated, metric: peak_over}", "{metric: peak_over, max: 8MiB}")
    assert conclude(canary, judgements(peak_bounded=VIOLATED, metric_peak_over=HELD))[0] == VIOLATED


def test_of_a_part_of_the_fleet_a_canary_that_is_silent_proves_nothing() -> None:
    verdict, _ = conclude(scenario(CANARY), judgements(never_resumed=HELD), whole_fleet=False)
    assert verdict == INCONCLUSIVE
    assert conclude(scenario(CANARY), judgements(never_resumed=VIOLATED), whole_fleet=False)[0] == HELD


# -- selections


@pytest.mark.parametrize(
    ("glob", "state", "punched", "names"),
    [
        ("*", None, None, ["web-1", "web-2", "db-0"]),
        ("web-*", None, None, ["web-1", "web-2"]),
        ("*", "discarded", None, ["web-0"]),
        ("web-*", "running", None, ["web-1", "web-2"]),
        ("db-*", "running", None, []),
        ("*", None, True, ["web-2"]),
        ("*", None, False, ["web-1", "db-0"]),
        ("*", "running", True, ["web-2"]),
    ],
)
def test_a_selection_meets_glob_state_and_what_the_last_pause_punched_in_the_fleets_order(
    glob: str, state: str | None, punched: bool | None, names: list[str]
) -> None:
    states = {"web-0": "discarded", "web-1": "running", "web-2": "running", "db-0": "paused"}
    first = (settled(), "web-1", "web-1.p1")
    second = (settled(punched_bytes=0), "web-1", "web-1.p2")
    view = view_of(states, first, second, (settled(), "web-2", "web-2.p1"))
    assert selected(view, glob, state, punched) == names


# -- places in other files, filters, runs that were cut off


def test_a_place_in_a_file_that_is_extended_names_the_file() -> None:
    found = judged("x", VIOLATED, 1, Origin(3, 5, "base.yaml"), [{"sandbox": "*"}])
    assert found.violations == [{"line": 3, "column": 5, "file": "base.yaml", "sandbox": "*"}]


@pytest.mark.parametrize(
    ("punched", "verdict", "subject"),
    [(True, HELD, "state:* that punched"), (False, VIOLATED, "state:* that did not punch")],
)
def test_states_may_be_expected_of_those_that_punched(punched: bool, verdict: str, subject: str) -> None:
    fields = {"state": ("discarded",), "where": {"punched": punched}}
    facts = [(settled(), "web-0", "web-0.p1"), (settled(punched_bytes=0), "web-1", "web-1.p1")]
    view = view_of({"web-0": "discarded", "web-1": "running"}, *facts)
    found = judge_state(StateExpectation.model_validate(fields), view, PLACE, whole_fleet=True)
    assert (found.verdict, found.checked, found.subject) == (verdict, 1, subject)


@pytest.mark.parametrize(("allow_empty", "verdict"), [(True, HELD), (False, INCONCLUSIVE)])
def test_a_filter_that_nobody_meets_is_inconclusive_unless_it_may_be_empty(allow_empty: bool, verdict: str) -> None:
    fields = {"counts": {"paused": "0"}, "where": {"punched": True}, "allow_empty": allow_empty}
    found = judge_state(StateExpectation.model_validate(fields), FLEET, PLACE, whole_fleet=True)
    assert found.verdict == verdict
    assert reasons(found) == ([] if allow_empty else [("*", "no sandbox matches that punched")])


def test_a_run_that_was_cut_off_violates_no_state_that_it_did_not_come_to() -> None:
    found = cut_short(judged("state:*", VIOLATED, 1, PLACE, [{"sandbox": "*", "reason": "0 are paused"}]))
    assert (found.verdict, reasons(found)) == (
        INCONCLUSIVE, [("*", "0 are paused; the run was cut off before its end")],
    )  # fmt: skip
    broken = judged("metric:peak_over", VIOLATED, 1, PLACE, [{"sandbox": "a", "pause": "a.p1", "reason": "more"}])
    assert cut_short(broken) is broken


def test_a_canary_that_a_run_did_not_come_to_is_inconclusive() -> None:
    limit = judged("time-limit", INCONCLUSIVE, 0, PLACE, [{"sandbox": "*", "reason": "too late"}])
    verdict, (canary,) = conclude(scenario("{verdict: violated, invariant: no_leaks}"), [limit])
    assert (verdict, canary.verdict) == (INCONCLUSIVE, INCONCLUSIVE)


def test_a_rollout_that_punched_nobody_is_told_where_it_is_written() -> None:
    text = SCENARIO.lstrip().replace("  - tick: 1\n", "  - flag: {memfd-punch-on-snapshot: {rollout: 5%, by: team}}\n")
    made = load_text(text + "  []\n", Path("judged.yaml"))
    rollout = {"rollout": "5%", "by": "team"}
    entries = [Entry(0.5, events.FlagSet("memfd-punch-on-snapshot", rollout), None, None)]
    (found,) = rollouts_without_effect(made, entries, view_of_pauses(settled(punch=False, punched_bytes=0)))
    assert found.verdict == INCONCLUSIVE
    assert (found.violations[0]["line"], found.violations[0]["column"]) == (5, 37)
