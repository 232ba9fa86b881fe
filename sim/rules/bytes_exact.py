"""A resume of a finished snapshot equals the oracle at the freeze, page by page."""

from __future__ import annotations

import os

from engine import events as engine_events
from engine.errors import CorruptBuildError, EngineError
from engine.plan import WHOLE
from sim.record import events
from sim.record.oracle import GENERATIONS, generations
from sim.record.view import PauseView
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason
from sim.rules.reality import Reality, page_details

NAME = "bytes_exact"


def observe(evidence: Evidence, reality: Reality) -> None:
    """Fill a memfd of the rule's own from every finished build, and look into every resumed guest: each once."""
    seen = reality.seen[NAME]
    if reality.torn_down:  # builds are gone
        return
    for pause in evidence.view.pauses:
        if pause.outcome == "finished" and pause.id not in seen.done:
            seen.done.add(pause.id)
            _check_build(evidence, reality, pause)
    for _, entry in evidence.of_kind(events.Resumed):
        if isinstance(entry.event, events.Resumed) and entry.event.incarnation not in seen.done:
            seen.done.add(entry.event.incarnation)
            _check_guest(evidence, reality, entry.event)


def _check_build(evidence: Evidence, reality: Reality, pause: PauseView) -> None:
    finding = (seen := reality.seen[NAME]).finding
    try:
        build = reality.open_build(pause.id)
        pages = generations(build.attachment(GENERATIONS))
        build.close()
        memfd = reality.filled(build.header)
    except (EngineError, OSError) as error:
        if isinstance(error, CorruptBuildError) and error.build in evidence.damaged:
            finding.checked += 1  # it was written wrong on purpose, and is refused by name
            return
        if seen.refused_by_host(pause.sandbox, error, pause=pause.id):
            return
        why = Reason("unreadable", f"its snapshot cannot be resumed: {error}")
        finding.violated(pause.sandbox, why, pause=pause.id)
        return
    finding.checked += 1
    if pause.id in evidence.damaged and not _is_copied_again(pause):
        why = Reason("flip-unseen", "a byte of its snapshot was flipped, and it is taken for whole")
        finding.violated(pause.sandbox, why, pause=pause.id)
    for mismatch in reality.mismatches(pause.sandbox, pages, memfd.fd):
        reason = Reason("snapshot", f"snapshot {pause.id} does not hold what the guest held at the freeze")
        finding.violated(pause.sandbox, reason, **page_details(mismatch), pause=pause.id)
        break
    memfd.close()


def _is_copied_again(pause: PauseView) -> bool:
    """Salvage compares each published chunk with its digest, and copies a damaged one again: nothing is flipped then.

    Its pages are compared all the same.
    """
    return pause.settled is not None and pause.settled.salvage == WHOLE


def _check_guest(evidence: Evidence, reality: Reality, resumed: events.Resumed) -> None:
    guest = reality.guest(evidence.spawned(resumed.incarnation))
    if guest is None or not guest.is_running():
        return
    try:
        pages, fd = guest.generations(), guest.open_memory()
    except OSError as error:  # or it died meanwhile
        reality.seen[NAME].refused_by_host(guest.sandbox, error, incarnation=resumed.incarnation)
        return
    finding = reality.seen[NAME].finding
    finding.checked += 1
    for mismatch in reality.mismatches(guest.sandbox, pages, fd):
        reason = Reason("guest", f"resumed from {resumed.build}, the guest does not hold what was paused")
        details = {"incarnation": resumed.incarnation, "pause": resumed.build}
        finding.violated(guest.sandbox, reason, **page_details(mismatch), **details)
        break
    os.close(fd)


def judge(evidence: Evidence) -> Finding:
    """A build has one hash and one end; a resume takes a build that was finished or is still being copied."""
    finding = evidence.seen(NAME)
    exercised = 0
    hashes: dict[str, str] = {}
    failed: set[str] = set()
    processors: dict[str | None, str] = {}
    known: set[str] = set()
    for entry in evidence.entries:
        match entry.event:
            case engine_events.BuildFinished(build=build, content_hash=content):
                _compare(finding, entry.sandbox, build, content, hashes)
                known.add(build)
            case events.PauseSettled(outcome="finished", build=build, content_hash=content):
                exercised += 1
                _compare(finding, entry.sandbox, build, content, hashes)
                known.add(build)
            case events.PauseSettled(build=build):
                failed.add(build)
            case engine_events.Planned() if entry.pause is not None:
                known.add(entry.pause)  # it may be resumed from while it is copied
            case events.GuestFrozen(processor=str(state)):
                processors[entry.pause] = state
            case events.Resumed() as resumed:
                exercised += 1
                if resumed.build in processors and resumed.processor != processors[resumed.build]:
                    why = f"its processor does not go on where that of {resumed.build} was"
                    details = {"incarnation": resumed.incarnation, "pause": resumed.build}
                    finding.violated(entry.sandbox, Reason("processor", why), **details)
                _check_resume(finding, entry.sandbox, resumed, known, failed)
            case _:
                pass
    if evidence.reality is None and exercised:
        finding.checked = exercised
        reason = "a ledger holds no hash of the memory that was paused or resumed: only the run compared it"
        finding.lacks("*", reason)
    return finding


def _compare(finding: Finding, sandbox: str | None, build: str, content: str | None, hashes: dict[str, str]) -> None:
    if content is None:
        return
    if hashes.setdefault(build, content) != content:
        words = f"build {build} was recorded with two contents: {hashes[build]} and {content}"
        finding.violated(sandbox, Reason("two-contents", words))


def _check_resume(
    finding: Finding, sandbox: str | None, resumed: events.Resumed, known: set[str], failed: set[str]
) -> None:
    if resumed.build in failed:
        why = f"it was resumed from build {resumed.build}, which was never finished"
        finding.violated(sandbox, Reason("never-finished", why), incarnation=resumed.incarnation, pause=resumed.build)
    elif resumed.build not in known:
        reason = f"missing evidence: no event says where build {resumed.build} comes from"
        finding.lacks(sandbox, reason, incarnation=resumed.incarnation)
