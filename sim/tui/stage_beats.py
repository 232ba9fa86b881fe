"""The beats of the talk as data: their sentences, the run that shows each, and the requests to that run. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sim.files.faults import AtChunk, failing
from sim.files.fleet import GuestKind
from sim.files.lifecycle import State
from sim.record.view import PauseView, View
from sim.tui import requests
from sim.tui.requests import Drive, Request

SEED = 42
FULL = "{dirty: 100%, pattern: full}"
SCATTERED = "{dirty: 60%, pattern: scattered}"
PROGRAM_IN_RAM = "{dirty: 60%, pattern: scattered, program: ram}"
SLOW = 100.0
FIRST = "web-0"


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that happens: its sentence, the request, and whether its end is awaited.

    `until`: what is seen before the next act begins; `read`: seconds that it is left to be read.
    """

    says: str
    ask: Callable[[View], Request | None] | None = None
    waits: bool = True
    until: Callable[[View], bool] | None = None
    read: float = 2.0


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat; `shows`: what the middle rows are of; `bar`: the row that it leaves behind, off or on.

    `needs_machines`: its guests are virtual machines, and it is left out where there can be none.
    """

    name: str
    title: str
    sentence: str
    acts: tuple[Act, ...]
    shows: Literal["bars", "slow", "evidence", "machine"] = "bars"
    bar: Literal["off", "on"] | None = None
    punch: bool = True
    workload: str = FULL
    engine: str = ""
    background: bool = False
    needs_machines: bool = False
    verdict: Literal["held", "violated"] = "held"

    def scenario(self, count: int, memory: int, guest: GuestKind = "process") -> str:
        """Its fleet and flags as a scenario: `count` sandboxes of `memory` MiB, with guests of this kind."""
        engine = f"engine: {{{self.engine}}}\n" if self.engine else ""
        kind = "vm" if self.needs_machines else guest
        flags = {"memfd-punch-on-snapshot": self.punch, "memfd-background-copy": self.background}
        return (
            f"name: stage-{self.name}\nseed: {SEED}\n{engine}"
            f"fleet:\n  - {{name: web, count: {count}, memory: {memory}MiB, block_size: {self._blocks}, "
            f"guest: {kind}, workload: {self.workload}}}\n"
            f"flags: {{{', '.join(f'{key}: {str(value).lower()}' for key, value in flags.items())}}}\n"
            "steps:\n  - tick: 1\n  - pause: {}\n"
        )

    @property
    def _blocks(self) -> str:
        """As large as the chunks where they are scattered: the pull request refuses to punch anything smaller."""
        return "2MiB" if self.workload == SCATTERED else "4KiB"


def _pause(view: View) -> PauseView | None:
    sandbox = view.sandboxes.get(FIRST)
    return sandbox.pause if sandbox else None


def _waits_before(boundary: str) -> Callable[[View], bool]:
    return lambda view: (pause := _pause(view)) is not None and pause.track.waits_for == boundary


def _condemned(view: View) -> bool:
    return (pause := _pause(view)) is not None and pause.condemned


def _settled(view: View) -> bool:
    return (pause := _pause(view)) is not None and pause.settled_at is not None


def _pace(factor: float, *, held: bool, steps: int = 0) -> Callable[[View], Request]:
    async def ask(drive: Drive) -> None:
        await drive.pace(FIRST, factor=factor, held=held, steps=steps)

    return lambda _view: Request("setting the pace", ask, at_once=True)


def _pause_all(view: View) -> Request | None:
    return requests.pause(view, requests.in_state(view, State.RUNNING))


def _pause_first(view: View) -> Request | None:
    return requests.pause(view, [FIRST])


def _fail(_view: View) -> Request | None:
    return requests.inject("copy.write", failing("ENOSPC"), AtChunk(3), [FIRST])


def _fail_late(_view: View) -> Request | None:
    return requests.inject("header.write", failing("EIO"), "first", [FIRST])


def _machine_ended(view: View) -> bool:
    return (sandbox := view.sandboxes.get(FIRST)) is not None and sandbox.vm_end is not None


_TICK = Act("the guests write all of their memory", lambda _view: requests.tick(), read=1.0)
_FAILURE = (
    Act("the guests write some of their memory", lambda _view: requests.tick(), read=1.0),
    Act(f"a full disk is armed for {FIRST}: its copy will fail at chunk 3", _fail),
)

BEATS = (
    Beat(
        "off",
        "FLAG OFF",
        "A pause copies a guest's memory to a file. Until it ends, both are there.",
        (_TICK, Act("pause all: every guest's memory is there twice", _pause_all, read=7.0)),
        bar="off",
        punch=False,
    ),
    Beat(
        "on",
        "FLAG ON",
        "The same fleet, the same seed: what is in the file is freed at once.",
        (_TICK, Act("pause all: what is copied is freed at once", _pause_all, read=8.0)),
        bar="on",
    ),
    Beat(
        "slow",
        "SLOW MOTION",
        "What is freed is gone for ever: first comes the point of no return.",
        (
            _TICK,
            Act(f"pause {FIRST}, stopped at every step", _pace(SLOW, held=True), read=0.0),
            Act(
                "the first chunk is about to be copied; the guest could still run on",
                _pause_first,
                waits=False,
                until=_waits_before("chunk"),
                read=3.0,
            ),
            Act(
                "one chunk is copied, nothing is freed; the guest could still run on",
                _pace(SLOW, held=True, steps=1),
                waits=False,
                until=_waits_before("condemn"),
                read=4.0,
            ),
            Act(
                "condemned, where no crash can lose it, and killed: only its memory is left",
                _pace(SLOW, held=True, steps=1),
                waits=False,
                until=_condemned,
                read=4.0,
            ),
            Act("only now memory is freed, chunk by chunk", _pace(SLOW, held=False), waits=False, until=_settled),
        ),
        shows="slow",
    ),
    Beat(
        "failure",
        "A COPY FAILS",
        "Past the point of no return a failed copy can end in one way: discarded.",
        (
            *_FAILURE,
            Act(f"pause all: {FIRST} fails half-way and is discarded", _pause_all, read=6.0),
            Act(f"may {FIRST} run again? it is asked", lambda _view: requests.resume([FIRST]), read=6.0),
        ),
        workload=SCATTERED,
    ),
    Beat(
        "wrong",
        "THE SAME FAILURE, ENGINE OF PR-2902",
        "There the clean-up after a failed pause wakes the guest up again.",
        (*_FAILURE, Act("pause all: the same copy fails at the same chunk", _pause_all, read=8.0)),
        shows="evidence",
        workload=SCATTERED,
        engine="profile: pr-2902",
        verdict="violated",
    ),
    Beat(
        "machine",
        "WHAT RUNS ON THEN, IN A VIRTUAL MACHINE",
        "The clean-up wakes a machine whose program was in the memory that is gone.",
        (
            Act("the machines write some of their memory", lambda _view: requests.tick(), read=1.0),
            Act(f"{FIRST} is paused in the background; then its header cannot be written", _fail_late),
            Act("the pause had answered; this engine rolls it back all the same", _pause_first, read=3.0),
            Act(
                "it executes zeros (add [rax], al) to the end of its memory, where KVM gives up",
                lambda _view: requests.tick(),
                until=_machine_ended,
                read=8.0,
            ),
        ),
        shows="machine",
        workload=PROGRAM_IN_RAM,
        engine="mutant: punched-machine-runs",
        background=True,
        needs_machines=True,
        verdict="violated",
    ),
    Beat(
        "kill-switch",
        "KILL SWITCH",
        "One flag, one key: from the next pause on nothing is punched.",
        (
            _TICK,
            Act(f"pause {FIRST}: punched", _pause_first, read=3.0),
            Act("the kill switch", lambda _view: requests.kill_switch(), read=2.0),
            Act("pause all others: nothing is freed, nothing can be lost", _pause_all, read=6.0),
        ),
    ),
)


def beats(*, machines: bool) -> tuple[Beat, ...]:
    """Those that can be played where there are virtual machines, or not."""
    return tuple(each for each in BEATS if machines or not each.needs_machines)
