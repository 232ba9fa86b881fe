"""Every process, memfd, mapping, cache file, record and cgroup that carries this run's id is gone after teardown.

And a finished pause has ended its guest; the memory of a pause that is over is closed in node and zygote.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from engine import events as engine_events
from engine import processes
from sim.record import events
from sim.record.verdict import Verdict
from sim.record.view import PauseView
from sim.rules.evidence import Evidence
from sim.rules.finding import Finding, Reason
from sim.rules.reality import Reality, SpawnedGuest

NAME = "no_leaks"
_MACHINE = "anon_inode:kvm-"
"""How the fds of a virtual machine and its processors look; they have no name that says whose they are."""
_SPENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # of this process
_CLOSING = 2.0  # seconds in which a node may still close what it says is over


def observe(evidence: Evidence, reality: Reality) -> None:
    """While the fleet lives it is there rightly, except a guest whose pause is finished (one that failed is judged
    elsewhere); after teardown nothing may be left. Raises OSError where no file descriptor or memory is left."""
    seen = reality.seen[NAME]
    if reality.torn_down:
        seen.finding.checked = 1
        for reason in _left(reality):
            seen.finding.violated("*", reason)
        return
    new = [each for each in evidence.view.pauses if each.settled_at is not None and each.id not in seen.done]
    seen.done.update(each.id for each in new)
    guests = reality.guests(evidence.guests) if new else {}
    zygote = tuple(each.zygote_pid for each in _nodes(evidence)[-1:])
    holders = (evidence.view.node_pid, *zygote)
    held = _links(*holders) if new else set()
    if _is_machine(held) and "machine" not in seen.done:
        seen.done.add("machine")
        seen.finding.violated("*", Reason("machine", "the node holds a virtual machine: guests alone may have one"))
    for pause in new:
        guest = guests.get(pause.incarnation)
        if guest is None:
            continue
        reasons = _guest_left(guest) if _is_consumed(pause) and pause.outcome == "finished" else []
        if (name := _memory_of(guest, reality.run)) in held:
            reasons += _still_held(pause, name, holders if _is_consumed(pause) else zygote, reality)
        for reason in reasons:
            seen.finding.violated(pause.sandbox, reason, incarnation=pause.incarnation, pause=pause.id)


def _is_consumed(pause: PauseView) -> bool:
    """Its guest has ended with it. Else the guest goes on, and its node holds its memory rightly."""
    return pause.outcome == "discarded" or (pause.outcome == "finished" and bool(pause.consumed))


def _left(reality: Reality) -> list[Reason]:
    """In environments, open fds and mappings of every process that may be looked into; and the run's folders."""
    pids = reality.processes()
    left = [Reason("process", f"process {pid} is still there") for pid in pids]
    left += _held(reality.run)
    for pid in (os.getpid(), *pids):
        if _is_machine(_links(pid)):
            left.append(Reason("machine", f"process {pid} still holds a virtual machine"))
    folders = [each for each in _folders(reality) if each.exists()]
    return left + [Reason("folder", f"{each} is still there") for each in folders]


def _nodes(evidence: Evidence) -> list[events.NodeStarted]:
    return [
        each.event for _, each in evidence.of_kind(events.NodeStarted) if isinstance(each.event, events.NodeStarted)
    ]


def _guest_left(guest: SpawnedGuest) -> list[Reason]:
    state = guest.state()
    words = f"its pause is finished, and its guest is still there (state {state})"
    return [] if state is None else [Reason("guest", words)]


def _memory_of(guest: SpawnedGuest, run: str) -> str:
    return f"/memfd:snapdrill-{run}-{guest.born.incarnation} (deleted)"


def _still_held(pause: PauseView, name: str, holders: tuple[int | None, ...], reality: Reality) -> list[Reason]:
    """The keeper lets go of a memory before its pause settles, and its node closes it as it settles."""
    end = time.monotonic() + _CLOSING
    while name in _links(*holders):
        if time.monotonic() > end:
            if not _is_consumed(pause) and _is_paused_again(pause, reality):
                return []  # the keeper holds it for that pause
            words = (
                f"its pause is {pause.outcome}, and its memory is still held by node or zygote"
                if _is_consumed(pause)
                else "its pause is over, and its memory is still held by the zygote"
            )
            return [Reason("memory", words)]
        time.sleep(0.005)
    return []


def _is_paused_again(pause: PauseView, reality: Reality) -> bool:
    """By the ledger as it is now: another pause of the same guest is under way."""
    entries = reality.entries_by_now()
    over = {each.pause for each in entries if isinstance(each.event, events.PauseSettled)}
    frozen = (each for each in entries if isinstance(each.event, events.GuestFrozen))
    return any(
        each.pause not in over and each.pause != pause.id
        for each in frozen
        if isinstance(each.event, events.GuestFrozen) and each.event.incarnation == pause.incarnation
    )


def _links(*pids: int | None) -> set[str]:
    """What the fds of these processes are; nothing of one that is gone. Raises OSError where we have no fd left."""
    found: set[str] = set()
    for pid in pids:
        with _passing_over():
            found |= {_target(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    return found


@contextlib.contextmanager
def _passing_over() -> Iterator[None]:
    """Another user's process, or one that is gone. What this process could not look at is not passed over."""
    try:
        yield
    except OSError as error:
        if error.errno in _SPENT:
            raise


def _is_machine(links: set[str]) -> bool:
    return any(each.startswith(_MACHINE) for each in links)


def _folders(reality: Reality) -> Iterator[Path]:
    if not reality.cache_kept:
        yield reality.builds
        if reality.spill is not None:
            yield reality.spill
    yield reality.socket_dir
    yield from reality.condemned.glob("*.json")
    name = f"snapdrill-{reality.run}"
    for parent, folders, _ in os.walk("/sys/fs/cgroup"):  # which passes over what others remove meanwhile
        if name in folders:
            yield Path(parent, name)


def _held(run: str) -> list[Reason]:
    """Open fds and mappings of memory with this run's name, of every process that may be looked into. Of any process
    but this one, shared mappings: a private one is a copy that it made for itself."""
    found = []
    for pid in processes.with_memory():
        held = False
        with _passing_over():
            held = _has_open(pid, run) or _has_mapped(pid, run, all_of_it=int(pid) == os.getpid())
        if held:
            found.append(Reason("memory", f"process {pid} still holds memory of this run"))
    return found


def _has_open(pid: str, run: str) -> bool:
    folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return any(f"snapdrill-{run}" in _target(fd, folder) for fd in os.listdir(folder))
    finally:
        os.close(folder)


def _has_mapped(pid: str, run: str, *, all_of_it: bool) -> bool:
    from engine import linux

    needle = f"snapdrill-{run}".encode()
    if not all_of_it:
        return any(needle in each.name for each in linux.shared_mappings(pid))
    with open(f"/proc/{pid}/maps", "rb") as file:
        return needle in file.read()


def _target(fd: str, folder: int | None = None) -> str:
    """Raises OSError where no memory is left, or that process may not be looked into: then none of its fds may."""
    try:
        return os.readlink(fd, dir_fd=folder)
    except OSError as error:
        if isinstance(error, PermissionError) or error.errno in _SPENT:
            raise
        return ""  # closed meanwhile: our own listing of /proc/self/fd always is


_CRASHED = "the node died, and"
_LOOKED = "the run's own leak check passed, but"
_CUT_OFF = "the ledger ends before the run does, and"


def judge(evidence: Evidence) -> Finding:
    """What was looked at, else the ledger: what it does not say to be gone is left, unless the node died or the ledger
    was cut off."""
    finding = evidence.seen(NAME)
    if evidence.reality is not None:
        return finding
    for incarnation, told in evidence.born.items():
        finding.checked += 1
        if incarnation not in evidence.ended:
            why = Reason("guest", f"the ledger has no `guest_ended` for {incarnation}")
            _note(finding, evidence, told.at, told.entry.sandbox, why)
    for pause in evidence.view.pauses:
        if not _made_a_cache(evidence, pause):
            continue
        finding.checked += 1
        if not _cache_is_gone(evidence, pause):
            reason = Reason("cache", f"the cache of {pause.id} was neither finished nor deleted")
            _note(finding, evidence, evidence.of_pause(pause.id)[0].at, pause.sandbox, reason)
    return finding


def _note(finding: Finding, evidence: Evidence, since: int, sandbox: str | None, reason: Reason) -> None:
    if evidence.crashed_after(since):
        finding.lacks(sandbox, f"{_CRASHED} {reason.words}")
    elif not evidence.complete:
        finding.lacks(sandbox, f"{_CUT_OFF} {reason.words}")
    elif _looked_for(evidence):
        finding.lacks(sandbox, f"{_LOOKED} {reason.words}")
    else:
        finding.violated(sandbox, reason)


def _looked_for(evidence: Evidence) -> bool:
    """True where the run recorded that it looked for what is left, and found nothing."""
    told = (each for each in evidence.view.judged if each.subject == f"invariant:{NAME}")
    return any(each.verdict == Verdict.HELD and each.checked for each in told)


def _made_a_cache(evidence: Evidence, pause: PauseView) -> bool:
    return any(isinstance(each, engine_events.Planned) for each in evidence.events_of(pause.id))


def _cache_is_gone(evidence: Evidence, pause: PauseView) -> bool:
    ends = (engine_events.BuildFinished, engine_events.CacheDeleted)
    gone = any(isinstance(each, ends) for each in evidence.events_of(pause.id))
    return gone or pause.outcome == "finished"
