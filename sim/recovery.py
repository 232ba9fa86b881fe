"""After a crash of the node: the condemned are killed, the uncondemned run on, nothing unfinished stays."""

from __future__ import annotations

import asyncio
import shutil

from engine.cache import PARTIAL
from engine.incarnation import GuestProcess
from engine.permit import CondemnedRecord
from engine.snapshot import Build, Header
from sim import events
from sim.guest_handle import Guest
from sim.node import Node, Sandbox
from sim.node_config import Known, OpenPause
from sim.sandbox import FINAL, State, StopReason

_CRASHED = "the node crashed"


async def recover(node: Node) -> None:
    """Bring every sandbox of a restarted node to a state that is true; told to the ledger."""
    for partial in node.builds.glob(f"*{PARTIAL}"):
        shutil.rmtree(partial)
    for name, known in node.config.known.items():
        _restore(node, node.sandboxes[name], known)
    living = {guest.name: guest for guest in await asyncio.to_thread(node.link.living)}
    condemned = {record.incarnation.name: record for record in node.records.records()}
    for name, known in node.config.known.items():
        sandbox = node.sandboxes[name]
        incarnation = f"{name}.{sandbox.incarnations}"
        await _recover(node, sandbox, known, living.pop(incarnation, None), condemned.pop(incarnation, None))
    for guest in living.values():  # born, but never told of
        await asyncio.to_thread(guest.kill)
        guest.close()


def _restore(node: Node, sandbox: Sandbox, known: Known) -> None:
    sandbox.state = State(known.state)
    sandbox.reason = known.reason
    sandbox.incarnations = known.incarnations
    sandbox.pauses = known.pauses
    if known.build is not None:
        sandbox.header = _header(node, known.build)


def _header(node: Node, name: str) -> Header:
    build = Build.open(node.builds, name)
    build.close()
    return build.header


async def _recover(
    node: Node, sandbox: Sandbox, known: Known, guest: Guest | None, record: CondemnedRecord | None
) -> None:
    if record is not None:
        await _end_condemned(node, sandbox, known, guest, record)
    elif guest is not None and sandbox.state in {State.RUNNING, State.PAUSING}:
        await _run_on(node, sandbox, known, guest)
    elif guest is not None:  # resuming: a failed resume costs nothing
        await asyncio.to_thread(guest.kill)
        guest.close()
        sandbox.to(State.PAUSED, f"the resume failed: {_CRASHED}")
    elif sandbox.state is State.RESUMING:
        sandbox.to(State.PAUSED, f"the resume failed: {_CRASHED}")
    elif sandbox.state not in FINAL | {State.PAUSED}:
        sandbox.to(State.KILLED, f"{_CRASHED} and its guest is dead", StopReason.CRASHED)


async def _end_condemned(
    node: Node, sandbox: Sandbox, known: Known, guest: Guest | None, record: CondemnedRecord
) -> None:
    """Its pause is finished if its build is; else the sandbox is lost."""
    name = sandbox.config.name
    if guest is not None:
        process = GuestProcess(record.incarnation, guest.take_pidfd())
        await asyncio.to_thread(process.kill)
        node.records.retire(process)
        process.close()
        guest.close()
    else:
        node.records.retire_gone(record)
    node.ledger.append(events.GuestEnded(record.incarnation.name, _CRASHED), sandbox=name)
    finished = (node.builds / record.build).is_dir()
    if finished:
        sandbox.header = _header(node, record.build)
    _tell_settled(node, sandbox, known.open_pause, "finished" if finished else "discarded", condemned=True)
    if not finished:
        sandbox.to(State.DISCARDED, f"{_CRASHED} past the point of no return of {record.build}")
    elif sandbox.state is State.PAUSING:
        sandbox.to(State.PAUSED, "its memory is in a finished build")


async def _run_on(node: Node, sandbox: Sandbox, known: Known, guest: Guest) -> None:
    """The guest was never condemned: thaw it where it was frozen; a build that nobody was told of is not one."""
    name = sandbox.config.name
    if known.open_pause is not None and (node.builds / known.open_pause.id).is_dir():
        shutil.rmtree(node.builds / known.open_pause.id)
    guest.continue_uncondemned(node.records)
    await asyncio.to_thread(guest.hand_over_again)
    sandbox.guest = guest
    node.budget.hold(sandbox.config.memory)
    if sandbox.state is State.PAUSING:
        node.ledger.append(events.GuestThawed(guest.name), sandbox=name)
        _tell_settled(node, sandbox, known.open_pause, "rolled-back", condemned=False)
        sandbox.to(State.RUNNING, f"the pause was rolled back: {_CRASHED}")
    node.measure(sandbox)


def _tell_settled(node: Node, sandbox: Sandbox, pause: OpenPause | None, outcome: str, *, condemned: bool) -> None:
    if pause is None:
        return
    header = sandbox.header if outcome == "finished" else None
    settled = events.PauseSettled(
        outcome=outcome,
        path=pause.path,
        punch=pause.punch,
        punch_reason=pause.punch_reason,
        dirty_bytes=pause.dirty_bytes,
        punched_bytes=0,
        peak_over=None,
        peak_ratio=None,
        copy_ms=None,
        blocked_ms=pause.blocked_ms or 0.0,
        condemned=condemned,
        error=None if outcome == "finished" else _CRASHED,
        failed_chunk=None,
        condemn_error=None,
        punch_error=None,
        build=pause.id,
        content_hash=header.content_hash if header else None,
    )
    node.ledger.append(settled, sandbox=sandbox.config.name, pause=pause.id)
