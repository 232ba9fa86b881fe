from __future__ import annotations

import pathlib
from collections.abc import Callable

from sim.files.scenario import Scenario, load_text
from sim.files.steps import Checkpoint, Crash, Expect, Inject, PauseStep, Resume
from sim.files.yaml import parse
from sim.run.sweep import Case, Point, Swept

OUT = pathlib.Path("case.yaml")


def kinds(text: str) -> list[str]:
    return [each.kind for each in load_text(text, OUT).steps]


def test_every_case_is_a_scenario_that_loads(scenario: Scenario, cases: list[Case]) -> None:
    swept = Swept(scenario, 5)
    names = {load_text(swept.case(each), OUT).name for each in cases}
    assert len(names) == len(cases)


def test_what_the_scenario_itself_expects_is_dropped_and_liveness_added(scenario: Scenario) -> None:
    clean = load_text(Swept(scenario, 5).clean(), OUT)
    assert clean.expect == ()
    (expected,) = [each for each in clean.steps if isinstance(each, Expect)]
    assert (clean.steps[-1], expected.state) == (expected, ("running", "discarded", "killed"))
    assert kinds(Swept(scenario, 5).clean()) == [
        "tick", "pause", "resume", "clear", "checkpoint", "clear", "resume", "tick", "pause", "resume", "expect",
    ]  # fmt: skip


def test_a_case_carries_the_seed_that_it_ran_with(scenario: Scenario, cases: list[Case]) -> None:
    assert load_text(Swept(scenario, 5).case(cases[0]), OUT).seed == 5


def test_the_fault_hits_one_sandbox_once_in_one_pause_at_one_chunk(
    scenario: Scenario, case: Callable[[str], Case]
) -> None:
    first = load_text(Swept(scenario, 5).case(case("web-1.p1/copy.write/1/hang")), OUT).steps[0]
    assert isinstance(first, Inject)
    assert (first.fault, first.sandboxes, first.count, first.nth) == ("copy.write", "web-1", 1, 1)
    assert first.harm.error == "hang 10 ms"


def test_a_fault_is_armed_after_the_last_step_that_would_forget_it(
    scenario: Scenario, case: Callable[[str], Case]
) -> None:
    text = Swept(scenario, 5).case(case("web-0.p2/copy.write/0/errno"))
    assert kinds(text)[:6] == ["tick", "pause", "resume", "clear", "inject", "checkpoint"]


def test_a_crash_is_followed_by_a_restart_behind_the_step_that_it_ends(
    scenario: Scenario, case: Callable[[str], Case]
) -> None:
    text = Swept(scenario, 5).case(case("web-0.i2/guest.spawn/kill-node"))
    assert kinds(text)[:6] == ["crash", "tick", "pause", "resume", "restart", "clear"]
    crash = load_text(text, OUT).steps[0]
    assert isinstance(crash, Crash)
    assert crash.at is not None
    assert (crash.at.fault, crash.at.nth, crash.sandboxes) == ("guest.spawn", 2, "web-0")


def test_a_selection_that_the_fault_left_empty_is_no_verdict(scenario: Scenario, cases: list[Case]) -> None:
    steps = load_text(Swept(scenario, 5).case(cases[0]), OUT).steps
    selecting = [each for each in steps if isinstance(each, PauseStep | Resume | Checkpoint)]
    assert all(each.allow_empty and each.deadline == 30 for each in selecting)


def test_a_sandbox_whose_snapshot_was_corrupted_may_stay_paused_and_no_other(
    scenario: Scenario, case: Callable[[str], Case]
) -> None:
    text = Swept(scenario, 5).case(case("web-1.p1/copy.write/0/corrupt"))
    expected = {each.sandboxes: each.state for each in load_text(text, OUT).steps if isinstance(each, Expect)}
    assert {name for name, states in expected.items() if states and "paused" in states} == {"web-1"}
    assert set(expected) == {"web-0", "web-1"}


def test_a_scenario_that_ends_with_its_node_down_is_restarted_before_the_epilogue(scenario: Scenario) -> None:
    text = scenario.source_text.replace("  - checkpoint: {}\n", "  - crash: {}\n")
    assert kinds(Swept(load_text(text, OUT), 5).clean())[4:7] == ["crash", "restart", "clear"]


def test_a_flag_file_is_found_from_wherever_the_case_lies(tmp_path: pathlib.Path, scenario: Scenario) -> None:
    (tmp_path / "flags.json").write_text('{"flags": {}}')
    text = scenario.source_text.replace("{memfd-punch-on-snapshot: true}", "{file: flags.json}")
    swept = Swept(load_text(text, tmp_path / "scenario.yaml"), 5)
    assert parse(swept.clean()).data["flags"] == {"file": str(tmp_path / "flags.json")}


def test_a_long_name_is_cut_and_still_one_of_a_kind(scenario: Scenario) -> None:
    text = scenario.source_text.replace("name: web", f"name: {'w' * 50}").replace('"web-*"', '"*"')
    swept = Swept(load_text(text, OUT), 5)
    found = [swept.case(Case(Point(f"{'w' * 50}-0", "freeze", None, 1, 1), kind)) for kind in ("errno", "delay")]
    names = {load_text(each, OUT).name for each in found}
    assert len(names) == 2
    assert all(len(each) <= 60 for each in names)
