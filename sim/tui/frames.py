"""The newest frame of a run, the requests to it, and the clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sim.record import events
from sim.record.ledger import Entry
from sim.record.rollout_view import RolloutDecision
from sim.record.view import SandboxView, View
from sim.report import words
from sim.tui import requests
from sim.tui.keys import EVERYWHERE, Key
from sim.tui.requests import Drive, Request, let_go
from sim.tui.spans import Span, Spans
from sim.tui.story import Next
from sim.tui.twin import Twin
from sim.tui.under_way import UnderWay

PATIENCE = 60.0
"""Seconds that the end of a run waits for what is under way."""
CRASHED = "the node crashed; on the faults screen (3) N starts it again"
NOBODY = "no sandbox is there for that"
NO_RUN = "no run to ask: it is starting or ending"


class Live:
    """One run after another; between runs, and while one starts or ends, the last view stays and nothing is asked.

    `chosen` are the sandboxes that are selected on the fleet screen. `on_change` is called when a request under way,
    or the note about it, has changed. `refusing` is why every request is refused, where it is. `confirm` asks a
    question and goes on with the first after a yes, with the second after a no. `moment` is what the title says of
    time; `foot`, where there is one, makes the lines at the foot of every screen, instead of its keys. `twin` is None
    if this run cannot have one. `step` is what the story goes on with, `playing` whether it does so by itself.
    `does` is what the run does as a whole, while it starts or ends. `decided` is how the rehearsal ended that it is of.
    """

    def __init__(self) -> None:
        self.view = View()
        self.found: list[dict[str, Any]] = []
        self.note: Span | None = None
        self.chosen: list[str] = []
        self.clock = Clock()
        self.on_change: Callable[[], None] = lambda: None
        self.moment: Callable[[], str] = lambda: self.clock.words
        self.foot: Callable[[int, int], Sequence[Spans]] | None = None
        self.refusing: str | None = None
        self.twin: Twin | None = None
        self.decided: RolloutDecision | None = None
        self.step: Next | None = None
        self.playing = False
        self.does: str | None = None
        self.keys: tuple[Key, ...] = EVERYWHERE
        self.is_judged_here = True
        self.confirm: Callable[[str, Callable[[], None], Callable[[], None]], None] = lambda _, go_on, _no: go_on()
        self._under_way = UnderWay(lambda: self.view)
        self._idle: set[str] = set()
        self._gone: set[str] = set()
        self._hurry = asyncio.Event()
        self._drive: Drive | None = None
        self._feed: Feed | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def violations(self) -> int | None:
        """How many the checkers have found; None where they are another process's."""
        return len(self.found) if self.is_judged_here else None

    # -- the run that is shown

    def watch(self, source: Callable[[], View]) -> None:
        """Show a run that starts, from its first entry; it cannot be asked yet."""
        self._drive, self._feed, self.found = None, Feed(source), []
        self._idle, self._gone, self._hurry = set(), set(), asyncio.Event()
        self.clock = Clock()

    def begin(self, drive: Drive) -> None:
        """The run that is watched can be asked from now on."""
        self._drive = drive
        plays = "" if self.refusing else "space plays what is next by itself, "
        self.say(f"{plays}? explains every key", calm=True)

    def show(self, source: Callable[[], View], refusing: str) -> None:
        """Show a run that takes no requests; each is refused with this word."""
        self._drive, self._feed, self.refusing = None, Feed(source), refusing

    async def no_more_requests(self) -> None:
        """The run is about to end: what a key holds up is let go, what is under way ends, what waits is dropped."""
        drive, self._drive = self._drive, None
        if drive is not None and any(each.pace.set for each in self.view.sandboxes.values()):
            with contextlib.suppress(Exception):  # a node that is gone holds nothing up
                await let_go().ask(drive)
        self._under_way.cancel()
        waits = [asyncio.ensure_future(each) for each in (self._under_way.over(), self._hurry.wait())]
        await asyncio.wait(waits, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)  # the teardown ends the rest
        for wait in waits:
            wait.cancel()

    def hurry(self) -> None:
        """The end of the run waits no longer for what is under way."""
        self._hurry.set()

    def next(self) -> Frame | None:
        """What is new; None where no run is shown."""
        if self._feed is None:
            return None
        frame = self._feed.next()
        self.view = frame.view
        self._idle = still_idle(self._idle, frame)
        self._gone |= {each.event.incarnation for each in frame.entries if isinstance(each.event, events.GuestEnded)}
        self.found = self._drive.violations() if self._drive else self.found
        return frame

    def end(self) -> None:
        """The run is over: its last view stays."""
        self._feed = None

    @property
    def guests(self) -> int:
        """How many live, as far as it is known."""
        return sum(each.pid is not None and each.incarnation not in self._gone for each in self.view.sandboxes.values())

    # -- what is asked of it

    def say(self, text: str, *, failed: bool = False, calm: bool = False) -> None:
        """Show one line between fleet and log, until the next."""
        self.note = Span(text, "bad" if failed else "calm" if calm else "busy")
        self.on_change()

    @property
    def status(self) -> Span | None:
        """What was refused or went wrong; what the run does as a whole, what is under way, what waits; else what was
        said last."""
        said = [f"{self.does}: {words.plural(self.guests, 'guest')} up"] if self.does else []
        said += [self._under_way.words] if self._under_way else []
        if not said or self.note is None or self.note.tone != "bad":
            return Span(f"{'; '.join(said)} …", "busy") if said else self.note
        return Span(f"{self.note.text}   ({'; '.join(said)} …)", "bad")

    @property
    def has_run(self) -> bool:
        """True while there is a run that can be asked."""
        return self._drive is not None

    @property
    def is_asked(self) -> bool:
        """True while something is under way."""
        return bool(self._tasks)

    @property
    def idle(self) -> frozenset[str]:
        """Who has written nothing since it was started or resumed."""
        return frozenset(self.view.sandboxes) if self.view.tick == 0 else frozenset(self._idle)

    def pause(self, names: Sequence[str]) -> None:
        """Ask them to pause; where all of them have nothing to copy, ask back."""
        self.ask(requests.pause(self.view, names, frozenset() if self._under_way.works else self.idle))

    def ask(self, request: Request | None) -> None:
        """Ask now, or once earlier requests for the same sandboxes are over; show why if it cannot be asked."""
        if self.refusing is not None and not (request is not None and request.harmless):
            self.say(self.refusing, failed=True)
        elif self._drive is None:
            self.say(NO_RUN, failed=True)
        elif request is None:
            self.say(NOBODY, failed=True)
        elif request.resumes and (pausing := self._under_way.pausing(request.names or ())):
            self.say(not_yet(pausing), failed=True)
        elif request.question is not None:
            other = request.otherwise
            self.confirm(request.question, lambda: self._begin(request), lambda: self._begin(other) if other else None)
        else:
            self._begin(request)

    def drop_waiting(self) -> None:
        """Drop the request that waits and was made last."""
        dropped = self._under_way.drop_waiting()
        self.say("nothing waits that could be dropped" if dropped is None else f"dropped: {dropped}", failed=True)

    def _begin(self, request: Request) -> None:
        task = asyncio.create_task(self._carry_out(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, request: Request) -> None:
        self.note = None
        try:
            await self._under_way.carry_out(request, lambda: self._of_the_drive(request))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs on one line, not over the screen
            self.say(f"{request.doing} failed: {self._why(error)}", failed=True)
        finally:
            self.on_change()

    def _why(self, error: Exception) -> str:
        crashed = self._drive is not None and self._drive.view().node == "crashed"
        return CRASHED if crashed else words.one_line(error)

    async def _of_the_drive(self, request: Request) -> None:
        self.on_change()
        if self._drive is not None:
            await request.ask(self._drive)


def not_yet(names: Sequence[str]) -> str:
    """Why a resume is refused before the pause has answered."""
    who = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return f"resume refused: the pause of {who} has not answered yet; try again when it is paused"


@dataclass(frozen=True, slots=True)
class Frame:
    """A view, the sandboxes that changed, and the entries that came; `gap` where some had left the log unseen."""

    view: View
    changed: frozenset[str]
    entries: tuple[Entry, ...]
    gap: bool


def still_idle(idle: set[str], frame: Frame) -> set[str]:
    """Which sandboxes have written nothing, after this frame's entries too; after a gap, only those started since."""
    idle = set() if frame.gap else set(idle)
    for entry in frame.entries:
        if isinstance(entry.event, events.GuestSpawned) and entry.sandbox is not None:
            idle.add(entry.sandbox)
        elif isinstance(entry.event, events.Ticked):
            idle.clear()
    return idle


class Feed:
    """Asks `source` for a view and compares: an unchanged sandbox is the same object in both."""

    def __init__(self, source: Callable[[], View]) -> None:
        self._source = source
        self._sandboxes: dict[str, SandboxView] = {}
        self._last: Entry | None = None

    def next(self) -> Frame:
        """The frame for now."""
        view = self._source()
        known = self._sandboxes
        changed = frozenset(name for name, sandbox in view.sandboxes.items() if known.get(name) is not sandbox)
        entries, gap = self._new_entries(view.log)
        self._sandboxes = view.sandboxes
        return Frame(view, changed, entries, gap)

    def _new_entries(self, log: tuple[Entry, ...]) -> tuple[tuple[Entry, ...], bool]:
        last, self._last = self._last, log[-1] if log else self._last
        for index in range(len(log) - 1, -1, -1):
            if log[index] is last:
                return log[index + 1 :], False
        return log, last is not None and bool(log)


SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Ticks a second."""


class Clock:
    """Stopped at first: nothing moves until a key starts it."""

    def __init__(self) -> None:
        self.stopped = True
        self._speed = SPEEDS.index(1.0)
        self._last = 0.0

    @property
    def speed(self) -> float:
        """Ticks a second, when it is not stopped."""
        return SPEEDS[self._speed]

    def change(self, steps: int) -> None:
        """Faster, or slower where `steps` is negative, as far as it goes."""
        self._speed = max(0, min(len(SPEEDS) - 1, self._speed + steps))

    def toggle(self, now: float) -> None:
        """Stop it, or let it run; the first tick comes at once."""
        self.stopped = not self.stopped
        self._last = now - 1 / self.speed

    def is_due(self, now: float) -> bool:
        """True once for each tick. What came too late is left out: a slow fleet is not chased."""
        if self.stopped or now - self._last < 1 / self.speed:
            return False
        self._last = now
        return True

    @property
    def words(self) -> str:
        """`stopped`, `2 ticks/s`."""
        if self.stopped:
            return "stopped"
        return "1 tick/s" if self.speed == 1 else f"{self.speed:g} ticks/s"
