"""After a crash of the node: the condemned are killed, the uncondemned run on, nothing unfinished stays."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.cache import MEMFILE, PARTIAL
from engine.errors import CondemnedError, CorruptBuildError, EngineError, FreezeError
from engine.events import Condemned
from engine.evidence import Threads, as_json, from_json
from engine.incarnation import lives
from engine.snapshot import Build, Header, delete_build, template
from engine.spill import LINK, remove_folder
from sim.files.lifecycle import FINAL, State, StopReason
from sim.node.completing import complete_kept, look_at_last, with_its_end
from sim.node.config import Known, OpenPause
from sim.node.guest_link import Guest, GuestError
from sim.node.node import Node
from sim.node.sandbox import Latched, Sandbox
from sim.record import events
from sim.record.ledger import EVENTS_FILE, Entry, read
from sim.record.names import incarnation_name

_CRASHED = "the node crashed"
_HAS_A_GUEST = frozenset({State.RUNNING, State.PAUSING, State.CHECKPOINTING})
_MAY_STAND_ON_A_COPY = frozenset({State.PAUSED, State.RESUMING, State.RUNNING})


async def recover(node: Node) -> None:
    """Bring every sandbox of a restarted node to a state that is true, and record it."""
    node.deaths.watch_zygote(node.link.zygote_pid, node.link.pidfd)
    past = read(Path(node.config.run_dir) / EVENTS_FILE, is_own=True)
    for name, known in node.config.known.items():
        _restore(node, node.sandboxes[name], known, past)
    living = {guest.name: guest for guest in await asyncio.to_thread(node.link.living)}
    condemned = _condemned(node, living, past)
    kept = await look_at_last(node, condemned.pauses, living, past)
    await _end_condemned(node, living, condemned)
    salvaged = await complete_kept(node, kept)
    for partial in node.builds.glob(f"*{PARTIAL}"):
        remove_folder(partial)  # what stays is found by who looks for leaks; no guest waits for it
    for name, known in node.config.known.items():
        sandbox = node.sandboxes[name]
        latest = known.guest or incarnation_name(name, sandbox.incarnations)
        guest = living.pop(latest, None)
        pause = known.open_pause
        doomed = pause is not None and (pause.id in condemned.pauses or latest in condemned.guests)
        seen = _Seen(_frozen(past, known, latest), _ran_unseen(past, latest))
        await _recover(node, sandbox, with_its_end(known, salvaged), guest, seen, condemned=doomed)
    for guest in living.values():  # born, but not in the ledger
        await _end(guest)
    _retire(node)
    held = [MEMFILE] * node.cache_on_tmpfs + [LINK] * node.spill_on_tmpfs
    for folder in node.builds.iterdir():
        of = node.sandboxes.get(folder.name.rpartition(".")[0])
        budget = node.budget if of is None else of.budget
        for name in held:
            with contextlib.suppress(OSError):  # no spill; or a resume will find out: it is no reason to end all guests
                budget.hold((folder / name).stat().st_blocks * 512)  # its zeros are holes


def _restore(node: Node, sandbox: Sandbox, known: Known, past: Sequence[Entry]) -> None:
    sandbox.state = State(known.state)
    sandbox.reason = known.reason
    sandbox.incarnations = known.incarnations
    sandbox.pauses = known.pauses
    if known.build is not None:
        sandbox.header = _header(node, sandbox, known.build)
    for entry in past:
        if entry.sandbox == sandbox.config.name and isinstance(entry.event, events.GuestSpawned):
            sandbox.latched = Latched(entry.event.use_memfd, entry.event.use_sync_wp)


def _header(node: Node, sandbox: Sandbox, name: str) -> Header:
    """Of a finished build. Where that is damaged, or the host cannot read it now, the name alone.

    A resume opens it again: it takes the header from the build, or refuses that by its name.
    """
    try:
        with contextlib.closing(Build.open(node.builds, name)) as build:
            return build.header
    except (CorruptBuildError, OSError):
        return replace(template(sandbox.config.memory, sandbox.config.block_size), build=name)


def _is_name_alone(header: Header) -> bool:
    """Nothing else is known of that build: a header that was read has a generation, from 1."""
    return bool(header.build) and header.generation == 0


@dataclass(frozen=True, slots=True)
class _Condemned:
    """Pauses past their point of no return, and the incarnations that may never run again, by name."""

    pauses: set[str]
    guests: set[str]


def _condemned(node: Node, living: Iterable[str], past: Sequence[Entry]) -> _Condemned:
    """What a record or the ledger condemns; without the folder of records, also each guest not recorded as running."""
    frozen = {each.pause: each.event.incarnation for each in past if isinstance(each.event, events.GuestFrozen)}
    pauses = {each.pause for each in past if each.pause is not None and isinstance(each.event, Condemned)}
    guests = {frozen[pause] for pause in pauses if pause in frozen}
    for record in node.records.records():
        guests.add(record.incarnation.name)
        if record.build is not None:
            pauses.add(record.build)
    if node.records.vanished:
        running = {name for name, each in node.config.known.items() if each.state == State.RUNNING}
        guests |= {name for name in living if name.rpartition(".")[0] not in running}
    cut_off = (each.open_pause for each in node.config.known.values())
    pauses |= {each.id for each in cut_off if each is not None and frozen.get(each.id) in guests}
    return _Condemned(pauses, guests)


async def _end_condemned(node: Node, living: dict[str, Guest], condemned: _Condemned) -> None:
    """First of all, whatever became of their sandboxes."""
    recorded = {record.incarnation.name: record for record in node.records.records()}
    for name in sorted(condemned.guests & {*living, *recorded}):
        guest, record = living.pop(name, None), recorded.get(name)
        gone = record is not None and not lives(record.incarnation.pid, record.incarnation.start_time)
        if await _end(guest) if guest is not None else gone:
            node.ledger.append(events.GuestEnded(name, _CRASHED), sandbox=name.rpartition(".")[0])


async def _end(guest: Guest) -> bool:
    """SIGKILL. False where the kernel takes its time over it: the guest runs nothing any more, its record stays."""
    try:
        await asyncio.to_thread(guest.kill)
    except (FreezeError, OSError):
        return False
    finally:
        guest.close()
    return True


def _retire(node: Node) -> None:
    """Forget the records of those whose end is in the ledger, with what became of their build."""
    entries = read(Path(node.config.run_dir) / EVENTS_FILE, is_own=True)
    settled = {each.pause for each in entries if isinstance(each.event, events.PauseSettled)}
    ended = {each.event.incarnation for each in entries if isinstance(each.event, events.GuestEnded)}
    for record in list(node.records.records()):
        told = record.build in settled if record.build is not None else record.incarnation.name in ended
        if told:
            with contextlib.suppress(CondemnedError, OSError):  # it stays: the next recovery sees to it
                node.records.retire_gone(record)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the ledger says of a guest: what its threads had done when it was last frozen, None where that is not known.

    `ran_unseen`: what it wrote may be neither in the build that it stands on nor in its dirty set.
    """

    frozen: Threads | None
    ran_unseen: bool


def _frozen(past: Sequence[Entry], known: Known, incarnation: str) -> Threads | None:
    """What the threads of this guest had done when it was frozen for the latest pause of its sandbox."""
    pause = known.open_pause.id if known.open_pause is not None else known.ended.pause if known.ended else None
    for entry in past:
        if pause is not None and entry.pause == pause and isinstance(entry.event, events.GuestFrozen):
            return from_json(entry.event.threads) if entry.event.incarnation == incarnation else None
    return None


def _ran_unseen(past: Iterable[Entry], incarnation: str) -> bool:
    """Whether this guest ran between freeze and thaw of its last finished checkpoint in place.

    Its dirty set begins anew there. No node but the one that woke it has that in its memory.
    """
    pause: str | None = None
    ran = in_place = found = False
    for entry in past:
        match entry.event:
            case events.GuestFrozen() as frozen if frozen.incarnation == incarnation:
                pause, ran, in_place = entry.pause, False, False
            case events.GuestThawed() as thawed if thawed.incarnation == incarnation:
                ran = thawed.code is not None
            case events.PauseSettled(outcome="finished", consumed=False) if entry.pause == pause:
                in_place = True
        found = ran if in_place else found
    return found


async def _recover(
    node: Node, sandbox: Sandbox, known: Known, guest: Guest | None, seen: _Seen, *, condemned: bool
) -> None:
    """`guest` is the sandbox's latest, not condemned, and `seen` what the ledger says of it."""
    name, why, pause = sandbox.config.name, _CRASHED, known.open_pause
    if known.outcome == "discarded" and sandbox.state not in FINAL:  # that is recorded, and was not yet acted on
        await _lose(node, sandbox, guest, f"{_CRASHED} after a copy had failed past the point of no return")
        return
    if condemned and pause is not None and sandbox.state in _MAY_STAND_ON_A_COPY:
        if not _settle(node, sandbox, pause, finished=_is_finished(node, pause.id), condemned=True):
            await _lose(node, sandbox, guest, f"{_CRASHED} past the point of no return of {pause.id}")
            return
        pause = None
    past = condemned and sandbox.state is State.CHECKPOINTING  # `guest` is its new one, and does not run yet
    if guest is not None and sandbox.state in _HAS_A_GUEST and not (past or _is_given_up(sandbox, known, seen)):
        failure = await _run_on(node, sandbox, known, guest, seen)
        if failure is None:
            return
        why = f"{_CRASHED}, and its guest was not there for the next node: {failure}"
    if guest is not None and await _end(guest):
        node.ledger.append(events.GuestEnded(guest.name, why), sandbox=name)
    _go_on_without(node, sandbox, known, pause, why, condemned=condemned)


def _is_given_up(sandbox: Sandbox, known: Known, seen: _Seen) -> bool:
    """Its pause is recorded as finished, and the guest that it froze could be neither ended nor condemned."""
    given_up = known.ended is not None and known.ended.outcome == "finished" and known.ended.consumed
    return given_up and (sandbox.state is State.PAUSING or seen.frozen is not None)


async def _lose(node: Node, sandbox: Sandbox, guest: Guest | None, why: str) -> None:
    """The build that it stands on will never be, so neither will a guest that was resumed from it."""
    if guest is not None and await _end(guest):
        node.ledger.append(events.GuestEnded(guest.name, why), sandbox=sandbox.config.name)
    sandbox.to(State.DISCARDED, why)


async def _run_on(node: Node, sandbox: Sandbox, known: Known, guest: Guest, seen: _Seen) -> str | None:
    """The guest was never condemned: thaw it where it was frozen. Gives why it cannot run on, if so.

    A build that was to consume it, without a recorded outcome, is dropped only once the guest is there: until then the
    guest's memory may be nowhere else. That of a checkpoint in place is kept: the dirty set may begin after it.
    """
    try:
        ran = guest.continue_uncondemned(node.records, seen.frozen)
        await asyncio.to_thread(guest.hand_over_again)
    except (GuestError, EngineError, OSError) as error:
        return str(error)
    sandbox.guest = guest
    node.watch(sandbox, guest)
    sandbox.budget.hold(sandbox.config.memory)
    ran_unseen = seen.ran_unseen
    if sandbox.state is not State.RUNNING:
        thawed = events.GuestThawed(guest.name, as_json(guest.process.seen), ran.code if ran else None)
        node.ledger.append(thawed, sandbox=sandbox.config.name)
        if (finished := _kept(node, sandbox, known)) and _is_in_place(sandbox, known):
            ran_unseen = ran is not None
        sandbox.to(State.RUNNING, "its checkpoint is finished" if finished else f"it was rolled back: {_CRASHED}")
    if _is_name_alone(sandbox.header):
        sandbox.header = template(sandbox.config.memory, sandbox.config.block_size)  # its next build stands alone
        guest.forget_parent()
    elif ran_unseen:
        guest.forget_parent()
    node.measure(sandbox)
    return None


def _kept(node: Node, sandbox: Sandbox, known: Known) -> bool:
    """Whether the build of the pause stays, whose guest runs on; records how a pause ended that a crash cut off."""
    pause = known.open_pause
    if pause is None:
        return known.outcome == "finished"
    if _is_in_place(sandbox, known):
        return _settle(node, sandbox, pause, finished=_is_finished(node, pause.id), condemned=False)
    with contextlib.suppress(EngineError, OSError):  # mostly there is none
        delete_build(node.builds, pause.id)
    return _settle(node, sandbox, pause, finished=False, condemned=False)


def _is_in_place(sandbox: Sandbox, known: Known) -> bool:
    """A checkpoint after which the same guest was to go on."""
    pause, ended = known.open_pause, known.ended
    consumes = pause.successor is not None if pause is not None else ended is not None and ended.consumed
    return sandbox.state is State.CHECKPOINTING and not consumes


def _is_finished(node: Node, build: str) -> bool:
    """Whether it has its name; raises OSError where that cannot be looked up: it may not be taken for "no"."""
    try:
        return stat.S_ISDIR(os.stat(node.builds / build).st_mode)
    except FileNotFoundError:
        return False


def _go_on_without(
    node: Node, sandbox: Sandbox, known: Known, pause: OpenPause | None, why: str, *, condemned: bool
) -> None:
    """Its guest is dead; what was to be exported is safe only where its build is finished."""
    finished = known.outcome == "finished"
    in_place = _is_in_place(sandbox, known)
    if pause is not None and sandbox.state in {State.PAUSING, State.CHECKPOINTING}:
        finished = _settle(node, sandbox, pause, finished=_is_finished(node, pause.id), condemned=condemned)
    if sandbox.state is State.PAUSING and finished:
        sandbox.to(State.PAUSED, "its memory is in a finished build")
    elif sandbox.state is State.CHECKPOINTING and finished and (condemned or not in_place):
        sandbox.to(State.PAUSED, f"its checkpoint is kept, but no guest goes on: {why}")
    elif sandbox.state in {State.PAUSING, State.CHECKPOINTING} and condemned:
        sandbox.to(State.DISCARDED, f"{why} past the point of no return")
    elif sandbox.state is State.RESUMING:  # a failed resume costs nothing
        sandbox.to(State.PAUSED, f"the resume failed: {why}")
    elif sandbox.state not in FINAL | {State.PAUSED}:
        sandbox.to(State.KILLED, f"{why}; its guest is dead", StopReason.CRASHED)


def _settle(node: Node, sandbox: Sandbox, pause: OpenPause, *, finished: bool, condemned: bool) -> bool:
    """Record how a pause ended that a crash cut off; gives `finished`: its build is the sandbox's newest then."""
    if finished:
        sandbox.header = _header(node, sandbox, pause.id)
    outcome = "finished" if finished else "discarded" if condemned else "rolled-back"
    checkpoint = sandbox.state is State.CHECKPOINTING or pause.successor is not None
    settled = events.PauseSettled(
        outcome=outcome,
        path=pause.path,
        punch=pause.punch,
        punch_reason=pause.punch_reason,
        punch_code=pause.punch_code,
        dirty_bytes=pause.dirty_bytes,
        blocked_ms=pause.blocked_ms or 0.0,
        condemned=condemned,
        error=None if finished else _CRASHED,
        build=pause.id,
        content_hash=sandbox.header.content_hash if finished and not _is_name_alone(sandbox.header) else None,
        checkpoint=checkpoint,
        consumed=not checkpoint or pause.successor is not None,
        read=not checkpoint and node.config.is_read(sandbox.config.name, sandbox.pauses),
        salvage=pause.salvage,
    )
    node.ledger.append(settled, sandbox=sandbox.config.name, pause=pause.id)
    return finished
