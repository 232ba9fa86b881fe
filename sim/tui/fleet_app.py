"""The app over live runs: it starts and ends them, plays the story, and keeps the clock."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Protocol

from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.screen import ModalScreen

from sim.record.view import View
from sim.report.words import one_line
from sim.tui import requests, story
from sim.tui.app import REFRESHES_A_SECOND, ShowApp
from sim.tui.frames import NO_RUN
from sim.tui.requests import Drive
from sim.tui.screens.memory import MemoryScreen
from sim.tui.spans import Span
from sim.tui.terminal import MortalTerminal
from sim.tui.twin import Twin


class Run(Protocol):
    """A run: entered it has started, and what is entered is what can be asked; `view` may be looked at before."""

    run_dir: pathlib.Path

    def view(self) -> View: ...
    async def __aenter__(self) -> Drive: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


Start = Callable[[], Run]
CLOCK_LOOKS_A_SECOND = 20


READ = 2.0
"""Seconds that a step of the story is left to be read, when it plays by itself."""


class FleetApp(ShowApp):
    """Starts runs with `start`; `last` is the final view of the latest, `failure` what ended the app, if anything.

    `twin` is run beside them, when a key asks for it, and ended with them.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding(key, f"next_key('{key}')", show=False) for key in story.KEYS]

    def __init__(self, start: Start, terminal: type[Driver] = MortalTerminal, twin: Twin | None = None) -> None:
        super().__init__(terminal)
        self.live.twin = twin
        if twin is not None:
            twin.on_change = self.live.on_change
        self.last: View | None = None
        self.failure: Exception | None = None
        self.signal: int | None = None
        self._start = start
        self._again = True
        self._judges = True
        self._wanted = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._compared = False
        self._step_since = 0.0
        self._noted: Span | None = None
        self._run: Run | None = None

    def ready(self) -> None:
        self.set_interval(1 / CLOCK_LOOKS_A_SECOND, self._look_at_clock)
        self.set_interval(1 / REFRESHES_A_SECOND, self._play_on)
        self._life = asyncio.create_task(self._live(), name="runs")

    async def on_unmount(self) -> None:
        """However the app ends, its runs are torn down first."""
        self.end_run(again=False)
        if self._life is not None:
            await self._life
        await self._end_twin()

    def end_run(self, *, again: bool, judged: bool = True) -> None:
        """End the run, `judged` or at once; then start it again on the same seed, or leave."""
        self._again = self._again and again
        self._judges = judged
        self._wanted.set()

    def end_by_signal(self, number: int) -> None:
        """As `q`, remembering which signal it was."""
        self.signal = number
        self.end_run(again=False)

    async def action_quit(self) -> None:
        if self._wanted.is_set():
            self.live.hurry()
        self.end_run(again=False)

    def action_restart(self) -> None:
        if self.live.refusing is not None:
            self.live.say(self.live.refusing, failed=True)
        else:
            self.confirm("Tear this run down and begin again on the same seed?", lambda: self.end_run(again=True))

    async def _live(self) -> None:
        try:
            while self._again:
                self._wanted.clear()
                await self._one_run()
        except Exception as error:  # noqa: BLE001 - it is raised again by `drive`, once the terminal is back
            self.failure = error
            self.live.say(f"failed: {one_line(error)}", failed=True)
        self.exit()

    def folder(self) -> pathlib.Path | None:
        return None if self._run is None else self._run.run_dir

    async def _one_run(self) -> None:
        run = self._run = self._start()
        for screen in self.live_screens():
            screen.begin()
        self.live.watch(run.view)
        self.live.does = "starting the node and its guests"
        async with contextlib.AsyncExitStack() as stack:
            drive = await self._entered(stack, run)
            if drive is None:
                return
            self.live.does = None
            self._compared = self.live.playing = False
            self.live.begin(drive)
            self.begun()
            await self._wanted.wait()
            self.live.playing = False
            self.live.does = "ending what is under way (q: do not wait for it)"
            await self._end_twin()
            await self.live.no_more_requests()
            if self._judges:
                self.live.does = "judging every invariant and tearing down guests, node and memory"
                self.last = await drive.finish()
                self.look()
                self.ended(self.last)
            self.live.does = None
            self.live.end()

    async def _entered(self, stack: contextlib.AsyncExitStack, run: Run) -> Drive | None:
        """The run, once it has started; None where it is to end before: what has started is torn down at once."""
        entering = asyncio.ensure_future(stack.enter_async_context(run))
        leaving = asyncio.ensure_future(self._wanted.wait())
        await asyncio.wait({entering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not entering.done():
            self.live.does = "tearing down what has started"
            entering.cancel()
            await asyncio.wait({entering})
        return None if entering.cancelled() else entering.result()

    async def _end_twin(self) -> None:
        """End the twin; the arms that have ended stay."""
        if self.live.twin is not None:
            await self.live.twin.stop()

    def begun(self) -> None:
        """A run is there to be asked."""

    def ended(self, last: View) -> None:
        """A run was judged and torn down; its final view."""

    # -- the story

    def look(self) -> None:
        """With what is next in the state that the run is in."""
        super().look()
        live, before = self.live, self.live.step
        noted, self._noted = self._noted, live.status
        under_cursor = self._fleet.under_cursor
        name = under_cursor.name if under_cursor else None
        is_driven = live.has_run and live.refusing is None
        live.step = story.next_step(live.view, live.idle, name, compared=self._compared) if is_driven else None
        if live.is_asked or (before and before.says) != (live.step and live.step.says):
            self._step_since = time.monotonic()
        if before != live.step or noted != self._noted:
            for screen in self.live_screens():
                screen.draw_status()

    def action_play(self) -> None:
        """Do what is next and go on so; or stop."""
        if self.live.refusing is not None or not self.live.has_run:
            self.live.say(self.live.refusing or NO_RUN, failed=True)
            return
        self.live.playing = not self.live.playing
        self._step_since = 0.0
        self.live.on_change()

    def _play_on(self) -> None:
        step, live = self.live.step, self.live
        if not live.playing or live.is_asked or time.monotonic() - self._step_since < READ:
            return
        if step is None or not step.key or (len(self.screen_stack) > 1 and isinstance(self.screen, ModalScreen)):
            return
        if step.key == "q":
            live.playing = False
            live.say("that was the story: q judges the run and leaves", calm=True)
        else:
            self._step_since = time.monotonic()
            self.call_later(self.action_do_next)

    async def action_do_next(self) -> None:
        """What stands after `next:`, as its key does it."""
        step = self.live.step
        if step is None or not step.key:
            return
        if step.show is not None:
            await self.action_show(step.show)
        elif step.key == "q":
            await self.action_quit()
        elif step.key == "R":
            self.action_restart()
        else:
            if step.name is not None:
                self._fleet.move_to(step.name)
            if isinstance(self.screen, MemoryScreen) and step.name is not None:
                await self.action_show("fleet")
            self.live.ask(step.request)

    async def action_next_key(self, key: str) -> None:
        """A key of the fleet, on a screen that has none of its own: what is next is done wherever it is read."""
        if self.live.step is not None and self.live.step.key == key:
            await self.action_do_next()

    async def action_show(self, name: str) -> None:
        await super().action_show(name)
        step = self.live.step
        self._compared = self._compared or (step is not None and step.show == name)

    def action_drop_waiting(self) -> None:
        self.live.drop_waiting()

    # -- the clock

    def _look_at_clock(self) -> None:
        """A tick waits for nothing: where something is under way it is left out."""
        if self.live.clock.is_due(time.monotonic()) and not self.live.is_asked:
            self.live.ask(requests.tick())

    def action_clock(self) -> None:
        self.live.clock.toggle(time.monotonic())
        self.look()

    def action_speed(self, steps: int) -> None:
        self.live.clock.change(steps)
        self.look()

    def action_tick(self) -> None:
        self.live.ask(requests.tick())


async def drive(app: FleetApp) -> None:
    """Run the app to its end; SIGINT, SIGTERM and SIGHUP end it as `q` does. Raises what a run failed with."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.end_by_signal, number)
    await app.run_async()
    if app.failure is not None:
        raise app.failure
