"""What a key asks of the run: the view and the chosen sandboxes in, a request out. No screen in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from flags.catalog import FLAGS
from sim.places import AtChunk, FaultPoint, Place
from sim.tui.drive import Drive
from sim.tui.words import BACKGROUND, PUNCH, on_off
from sim.view import SandboxView, View

FAULT: FaultPoint = "copy.write"
ERRNO = "ENOSPC"
HAS_CHUNK_3 = 8 << 20
"""Bytes: four chunks of about 2 MiB; less memory may have no chunk 3, but has one after condemn from 4 MiB on."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask, and how to say that it is under way: `pausing web-3`."""

    doing: str
    ask: Callable[[Drive], Awaitable[object]]


def pause(names: Sequence[str]) -> Request | None:
    """None where there is nobody to pause."""
    return Request(f"pausing {_who(names)}", lambda drive: drive.pause(names)) if names else None


def resume(names: Sequence[str]) -> Request | None:
    """None where there is nobody to resume."""
    return Request(f"resuming {_who(names)}", lambda drive: drive.resume(names)) if names else None


def running(view: View) -> list[str]:
    """Who may be paused."""
    return [name for name, sandbox in view.sandboxes.items() if sandbox.state == "running"]


def tick() -> Request:
    """One tick."""
    return Request("one tick", lambda drive: drive.tick())


def toggle(view: View, key: str) -> Request:
    """On becomes off; off and a rollout become on."""
    value = view.flags.get(key, FLAGS[key].safe) is not True
    return Request(f"setting {key} {on_off(value)}", lambda drive: drive.set_flag(key, value))


def toggle_punch(view: View) -> Request:
    """Flip whether copied memory is freed at once."""
    return toggle(view, PUNCH)


def toggle_background(view: View) -> Request:
    """Flip whether a pause answers before its copy ends."""
    return toggle(view, BACKGROUND)


def arm(sandboxes: Iterable[SandboxView]) -> Request | None:
    """A full disk in the copy of each of these: at chunk 3, or after condemn where there may be no chunk 3."""
    places = {sandbox.name: _place(sandbox.memory) for sandbox in sandboxes}

    async def ask(drive: Drive) -> None:
        for name, at in places.items():
            await drive.inject(FAULT, ERRNO, at, name)

    return Request(f"arming a copy failure on {_who(list(places))}", ask) if places else None


def arm_all(view: View) -> Request | None:
    """The same as one fault on every sandbox; None in an empty fleet."""
    if not view.sandboxes:
        return None
    at = _place(min(sandbox.memory for sandbox in view.sandboxes.values()))
    return Request("arming a copy failure on every sandbox", lambda drive: drive.inject(FAULT, ERRNO, at, "*"))


def _place(memory: int) -> Place:
    return AtChunk(3) if memory >= HAS_CHUNK_3 else "after_condemn"


def clear() -> Request:
    """Disarm everything."""
    return Request("clearing faults", lambda drive: drive.clear())


def _who(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{len(names)} sandboxes"
