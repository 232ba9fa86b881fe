"""The rule, for both."""

from __future__ import annotations

import os
from typing import Any

from engine import events as engine_events
from engine.errors import CorruptBuildError, EngineError
from sim.record import events
from sim.record.oracle import GENERATIONS, generations
from sim.record.view import PauseView
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, page_violation, violation


class BytesExact:
    """Fills a memfd of its own from every finished build, and looks into every resumed guest."""

    name = "bytes_exact"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()
        self.failed_pauses: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        for pause in evidence.view.pauses:
            if pause.outcome == "finished" and pause.id not in self._done:
                self._done.add(pause.id)
                self._check_build(evidence, pause)
        for entry in evidence.entries:
            if isinstance(entry.event, events.Resumed) and entry.event.incarnation not in self._done:
                self._done.add(entry.event.incarnation)
                self._check_guest(evidence, entry.event)

    def conclude(self, evidence: Evidence) -> None:
        """Builds are gone after teardown."""

    def _check_build(self, evidence: Evidence, pause: PauseView) -> None:
        try:
            build = evidence.open_build(pause.id)
            pages = generations(build.attachment(GENERATIONS))
            build.close()
            memfd = evidence.filled(build.header)
        except (EngineError, OSError) as error:
            if isinstance(error, CorruptBuildError) and any(f"{each}:" in str(error) for each in evidence.damaged()):
                self.checked += 1  # it was written wrong on purpose, and is refused by name
                return
            self._report(pause.id, violation(pause.sandbox, f"its snapshot cannot be resumed: {error}", pause=pause.id))
            return
        self.checked += 1
        if pause.id in evidence.damaged():
            reason = "a byte of its snapshot was flipped, and it is taken for whole"
            self._report(pause.id, violation(pause.sandbox, reason, pause=pause.id))
        for mismatch in evidence.mismatches(pause.sandbox, pages, memfd.fd):
            reason = f"snapshot {pause.id} does not hold what the guest held at the freeze"
            self._report(pause.id, page_violation(pause.sandbox, reason, mismatch, pause=pause.id))
            break
        memfd.close()

    def _check_guest(self, evidence: Evidence, resumed: events.Resumed) -> None:
        guest = next((g for g in evidence.guests() if g.born.incarnation == resumed.incarnation), None)
        if guest is None or not guest.is_running():
            return
        try:
            pages, fd = guest.generations(), guest.open_memory()
        except OSError:  # it died meanwhile
            return
        self.checked += 1
        for mismatch in evidence.mismatches(guest.sandbox, pages, fd):
            reason = f"resumed from {resumed.build}, the guest does not hold what was paused"
            self.violations.append(
                page_violation(guest.sandbox, reason, mismatch, incarnation=resumed.incarnation, pause=resumed.build)
            )
            break
        os.close(fd)

    def _report(self, pause: str, found: dict[str, Any]) -> None:
        self.failed_pauses.add(pause)
        self.violations.append(found)


def judge(trace: Trace) -> Finding:
    """A build has one hash and one end; a resume takes a build that was finished or is still being copied."""
    finding = Finding()
    hashes: dict[str, str] = {}
    failed: set[str] = set()
    known: set[str] = set()
    for entry in trace.entries:
        match entry.event:
            case engine_events.BuildFinished(build=build, content_hash=content):
                _compare(finding, entry.sandbox, build, content, hashes)
                known.add(build)
            case events.PauseSettled(outcome="finished", build=build, content_hash=content):
                finding.checked += 1
                _compare(finding, entry.sandbox, build, content, hashes)
                known.add(build)
            case events.PauseSettled(build=build):
                failed.add(build)
            case engine_events.Planned() if entry.pause is not None:
                known.add(entry.pause)  # it may be resumed from while it is copied
            case events.Resumed(incarnation, build):
                finding.checked += 1
                _check_resume(finding, entry.sandbox, events.Resumed(incarnation, build, 0, 0.0), known, failed)
            case _:
                pass
    if finding.checked:
        finding.lacks("*", "a ledger holds no hash of the memory that was paused or resumed: only the run compared it")
    return finding


def _compare(finding: Finding, sandbox: str | None, build: str, content: str | None, hashes: dict[str, str]) -> None:
    if content is None:
        return
    if hashes.setdefault(build, content) != content:
        finding.violated(sandbox, f"build {build} was told with two contents: {hashes[build]} and {content}")


def _check_resume(
    finding: Finding, sandbox: str | None, resumed: events.Resumed, known: set[str], failed: set[str]
) -> None:
    if resumed.build in failed:
        reason = f"it was resumed from build {resumed.build}, which was never finished"
        finding.violated(sandbox, reason, incarnation=resumed.incarnation, pause=resumed.build)
    elif resumed.build not in known:
        finding.lacks(sandbox, f"nothing tells where build {resumed.build} comes from", incarnation=resumed.incarnation)
