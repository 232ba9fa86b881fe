"""Stranded builds of a node: waited for, tried again, given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from engine.pause import Pause
from sim.files.lifecycle import Refusal, RefusalCode
from sim.node.own_thread import in_own_thread
from sim.node.sandbox import Sandbox


async def at_rest(pause: Pause) -> bool:
    """Wait until the pause has settled, or its build is left stranded: then True."""
    await _called_back(pause.when_at_rest)
    return pause.stranded


async def settled_at_last(pause: Pause) -> None:
    """Wait until the pause has settled."""
    await _called_back(pause.when_settled)


async def _called_back(then: Callable[[Callable[[], None]], None]) -> None:
    """Without a thread that waits: copies that are held may be more than the loop has threads."""
    loop, happened = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task awaits it any more
            loop.call_soon_threadsafe(happened.set)

    then(tell)
    await happened.wait()


async def salvage(sandbox: Sandbox) -> None:
    """Copy once more what is left of its stranded build; does nothing where it has none."""
    await try_again(sandbox)


async def try_again(sandbox: Sandbox) -> None:
    """Wait for the copy in flight, and where its build is stranded copy once more what is left of it."""
    await sandbox.at_rest()
    pause, settling = sandbox.pause, sandbox.settling
    if pause is None or settling is None or not pause.stranded:
        return
    if await in_own_thread(pause.salvage, f"salvage-{sandbox.config.name}"):
        await asyncio.shield(settling)


def refused(sandbox: Sandbox) -> Refusal | None:
    """A build may be a parent only when it is finished: why nothing may stand on a stranded one."""
    if sandbox.pause is None or not sandbox.pause.stranded:
        return None
    why = "its newest build is stranded: it has to be completed first (`salvage`), and that failed again"
    return Refusal(RefusalCode.STRANDED, why)


async def give_up(sandbox: Sandbox, why: str) -> None:
    """Discard its stranded build, if it has one."""
    pause, settling = sandbox.pause, sandbox.settling
    if pause is not None and settling is not None and pause.stranded:
        await in_own_thread(partial(pause.give_up, why), f"give-up-{sandbox.config.name}")
        await asyncio.shield(settling)


async def abandon(sandbox: Sandbox) -> None:
    """The run ends, and a stranded build with it: it stays what it is in the ledger, and its memory is given back."""
    if sandbox.stranded.is_set() and sandbox.settling is not None:
        sandbox.settling.cancel()
        await asyncio.wait([sandbox.settling])
