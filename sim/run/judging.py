"""A scenario's expectations judged on the folded view, and the verdict from all judgements."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.errors import HOST_ERRORS
from engine.events import CopyFailed
from flags.catalog import PUNCH
from flags.inline import Rollout
from sim.files.expectations import IN_BYTES, InvariantExpectation, MetricExpectation, PauseFilter, ViolationExpectation
from sim.files.lifecycle import State
from sim.files.scenario import Scenario
from sim.files.steps import FlagStep, StateExpectation, Where
from sim.files.units import format_size
from sim.files.yaml import Origin
from sim.record import events
from sim.record.ledger import Entry
from sim.record.source_events import FlagSourceChanged
from sim.record.verdict import CUT_OFF, Verdict
from sim.record.view import PauseView, SandboxView, View
from sim.rules.finding import Finding, in_file

HOST = "host:"
HELD, VIOLATED, INCONCLUSIVE = Verdict.HELD.value, Verdict.VIOLATED.value, Verdict.INCONCLUSIVE.value
Place = Origin | tuple[int, int]


def judged(subject: str, verdict: str, checked: int, place: Place, reasons: Iterable[dict[str, Any]]) -> events.Judged:
    """One judgement whose violations carry the place in the scenario file, or in one that it extends."""
    where = in_file(Origin(*place))
    return events.Judged(subject, verdict, checked, [{**where, **each} for each in reasons], where)


def judge_state(expected: StateExpectation, view: View, place: Place, *, whole_fleet: bool) -> events.Judged:
    """Every match is in one of the states, and as many in each as `counts` says (if the whole fleet was run)."""
    matching = [s for s in view.sandboxes.values() if _matches(s, expected.sandboxes, expected.where)]
    subject = f"state:{expected.sandboxes}{_filter(expected.where)}"
    if not matching:
        if expected.allow_empty or not whole_fleet:
            return judged(subject, HELD, 0, place, [])
        reason = {"sandbox": expected.sandboxes, "reason": f"no sandbox matches{_filter(expected.where)}"}
        return judged(subject, INCONCLUSIVE, 0, place, [reason])
    wrong = [
        {
            "sandbox": s.name,
            "code": "state",
            "reason": f"it is {s.state}, not {' or '.join(expected.state)}: {s.reason}",
        }
        for s in matching
        if expected.state is not None and s.state not in expected.state
    ]
    for state, comparison in (expected.counts or {}).items():
        count = sum(s.state == state for s in matching)
        if whole_fleet and not comparison.holds(count):
            words = f"{count} are {state}, expected {comparison}"
            wrong.append({"sandbox": expected.sandboxes, "code": "count", "reason": words})
    return judged(subject, VIOLATED if wrong else HELD, len(matching), place, wrong)


def _matches(sandbox: SandboxView, glob: str, where: Where | None) -> bool:
    punched = bool(sandbox.pause and sandbox.pause.punched_bytes)
    return fnmatch.fnmatchcase(sandbox.name, glob) and (where is None or where.punched is punched)


def _filter(where: Where | None) -> str:
    return "" if where is None else f" that {'punched' if where.punched else 'did not punch'}"


def judge_metric(expected: MetricExpectation, view: View, place: Place, *, whole_fleet: bool) -> events.Judged:
    """The metric of every pause that passes the filter lies within the bounds."""
    counted = view.pauses if expected.metric == "pauses" else view.measured
    pauses = [each for each in counted if each.settled_at is not None and _passes(each, expected.where)]
    subject = f"metric:{expected.metric}"
    if expected.metric == "pauses":
        if not whole_fleet:
            return judged(subject, HELD, 0, place, [])
        wrong = _outside(expected, len(pauses), "*", None)
        return judged(subject, VIOLATED if wrong else HELD, 1, place, wrong)
    if expected.metric == "punched_after_kill":
        return judge_kill_switch(expected, pauses, view, place, whole_fleet=whole_fleet)
    measured = [(each, getattr(each, expected.metric)) for each in pauses]
    known = [(each, value) for each, value in measured if value is not None]
    if not known:
        empty = expected.allow_empty or not whole_fleet
        reason = {"sandbox": expected.where.sandboxes, "reason": f"no pause with a {expected.metric} passes the filter"}
        return judged(subject, HELD if empty else INCONCLUSIVE, 0, place, [] if empty else [reason])
    wrong = [found for each, value in known for found in _outside(expected, value, each.sandbox, each.id)]
    return judged(subject, VIOLATED if wrong else HELD, len(known), place, wrong)


def judge_kill_switch(
    expected: MetricExpectation, pauses: Sequence[PauseView], view: View, place: Place, *, whole_fleet: bool
) -> events.Judged:
    """How many of these pauses punched although they were decided more than `within` after the kill switch."""
    late = [(each, age) for each in pauses if (age := view.after_kill(each)) is not None and age > expected.within]
    subject = f"metric:{expected.metric}"
    if not late:
        empty = expected.allow_empty or not whole_fleet
        killed = any(not each.on for each in view.switches)
        why = f"no pause was decided later than {expected.within:g} s after the kill switch"
        reason = {"sandbox": expected.where.sandboxes, "reason": why if killed else "no kill switch was thrown"}
        return judged(subject, HELD if empty else INCONCLUSIVE, 0, place, [] if empty else [reason])
    punched = [(each, age) for each, age in late if each.punch and each.punched_bytes]
    wrong = _outside(expected, len(punched), "*", None)
    if expected.max is not None and len(punched) > expected.max:
        wrong = [
            {
                "sandbox": each.sandbox,
                "pause": each.id,
                "code": "late",
                "reason": f"it punched, decided {age:.3f} s after the kill switch; {expected.within:g} s are allowed",
            }
            for each, age in punched
        ]
    return judged(subject, VIOLATED if wrong else HELD, len(late), place, wrong)


def _passes(pause: PauseView, where: PauseFilter) -> bool:
    return (
        fnmatch.fnmatchcase(pause.sandbox, where.sandboxes)
        and where.punch in {None, pause.punch}
        and where.path in {None, pause.path}
        and where.outcome in {None, pause.outcome}
    )


def _outside(expected: MetricExpectation, value: float, sandbox: str, pause: str | None) -> list[dict[str, Any]]:
    found: dict[str, Any] = {"sandbox": sandbox} | ({"pause": pause} if pause else {})
    if expected.min is not None and value < expected.min:
        reason = f"{_figure(expected, value)}, less than {_words(expected, expected.min)}"
        return [found | {"code": "below", "reason": reason}]
    if expected.max is not None and value > expected.max:
        reason = f"{_figure(expected, value)}, more than {_words(expected, expected.max)}"
        return [found | {"code": "above", "reason": reason}]
    return []


def _figure(expected: MetricExpectation, value: float) -> str:
    return f"{expected.metric} is {_words(expected, value)}"


def _words(expected: MetricExpectation, value: float) -> str:
    return format_size(int(value)) if expected.metric in IN_BYTES else f"{value:g}"


def judge_expectations(
    scenario: Scenario, view: View, *, whole_fleet: bool, settled: Mapping[int, events.Judged] | None = None
) -> list[events.Judged]:
    """The scenario's `expect` list without invariants and canaries; `settled` has earlier judgements, by index."""
    found = []
    for index, expected in enumerate(scenario.expect):
        place = scenario.origin(("expect", index))
        if not isinstance(expected, MetricExpectation | StateExpectation):
            continue
        if settled and index in settled:
            found.append(settled[index])
        elif isinstance(expected, MetricExpectation):
            found.append(judge_metric(expected, view, place, whole_fleet=whole_fleet))
        else:
            found.append(judge_state(expected, view, place, whole_fleet=whole_fleet))
    return found


def cut_short(found: events.Judged) -> events.Judged:
    """A run that was cut off violates no expectation that it did not reach, but a bound that one pause broke."""
    if found.verdict != VIOLATED or any("pause" in each for each in found.violations):
        return found
    reasons = [{**each, "reason": f"{each['reason']}; the run was cut off before its end"} for each in found.violations]
    return replace(found, verdict=INCONCLUSIVE, violations=reasons)


def judge_invariants(
    scenario: Scenario, findings: Mapping[str, Finding], *, whole_fleet: bool = True
) -> list[events.Judged]:
    """Every invariant that applies; one that the scenario lists must have been exercised, if the whole fleet ran."""
    listed = {
        expected.invariant: scenario.origin(("expect", index))
        for index, expected in enumerate(scenario.expect)
        if isinstance(expected, InvariantExpectation)
    }
    found = []
    for name, finding in findings.items():
        judgement = finding.judged(name)
        if not finding.applies and name not in listed:
            continue
        if whole_fleet and name in listed and finding.checked == 0 and judgement.verdict == HELD:
            reason = {"sandbox": "*", "reason": "nothing exercised it", **in_file(listed[name])}
            judgement = events.Judged(judgement.subject, INCONCLUSIVE, 0, [reason])
        found.append(judgement)
    return found


def unfired_faults(view: View, places: dict[int, Place]) -> list[events.Judged]:
    """An armed fault that never fired proves nothing."""
    return [
        judged(
            f"fault:{fault.fault}",
            INCONCLUSIVE,
            0,
            places[fault.fault_id],
            [{"sandbox": fault.sandboxes, "reason": f"armed at {fault.at}, it never fired"}],
        )
        for fault in view.faults
        if fault.fired == 0 and fault.fault_id in places
    ]


LEDGER = "ledger"


def lost_lines(entries: Iterable[Entry], lost_here: int) -> list[events.Judged]:
    """Lost lines may have held any event, so the run proves nothing. `lost_here`: lost by the runner."""
    lost = lost_here + sum(each.event.count for each in entries if isinstance(each.event, events.LinesLost))
    if not lost:
        return []
    reason = {
        "sandbox": "*",
        "reason": f"{lost} lines could not be written to it; free some space on the disk of the run",
    }
    return [events.Judged(LEDGER, INCONCLUSIVE, lost, [reason])]


def host_failures(entries: Sequence[Entry]) -> list[events.Judged]:
    """An inconclusive judgement for each errno that failed a pause although no fault was injected into that pause."""
    injected = {each.pause for each in entries if isinstance(each.event, events.FaultFired)}
    found: dict[str, list[dict[str, Any]]] = {}
    for each in entries:
        event = each.event
        if isinstance(event, CopyFailed) and event.errno in HOST_ERRORS and each.pause not in injected:
            reason = f"{event.call}: {event.error}: an error of this host, not an injected one"
            found.setdefault(event.errno or "", []).append(
                {"sandbox": each.sandbox or "*", "code": "host", "reason": reason}
            )
    return [events.Judged(f"{HOST}{errno}", INCONCLUSIVE, len(reasons), reasons) for errno, reasons in found.items()]


def unreached_flags(scenario: Scenario, entries: Iterable[Entry]) -> list[events.Judged]:
    """LaunchDarkly's own flags never came: every decision was the safe default, which shows nothing of them."""
    if scenario.flag_source != "launchdarkly":
        return []
    told = [each.event for each in entries if isinstance(each.event, FlagSourceChanged)]
    if any(each.state == "VALID" for each in told):
        return []
    error = next((each.error for each in reversed(told) if each.error), "nothing came")
    reason = {"sandbox": "*", "code": "unreached", "reason": f"LaunchDarkly was never reached: {error}"}
    return [judged("flags:launchdarkly", INCONCLUSIVE, 0, scenario.origin(("flags",)), [reason])]


def after_failures(
    scenario: Scenario, entries: Sequence[Entry], expected: Sequence[events.Judged]
) -> list[events.Judged]:
    """What this host or the flag service failed, and the expectations, none of which is violated by that."""
    found = list(expected)
    for failures, why in (
        (host_failures(entries), "this host failed a pause"),
        (unreached_flags(scenario, entries), "no flag ever came"),
    ):
        found = [*failures, *(_excused(each, why) for each in found)] if failures else found
    return found


def _excused(found: events.Judged, why: str) -> events.Judged:
    if found.verdict != VIOLATED:
        return found
    reasons = [{**each, "reason": f"{each['reason']}; {why}"} for each in found.violations]
    return events.Judged(found.subject, INCONCLUSIVE, found.checked, reasons)


def rollouts_without_effect(scenario: Scenario, entries: Iterable[Entry], view: View) -> list[events.Judged]:
    """A weight above 0 that punched no sandbox proves nothing."""
    weights = [
        each.event.value for each in entries if isinstance(each.event, events.FlagSet) and each.event.flag == PUNCH
    ]
    weighted = any(isinstance(value, dict) and value.get("rollout") not in {None, "0%"} for value in weights)
    if not weighted or not view.pauses or any(each.punch for each in view.pauses):
        return []
    reason = {"sandbox": "*", "reason": "a rollout above 0% chose no sandbox that was paused: nothing was punched"}
    return [judged(f"rollout:{PUNCH}", INCONCLUSIVE, 0, _first_weight(scenario), [reason])]


def _first_weight(scenario: Scenario) -> Origin:
    """The place of the first rollout above 0 %."""
    written = [(("flags", PUNCH), scenario.flag_values.get(PUNCH))] + [
        (("steps", index, "flag", PUNCH), step.values.get(PUNCH))
        for index, step in enumerate(scenario.steps)
        if isinstance(step, FlagStep)
    ]
    places = [path for path, value in written if isinstance(value, Rollout) and value.percent > 0]
    return scenario.origin(places[0] if places else ("flags",))


def conclude(
    scenario: Scenario, everything: Sequence[events.Judged], *, whole_fleet: bool = True
) -> tuple[str, list[events.Judged]]:
    """The verdict, and a judgement for each canary: a violation that was expected must have been caught.

    If only a part of the fleet was run, or the run was cut off, a canary that was not caught is inconclusive.
    """
    whole = whole_fleet and all(each.subject not in CUT_OFF for each in everything)
    caught: set[tuple[str, str]] = set()
    canaries = []
    for index, expected in enumerate(scenario.expect):
        if not isinstance(expected, ViolationExpectation):
            continue
        subject = expected.subject
        sang = any(each.subject == subject and each.verdict == expected.verdict for each in everything)
        caught |= {(subject, expected.verdict)} if sang else set()
        silence = f"{subject} was expected to be {expected.verdict} and was not"
        reasons = [] if sang else [{"sandbox": "*", "code": f"not-{expected.verdict}", "reason": silence}]
        place = scenario.origin(("expect", index))
        silent = VIOLATED if whole else INCONCLUSIVE
        canaries.append(judged(f"verdict:{expected.verdict}:{subject}", HELD if sang else silent, 1, place, reasons))
    verdicts = {each.verdict for each in [*everything, *canaries] if (each.subject, each.verdict) not in caught}
    worst = next((each for each in (VIOLATED, INCONCLUSIVE) if each in verdicts), HELD)
    return worst, canaries


def judge_run(
    scenario: Scenario, findings: Mapping[str, Finding], expected: Sequence[events.Judged], *, whole_fleet: bool
) -> tuple[str, list[events.Judged]]:
    """The verdict, and everything that it follows from: invariants, `expected`, canaries."""
    found = [*judge_invariants(scenario, findings, whole_fleet=whole_fleet), *expected]
    verdict, canaries = conclude(scenario, found, whole_fleet=whole_fleet)
    return verdict, found + canaries


def selected(view: View, sandboxes: str, state: str | None, punched: bool | None) -> list[str]:
    """Names of the selected sandboxes, in the fleet's order."""
    return [
        each.name
        for each in view.sandboxes.values()
        if fnmatch.fnmatchcase(each.name, sandboxes)
        and (each.state == state if state is not None else each.state not in {State.DISCARDED, State.KILLED})
        and (punched is None or bool(each.pause and each.pause.punched_bytes) is punched)
    ]
