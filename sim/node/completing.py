"""After a crash of the node: builds that were to be salvaged, and whose memory was kept, are completed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.cache import PARTIAL
from engine.completion import Left, complete
from engine.errors import FreezeError, GuestRanError
from engine.events import BuildFinished, GuestKilled, GuestLooked, KeeperAsked, NotSalvaged
from engine.evidence import from_json
from engine.plan import WHOLE, SalvageCode
from engine.strand import RETRY_SECONDS, UnsalvageableError
from sim.files.lifecycle import FINAL
from sim.node.config import Known
from sim.node.guest_link import Guest, GuestError
from sim.node.keeping import ZygoteKeeper, close_all
from sim.node.node import Node
from sim.node.zygote_link import ZygoteSilentError
from sim.record import events
from sim.record.ledger import Entry


@dataclass(frozen=True, slots=True)
class ToSalvage:
    """A condemned pause that a crash cut off, of which a second process was to hold the memory.

    `why`: what stands against it by now.
    """

    pause: str
    sandbox: str
    why: UnsalvageableError | None = None


async def look_at_last(
    node: Node, condemned: Iterable[str], living: Mapping[str, Guest], past: Sequence[Entry]
) -> list[ToSalvage]:
    """Which of the condemned pauses may be salvaged; a guest that lives is looked at a last time, and killed."""
    found = []
    for pause in sorted(condemned):
        told = [entry for entry in past if entry.pause == pause]
        if not any(isinstance(each.event, KeeperAsked) for each in told) or _is_over(node, pause, told):
            continue
        sandbox = told[0].sandbox or ""
        why: UnsalvageableError | None = None
        try:
            _refuse_unkept(node, sandbox, told)
            await _end_untorn(told, living)
        except UnsalvageableError as error:
            why = error
        found.append(ToSalvage(pause, sandbox, why))
    return found


def _is_over(node: Node, pause: str, told: Sequence[Entry]) -> bool:
    ends = (events.PauseSettled, NotSalvaged)
    return any(isinstance(each.event, ends) for each in told) or not (node.builds / f"{pause}{PARTIAL}").is_dir()


def _refuse_unkept(node: Node, sandbox: str, told: Sequence[Entry]) -> None:
    for each in told:
        if isinstance(each.event, KeeperAsked) and each.event.error is not None:
            raise UnsalvageableError(SalvageCode.NOT_KEPT, f"no other process held its memory: {each.event.error}")
    if sandbox in node.sandboxes and node.sandboxes[sandbox].state in FINAL:
        raise UnsalvageableError(SalvageCode.GIVEN_UP, "its sandbox has ended")


async def _end_untorn(told: Sequence[Entry], living: Mapping[str, Guest]) -> None:
    """Raises UnsalvageableError where the guest may have run between freeze and SIGKILL, or is not seen dead."""
    looked = [each.event for each in told if isinstance(each.event, GuestLooked) and each.event.before == "kill"]
    if any(each.code is not None for each in looked):
        raise UnsalvageableError(SalvageCode.TORN, "its guest had run since it was frozen")
    killed = any(isinstance(each.event, GuestKilled) for each in told)
    frozen = next((each.event for each in told if isinstance(each.event, events.GuestFrozen)), None)
    guest = living.get(frozen.incarnation) if frozen is not None else None
    if frozen is None or (killed and not looked) or (guest is None and not killed):
        raise UnsalvageableError(SalvageCode.TORN, "its guest was killed, and no line says that it had not run")
    if guest is None:
        return
    try:
        if not killed:
            guest.process.frozen = from_json(frozen.threads)
            await asyncio.to_thread(guest.process.end)
        await asyncio.to_thread(guest.process.await_death)
    except GuestRanError as ran:
        raise UnsalvageableError(SalvageCode.TORN, str(ran)) from ran
    except (FreezeError, OSError) as error:
        raise UnsalvageableError(SalvageCode.LIVES, str(error)) from error


async def complete_kept(node: Node, found: Sequence[ToSalvage]) -> dict[str, str]:
    """Complete them; gives `whole`, or the code of why not, by pause.

    What was kept of a build is dropped once the build has its end. After an exception the rest stays kept: the next
    recovery may need it.
    """
    keeper, ends = ZygoteKeeper(node.link), dict[str, str]()
    kept, why = await _kept(keeper)
    try:
        for each in found:
            ends[each.pause] = await _complete(node, each, kept.get(each.pause), why)
            if each.pause in kept:
                await _drop(keeper, each.pause)
    finally:
        close_all(kept)
    for build in kept.keys() - ends.keys():
        await _drop(keeper, build)
    return ends


async def _kept(keeper: ZygoteKeeper) -> tuple[dict[str, int], str]:
    """What is held, by build, and why no more: an error of the host may pass, so it is asked again."""
    waits = iter(RETRY_SECONDS)
    while True:
        try:
            return await asyncio.to_thread(keeper.kept), "its memory was held by the node and its zygote: both are gone"
        except (GuestError, OSError) as error:
            seconds = None if isinstance(error, ZygoteSilentError) else next(waits, None)
            if seconds is None:
                return {}, f"its memory could not be had from the zygote: {error}"
        await asyncio.sleep(seconds)


async def _drop(keeper: ZygoteKeeper, build: str) -> None:
    with contextlib.suppress(GuestError, OSError):
        await asyncio.to_thread(keeper.drop, build)


async def _complete(node: Node, each: ToSalvage, memory: int | None, why: str) -> str:
    """A line that cannot be written is counted, and costs no memory."""
    begun = time.perf_counter()
    try:
        left = _left(node, each, memory, why)
        header = await asyncio.to_thread(complete, left)
    except UnsalvageableError as error:
        lost = NotSalvaged(each.pause, error.code.value, str(error))
        node.ledger.try_append(lost, sandbox=each.sandbox, pause=each.pause)
        return error.code.value
    milliseconds = (time.perf_counter() - begun) * 1e3
    finished = BuildFinished(header.build, header.length, header.content_hash, milliseconds)
    node.ledger.try_append(finished, sandbox=each.sandbox, pause=each.pause)
    return WHOLE


def _left(node: Node, each: ToSalvage, memory: int | None, why: str) -> Left:
    if each.why is not None:
        raise each.why
    if memory is None:
        raise UnsalvageableError(SalvageCode.LOST, why)
    return Left(node.builds, each.pause, memory, node.spill)


def with_its_end(known: Known, ends: Mapping[str, str]) -> Known:
    """What is known of a sandbox, with what salvage has made of its open pause."""
    pause = known.open_pause
    return known if pause is None else replace(known, open_pause=replace(pause, salvage=ends.get(pause.id)))
