"""The rule, for both."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import events as engine_events
from sim.record.verdict import Verdict
from sim.record.view import PauseView
from sim.rules.evidence import Finding, Trace
from sim.rules.reality import Evidence, SpawnedGuest, violation

_CLOSING = 2.0  # seconds in which a node may still close what it says is over


class NoLeaks:
    """Searches /proc for the run's id: in environments, open fds and mappings; and the run's folders."""

    name = "no_leaks"

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[dict[str, Any]] = []
        self._done: set[str] = set()

    def observe(self, evidence: Evidence) -> None:
        """The fleet is there rightly, but for a guest whose pause is finished (one that failed is judged elsewhere)."""
        new = [each for each in evidence.view.pauses if each.settled_at is not None and each.id not in self._done]
        self._done.update(each.id for each in new)
        guests = {each.born.incarnation: each for each in evidence.guests()} if new else {}
        held = _links(evidence.view.node_pid) if new else set()
        for pause in new:
            guest = guests.get(pause.incarnation or "")
            if guest is None or pause.outcome != "finished" or pause.checkpoint:
                continue
            for reason in _outlived(guest, evidence, held):
                found = violation(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)
                self.violations.append(found)

    def conclude(self, evidence: Evidence) -> None:
        self.checked = 1
        left = [f"process {pid} is still there" for pid in evidence.processes()]
        left += _held(evidence.run)
        left += [f"{folder} is still there" for folder in _folders(evidence) if folder.exists()]
        self.violations += [violation("*", reason) for reason in left]


def _outlived(guest: SpawnedGuest, evidence: Evidence, held: set[str]) -> list[str]:
    """A pause ends its guest and closes its memory before it is told to have settled, but for a memfd not its own."""
    state = guest.state()
    found = [] if state is None else [f"its pause is finished, and its guest is still there (state {state})"]
    name, end = f"/memfd:snapdrill-{evidence.run}-{guest.born.incarnation} (deleted)", time.monotonic() + _CLOSING
    while name in held:
        if time.monotonic() > end:
            return [*found, "its pause is finished, and the node still holds its memory"]
        time.sleep(0.005)
        held = _links(evidence.view.node_pid)
    return found


def _links(pid: int | None) -> set[str]:
    """What the fds of a process are; nothing where it is gone."""
    try:
        return {_target(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    except OSError:
        return set()


def _folders(evidence: Evidence) -> Iterator[Path]:
    if not evidence.cache_kept:
        yield evidence.builds
    yield evidence.socket_dir
    yield from evidence.condemned.glob("*.json")
    name = f"snapdrill-{evidence.run}"
    for parent, folders, _ in os.walk("/sys/fs/cgroup"):  # which passes over what others remove meanwhile
        if name in folders:
            yield Path(parent, name)


def _held(run: str) -> list[str]:
    """Open fds and mappings of memory with this run's name, of every process that may be looked into."""
    found = []
    needle = f"snapdrill-{run}"
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
            with open(f"/proc/{pid}/maps", "rb") as file:
                maps = file.read()
        except OSError:  # somebody else's, or gone
            continue
        if needle.encode() in maps or any(needle in _target(f"/proc/{pid}/fd/{fd}") for fd in fds):
            found.append(f"process {pid} still holds memory of this run")
    return found


def _target(fd: str) -> str:
    try:
        return os.readlink(fd)
    except OSError:  # closed meanwhile: our own listing of /proc/self/fd always is
        return ""


_CRASHED = "the node died, and"
_LOOKED = "the run found nothing that was left, though"
_CUT_OFF = "the ledger does not tell the run's end, and"


def judge(trace: Trace) -> Finding:
    """Something that is not told to be gone is left, unless the teller died or the ledger was cut off."""
    finding = Finding()
    for incarnation, told in trace.born.items():
        finding.checked += 1
        if incarnation not in trace.ended:
            _left(finding, trace, told.at, told.entry.sandbox, f"{incarnation} is never told to have ended")
    for pause in trace.view.pauses:
        if not _made_a_cache(trace, pause):
            continue
        finding.checked += 1
        if not _cache_is_gone(trace, pause):
            reason = f"the cache of {pause.id} was neither finished nor deleted"
            _left(finding, trace, trace.of_pause(pause.id)[0].at, pause.sandbox, reason)
    return finding


def _left(finding: Finding, trace: Trace, since: int, sandbox: str | None, reason: str) -> None:
    if trace.crashed_after(since):
        finding.lacks(sandbox, f"{_CRASHED} {reason}")
    elif not trace.complete:
        finding.lacks(sandbox, f"{_CUT_OFF} {reason}")
    elif _looked_for(trace):
        finding.lacks(sandbox, f"{_LOOKED} {reason}")
    else:
        finding.violated(sandbox, reason)


def _looked_for(trace: Trace) -> bool:
    """True where the run tells that it looked for what is left, and found nothing."""
    told = (each for each in trace.view.judged if each.subject == "invariant:no_leaks")
    return any(each.verdict == Verdict.HELD and each.checked for each in told)


def _made_a_cache(trace: Trace, pause: PauseView) -> bool:
    return any(isinstance(told.entry.event, engine_events.Planned) for told in trace.of_pause(pause.id))


def _cache_is_gone(trace: Trace, pause: PauseView) -> bool:
    ends = (engine_events.BuildFinished, engine_events.CacheDeleted)
    told = any(isinstance(each.entry.event, ends) for each in trace.of_pause(pause.id))
    return told or pause.outcome == "finished"
