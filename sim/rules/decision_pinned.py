"""One pause acts on one decision, whatever flips meanwhile.

Every pause is judged; only one in whose window a flag changed exercises the rule: without that, a pause that reads its
flags twice reads the same twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from engine import events as engine_events
from engine import plan as plans
from engine.events import Event
from flags.catalog import BACKGROUND, DEDUP, FLAGS, PUNCH
from flags.decision import Decision, Evaluation, is_in_place, options
from sim.record import events
from sim.record.view import PauseView
from sim.rules.evidence import PUNCHES, Evidence
from sim.rules.finding import Finding, Reason

NAME = "decision_pinned"


def judge(evidence: Evidence) -> Finding:
    """Every pause that decided, or that did something; exercised by those in whose window a flag changed."""
    finding = Finding()
    changes = _flag_changes(evidence)
    for pause in evidence.view.pauses:
        happened = evidence.events_of(pause.id)
        decisions = [each for each in happened if isinstance(each, events.Decided)]
        if not decisions and not (pause.path or pause.outcome):
            continue
        finding.checked += _flipped_within(evidence, pause, changes)
        incarnation = evidence.incarnation_of(pause)
        several = Reason("decisions", f"the pause has {len(decisions)} decisions, not one")
        reasons = [] if len(decisions) == 1 else [several]
        if decisions:
            reasons += contradictions(pause, latched(evidence, pause)) or freed_unasked(happened, pause)
            reasons += went_on_otherwise(evidence, pause)
            reasons += [reason for each in decisions for reason in evaluated_otherwise(each)]
            if _is_unexplained(pause):
                why = f"missing evidence: the plan was not to punch, and no code says why: {pause.punch_reason}"
                finding.lacks(pause.sandbox, why, pause=pause.id)
        elif evidence.reality is None:  # a run's own ledger has every decision that was made
            reasons = []
            lacking = f"missing evidence: no `decided` event says what the flags said for {pause.id}"
            finding.lacks(pause.sandbox, lacking, pause=pause.id)
        for reason in reasons:
            finding.violated(pause.sandbox, reason, incarnation=incarnation, pause=pause.id)
    return finding


class _FlagChange(NamedTuple):
    """`at`: its place in the ledger's order. `was`: what it was set to before, None where that is not known."""

    at: int
    flag: str
    was: Any
    value: Any


def _flag_changes(evidence: Evidence) -> list[_FlagChange]:
    found: list[_FlagChange] = []
    values: dict[str, Any] = {}
    for at, entry in evidence.of_kind(events.FlagSet):
        if isinstance(entry.event, events.FlagSet):
            flag, value = entry.event.flag, entry.event.value
            found.append(_FlagChange(at, flag, values.get(flag), value))
            values[flag] = value
    return found


def _flipped_within(evidence: Evidence, pause: PauseView, changes: Sequence[_FlagChange]) -> bool:
    """Whether a flag got another value between the pause's decision and its end."""
    told = evidence.of_pause(pause.id)
    decided = {flag: each.get("value") for flag, each in pause.decision.items()}
    return any(
        told[0].at < each.at < told[-1].at and each.value != (decided.get(each.flag) if each.was is None else each.was)
        for each in changes
    )


def evaluated_otherwise(decided: events.Decided) -> list[Reason]:
    """Flags whose value is another one in the evaluations, where there are any, than in the decision."""
    telemetry = {each.get("feature_flag.key"): each.get("feature_flag.result.value") for each in decided.evaluations}
    return [
        Reason(
            "evaluation",
            f"{key} was decided {json.dumps(flag.get('value'))}, and its evaluation says {json.dumps(telemetry[key])}",
        )
        for key, flag in decided.flags.items()
        if key in telemetry and telemetry[key] != flag.get("value")
    ]


def latched(evidence: Evidence, pause: PauseView) -> bool | None:
    """Whether the incarnation that was paused gave its memfd; None where its start is not in the ledger."""
    born = _born(evidence, pause)
    return born.use_memfd if born is not None else None


def _born(evidence: Evidence, pause: PauseView) -> events.GuestSpawned | None:
    born = evidence.born.get(evidence.incarnation_of(pause) or "")
    event = born.entry.event if born else None
    return event if isinstance(event, events.GuestSpawned) else None


def went_on_otherwise(evidence: Evidence, pause: PauseView) -> list[Reason]:
    """A checkpoint that was in place against its flags, or was not; and one in place whose guest was given up."""
    born = _born(evidence, pause)
    if not pause.checkpoint or pause.settled is None or pause.settled.consumed is None or born is None:
        return []  # in older ledgers every checkpoint was in place
    found = []
    in_place = is_in_place(decision_of(pause.decision), born.use_sync_wp)
    if pause.path is not None and pause.consumed is in_place:  # else a crash came before it was planned
        was, said = ("consumed", "in place") if in_place else ("borrowed", "with a new guest")
        found.append(Reason("in-place", f"the checkpoint's memory was {was}, and the flags said {said}"))
    given_up = (engine_events.Condemned, engine_events.GuestKilled, *PUNCHES)
    if not pause.consumed and any(isinstance(each, given_up) for each in evidence.events_of(pause.id)):
        found.append(Reason("given-up", "the checkpoint is recorded as in place, and its guest was given up"))
    return found


def contradictions(pause: PauseView, use_memfd: bool | None = None) -> list[Reason]:
    """What the pause did that its decision does not say; `use_memfd` None where what was latched is not known."""
    found = []
    decision = decision_of(pause.decision)
    if pause.punched_bytes and not decision.is_on(PUNCH):
        words = f"{pause.punched_bytes} bytes were freed, and the decision was not to punch"
        found.append(Reason("punched-unasked", words))
    if pause.path is None:
        return found
    plausible = [_planned(pause, decision, memfd) for memfd in ((True, False) if use_memfd is None else (use_memfd,))]
    if pause.path not in {path for path, _, _ in plausible} & _said(pause, decision):
        return [*found, Reason("path", f"the path was {pause.path}, which is not what the flags said")]
    legal, why = next((legal, why) for path, legal, why in plausible if path == pause.path)
    if pause.punch and not legal and not found:
        found.append(Reason("illegal-punch", f"it was to punch, and {why}"))
    if legal and not pause.punch and pause.punch_code not in {plans.PunchCode.SEALED, None}:
        words = f"the decision was to punch, and the plan was not to: {pause.punch_reason or 'no reason'}"
        found.append(Reason("not-punched", words))
    return found


def _is_unexplained(pause: PauseView) -> bool:
    """A plan without punching, though it was decided: the kernel may refuse it, but this ledger does not say so."""
    asked = decision_of(pause.decision).is_on(PUNCH)
    return asked and pause.path is not None and not pause.punch and pause.punch_code is None


def _is_consumed(pause: PauseView) -> bool:
    """What says so is the outcome; where a crash came before it, only a checkpoint in place has this path."""
    return pause.consumed and not (pause.settled is None and pause.path == "in-place")


def _said(pause: PauseView, decision: Decision) -> set[str]:
    """The paths that the flags give by what they are called: no defect of `options` or `path_of` agrees with itself."""
    if not _is_consumed(pause):
        return {"in-place", "process"}
    if decision.is_on(DEDUP):
        return {"dedup", "process"}
    return {"memfd-background" if decision.is_on(BACKGROUND) else "memfd", "process"}


def freed_unasked(happened: Iterable[Event], pause: PauseView) -> list[Reason]:
    """What st_blocks says is gone of a guest that was not to be punched; frozen, it frees nothing itself."""
    if pause.punch:
        return []
    at_freeze: int | None = None
    least: int | None = None
    for event in happened:
        match event:
            case engine_events.Scanned(resident_bytes=resident):
                at_freeze = resident
            case engine_events.ChunkPublished(source_resident=int(resident)):
                least = resident if least is None else min(least, resident)
            case _:
                pass
    freed = 0 if at_freeze is None or least is None else at_freeze - least
    words = f"{freed} bytes were freed from the guest, which was not to be punched"
    return [Reason("freed-unasked", words)] if freed > 0 else []


def decision_of(told: Mapping[str, Mapping[str, Any]]) -> Decision:
    """A Decided event's flags as a decision; a flag that the event lacks has its safe value."""
    values = {key: told.get(key, {}).get("value", flag.safe) for key, flag in FLAGS.items()}
    accepted = {key: FLAGS[key].accepted(value) for key, value in values.items()}
    return Decision(
        tuple(
            Evaluation(key, FLAGS[key].safe if value is None else value, "", None, None, None, "")
            for key, value in accepted.items()
        )
    )


def _planned(pause: PauseView, decision: Decision, memfd: bool) -> tuple[str, bool, str]:
    """Path, whether punching is legal, and the reason, by the engine's own rules; no event records seals."""
    asked = options(decision, use_memfd=memfd)
    facts = plans.MemoryFacts(
        size=0,
        page_size=4096,
        block_size=4096,
        seals=0,
        consumed=_is_consumed(pause),
        parent_finished=True,
        memfd=memfd,
    )
    code = plans.punch_legality(asked, facts)
    return plans.path_of(asked, facts).value, code is plans.PunchCode.LEGAL, plans.PUNCH_REASONS[code]
