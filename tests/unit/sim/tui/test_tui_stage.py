from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Any

import pytest

from sim.files.scenario import load_text
from sim.record import events
from sim.record.verdict import Verdict
from sim.record.view import PauseView, SandboxView, View
from sim.tui import stage_app
from sim.tui.spans import Span, text, width
from sim.tui.stage_app import summary
from sim.tui.stage_beats import BEATS, SEED, Beat, beats
from sim.tui.stage_lines import ROWS, Scene, highest_peak, lines
from tests.story import at_its_end

MIB = 1 << 20
BY_NAME = {beat.name: beat for beat in BEATS}


@pytest.mark.parametrize("beat", BEATS, ids=lambda each: each.name)
@pytest.mark.parametrize("fleet", stage_app.SIZES)
def test_a_beat_is_a_scenario_on_the_same_seed_that_touches_no_network(beat: Beat, fleet: tuple[int, int]) -> None:
    scenario = load_text(beat.scenario(*fleet), pathlib.Path("stage.yaml"))
    assert scenario.seed == SEED
    assert scenario.flag_source == "inline"
    assert [each.memory for each in scenario.sandboxes()] == [fleet[1] * MIB] * fleet[0]
    wrong = {"wrong": ("pr-2902", None), "machine": (None, "punched-machine-runs")}
    assert (scenario.engine.profile, scenario.engine.mutant) == wrong.get(beat.name, (None, None))
    assert {each.guest for each in scenario.sandboxes()} == {"vm" if beat.needs_machines else "process"}


def test_the_talk_is_as_long_as_it_is_said_to_be() -> None:
    read = {played: sum(act.read for beat in beats(machines=played) for act in beat.acts) for played in (False, True)}
    assert 60 <= read[False] <= 80  # seconds; starting, pausing and judging six runs takes the rest of the 90
    assert 10 <= read[True] - read[False] <= 15


def test_a_beat_of_machines_is_left_out_where_there_are_none() -> None:
    assert [each.name for each in BEATS if each not in beats(machines=False)] == ["machine"]
    assert beats(machines=True) == BEATS
    right: dict[str, str] = {each.name: each.verdict for each in beats(machines=False)}
    assert summary(right, whole=True, beats=beats(machines=False))[1] is Verdict.HELD
    assert summary(right, whole=True)[1] is Verdict.INCONCLUSIVE


def test_only_wrong_engines_may_violate_and_they_must() -> None:
    assert [beat.name for beat in BEATS if beat.verdict == "violated"] == [beat.name for beat in BEATS if beat.engine]
    assert BY_NAME["wrong"].workload == BY_NAME["failure"].workload


@pytest.mark.parametrize(
    ("free", "fleet"), [(4096, (4, 32)), (384, (4, 32)), (383, (3, 32)), (200, (2, 16)), (10, (1, 16))]
)
def test_the_fleet_fits_into_free_memory_and_says_where_it_shrank(free: int, fleet: tuple[int, int]) -> None:
    found = stage_app.fleet(free * MIB)
    assert found == fleet
    said = stage_app.shrunk(found, free * MIB)
    assert (said is None) == (fleet == (4, 32))
    assert said is None or f"{free} MiB are free" in said


def view_of(**pause: Any) -> View:
    peak = pause.pop("peak_ratio", None)
    made = at_its_end(PauseView("web-0.p1", "web-0", 0.0, chunks=16, **pause), peak_ratio=peak)
    sandboxes = {
        name: SandboxView(name, 32 * MIB, 4096, 4096, "python", "acme", "local", state="paused", pause=made)
        for name in ("web-0", "web-1", "web-2", "web-3", "web-4")
    }
    return View(sandboxes=sandboxes, pauses=(made,), run=events.RunStarted(1, "0", "r", "s", 42, [], "", 1, "d", None))


FOUND = {
    "sandbox": "web-0",
    "reason": "a condemned guest runs again",
    "page": 0,
    "expected": "begins 4ac0a38b6305cc10",
    "found": "all zero",
}


@pytest.mark.parametrize("beat", BEATS, ids=lambda each: each.name)
@pytest.mark.parametrize("cells", [80, 120, 200])
@pytest.mark.parametrize("found", [[], [FOUND]], ids=["held", "violated"])
def test_a_scene_is_twelve_rows_that_fit(beat: Beat, cells: int, found: list[dict[str, Any]]) -> None:
    for view in (View(), view_of(), view_of(condemned_at=1.0, published=3, settled_at=2.0, peak_ratio=2.0)):
        for says in (act.says for act in beat.acts):
            drawn = lines(Scene(beat, Span(says), view, {"off": 2.0}, found), cells)
            assert len(drawn) == ROWS
            assert [text(line) for line in drawn if width(line) > cells] == []
            assert "…" not in text(drawn[0]) + text(drawn[1]) + text(drawn[10])


def test_a_violation_is_red_and_shows_the_page_as_it_was_and_is() -> None:
    drawn = lines(Scene(BY_NAME["wrong"], Span(""), view_of(), {}, [{"sandbox": "web-1"}, FOUND]), 80)
    assert Span("‼ VIOLATED", "bad") in drawn[0]
    shown = "\n".join(map(text, drawn))
    assert "web-0: a condemned guest runs again" in shown
    assert "page 0 was  4a c0 a3 8b 63 05 cc 10" in shown
    assert "page 0 is   00 00 00 00 00 00 00 00" in shown


def test_a_machine_that_ran_on_is_shown_with_the_bytes_before_and_after() -> None:
    had, found = "e9 66 ff ff ff 00 00 00", "00 00 00 00 00 00 00 00"
    end = events.VmEnded("web-0.1", "INTERNAL_ERROR", 0x1FFFFFF, past_memory=True, began=0x95, had=had, found=found)
    view = view_of()
    view = replace(view, sandboxes={"web-0": replace(view.sandboxes["web-0"], vm_end=end)})
    drawn = [text(line).rstrip() for line in lines(Scene(BY_NAME["machine"], Span(""), view, {}, [FOUND]), 80)]
    assert drawn[2:5] == [
        " ‼ web-0: a condemned guest runs again",
        "   0x95 was  e9 66 ff ff ff 00 00 00   its next instruction",
        "   0x95 is   00 00 00 00 00 00 00 00   KVM_EXIT_INTERNAL_ERROR, rip 0x1ffffff",
    ]


def test_the_bar_of_a_beat_stays_beside_the_next() -> None:
    drawn = [text(line) for line in lines(Scene(BY_NAME["on"], Span(""), view_of(peak_ratio=1.03), {"off": 2.0}), 80)]
    off, on, axis = drawn[2:5]
    assert "peak 2.00x" in off
    assert "peak 1.03x" in on
    assert abs(off.index("┃") - axis.index("╵2x")) <= 1
    assert abs(on.index("┃") - axis.index("╵1x")) <= 1


def test_the_peak_of_a_pause_that_goes_on_is_of_its_guests_memory() -> None:
    assert highest_peak(view_of(peak=48 * MIB)) == 1.5
    assert highest_peak(View()) == 0.0


RIGHT = {beat.name: beat.verdict for beat in BEATS}


@pytest.mark.parametrize(
    ("verdicts", "whole", "verdict"),
    [
        (RIGHT, True, Verdict.HELD),
        ({**RIGHT, "wrong": "held"}, True, Verdict.VIOLATED),
        ({**RIGHT, "on": "violated"}, True, Verdict.VIOLATED),
        ({"off": "held"}, True, Verdict.INCONCLUSIVE),
        ({"off": "held"}, False, Verdict.HELD),
        ({}, False, Verdict.INCONCLUSIVE),
    ],
)
def test_the_talk_holds_where_each_beat_came_to_what_it_should(
    verdicts: dict[str, Any], whole: bool, verdict: Verdict
) -> None:
    told, found = summary(verdicts, whole=whole)
    assert found is verdict
    assert len(told) == len(verdicts)


def test_what_was_cut_short_may_have_come_to_less_but_not_to_a_violation() -> None:
    lines, verdict = summary({"off": "held", "wrong": "held"}, whole=False, cut_short={"wrong"})
    assert (lines[1], verdict) == ("HELD         wrong, cut short", Verdict.HELD)
    _, verdict = summary({"off": "violated"}, whole=False, cut_short={"off"})
    assert verdict is Verdict.VIOLATED
