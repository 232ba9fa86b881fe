"""The newest frame of a run and what is asked of it; clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sim.record.ledger import Entry
from sim.record.view import SandboxView, View
from sim.report import words
from sim.tui.requests import Drive, Request, let_go
from sim.tui.spans import Span, Spans
from sim.tui.twin import Twin

PATIENCE = 60.0
"""Seconds that the end of a run waits for what is under way."""
CRASHED = "the node crashed; on the faults screen (3) N starts it again"
NOBODY = "no sandbox is there for that"
NO_RUN = "no run to ask: it is starting or ending"


class Live:
    """One run after another; between runs, and while one starts or ends, the last view stays and nothing is asked.

    `chosen` are the sandboxes that are selected on the fleet screen. `told` is called when what is being asked, or the
    note about it, has changed. `refusing` is why every request is refused, where it is. `confirm` asks a
    question and goes on after a yes. `moment` is what the title says of time; `foot`, where there is one, makes the
    lines at the foot of every screen, instead of its keys. `twin` is None where none can be had.
    """

    def __init__(self) -> None:
        self.view = View()
        self.found: list[dict[str, Any]] = []
        self.note: Span | None = None
        self.chosen: list[str] = []
        self.clock = Clock()
        self.told: Callable[[], None] = lambda: None
        self.moment: Callable[[], str] = lambda: self.clock.words
        self.foot: Callable[[int, int], Sequence[Spans]] | None = None
        self.refusing: str | None = None
        self.twin: Twin | None = None
        self.confirm: Callable[[str, Callable[[], None]], None] = lambda _question, go_on: go_on()
        self._doing: list[str] = []
        self._drive: Drive | None = None
        self._feed: Feed | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def violations(self) -> int:
        """How many the checkers have found."""
        return len(self.found)

    # -- the run that is shown

    def begin(self, drive: Drive) -> None:
        """Show this run from its first entry."""
        self._drive, self._feed, self.found = drive, Feed(drive.view), []
        self.clock = Clock()
        self.say("t lets the guests work, P pauses them, ? explains every key", calm=True)

    def show(self, source: Callable[[], View], refusing: str) -> None:
        """Show a run that nobody drives; every request is refused with this word."""
        self._drive, self._feed, self.refusing = None, Feed(source), refusing

    async def no_more_requests(self) -> None:
        """The run is about to end: what a key holds up is let go, what is under way ends, what waits is dropped."""
        drive, self._drive = self._drive, None
        if drive is not None and any(each.pace.set for each in self.view.sandboxes.values()):
            with contextlib.suppress(Exception):  # a node that is gone holds nothing up
                await let_go().ask(drive)
        with contextlib.suppress(TimeoutError):  # the teardown ends what does not end by itself
            async with asyncio.timeout(PATIENCE), self._turn:
                pass

    def next(self) -> Frame | None:
        """What is new; None where no run is shown."""
        if self._feed is None:
            return None
        frame = self._feed.next()
        self.view = frame.view
        self.found = self._drive.violations() if self._drive else self.found
        return frame

    def end(self) -> None:
        """The run is over: its last view stays."""
        self._feed = None

    # -- what is asked of it

    def say(self, text: str, *, failed: bool = False, calm: bool = False) -> None:
        """One line between fleet and log, until something else is said."""
        self.note = Span(text, "bad" if failed else "calm" if calm else "busy")
        self.told()

    @property
    def status(self) -> Span | None:
        """What is under way, else what was said last."""
        return Span(f"{', then '.join(self._doing)} …", "busy") if self._doing else self.note

    @property
    def has_run(self) -> bool:
        """True while there is a run that can be asked."""
        return self._drive is not None

    @property
    def is_asked(self) -> bool:
        """True while something is under way."""
        return bool(self._tasks)

    def ask(self, request: Request | None) -> None:
        """Ask now, or when what was asked before is over; what cannot be asked is said."""
        if self.refusing is not None and not (request is not None and request.harmless):
            self.say(self.refusing, failed=True)
        elif self._drive is None:
            self.say(NO_RUN, failed=True)
        elif request is None:
            self.say(NOBODY, failed=True)
        elif request.question is not None:
            self.confirm(request.question, lambda: self._begin(request))
        else:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        task = asyncio.create_task(self._carry_out(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, request: Request) -> None:
        """One at a time: the checkers look at the fleet after each, and want it still. What sets the pace need not."""
        self.note = None
        self._doing.append(request.doing)
        self.told()
        try:
            if request.at_once or (request.setting and self._is_held_up()):
                await self._of_the_drive(request)
            else:
                async with self._turn:
                    await self._of_the_drive(request)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs on one line, not over the screen
            self.say(f"{request.doing} failed: {self._why(error)}", failed=True)
        finally:
            self._doing.remove(request.doing)
            self.told()

    def _why(self, error: Exception) -> str:
        crashed = self._drive is not None and self._drive.view().node == "crashed"
        return CRASHED if crashed else words.one_line(error)

    def _is_held_up(self) -> bool:
        """True where what is under way may take as long as somebody likes."""
        return any(sandbox.pace.set for sandbox in self.view.sandboxes.values())

    async def _of_the_drive(self, request: Request) -> None:
        if self._drive is not None:
            await request.ask(self._drive)


@dataclass(frozen=True, slots=True)
class Frame:
    """A view, the sandboxes that changed, and the entries that came; `gap` where some had left the log unseen."""

    view: View
    changed: frozenset[str]
    entries: tuple[Entry, ...]
    gap: bool


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
    """Held at first: nothing moves until somebody wants it to."""

    def __init__(self) -> None:
        self.held = True
        self._speed = SPEEDS.index(1.0)
        self._last = 0.0

    @property
    def speed(self) -> float:
        """Ticks a second, when it is not held."""
        return SPEEDS[self._speed]

    def change(self, steps: int) -> None:
        """Faster, or slower where `steps` is negative, as far as it goes."""
        self._speed = max(0, min(len(SPEEDS) - 1, self._speed + steps))

    def toggle(self, now: float) -> None:
        """Hold it, or let it run; the first tick comes at once."""
        self.held = not self.held
        self._last = now - 1 / self.speed

    def is_due(self, now: float) -> bool:
        """True once for each tick. What came too late is left out: a slow fleet is not chased."""
        if self.held or now - self._last < 1 / self.speed:
            return False
        self._last = now
        return True

    @property
    def words(self) -> str:
        """`held`, `2 ticks/s`."""
        if self.held:
            return "held"
        return "1 tick/s" if self.speed == 1 else f"{self.speed:g} ticks/s"
