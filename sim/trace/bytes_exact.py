"""`bytes_exact`: what was resumed is what was built, as far as content hashes tell; the bytes are not in a ledger."""

from __future__ import annotations

from engine import events as engine_events
from sim import events
from sim.trace.evidence import Finding, Trace


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
