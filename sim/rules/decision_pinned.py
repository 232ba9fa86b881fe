"""The rule, for both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from engine import events as engine_events
from engine import plan as plans
from flags.catalog import BACKGROUND, DEDUP, FLAGS, PUNCH
from flags.decision import Decision, Evaluation, options
from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import PauseView
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, violation


class DecisionPinned:
    """Compares what each pause did with the one decision that its ledger entries carry."""

    name = "decision_pinned"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        for pause in evidence.view.pauses:
            if pause.settled_at is None or pause.id in self._done:
                continue
            self._done.add(pause.id)
            self.checked += 1
            decisions = sum(isinstance(each.event, events.Decided) for each in evidence.of_pause(pause.id))
            reasons = [] if decisions == 1 else [f"the pause has {decisions} decisions, not one"]
            reasons += contradictions(pause, _latched(evidence, pause)) or freed_unasked(
                evidence.of_pause(pause.id), pause
            )
            for reason in reasons:
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """Everything was judged when it settled."""


def _latched(evidence: Evidence, pause: PauseView) -> bool | None:
    """Whether the paused incarnation gave its memfd; None where its start was not told."""
    born = (each.born for each in evidence.guests() if each.born.incarnation == pause.incarnation)
    return next((each.use_memfd for each in born), None)


_SEALED = "sealed"


def judge(trace: Trace) -> Finding:
    """Every pause that was told to do something."""
    finding = Finding()
    for pause in trace.view.pauses:
        told = [each.entry for each in trace.of_pause(pause.id)]
        decisions = [entry.event for entry in told if isinstance(entry.event, events.Decided)]
        decided = len(decisions)
        if decided == 0 and not (pause.path or pause.outcome):
            continue
        finding.checked += 1
        reasons = [f"the pause has {decided} decisions, not one"] if decided > 1 else []
        if decided:
            reasons += contradictions(pause, latched(trace, pause)) or freed_unasked(told, pause)
            reasons += [reason for each in decisions for reason in told_otherwise(each)]
        else:
            finding.lacks(pause.sandbox, f"no decided tells what the flags said for {pause.id}", pause=pause.id)
        for reason in reasons:
            finding.violated(pause.sandbox, reason, incarnation=trace.incarnation_of(pause), pause=pause.id)
    return finding


def told_otherwise(decided: events.Decided) -> list[str]:
    """Flags whose value is another one in the evaluations, where there are any, than in the decision."""
    telemetry = {each.get("feature_flag.key"): each.get("feature_flag.result.value") for each in decided.evaluations}
    return [
        f"{key} was decided {json.dumps(flag.get('value'))}, and its evaluation says {json.dumps(telemetry[key])}"
        for key, flag in decided.flags.items()
        if key in telemetry and telemetry[key] != flag.get("value")
    ]


def latched(trace: Trace, pause: PauseView) -> bool | None:
    """Whether the incarnation that was paused gave its memfd; None where its start is not told."""
    born = trace.born.get(trace.incarnation_of(pause) or "")
    event = born.entry.event if born else None
    return event.use_memfd if isinstance(event, events.GuestSpawned) else None


def contradictions(pause: PauseView, use_memfd: bool | None = None) -> list[str]:
    """What the pause did that its decision does not say; `use_memfd` None where what was latched is not known."""
    found = []
    decision = decision_of(pause.decision)
    if pause.punched_bytes and not decision.is_on(PUNCH):
        found.append(f"{pause.punched_bytes} bytes were freed, and the decision was not to punch")
    if pause.path is None:
        return found
    plausible = [_planned(pause, decision, memfd) for memfd in ((True, False) if use_memfd is None else (use_memfd,))]
    if pause.path not in {path for path, _, _ in plausible} & _said(pause, decision):
        return [*found, f"the path was {pause.path}, which is not what the flags said"]
    legal, why = next((legal, why) for path, legal, why in plausible if path == pause.path)
    if pause.punch and not legal and not found:
        found.append(f"it was to punch, and {why}")
    if legal and not pause.punch and _SEALED not in (pause.punch_reason or ""):
        found.append(f"the decision was to punch, and the plan was not to: {pause.punch_reason or 'no reason'}")
    return found


def _said(pause: PauseView, decision: Decision) -> set[str]:
    """The paths that the flags give by what they are called: no defect of `options` or `path_of` agrees with itself."""
    if pause.checkpoint:
        return {"in-place", "process"}
    if decision.is_on(DEDUP):
        return {"dedup", "process"}
    return {"memfd-background" if decision.is_on(BACKGROUND) else "memfd", "process"}


def freed_unasked(entries: Iterable[Entry], pause: PauseView) -> list[str]:
    """What st_blocks says is gone of a guest that was not to be punched; frozen, it frees nothing itself."""
    if pause.punch:
        return []
    at_freeze: int | None = None
    least: int | None = None
    for entry in entries:
        match entry.event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident
            case engine_events.ChunkPublished(source_resident=int(resident)):
                least = resident if least is None else min(least, resident)
            case _:
                pass
    freed = 0 if at_freeze is None or least is None else at_freeze - least
    return [f"{freed} bytes were freed from the guest, which was not to be punched"] if freed > 0 else []


def decision_of(told: Mapping[str, Mapping[str, Any]]) -> Decision:
    """A Decided event's flags as a decision; a flag that is not told has its safe value."""
    values = {key: told.get(key, {}).get("value", flag.safe) for key, flag in FLAGS.items()}
    accepted = {key: FLAGS[key].accepted(value) for key, value in values.items()}
    return Decision(
        tuple(
            Evaluation(key, FLAGS[key].safe if value is None else value, "", None, None, None, "")
            for key, value in accepted.items()
        )
    )


def _planned(pause: PauseView, decision: Decision, memfd: bool) -> tuple[str, bool, str]:
    """Path, whether punching is legal, and the reason, by the engine's own rules; seals are not told."""
    asked = options(decision, use_memfd=memfd)
    facts = plans.MemoryFacts(
        size=0,
        page_size=4096,
        block_size=4096,
        seals=0,
        consumed=not pause.checkpoint,
        parent_finished=True,
        memfd=memfd,
    )
    code = plans.punch_legality(asked, facts)
    return plans.path_of(asked, facts).value, code is plans.PunchCode.LEGAL, plans.PUNCH_REASONS[code]
