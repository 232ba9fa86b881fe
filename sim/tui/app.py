"""The app: owns one run after another, from its start to its teardown, and gives what is new to its screens."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from textual.driver import Driver

from sim.report.words import one_line
from sim.tui import requests
from sim.tui.drive import Drive
from sim.tui.driver import MortalTerminal
from sim.tui.show import ShowApp
from sim.tui.twin import Twin
from sim.view import View

Start = Callable[[], AbstractAsyncContextManager[Drive, bool | None]]
CLOCK_LOOKS_A_SECOND = 20


class FleetApp(ShowApp):
    """Starts runs with `start`; `last` is the final view of the latest, `failure` what ended the app, if anything.

    `twin` is run beside them, when a key asks for it, and ended with them.
    """

    def __init__(self, start: Start, terminal: type[Driver] = MortalTerminal, twin: Twin | None = None) -> None:
        super().__init__(terminal)
        self.live.twin = twin
        if twin is not None:
            twin.told = self.live.told
        self.last: View | None = None
        self.failure: Exception | None = None
        self.signal: int | None = None
        self._start = start
        self._again = True
        self._judges = True
        self._wanted = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    def ready(self) -> None:
        self.set_interval(1 / CLOCK_LOOKS_A_SECOND, self._look_at_clock)
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

    async def _one_run(self) -> None:
        self.live.say("starting the node and its guests …")
        async with self._start() as drive:
            for screen in self.live_screens():
                screen.begin()
            self.live.begin(drive)
            self.begun()
            await self._wanted.wait()
            await self._end_twin()
            await self.live.no_more_requests()
            if self._judges:
                self.live.say("judging every invariant and tearing down guests, node and memory …")
                self.last = await drive.finish()
                self.look()
                self.ended(self.last)
            self.live.end()

    async def _end_twin(self) -> None:
        """What it has come to stays."""
        if self.live.twin is not None:
            await self.live.twin.stop()

    def begun(self) -> None:
        """A run is there to be asked."""

    def ended(self, last: View) -> None:
        """A run was judged and torn down; its final view."""

    # -- the clock

    def _look_at_clock(self) -> None:
        """A tick waits for nothing: where something is under way it is left out."""
        if self.live.clock.is_due(time.monotonic()) and not self.live.is_asked:
            self.live.ask(requests.tick())

    def action_hold(self) -> None:
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
