"""The twin beside a run: both arms in turn, what it tells, how it ends; its charts; and where there is no room."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.errors import UserError
from sim.files.scenario import load_text
from sim.record import events
from sim.record.stages import Sample
from sim.record.view import MemoryView, PauseView, View
from sim.tui import charts, twin, twin_runs
from sim.tui.spans import Span, text, width
from sim.tui.twin import Twin
from tests.story import at_its_end, settled

MIB = 1 << 20
RUN = events.RunStarted(1, "0", "run", "demo-twin", 42, [], "", 1024 * MIB, "disk", None)
TEXT = "name: small\nnode: {memory: 1GiB}\nfleet:\n  - {name: web, count: 2, memory: 32MiB}\nsteps: [{pause: {}}]\n"


def ended(*, punch: bool, outcome: str = "finished") -> View:
    """64 MiB in two guests, paused from 1 s on: for half a second to 2x, or for a whole one to 1.25x."""
    took, peak = (1.0, 80 * MIB) if punch else (0.5, 128 * MIB)
    guests = 16 * MIB if punch else 64 * MIB
    samples = (Sample(0.5, 64 * MIB, 0), Sample(1.0 + took / 2, guests, peak - guests), Sample(1.0 + took, 0, 0))
    pauses = tuple(
        PauseView(
            f"web-{each}.p1", f"web-{each}", 1.0, punch=punch, settled_at=1.0 + took, settled=settled(outcome=outcome)
        )
        for each in range(2)
    )
    memory = MemoryView(peak=peak, budget=1024 * MIB)
    return View(run=RUN, pauses=pauses, samples=samples, memory=memory, ended=events.RunEnded("held", 0, {}, "", 0))


class Arms:
    """Each arm waits until it is let go."""

    def __init__(self) -> None:
        self.began: list[bool] = []
        self.torn_down: list[bool] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, view: View, progress: Callable[[str], None], *, punch: bool) -> View:
        self.began.append(punch)
        progress("2/3 tick")
        try:
            await self.go.wait()
        finally:
            await asyncio.sleep(0)
            self.torn_down.append(punch)
        if self.error is not None:
            raise self.error
        return ended(punch=punch)


async def run(twin: Twin) -> list[str]:
    """To its end; what it told."""
    told, over = list[str](), asyncio.Event()

    def tell() -> None:
        told.append(twin.said.text if twin.said else "")
        if twin.said is None or twin.said.tone != "busy":
            over.set()

    twin.on_change = tell
    twin.begin(View())
    async with asyncio.timeout(20):
        await over.wait()
    return told


async def test_both_arms_run_one_after_the_other_and_each_step_is_told() -> None:
    arms = Arms()
    arms.go.set()
    twin = Twin(arms)
    told = await run(twin)
    assert arms.began == [False, True]
    assert told == ["starting …", "flag off: step 2/3 tick …", "flag on: step 2/3 tick …", ""]
    assert {punch: view.memory.peak // MIB for punch, view in twin.arms.items()} == {False: 128, True: 80}


async def test_a_twin_that_is_stopped_is_torn_down_before_that_is_said() -> None:
    arms = Arms()
    twin = Twin(arms)
    twin.begin(View())
    await asyncio.sleep(0)
    assert (arms.began, twin.is_running) == ([False], True)
    await twin.stop()
    assert (arms.torn_down, twin.is_running, twin.said) == ([False], False, Span("stopped", "warn"))
    await twin.stop()  # harmless


async def test_a_twin_that_fails_says_why_on_one_line() -> None:
    arms = Arms()
    arms.error = UserError("it needs 384 MiB\nand there are none")
    arms.go.set()
    twin = Twin(arms)
    await run(twin)
    assert twin.said == Span("no twin: it needs 384 MiB", "bad")


@pytest.mark.parametrize(
    ("free", "reason"),
    [
        (100, "it needs 128MiB of memory and 100 MiB are available"),
        (200, "it needs 128 MiB, the fleet on screen may still take 108 MiB, and 200 MiB are available"),
        (300, None),
    ],
)
def test_there_is_no_twin_where_both_fleets_do_not_fit(
    free: int, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_runs, "free_memory", lambda: free * MIB)
    monkeypatch.setattr("sim.run.needs.free_memory", lambda: free * MIB)
    scenario = load_text(TEXT, pathlib.Path("small.yaml"))
    assert twin_runs.refusal(scenario, View(memory=MemoryView(guests=20 * MIB))) == reason


def drawn(arms: dict[bool, View], said: Span | None = None, cells: int = 100, height: int = 12) -> list[str]:
    lines = twin.lines(arms, said, cells, height)
    assert len(lines) <= height
    assert all(width(line) <= cells for line in lines)
    return [text(line) for line in lines]


BOTH = {punch: ended(punch=punch) for punch in (False, True)}


def test_both_arms_stand_beside_each_other_with_their_peaks_their_verdicts_and_the_ratio() -> None:
    head, halves, *_ = drawn(BOTH)
    assert head == " twin this fleet, seed 42, paused once   peak off is 1.60 times peak on"
    assert " ".join(halves.split()) == (
        "flag off peak 128 MiB 2.00x HELD in 500 ms flag on peak 80 MiB 1.25x HELD in 1000 ms"
    )


def test_the_arms_share_both_axes() -> None:
    lines = drawn(BOTH, cells=100, height=20)[2:]
    labels = [(line[:8].strip(), line[51:59].strip()) for line in lines]
    assert ("2x 128", "2x 128") in labels
    assert ("1x 64", "1x 64") in labels
    off = [line[charts.LABEL : 49] for line in lines]
    on = [line[51 + charts.LABEL :] for line in lines]
    assert max(row.rstrip("┄ ").rfind("█") for row in off) < max(row.rstrip("┄ ").rfind("█") for row in on)


@pytest.mark.parametrize(("cells", "height"), [(80, 8), (140, 16), (40, 4), (200, 30)])
@pytest.mark.parametrize("arms", [{}, {False: BOTH[False]}, BOTH])
def test_a_twin_fits_wherever_it_is(cells: int, height: int, arms: dict[bool, View]) -> None:
    drawn(arms, Span("flag on: step 3/3 pause …" * 9, "busy"), cells, height)
    drawn(arms, None, cells, height)


def test_pauses_that_were_refused_or_lost_are_not_passed_over() -> None:
    first, *rest = ended(punch=False).pauses
    refused = replace(ended(punch=False), pauses=(first, *(at_its_end(each, outcome="refused") for each in rest)))
    assert "1 of 2 finished" in drawn({**BOTH, False: refused}, cells=140)[1]


def test_an_arm_in_which_nobody_was_paused_is_drawn_all_the_same() -> None:
    nobody = View(run=RUN, t=2.0, memory=MemoryView(budget=MIB))
    assert "INCONCLUSIVE" in drawn({False: nobody}, cells=140)[1]
