"""The fleet twice more, off and on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from sim.record.view import View
from sim.report import words
from sim.report.words import on_off, one_line
from sim.tui import charts
from sim.tui.charts import GAP
from sim.tui.spans import Piece, Span, Spans, Tone, fit, line_of, width


class RunArm(Protocol):
    """Runs one arm to its verdict; `view` is of the run on screen. UserError if it cannot run here."""

    def __call__(self, view: View, progress: Callable[[str], None], *, punch: bool) -> Awaitable[View]: ...


class Twin:
    """`arms` holds the final view of each arm that has ended, by whether it punches; `said` is what goes on, or went
    wrong. `on_change` is called when either has changed."""

    def __init__(self, run: RunArm) -> None:
        self.arms: Mapping[bool, View] = {}
        self.said: Span | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._run = run
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """True from its beginning to the end of its teardown."""
        return self._task is not None and not self._task.done()

    def begin(self, view: View) -> None:
        """Run both arms, one after the other, with the flags of this view except punching."""
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
        self.on_change()

    def _say_of(self, punch: object, step: str) -> None:
        self._say(f"flag {on_off(punch)}: step {step} …")

    def _say(self, text: str) -> None:
        self.said = Span(text, "busy")
        self.on_change()


HEADROOM = 1.1
"""Over the higher of twice what the guests held, and the highest peak."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm that has ended. Bytes; `begin` and `end` of its pauses in seconds since it began."""

    view: View
    held: int
    begin: float
    end: float

    @property
    def peak(self) -> int:
        """The most that its node had in memory."""
        return self.view.memory.peak

    @property
    def dirty(self) -> int:
        """Bytes that its pauses had to copy."""
        return sum(pause.dirty_bytes or 0 for pause in self.view.pauses)


def arm_of(view: View) -> Arm:
    """What its guests held when the first of them was paused, and from when to when they were."""
    begin = min((pause.began for pause in view.pauses), default=view.t)
    end = max((pause.settled_at or begin for pause in view.pauses), default=begin)
    held = max((sample.source for sample in view.samples if sample.t <= begin), default=0)
    return Arm(view, max(1, held), begin, end)


def lines(arms: Mapping[bool, View], said: Span | None, cells: int, height: int) -> list[Spans]:
    """A line that says what it is, and two charts; `height` lines at most."""
    each = (cells - GAP) // 2
    found = {punch: arm_of(view) for punch, view in arms.items()}
    top = int(HEADROOM * max((max(arm.peak, 2 * arm.held) for arm in found.values()), default=1))
    took = max((arm.end - arm.begin for arm in found.values()), default=0.0)
    room = max(2, height - 2)
    halves = [_half(found.get(punch), each, room, top, took, punch=punch) for punch in (False, True)]
    beside = [(*fit(left, each), Span(" " * GAP), *right) for left, right in zip(*halves, strict=True)]
    return [_head(found, said, cells), *beside][:height]


def _head(found: Mapping[bool, Arm], said: Span | None, cells: int) -> Spans:
    run = next((arm.view.run for arm in found.values()), None)
    of = f"this fleet, seed {run.seed}, paused once" if run else "this fleet and seed"
    pieces = [Piece(0, (Span(" twin ", "title"), Span(of, "muted")))]
    if said is not None:
        room = cells - width(pieces[0].spans) - 4
        pieces.append(Piece(0, fit((said,), min(room, len(said.text)))))
    elif len(found) == 2:
        pieces.append(Piece(0, (_compared(found[False], found[True]),)))
    return line_of(pieces, cells)


def _compared(off: Arm, on: Arm) -> Span:
    """The peaks, where both arms had as much to copy."""
    if off.dirty != on.dirty:
        sizes = f"{words.mib(off.dirty)} and {words.mib(on.dirty)} MiB"
        return Span(f"not compared: {sizes} were dirty", "warn")
    return Span(f"peak off is {off.peak / max(1, on.peak):.2f} times peak on", "title")


def _half(arm: Arm | None, cells: int, height: int, top: int, took: float, *, punch: bool) -> list[Spans]:
    """A title over its chart; where there is nothing yet, as many empty lines."""
    name: Spans = (Span(f" flag {words.on_off(punch)}", "title"),)
    if arm is None:
        return [name, *[()] * height]
    found = charts.columns(arm.view.samples, arm.begin, arm.begin + took, max(8, cells - charts.LABEL - 1))
    levels: dict[str, tuple[int, Tone]] = {
        f"2x {words.mib(2 * arm.held)}": (2 * arm.held, "warn"),
        f"1x {words.mib(arm.held)}": (arm.held, "muted"),
        "budget": (arm.view.memory.budget, "bad"),
    }
    title = line_of([Piece(0, name), *_figures(arm)], cells, gap=2)
    return [fit(title, cells), *charts.area(found, top, height, levels)]


def _figures(arm: Arm) -> list[Piece]:
    ended, pauses = arm.view.ended, arm.view.pauses
    verdict = ended.verdict if ended else "inconclusive"
    finished = sum(pause.outcome == "finished" for pause in pauses)
    said = "" if finished == len(pauses) else f"{finished} of {len(pauses)} finished"
    tone: Tone = "bad" if arm.peak > arm.view.memory.budget else "plain"
    return [
        Piece(0, (Span(f"peak {words.mib(arm.peak)} MiB", tone), Span(f" {words.ratio(arm.peak / arm.held)}", tone))),
        *([Piece(0, (Span(said, "warn"),))] if said else []),
        Piece(1, (Span(verdict.upper(), words.verdict_tone(verdict)),)),
        Piece(2, (Span(f"in {words.ms(1e3 * (arm.end - arm.begin))}", "muted"),)),
    ]
