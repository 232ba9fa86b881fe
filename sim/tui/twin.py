"""The twin: the fleet on screen run twice more, in the background, punching off and then on. No textual in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol

from sim.report.words import on_off, one_line
from sim.tui.spans import Span
from sim.view import View


class RunArm(Protocol):
    """Runs one arm to its verdict; `view` is of the run on screen. UserError where it cannot be had here."""

    def __call__(self, view: View, progress: Callable[[str], None], *, punch: bool) -> Awaitable[View]: ...


class Twin:
    """`arms` holds the final view of each arm that has ended, by whether it punches; `said` is what goes on, or went
    wrong. `told` is called when either has changed."""

    def __init__(self, run: RunArm) -> None:
        self.arms: Mapping[bool, View] = {}
        self.said: Span | None = None
        self.told: Callable[[], None] = lambda: None
        self._run = run
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """True from its beginning to the end of its teardown."""
        return self._task is not None and not self._task.done()

    def begin(self, view: View) -> None:
        """Run both arms, one after the other, as the flags of this view are but for punching."""
        self.arms = {}
        self._say("starting …")
        self._task = asyncio.create_task(self._both(view), name="twin")

    def cancel(self) -> None:
        """Have it end; what has ended stays. Harmless where none runs."""
        if self._task is not None and not self._task.done():
            self._say("ending its node and guests …")
            self._task.cancel()

    async def stop(self) -> None:
        """As `cancel`, and wait until nothing of it is left."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _both(self, view: View) -> None:
        try:
            for punch in (False, True):
                self.arms = {**self.arms, punch: await self._run(view, partial(self._say_of, punch), punch=punch)}
            self.said = None
        except asyncio.CancelledError:
            self.said = Span("stopped", "warn")
        except Exception as error:  # noqa: BLE001 - whatever it is belongs on one line, not over the screen
            self.said = Span(f"no twin: {one_line(error)}", "bad")
        self.told()

    def _say_of(self, punch: object, step: str) -> None:
        self._say(f"flag {on_off(punch)}: step {step} …")

    def _say(self, text: str) -> None:
        self.said = Span(text, "busy")
        self.told()
