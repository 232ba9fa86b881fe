"""The rule, for both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine import events as engine_events
from sim.record.ledger import Entry
from sim.record.view import PauseView
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, SpawnedGuest, violation


class FailedCopyDiscards:
    """Looks, once such a pause has settled, for its process, its files, its record and its sandbox's state."""

    name = "failed_copy_discards"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: dict[str, PauseView] = {}

    def observe(self, evidence: Evidence) -> None:
        guests = {each.born.incarnation: each for each in evidence.guests()}
        for pause in evidence.view.pauses:
            if (
                pause.id in self._done
                or pause.settled_at is None
                or not failed_condemned(evidence.of_pause(pause.id), pause)
            ):
                continue
            self._done[pause.id] = pause
            self.checked += 1
            for reason in _left_undone(evidence, pause, guests.get(pause.incarnation)):
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        """The state is judged at the end: a node tells it only after the pause has settled."""
        for pause in self._done.values():
            state = evidence.view.sandboxes[pause.sandbox].state
            if state != "discarded":
                reason = f"the sandbox is {state}, not discarded"
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)


def _left_undone(evidence: Evidence, pause: PauseView, guest: SpawnedGuest | None) -> list[str]:
    found = []
    if guest is not None and (state := guest.state()) is not None:
        found.append(f"the copy failed past the point of no return, and its guest is still there (state {state})")
    found += [f"the cache of a failed copy is still there: {name}" for name in evidence.caches_of(pause.id)]
    records = evidence.condemned.glob(f"{pause.incarnation}-*.json")
    return found + [f"its condemned record is still there: {path.name}" for path in records]


def failed_condemned(entries: Iterable[Entry], pause: PauseView) -> bool:
    """By the ledger's own facts, or because the node died between the record and the finished build."""
    if pause.outcome == "discarded":
        return True
    return any(
        isinstance(each.event, engine_events.CopyFailed) and each.event.condemned and each.event.call != "teardown"
        for each in entries
    )


def judge(trace: Trace) -> Finding:
    """Each such pause: outcome, cache, guest, and where its sandbox ended."""
    finding = Finding()
    for pause in trace.view.pauses:
        if not failed_condemned((each.entry for each in trace.of_pause(pause.id)), pause):
            continue
        finding.checked += 1
        for reason in _not_discarded(trace, pause):
            finding.violated(pause.sandbox, reason, incarnation=trace.incarnation_of(pause), pause=pause.id)
        for reason in _not_told(trace, pause):
            finding.lacks(pause.sandbox, reason, pause=pause.id)
    return finding


def _not_discarded(trace: Trace, pause: PauseView) -> list[str]:
    found = []
    if pause.outcome not in {None, "discarded"}:
        found.append(f"the pause failed past the point of no return, and its outcome is {pause.outcome}")
    state = _last_state(trace, pause.sandbox)
    if trace.complete and not trace.node_is_down and state not in {None, "discarded"}:
        found.append(f"the sandbox is {state}, not discarded")
    if pause.settled_at is not None and not _deleted(trace, pause) and not trace.crashed_within(pause.id):
        found.append("the cache of a failed copy was not deleted")
    return found


def _not_told(trace: Trace, pause: PauseView) -> list[str]:
    found = []
    if pause.settled_at is None:
        found.append("no pause_settled tells its outcome")
    if (state := _last_state(trace, pause.sandbox)) is None or (
        state != "discarded" and (trace.node_is_down or not trace.complete)
    ):
        found.append("the ledger does not tell the sandbox's last state")
    if trace.crashed_within(pause.id) and not _deleted(trace, pause):
        found.append("the node died, and nothing tells that the partial cache was deleted")
    if (incarnation := trace.incarnation_of(pause)) is not None and incarnation not in trace.ended:
        found.append(f"no guest_ended tells the end of {incarnation}")
    return found


def _last_state(trace: Trace, sandbox: str) -> str | None:
    states = [event.new for event in trace.states_of(sandbox)]
    return states[-1] if states else None


def _deleted(trace: Trace, pause: PauseView) -> bool:
    told = [each.entry.event for each in trace.of_pause(pause.id)]
    planned = any(isinstance(each, engine_events.Planned) for each in told)
    return not planned or any(isinstance(each, engine_events.CacheDeleted) for each in told)
