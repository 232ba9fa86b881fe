"""The talk: its app and screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.driver import Driver
from textual.screen import Screen

from engine.errors import UserError
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.report import words
from sim.tui.fleet_app import FleetApp, Run
from sim.tui.frames import Frame, Live
from sim.tui.keys import STAGE, Key
from sim.tui.panes import LinesWidget
from sim.tui.screens.live import LiveScreen, bindings, too_small
from sim.tui.spans import Span
from sim.tui.stage_beats import BEATS, FIRST, Beat
from sim.tui.stage_lines import ROWS, Scene, highest_peak, lines
from sim.tui.terminal import MortalTerminal

LOOKS_A_SECOND = 20
LONGEST_ACT = 60.0
"""Seconds; a longer act has gone wrong, which would stay unseen on autopilot."""
Play = Callable[[Beat], Run]


class StageApp(FleetApp):
    """`play` starts the run of a beat; `verdicts` are those of the beats that were judged, by name.

    `cut_short` are those of them that were left before their last act had ended.
    """

    KEYS: ClassVar[tuple[Key, ...]] = STAGE
    BINDINGS: ClassVar[list[BindingType]] = bindings(STAGE)

    def __init__(
        self,
        play: Play,
        *,
        autopilot: bool = False,
        said: str | None = None,
        speed: float = 1.0,
        terminal: type[Driver] = MortalTerminal,
        beats: Sequence[Beat] = BEATS,
    ) -> None:
        super().__init__(lambda: play(self.beat), terminal)
        self.theme = "high-contrast"
        self.beats = beats
        self.beat = beats[0]
        self.verdicts: dict[str, str] = {}
        self.cut_short: set[str] = set()
        self._autopilot = autopilot
        self._speed = speed
        self._peaks: dict[str, float] = {}
        self._opening = said
        self._chosen = self.beat
        self._shown: Beat | None = None
        self._says = Span(said or "", "warn")
        self._acts: asyncio.Task[None] | None = None
        self._played = False

    def first_screen(self) -> Screen[None]:
        return StageScreen(self.live, self.scene)

    def scene(self) -> Scene:
        """What is on stage now."""
        view, found = (self.live.view, self.live.found) if self._shown is self.beat else (View(), [])
        return Scene(self.beat, self._said(), view, self._peaks, found, not self.live.is_asked, self.beats)

    def _said(self) -> Span:
        """A refusal or a failure before what the act says."""
        sandbox = self.live.view.sandboxes.get(FIRST) if self._shown is self.beat else None
        if sandbox is not None and sandbox.refused is not None:
            return Span(f"refused: {words.refusal(sandbox.refused)}", "bad")  # why it failed is read from its row
        note = self.live.note
        return note if note is not None and note.tone == "bad" else self._says

    def end_run(self, *, again: bool, judged: bool = True) -> None:
        """Cancel its acts at once: those not yet played are not part of the run's result."""
        if self._acts is not None:
            self._acts.cancel()
        super().end_run(again=again, judged=judged)

    # -- a beat

    def begun(self) -> None:
        self._shown, self._played = self.beat, False
        self._acts = asyncio.create_task(self._play_beat(), name="beat")

    async def _play_beat(self) -> None:
        try:
            if self._opening is not None:
                await self._read(4.0)
                self._opening = None
            for act in self.beat.acts:
                self._says = Span(act.says, "title")
                if act.ask is not None:
                    self.live.ask(act.ask(self.live.view))
                await self._until(lambda act=act: not (act.waits and self.live.is_asked))  # type: ignore[misc]
                await self._until(lambda act=act: act.until is None or act.until(self.live.view))  # type: ignore[misc]
                self._played = act is self.beat.acts[-1]  # what is left is to be read
                await self._read(act.read)
        except Exception as error:  # noqa: BLE001 - `drive` raises it, once the terminal is back
            self.failure = error
            self.end_run(again=False)
            return
        if self._autopilot:
            self._leave(self.beats.index(self.beat) + 1)

    async def _read(self, seconds: float) -> None:
        """The screen goes on being drawn."""
        self.look()
        await asyncio.sleep(seconds / self._speed)

    async def _until(self, seen: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONGEST_ACT
        while not seen():
            if time.monotonic() > deadline:
                raise UserError(f"the beat {self.beat.name} did not get what it waited for: {self._said().text}")
            await asyncio.sleep(1 / LOOKS_A_SECOND)
            self.look()

    def ended(self, last: View) -> None:
        self.verdicts[self.beat.name] = last.ended.verdict if last.ended else Verdict.INCONCLUSIVE.value
        if self._played:
            self.cut_short.discard(self.beat.name)
        else:
            self.cut_short.add(self.beat.name)
        if self.beat.bar is not None:
            self._peaks[self.beat.bar] = highest_peak(last)

    async def _one_run(self) -> None:
        """Whatever ends a run, its acts end first; then the beat that was chosen begins."""
        self._chosen = self.beat
        self._says = Span(self._opening or "starting the node and its guests …", "muted")
        try:
            await super()._one_run()
        finally:
            if self._acts is not None:
                self._acts.cancel()
        self.beat = self._chosen
        self._shown = None
        self.look()

    def _leave(self, number: int, *, judged: bool = True) -> None:
        """To the beat of that number; past the last there is none."""
        if number >= len(self.beats):
            self.end_run(again=False)
            return
        self._chosen = self.beats[number]
        self._says = Span("judging every invariant and tearing down …" if judged else "…", "muted")
        self.end_run(again=True, judged=judged)

    # -- keys

    async def action_next_key(self, key: str) -> None:
        """A talk goes by its beats alone."""

    def action_next(self) -> None:
        number = self.beats.index(self.beat) + 1
        if number < len(self.beats):
            self._leave(number)
        else:
            self._says = Span("that was all; q leaves, ctrl+r begins again", "title")
            self.look()

    def action_again(self) -> None:
        self._leave(self.beats.index(self.beat), judged=False)

    def action_reset(self) -> None:
        """What is under way is left at once; the first beat's title is there at once."""
        self._peaks.clear()
        self.verdicts.clear()
        self.cut_short.clear()
        self._leave(0, judged=False)


def summary(
    verdicts: dict[str, str],
    *,
    whole: bool,
    cut_short: AbstractSet[str] = frozenset(),
    beats: Sequence[Beat] = BEATS,
) -> tuple[list[str], Verdict]:
    """A line a beat, and the verdict: held if each beat (`whole`: and every beat) ended with the verdict it should.

    A beat that was cut short may have ended otherwise; its line only gives its verdict.
    """
    judged = [(beat, verdicts[beat.name]) for beat in beats if beat.name in verdicts]
    lines = [f"{verdict.upper():<12} {beat.name}{_remark(beat, verdict, cut_short)}" for beat, verdict in judged]
    if any(verdict != beat.verdict for beat, verdict in judged if verdict == "violated" or beat.name not in cut_short):
        return lines, Verdict.VIOLATED
    return lines, Verdict.HELD if judged and (len(judged) == len(beats) or not whole) else Verdict.INCONCLUSIVE


def _remark(beat: Beat, verdict: str, cut_short: AbstractSet[str]) -> str:
    if beat.name in cut_short:
        return ", cut short"
    return ", as it should" if verdict == beat.verdict else ""


class StageScreen(LiveScreen):
    """Draws the scene that `scene` gives."""

    def __init__(self, live: Live, scene: Callable[[], Scene]) -> None:
        super().__init__(live)
        self._scene = scene

    def compose(self) -> ComposeResult:
        yield LinesWidget(id="stage")
        yield LinesWidget(too_small, id="small")

    def take(self, _frame: Frame) -> None:
        self.draw_status()

    def draw_status(self) -> None:
        scene = self._scene()
        self.show("stage", lambda width, height: lines(scene, width)[: min(height, ROWS)])


MIB = 1 << 20
SIZES = ((4, 32), (3, 32), (2, 32), (2, 16), (1, 16))
"""Sandboxes and MiB each, the best first; a copy that fails at chunk 3 needs 8 MiB and more."""
PROCESSES = 128 * MIB
"""What node, zygote and guests take beside the memory that they show."""


def fleet(available: int) -> tuple[int, int]:
    """The largest fleet that fits twice, guests and copies; the smallest where none does."""
    fits = (size for size in SIZES if 2 * size[0] * size[1] * MIB + PROCESSES <= available)
    return next(fits, SIZES[-1])


def shrunk(size: tuple[int, int], available: int) -> str | None:
    """The line that reports a fleet smaller than it should be; None if it is not."""
    if size == SIZES[0]:
        return None
    (count, memory), (wanted, large) = size, SIZES[0]
    return f"{count} sandboxes of {memory} MiB instead of {wanted} of {large}: {available // MIB} MiB are free"
