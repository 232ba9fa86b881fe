"""What a key asks, and of what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from flags.catalog import BACKGROUND, FLAGS, PUNCH, is_on
from flags.inline import ENABLED, InlineValue, as_written
from sim.files.faults import AtChunk, FaultPoint, Harm, Place, failing
from sim.files.steps import Outage
from sim.record.view import SandboxView, View
from sim.report.words import flag_value

MOST_AT_ONCE = 64
"""Pauses in flight that a key asks for: each has two threads."""
SLOW = 200.0
SCREEN = "screen"
"""Who set a flag, where a key did."""
PATIENCE = 86400.0
"""Seconds: a copy may be stopped for as long as a talk takes."""
FAULT: FaultPoint = "copy.write"
DISK_FULL = failing("ENOSPC")
HAS_CHUNK_3 = 8 << 20
"""Bytes: four chunks of about 2 MiB; less memory may have no chunk 3, but has one after condemn from 4 MiB on."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask, and how to say that it is under way: `pausing web-3`.

    `names`: the sandboxes that it concerns, None for the fleet. `at_once`: whatever else is under way. `setting`: a
    flag or a fault, for what is asked later. `question`: what is asked back first; after a yes it goes on, after a no
    `otherwise` does, where there is one. `harmless`: allowed also where others are refused. `works`: the guests write.
    """

    doing: str
    ask: Callable[[Drive], Awaitable[object]]
    names: frozenset[str] | None = None
    at_once: bool = False
    setting: bool = False
    question: str | None = None
    otherwise: Request | None = None
    harmless: bool = False
    pauses: bool = False
    resumes: bool = False
    works: bool = False


def pause(view: View, names: Sequence[str], idle: AbstractSet[str] = frozenset()) -> Request | None:
    """All of them at once, as far as the budget goes, and all frozen before one is copied: what is frozen later is no
    part of the peak. None if there is no sandbox to pause; a question where all of them are `idle`: they have nothing
    to copy."""
    if not names:
        return None
    at_once = at_a_time(view, names)

    async def ask(drive: Drive) -> None:
        await drive.pause(names, concurrency=at_once, deadline=PATIENCE, wave=True)

    async def work_first(drive: Drive) -> None:
        await drive.tick()
        await ask(drive)

    request = Request(f"pausing {_who(names)}", ask, frozenset(names), pauses=True)
    if not set(names) <= idle:
        return request
    who = f"{_who(names)} has" if len(names) == 1 else f"{_who(names)} have"
    question = (
        f"{who} written nothing since the start or the last resume: there is nothing to copy. Let all work first?"
    )
    return replace(
        request, doing=f"one tick, then pausing {_who(names)}", ask=work_first, question=question, otherwise=request
    )


def at_a_time(view: View, names: Sequence[str]) -> int:
    """How many pauses at once: each copy may become as large as its guest, and the budget has to hold all of them."""
    memory = max((view.sandboxes[name].memory for name in names if name in view.sandboxes), default=1)
    return max(1, min(len(names), MOST_AT_ONCE, (view.memory.budget - view.memory.now) // memory))


def resume(names: Sequence[str]) -> Request | None:
    """Then they work at a tick: a guest that has written nothing has nothing to copy. None if `names` is empty."""

    async def ask(drive: Drive) -> None:
        before = _guests(drive.view(), names)
        await drive.resume(names)
        if _guests(drive.view(), names) != before:
            await drive.tick()

    return Request(f"resuming {_who(names)}", ask, frozenset(names), resumes=True) if names else None


def salvage(view: View, names: Sequence[str]) -> Request | None:
    """Copy once more what is left of stranded builds; None if none of these sandboxes has one."""
    pauses = {name: view.sandboxes[name].pause for name in names if name in view.sandboxes}
    left = [name for name, pause in pauses.items() if pause is not None and pause.stranded]
    doing = f"completing the stranded build of {_who(left)}"
    return Request(doing, lambda drive: drive.act("salvage", left), frozenset(left)) if left else None


def _guests(view: View, names: Sequence[str]) -> list[str | None]:
    return [view.sandboxes[name].incarnation for name in names if name in view.sandboxes]


def in_state(view: View, state: str) -> list[str]:
    """Who may be paused (running), or resumed (paused)."""
    return [name for name, sandbox in view.sandboxes.items() if sandbox.state == state]


def tick() -> Request:
    """One tick."""
    return Request("one tick", lambda drive: drive.tick(), harmless=True, works=True)


def kill(names: Sequence[str]) -> Request | None:
    """End sandboxes for good; None if `names` is empty."""
    question = f"Kill {_who(names)} for good? What is not in a finished build is lost."
    doing = f"killing {_who(names)}"
    return Request(doing, lambda drive: drive.kill(names), frozenset(names), question=question) if names else None


def toggle(view: View, key: str) -> Request:
    """On becomes off; off and a rollout become on. A JSON flag's object becomes an enabled one, or its safe one."""
    now, safe = view.flags.get(key, FLAGS[key].safe), FLAGS[key].safe
    if not isinstance(safe, bool):
        return set_flag(key, safe if is_on(now) else ENABLED)
    value = now is not True
    return set_flag(key, value)


def set_flag(key: str, value: InlineValue) -> Request:
    """Serve this value from now on."""
    doing = f"setting {key} {flag_value(as_written(value))}"
    return Request(doing, lambda drive: drive.set_flag(key, value, by=SCREEN), setting=True)


def kill_switch() -> Request:
    """Punching off for every sandbox, whatever else is under way."""
    ask = set_flag(PUNCH, value=False).ask
    return Request("kill switch: punching off for every sandbox", ask, at_once=True)


def outage(fault: Literal["drop", "freeze", "down", "recover"]) -> Request:
    """Break the flag source, or make it sound again, whatever else is under way."""
    doing = {
        "drop": "dropping the streams",
        "freeze": "freezing the streams",
        "down": "taking the flag source down",
        "recover": "restoring the flag source",
    }
    return Request(doing[fault], lambda drive: drive.outage(Outage(fault=fault)), at_once=True)


def restart_node() -> Request:
    """Start the node again after a crash; it recovers what the crash left."""
    return Request("restarting the node", lambda drive: drive.restart())


def inject(
    fault: FaultPoint, harm: Harm, at: Place, sandboxes: Sequence[str], *, by_kernel: bool = False
) -> Request | None:
    """Arm a fault on each of these names or globs; None where there are none."""

    async def ask(drive: Drive) -> None:
        for each in sandboxes:
            await drive.inject(fault, harm, at, each, by_kernel=by_kernel)

    who = "every sandbox" if list(sandboxes) == ["*"] else _who(sandboxes)
    return Request(f"arming {fault} {harm.error} on {who}", ask, setting=True) if sandboxes else None


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
            await drive.inject(FAULT, DISK_FULL, at, name)

    return Request(f"arming a copy failure on {_who(list(places))}", ask, setting=True) if places else None


def arm_all(view: View) -> Request | None:
    """The same as one fault on every sandbox; None in an empty fleet."""
    if not view.sandboxes:
        return None
    at = _place(min(sandbox.memory for sandbox in view.sandboxes.values()))
    doing = "arming a copy failure on every sandbox"
    return Request(doing, lambda drive: drive.inject(FAULT, DISK_FULL, at, "*"), setting=True)


def _place(memory: int) -> Place:
    return AtChunk(3) if memory >= HAS_CHUNK_3 else "after_condemn"


def stop(sandbox: SandboxView) -> Request:
    """Stop its copies at each chunk, or let them go on."""
    held = not sandbox.pace.held
    doing = f"{'stopping the copy of' if held else 'letting go of'} {sandbox.name}"
    factor = sandbox.pace.factor
    return Request(doing, lambda drive: drive.pace(sandbox.name, factor=factor, held=held), at_once=True)


def slow(sandbox: SandboxView) -> Request:
    """Slow its copies down, or not."""
    factor, held = (1.0 if sandbox.pace.factor > 1 else SLOW), sandbox.pace.held
    doing = f"{'slowing' if factor > 1 else 'no longer slowing'} {sandbox.name}"
    return Request(doing, lambda drive: drive.pace(sandbox.name, factor=factor, held=held), at_once=True)


def step(sandbox: SandboxView) -> Request:
    """Let its copy go on by one chunk; one that was not stopped is from now on."""
    factor, steps = sandbox.pace.factor, 1 if sandbox.pace.held else 0

    async def ask(drive: Drive) -> None:
        await drive.pace(sandbox.name, factor=factor, held=True, steps=steps)

    return Request(f"stepping {sandbox.name}", ask, at_once=True)


def let_go() -> Request:
    """Every copy goes on, at its own pace."""
    return Request("letting every copy go", lambda drive: drive.pace("*", factor=1.0, held=False), at_once=True)


def clear() -> Request:
    """Disarm everything."""
    return Request("clearing faults", lambda drive: drive.clear(), setting=True)


def _who(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{len(names)} sandboxes"


class Drive(Protocol):
    """A live run. A refused request is an event in the view, not an exception."""

    def violations(self) -> list[dict[str, Any]]: ...
    def view(self) -> View: ...
    async def tick(self, count: int = 1) -> None: ...
    async def pause(
        self, names: Sequence[str], *, concurrency: int = 4, deadline: float = 60.0, wave: bool = False
    ) -> None: ...
    async def resume(self, names: Sequence[str]) -> None: ...
    async def kill(self, names: Sequence[str]) -> None: ...
    async def act(self, op: str, names: Sequence[str]) -> None: ...
    async def set_flag(self, key: str, value: InlineValue, *, by: str = "scenario") -> None: ...
    async def outage(self, outage: Outage) -> None: ...
    async def restart(self) -> None: ...
    async def inject(
        self, fault: FaultPoint, harm: Harm, at: Place, sandboxes: str, *, by_kernel: bool = False
    ) -> int: ...
    async def clear(self) -> None: ...
    async def pace(self, sandboxes: str, *, factor: float, held: bool, steps: int = 0) -> None: ...
    async def finish(self) -> View: ...
