"""The app: owns one run after another, from its start to its teardown, and shows it on the fleet screen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from textual.app import App

from sim.tui.drive import Drive
from sim.tui.driver import MortalTerminal
from sim.tui.screens.fleet import FleetScreen
from sim.tui.words import one_line
from sim.view import View

Start = Callable[[], AbstractAsyncContextManager[Drive, bool | None]]


class FleetApp(App[None]):
    """Starts runs with `start`; `last` is the final view of the latest, `failure` what ended the app, if anything."""

    CSS_PATH = "app.tcss"
    TITLE = "snapdrill"

    def __init__(self, start: Start) -> None:
        super().__init__(driver_class=MortalTerminal)
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]
        self.last: View | None = None
        self.failure: Exception | None = None
        self.signal: int | None = None
        self._start = start
        self._again = True
        self._wanted = asyncio.Event()
        self._fleet = FleetScreen()
        self._life: asyncio.Task[None] | None = None

    async def on_mount(self) -> None:
        await self.push_screen(self._fleet)
        self._life = asyncio.create_task(self._live(), name="runs")

    async def on_unmount(self) -> None:
        """However the app ends, the run is torn down first."""
        self.end_run(again=False)
        if self._life is not None:
            await self._life

    def end_run(self, *, again: bool) -> None:
        """End the run; then start it again on the same seed, or leave."""
        self._again = self._again and again
        self._wanted.set()

    def end_by_signal(self, number: int) -> None:
        """As `q`, remembering which signal it was."""
        self.signal = number
        self.end_run(again=False)

    async def action_quit(self) -> None:
        self.end_run(again=False)

    def action_restart(self) -> None:
        self.end_run(again=True)

    async def _live(self) -> None:
        try:
            while self._again:
                self._wanted.clear()
                await self._one_run()
        except Exception as error:  # noqa: BLE001 - it is raised again by `drive`, once the terminal is back
            self.failure = error
            self._fleet.say(f"failed: {one_line(error)}", failed=True)
        self.exit()

    async def _one_run(self) -> None:
        self._fleet.say("starting the node and its guests …")
        async with self._start() as drive:
            self._fleet.begin(drive)
            await self._wanted.wait()
            await self._fleet.no_more_requests()
            self._fleet.say("judging every invariant and tearing down guests, node and memory …")
            self.last = await drive.finish()
            self._fleet.end()


async def drive(app: FleetApp) -> None:
    """Run the app to its end; SIGINT, SIGTERM and SIGHUP end it as `q` does. Raises what a run failed with."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, app.end_by_signal, number)
    await app.run_async()
    if app.failure is not None:
        raise app.failure
