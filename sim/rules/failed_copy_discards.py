"""A failure after the point of no return ends in discarded: process, cache, record and state.

Where salvage was decided it may also be stranded, or completed after that; if it is discarded, a code says why.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine import events as engine_events
from engine.events import Event
from engine.plan import WHOLE, SalvageCode
from sim.record import events
from sim.record.view import PauseView
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason
from sim.rules.reality import Reality

NAME = "failed_copy_discards"


def observe(evidence: Evidence, reality: Reality) -> None:
    """Look, once such a pause has settled, for its process, its files and its record."""
    seen = reality.seen[NAME]
    for pause in evidence.view.pauses:
        settled = pause.settled_at is not None and pause.id not in seen.done
        if reality.torn_down or not settled or not failed_condemned(evidence.events_of(pause.id), pause):
            continue
        seen.done.add(pause.id)
        if _is_salvaged(evidence, pause):
            continue
        for reason in _left_undone(evidence, reality, pause):
            seen.finding.violated(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)


def _left_undone(evidence: Evidence, reality: Reality, pause: PauseView) -> list[Reason]:
    found = []
    guest = reality.guest(evidence.spawned(pause.incarnation))
    if guest is not None and (state := guest.state()) is not None:
        words = f"the copy failed past the point of no return, and its guest is still there (state {state})"
        found.append(Reason("guest", words))
    caches = reality.caches_of(pause.id)
    found += [Reason("cache", f"the cache of a failed copy is still there: {name}") for name in caches]
    records = reality.condemned.glob(f"{pause.incarnation}-*.json")
    return found + [Reason("record", f"its condemned record is still there: {path.name}") for path in records]


def failed_condemned(happened: Iterable[Event], pause: PauseView) -> bool:
    """By the ledger's own facts, or because the node died between the record and the finished build."""
    if pause.outcome == "discarded":
        return True
    return any(
        isinstance(each, engine_events.CopyFailed) and each.condemned and each.call != "teardown" for each in happened
    )


def judge(evidence: Evidence) -> Finding:
    """Each such pause: its outcome, how its sandbox ended, and what of its cache and guest was never looked at."""
    finding = evidence.seen(NAME)
    for pause in evidence.view.pauses:
        if _is_condemned_unkept(evidence, pause):
            finding.checked += 1
            _note_unkept(finding, evidence, pause)
        if not failed_condemned(evidence.events_of(pause.id), pause):
            continue
        finding.checked += 1
        if _is_salvaged(evidence, pause):
            continue
        for reason in (*_not_discarded(evidence, pause), *_without_a_code(evidence, pause)):
            finding.violated(pause.sandbox, reason, incarnation=evidence.incarnation_of(pause), pause=pause.id)
        for lacking in _missing(evidence, pause):
            finding.lacks(pause.sandbox, lacking, pause=pause.id)
    return finding


def _decided_salvage(evidence: Evidence, pause: PauseView) -> bool:
    """By the flag where it was served, else by the option of the engine."""
    if pause.salvage_served is not None:
        return pause.salvage_served
    return evidence.view.run is not None and evidence.view.run.on_copy_failure == "salvage"


def _is_salvaged(evidence: Evidence, pause: PauseView) -> bool:
    """Stranded, as was decided: still, or with a build that was finished after that; or completed by the next node."""
    if not _decided_salvage(evidence, pause):
        return False
    stranded = _last(evidence, pause, engine_events.Stranded)
    if stranded is None:
        return _is_completed_by_the_next_node(evidence, pause)
    finished = _last(evidence, pause, engine_events.BuildFinished)
    return pause.outcome is None or (pause.outcome == "finished" and finished is not None and finished > stranded)


def _is_completed_by_the_next_node(evidence: Evidence, pause: PauseView) -> bool:
    """The node died between the failure and its last attempt to go on; out of the memory that its keeper held."""
    if pause.settled is None or pause.outcome != "finished" or pause.settled.salvage != WHOLE:
        return False
    failed, finished = (
        _last(evidence, pause, kind) for kind in (engine_events.CopyFailed, engine_events.BuildFinished)
    )
    if failed is None or finished is None or not _is_kept(evidence, pause):
        return False
    return any(failed < crash < finished for crash in evidence.crashes)


def _is_kept(evidence: Evidence, pause: PauseView) -> bool:
    """A second process has acknowledged that it holds the memory."""
    told = evidence.events_of(pause.id)
    return any(isinstance(each, engine_events.KeeperAsked) and each.error is None for each in told)


def _is_condemned_unkept(evidence: Evidence, pause: PauseView) -> bool:
    """Salvage was decided, and its guest was condemned in mid-copy without a keeper having been asked before.

    Runs of older versions asked none; that they do is in the first line of a ledger.
    """
    run = evidence.view.run
    if run is None or not run.asks_keeper or not _decided_salvage(evidence, pause):
        return False
    before: list[Event] = []
    for event in evidence.events_of(pause.id):
        if isinstance(event, engine_events.Condemned):
            return not any(isinstance(each, engine_events.KeeperAsked | engine_events.BuildFinished) for each in before)
        before.append(event)
    return False


def _note_unkept(finding: Finding, evidence: Evidence, pause: PauseView) -> None:
    words = "salvage was decided, and its guest was condemned before another process was asked to hold its memory"
    if evidence.of_kind(events.LinesLost):
        finding.lacks(pause.sandbox, f"missing evidence: ledger lines were lost, and {words}", pause=pause.id)
    else:
        details = {"incarnation": evidence.incarnation_of(pause), "pause": pause.id}
        finding.violated(pause.sandbox, Reason("keeper", words), **details)


def _last(evidence: Evidence, pause: PauseView, kind: type[Event]) -> int | None:
    """Where in the order the last event of a kind is."""
    return max((told.at for told in evidence.of_pause(pause.id) if isinstance(told.entry.event, kind)), default=None)


def _without_a_code(evidence: Evidence, pause: PauseView) -> list[Reason]:
    """A copy that was to be salvaged and was discarded: only for a reason that makes it impossible.

    Or with its node, where no second process was to hold its memory: older ledgers have no `keeper_asked`.
    """
    if not _decided_salvage(evidence, pause) or pause.outcome is None:
        return []
    kinds = {type(each) for each in evidence.events_of(pause.id)}
    is_lost = evidence.crashed_within(pause.id) and engine_events.KeeperAsked not in kinds
    if engine_events.NotSalvaged in kinds or is_lost:
        return []
    return [Reason("salvage", "salvage was decided, and no event says why the copy could not be salvaged")]


def _is_killed(evidence: Evidence, pause: PauseView) -> bool:
    """Its stranded build was given up, because its sandbox was killed; or that ended before its copy failed."""
    given_up = pause.settled is not None and pause.settled.salvage == SalvageCode.GIVEN_UP
    return given_up or _lost_its_next_guest(evidence, pause)


def _lost_its_next_guest(evidence: Evidence, pause: PauseView) -> bool:
    """A guest that was resumed from the unfinished build died by another's hand, at the latest in the step in which the
    pause settled: a tick may be under way then. Nothing was left to discard."""
    condemned, settled = _last(evidence, pause, engine_events.Condemned), evidence.settled_at(pause.id)
    if condemned is None or settled is None:
        return False
    last = next((each.at for each in evidence.of_kind(events.StepStarted) if each.at > settled), len(evidence.entries))
    is_resumed = False
    for at, entry in evidence.of_sandbox(pause.sandbox, condemned):
        is_resumed |= isinstance(entry.event, events.GuestSpawned)
        match entry.event:
            case events.StateChanged(new="killed", stop_reason="crashed"):
                return is_resumed and at < last
            case _:
                pass
    return False


def _not_discarded(evidence: Evidence, pause: PauseView) -> list[Reason]:
    found = []
    if pause.outcome not in {None, "discarded"}:
        words = f"the pause failed past the point of no return, and its outcome is {pause.outcome}"
        found.append(Reason("outcome", words))
    state = _last_state(evidence, pause.sandbox)
    ends = {None, "discarded", "killed"} if _is_killed(evidence, pause) else {None, "discarded"}
    if evidence.complete and not evidence.node_is_down and state not in ends:
        found.append(Reason("state", f"the sandbox is {state}, not discarded"))
    if evidence.reality is None and pause.settled_at is not None and not _deleted(evidence, pause):
        kept = Reason("cache", "the cache of a failed copy was not deleted")
        found += [] if evidence.crashed_within(pause.id) else [kept]
    return found


def _missing(evidence: Evidence, pause: PauseView) -> list[str]:
    found = []
    if pause.settled_at is None:
        found.append("missing evidence: no `pause_settled` event gives its outcome")
    if (state := _last_state(evidence, pause.sandbox)) is None or (
        state != "discarded" and (evidence.node_is_down or not evidence.complete)
    ):
        found.append("missing evidence: the sandbox's last state is not in the ledger")
    if evidence.reality is not None:  # it was looked at
        return found
    if evidence.crashed_within(pause.id) and not _deleted(evidence, pause):
        found.append("missing evidence: the node died, and no event says that the partial cache was deleted")
    if (incarnation := evidence.incarnation_of(pause)) is not None and incarnation not in evidence.ended:
        found.append(f"missing evidence: no `guest_ended` event for {incarnation}")
    return found


def _last_state(evidence: Evidence, sandbox: str) -> str | None:
    states = [event.new for event in evidence.states_of(sandbox)]
    return states[-1] if states else None


def _deleted(evidence: Evidence, pause: PauseView) -> bool:
    happened = evidence.events_of(pause.id)
    planned = any(isinstance(each, engine_events.Planned) for each in happened)
    return not planned or any(isinstance(each, engine_events.CacheDeleted) for each in happened)
