"""A rehearsal on screen: its stages as they come, and its decision once it is there."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from engine.events import Event
from sim.record import events
from sim.record.folder import StoredRun
from sim.record.ledger import EVENTS_FILE, Ledger, read
from sim.record.rollout_events import PlanBegan, PlanStepEnded, StageMeasured
from sim.record.rollout_view import RolloutDecision, RolloutView, decision_of
from sim.tui.attached import AttachedApp
from sim.tui.replay import ReplayApp
from sim.tui.rollout_lines import lines
from sim.tui.spans import text, width
from tests.story import run_ended, run_started, view_of
from tests.tui.looking import seen, until_seen

STEPS = ["setWeight 0 %", "wait 10m", "setWeight 50 %", "wait 1h", "analysis"]
STAGES = [
    {"weight": 0.0, "first": 0, "exposed": 0, "able": 0, "of": 15},
    {"weight": 50.0, "first": 2, "exposed": 6, "able": 6, "of": 15},
]
PLAN = PlanBegan("punch", "memfd-punch-on-snapshot", "sandbox", STEPS, STAGES)
CLOCK: dict[str, Any] = {
    "obeyed": [4472.0, None],
    "reached": [7748, 8907],
    "at_stake": 10000,
    "any": 1.0,
    "parts": [
        {"name": "bake", "p50": 3600.0, "p99": 3600.0, "known": "given"},
        {"name": "detection", "p50": 300.0, "p99": 900.0, "known": "assumed"},
    ],
}
MEASURED = StageMeasured(2, 50.0, 6, 30, 6, 1, 1, 1, False, 0.394, 6, 0.95, "1 % at 95 %", False, **CLOCK)


def ended(step: int, outcome: str = "successful", detail: str = "", stopped: str | None = None) -> PlanStepEnded:
    return PlanStepEnded(step, STEPS[step], 50.0, outcome, detail, 0.0, 0.0, stopped)


def on_screen(
    rollout: RolloutView, decided: RolloutDecision | None = None, cells: int = 80, height: int = 40
) -> list[str]:
    drawn = lines(rollout, decided, cells, height)
    assert max(map(width, drawn)) <= cells
    return [text(line).rstrip() for line in drawn]


def test_a_stage_is_to_come_then_now_then_done() -> None:
    def states(*taken: Event) -> list[str]:
        rollout = view_of([], run_started(), PLAN, *taken).rollout
        assert rollout is not None
        return [line.split()[2] for line in on_screen(rollout)[2:4]]

    assert states() == ["now", "to"]
    assert states(ended(0), ended(1)) == ["done", "now"]
    assert states(ended(0), ended(1), ended(2), ended(3, stopped="wait")) == ["done", "stopped"]
    assert states(*map(ended, range(5))) == ["done", "done"]


def test_it_says_what_a_stage_cost_and_what_cannot_be_undone() -> None:
    said = " ".join(" ".join(on_screen(RolloutView(PLAN, (ended(0), ended(1), ended(2)), (MEASURED,)))).split())
    assert "step 4 of 5: wait 1h" in said
    assert "50 % now 6 of 15 6 1 39.4 % 7,748, 8,907" in said
    assert "bake 1h given; detection 5m, 15m assumed" in said
    assert (
        "OFF is obeyed everywhere after 1h14m32s, unknown; until then 7,748, 8,907 of 10,000 exposed sandboxes" in said
    )
    assert "below 39.4 % at 95 %, shown by 6 sandboxes" in said
    assert "not shown yet" in said


def test_a_later_measure_of_a_stage_takes_the_place_of_the_one_before() -> None:
    again = dataclasses.replace(MEASURED, pauses=60)
    rollout = view_of([], run_started(), PLAN, MEASURED, again).rollout
    assert rollout is not None
    assert rollout.stages == (again,)


@pytest.mark.parametrize(("cells", "height"), [(60, 12), (80, 24), (200, 60)])
def test_no_line_is_cut_and_the_newest_steps_stay(cells: int, height: int) -> None:
    taken = tuple(ended(number, detail=f"what is said of it {number}") for number in range(5))
    said = on_screen(RolloutView(PLAN, taken, (MEASURED,)), None, cells, height)
    assert len(said) <= height
    assert not any("…" in line for line in said)
    assert height < 24 or any("5 analysis at 50 %: successful; what is said of it 4" in line for line in said)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"decision": "go"}', '{"decision": "go", "reasons": 3}'])
def test_what_is_no_decision_yet_is_none(content: str | None, tmp_path: pathlib.Path) -> None:
    if content is not None:
        (tmp_path / "rehearsal.json").write_text(content)
    assert decision_of(tmp_path) is None


async def test_an_attached_rehearsal_shows_its_stages_and_then_its_decision(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(tmp_path / EVENTS_FILE, 0.0)
    began: list[Event] = [run_started(name="punch"), PLAN, ended(0)]
    for event in began:
        ledger.append(event)
    app = AttachedApp(StoredRun(tmp_path / EVENTS_FILE, []))
    async with app.run_test(size=(100, 30)) as pilot:
        await until_seen(pilot, "plan punch", "step 2 of 5: wait 10m", "to come")
        await pilot.press("escape", "7")
        await until_seen(pilot, "step 2 of 5: wait 10m")
        for event in (*map(ended, range(1, 5)), MEASURED):
            ledger.append(event)
        await until_seen(pilot, "its decision is being made", "5 analysis at 50 %: successful", "incident clock")
        ledger.append(run_ended())
        ledger.close()
        await until_seen(pilot, "HELD")
        assert "NO-GO" not in seen(app)
        decided = {"decision": "no-go", "reasons": ["1 sandbox was lost because of the flag"]}
        (tmp_path / "rehearsal.json").write_text(json.dumps(decided))
        await until_seen(pilot, "NO-GO", "because 1 sandbox was lost because of the flag")
        await pilot.press("q")


async def test_a_stored_rehearsal_is_replayed_and_decides_at_its_end(tmp_path: pathlib.Path) -> None:
    ledger = Ledger(tmp_path / EVENTS_FILE, 0.0)
    for event in (run_started(name="punch"), PLAN, *map(ended, range(5)), MEASURED, events.Ticked(1), run_ended()):
        ledger.append(event)
    ledger.close()
    (tmp_path / "rehearsal.json").write_text(json.dumps({"decision": "go", "reasons": ["2 stages passed"]}))
    app = ReplayApp(StoredRun(tmp_path / EVENTS_FILE, read(tmp_path / EVENTS_FILE)), stopped=True)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("end")
        await until_seen(pilot, "plan punch", "GO", "because 2 stages passed")
