"""The talk from beat to beat: its keys, its autopilot, and what it came to."""

from __future__ import annotations

import asyncio
import os
import pathlib
import time
from typing import Any

import pytest

from engine import events as engine_events
from sim.files.scenario import load_text
from sim.record import events
from sim.record.verdict import Verdict
from sim.record.view import View
from sim.run.drill import Drill
from sim.run.host import host
from sim.tui.stage_app import StageApp, summary
from sim.tui.stage_beats import BEATS, Beat, beats
from tests.forked import forked_node
from tests.tui.conftest import RecordedDrill
from tests.tui.looking import seen, until

GOLDENS = pathlib.Path(__file__).parent / "goldens"


class StagedDrill(RecordedDrill):
    """Does to a beat's fleet at once what it is asked, and comes to the verdict that the beat should.

    With `go_on` a tick is over when that is set.
    """

    def __init__(self, beat: Beat, go_on: asyncio.Event | None = None) -> None:
        super().__init__()
        self.beat = beat
        self.go_on = go_on
        self.tell_of_fleet(["web-0", "web-1"])

    async def tick(self, count: int = 1) -> None:
        await super().tick(count)
        if self.beat.name == "machine" and self.view().pauses:
            had, zeros = "e9 66 ff ff ff 00 00 00", "00 00 00 00 00 00 00 00"
            self.tell(events.VmEnded("web-0.1", "INTERNAL_ERROR", 0x1FFFFFF, True, 0x95, had, zeros), "web-0")
            self.tell(events.StateChanged("running", "killed", "its machine ended", "crashed"), "web-0")
        if self.go_on is not None:
            await self.go_on.wait()

    async def pause(self, names: Any, *, concurrency: int = 4, deadline: float = 60.0, wave: bool = False) -> None:
        await super().pause(names)
        for name in names:
            if self.beat.name in {"failure", "wrong", "machine"} and name == "web-0":
                self.discard(name)
            elif self.beat.name == "slow":
                self.begin_pause(name, punch=True)
                self.tell(events.BoundaryReached("chunk", 0), name, f"{name}.p1")
            else:
                self.finish_pause(name, punch=self.beat.punch)
        if self.beat.verdict == "violated":
            self.violated = [{"sandbox": "web-0", "reason": "a condemned guest runs again"}]

    async def resume(self, names: Any) -> None:
        await super().resume(names)
        why = "it was discarded and can never run again: copy.write failed"
        self.tell(events.RequestRefused("resume", why, "discarded"), names[0])

    async def pace(self, sandboxes: str, *, factor: float, held: bool, steps: int = 0) -> None:
        await super().pace(sandboxes, factor=factor, held=held, steps=steps)
        pause = self.view().sandboxes["web-0"].pause
        if pause is None:
            return
        if not held:
            self.settle("web-0", punch=True)
        elif pause.track.waits_for == "condemn":
            self.tell(engine_events.Condemned("web-0.p1"), "web-0", "web-0.p1")
        else:
            self.tell(events.BoundaryReached("condemn"), "web-0", "web-0.p1")

    async def finish(self) -> View:
        await self._called("finish")
        self.tell(events.RunEnded(self.beat.verdict, 0, {}, None, 0))
        return self.view()


def stage(ticks: dict[str, asyncio.Event] | None = None, **options: Any) -> tuple[StageApp, list[StagedDrill]]:
    drills: list[StagedDrill] = []

    def play(beat: Beat) -> StagedDrill:
        drills.append(StagedDrill(beat, (ticks or {}).get(beat.name)))
        return drills[-1]

    return StageApp(play, speed=1000.0, **options), drills


def called(drill: StagedDrill, name: str) -> bool:
    return any(call[0] == name for call in drill.calls)


async def test_the_autopilot_plays_every_beat_and_ends_with_the_verdict_that_is_right() -> None:
    app, drills = stage(autopilot=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: not app.is_running, "it ended")
    assert app.failure is None
    assert [drill.beat.name for drill in drills] == [beat.name for beat in BEATS]
    assert all(drill.calls[-1] == ("torn down",) for drill in drills)
    assert app.cut_short == set()
    assert summary(app.verdicts, whole=True)[1] is Verdict.HELD


async def test_a_beat_that_is_left_before_its_last_act_is_not_said_to_have_come_to_what_it_should() -> None:
    ticked = asyncio.Event()
    app, drills = stage({"on": ticked})
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "✓ HELD" in seen(app), "everybody is paused")
        await pilot.press("right")
        await until(pilot, lambda: len(drills) == 2 and called(drills[1], "tick"), "the second beat has begun")
        await pilot.press("right")
        ticked.set()
        await until(pilot, lambda: len(drills) == 3, "the third beat has begun")
        assert app.cut_short == {"on"}
        assert not called(drills[1], "pause")
    lines, verdict = summary(app.verdicts, whole=False, cut_short=app.cut_short)
    assert lines[:2] == ["HELD         off, as it should", "HELD         on, cut short"]
    assert verdict is Verdict.HELD


async def test_the_arrow_goes_on_and_what_was_the_last_beats_peak_stays() -> None:
    app, drills = stage()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "✓ HELD" in seen(app), "everybody is paused")
        await pilot.press("right")
        await until(pilot, lambda: "FLAG ON" in seen(app) and "✓ HELD" in seen(app), "the next beat has played")
        shown = seen(app) + "\n"
        assert "peak 2.00x" in shown
        assert "peak 1.03x" in shown
        assert called(drills[0], "finish")


async def test_a_beat_is_replayed_without_being_judged() -> None:
    app, drills = stage()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "✓ HELD" in seen(app), "everybody is paused")
        await pilot.press("left")
        await until(pilot, lambda: len(drills) == 2 and called(drills[1], "pause"), "it plays again")
        assert drills[1].beat is BEATS[0]
        assert not called(drills[0], "finish")
        assert drills[0].calls[-1] == ("torn down",)
        assert app.verdicts == {}


async def test_reset_goes_back_to_the_first_beat_and_forgets() -> None:
    app, drills = stage()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "✓ HELD" in seen(app), "everybody is paused")
        await pilot.press("right")
        await until(pilot, lambda: "FLAG ON" in seen(app) and len(drills) == 2, "the next beat is there")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "FLAG OFF" in seen(app) and len(drills) == 3, "the first beat is there")
        assert "1.03x" not in seen(app)
        assert app.verdicts == {}


async def test_the_last_beat_has_no_next() -> None:
    app, drills = stage()
    app.beat = BEATS[-1]
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app._acts is not None and app._acts.done(), "it has played")
        await pilot.press("right")
        await until(pilot, lambda: "that was all" in seen(app), "it says so")
        assert len(drills) == 1


async def test_what_goes_wrong_ends_the_talk_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.tui.stage_app.LONGEST_ACT", 0.0)
    app, drills = stage(autopilot=True)
    app.beat = next(beat for beat in BEATS if beat.name == "slow")
    monkeypatch.setattr(StagedDrill, "pause", RecordedDrill.pause)  # nothing comes of it
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: not app.is_running, "it ended")
    assert "the beat slow did not get what it waited for" in str(app.failure)
    assert drills[0].calls[-1] == ("torn down",)


async def test_a_smaller_fleet_is_said() -> None:
    app, _ = stage(said="2 sandboxes of 16 MiB instead of 4 of 32: 200 MiB are free")
    app._speed = 1e-3
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "2 sandboxes of 16 MiB instead of 4 of 32" in seen(app), "it is said")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 45)])
@pytest.mark.parametrize("beat", BEATS, ids=lambda each: each.name)
async def test_each_beat_looks_as_agreed(width: int, height: int, beat: Beat) -> None:
    app, _ = stage()
    app.beat = beat
    async with app.run_test(size=(width, height)) as pilot:
        await until(pilot, lambda: app._acts is not None and app._acts.done(), "it has played")
        app.look()
        await pilot.pause()
        shown = seen(app) + "\n"
    assert len(shown.strip("\n").splitlines()) <= 12
    golden = GOLDENS / f"stage-{beat.name}-{width}x{height}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_talk_on_real_memory_ends_as_it_should(tmp_path: pathlib.Path) -> None:
    def play(beat: Beat) -> Drill:
        scenario = load_text(beat.scenario(2, 16, "auto"), tmp_path / "stage.yaml")
        return Drill(scenario, runs_dir=tmp_path / "runs", start_node=forked_node)

    played = beats(machines=host()["kvm"])
    app = StageApp(play, autopilot=True, speed=20.0, beats=played)
    async with app.run_test(size=(80, 24)) as pilot:
        deadline = time.monotonic() + 150
        while app.is_running:
            assert time.monotonic() < deadline, seen(app)
            await pilot.pause(0.1)
    assert app.failure is None
    assert app.verdicts == {beat.name: beat.verdict for beat in played}
