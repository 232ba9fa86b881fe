from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest

from engine.errors import UserError
from sim.files.scenario import Scenario
from sim.record.verdict import ExitCode
from sim.run import sweep_report
from sim.run.cases import Unit, UnitResult
from sim.run.pool import LocalPool
from sim.run.sweep import Sweep, SweepOptions, choose, run


class FakePool:
    """Runs nothing: tells what `came_of` says for each unit."""

    def __init__(self, came_of: Any) -> None:
        self.came_of = came_of
        self.units: list[Unit] = []
        self.closed = False

    def run(self, units: Iterable[Unit]) -> Iterator[UnitResult]:
        try:
            for unit in units:
                self.units.append(unit)
                yield self.came_of(unit)
        finally:
            self.closed = True


def options(tmp_path: pathlib.Path, **more: Any) -> SweepOptions:
    return SweepOptions(**{"runs_dir": tmp_path, "jobs": 1, "memory": 1 << 40, **more})


@pytest.fixture
def pool(made: Any, cases: Any) -> FakePool:
    """Every fault fires; what is written wrong is a violation, all else is rolled back."""
    by_name = {each.name: each for each in cases}

    def came_of(unit: Unit) -> UnitResult:
        if unit.name == "clean":
            return cast("UnitResult", made.unit_result("clean", *made.trace()))
        case = by_name[unit.name]
        entries, folder = [made.fired(case), made.settled(case, "rolled-back")], None
        if case.kind == "corrupt":
            folder = unit.runs_dir / unit.name.replace("/", "-") / "now"
            folder.mkdir(parents=True)
            entries.append(made.broken())
        return cast("UnitResult", made.unit_result(unit.name, *entries, run_dir=folder))

    return FakePool(came_of)


def swept(scenario: Scenario, pool: FakePool, how: SweepOptions, deadline: float | None = None) -> Sweep:
    sweep = choose(scenario, how, cast("LocalPool", pool))
    run(sweep, how, cast("LocalPool", pool), deadline=deadline)
    return sweep


def test_a_sweep_runs_every_case_once_after_a_traced_clean_run(
    tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool, cases: Any
) -> None:
    sweep = swept(scenario, pool, options(tmp_path))
    assert [(each.name, each.trace) for each in pool.units[:2]] == [("clean", True), (cases[0].name, False)]
    assert [each.name for each in pool.units[1:]] == [each.name for each in cases]
    assert (len(sweep.results), sweep.found, sweep.exit_code) == (len(cases), len(cases), ExitCode.VIOLATED)


def test_a_selection_that_matches_nothing_is_nothing_selected(
    tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool
) -> None:
    assert swept(scenario, pool, options(tmp_path, only=("nosuch",))).exit_code == ExitCode.NOTHING_SELECTED


def test_a_scenario_in_which_nothing_can_fail_is_said_to_be_one(
    tmp_path: pathlib.Path, scenario: Scenario, made: Any
) -> None:
    sweep = swept(scenario, FakePool(lambda unit: made.unit_result(unit.name)), options(tmp_path))
    assert sweep.exit_code == ExitCode.NOTHING_SELECTED
    assert "no pause and no resume, so nothing can fail" in sweep_report.summary(sweep)
    assert "--seeds" not in sweep_report.summary(sweep)


def test_fail_fast_stops_at_the_first_violation(tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool) -> None:
    sweep = swept(scenario, pool, options(tmp_path, fail_fast=True))
    assert [each.outcome for each in sweep.results].index("violated") == len(sweep.results) - 1
    assert (sweep.stopped, pool.closed) == ("--fail-fast", True)


def test_no_case_begins_that_would_end_after_the_budget(
    tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool, cases: Any
) -> None:
    sweep = swept(scenario, pool, options(tmp_path), deadline=time.monotonic() + 0.4)  # a case is told to take 0.5 s
    assert len(sweep.results) == 1
    assert f"stopped by --budget: covered 1 of {len(cases)} cases, 1 of " in sweep_report.summary(sweep)


def test_an_interrupt_keeps_what_was_covered(tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool) -> None:
    how, told = options(tmp_path), []

    def interrupt(result: Any) -> None:
        told.append(result)
        if len(told) == 3:
            raise KeyboardInterrupt

    sweep = choose(scenario, how, cast("LocalPool", pool))
    with pytest.raises(KeyboardInterrupt):
        run(sweep, how, cast("LocalPool", pool), interrupt)
    assert (len(sweep.results), sweep.stopped) == (3, "an interrupt")


def test_a_case_that_needs_more_memory_than_there_is_is_refused_at_once(
    tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool
) -> None:
    with pytest.raises(UserError, match=r"two\.yaml: a run of two needs .*, and --memory is 1MiB"):
        choose(scenario, options(tmp_path, memory=1 << 20), cast("LocalPool", pool))
    assert pool.units == []


@pytest.mark.parametrize(
    ("judged", "more", "code", "why"),
    [
        (("invariant:no_leaks", "violated", "left"), {}, 1, "invariant:no_leaks: left"),
        (None, {"error": "it broke", "verdict": None}, 70, "it broke"),
        (("time-limit", "inconclusive", "too late"), {}, 3, "too late"),
    ],
)
def test_nothing_is_swept_where_the_clean_run_did_not_hold(
    tmp_path: pathlib.Path,
    scenario: Scenario,
    made: Any,
    judged: tuple[str, str, str] | None,
    more: dict[str, Any],
    code: int,
    why: str,
) -> None:
    found = [made.judged(judged[0], judged[1], reason=judged[2])] if judged else []
    pool = FakePool(lambda _: made.unit_result("clean", *made.trace(), *found, **more))
    sweep = swept(scenario, pool, options(tmp_path))
    assert (len(pool.units), sweep.exit_code) == (1, code)
    assert why in sweep_report.summary(sweep)


def test_only_folders_of_findings_are_left(tmp_path: pathlib.Path, scenario: Scenario, made: Any, case: Any) -> None:
    hit = case("web-0.p1/copy.write/0/errno")

    def came_of(unit: Unit) -> UnitResult:
        folder = tmp_path / unit.name.replace("/", "-") / "now"
        folder.mkdir(parents=True)
        (folder.parent / "latest").symlink_to("now")
        entries = made.trace() if unit.name == "clean" else ()
        return cast("UnitResult", made.unit_result(unit.name, *entries, run_dir=folder))

    swept(scenario, FakePool(came_of), options(tmp_path, only=(hit.name,)))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_case_that_has_not_ended_is_kept_for_its_record(
    tmp_path: pathlib.Path, scenario: Scenario, made: Any, case: Any
) -> None:
    hit, folder = case("web-0.p1/copy.write/0/errno"), tmp_path / "one" / "now"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}", encoding="utf-8")

    def came_of(unit: Unit) -> UnitResult:
        entries = made.trace() if unit.name == "clean" else ()
        return cast("UnitResult", made.unit_result(unit.name, *entries, run_dir=folder))

    sweep = swept(scenario, FakePool(came_of), options(tmp_path, only=(hit.name,)))
    assert [each.run_dir for each in sweep.results] == [folder]
    assert folder.exists()


def test_a_violation_ends_with_the_commands_to_go_on_with(
    tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool
) -> None:
    sweep = swept(scenario, pool, options(tmp_path, only=("web-0.p1/copy.write/1/corrupt",)))
    folder = tmp_path / "web-0.p1-copy.write-1-corrupt" / "now"
    assert sweep_report.blocks(sweep) == (
        "VIOLATED invariant:never_resumed in two web-0.p1/copy.write/1/corrupt\n"
        "  sandbox    web-0\n"
        "  reason     it ran again\n"
        f"  run folder {folder}\n"
        f"  run again  snapdrill run {folder}/scenario.yaml\n"
        f"  look at it snapdrill replay {folder}"
    )


def test_the_document_has_counts_violations_and_what_proves_nothing(
    tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool, made: Any
) -> None:
    sweep = swept(scenario, pool, options(tmp_path, only=("copy.write/0/corrupt", "punch/0/errno")))
    document = json.loads(json.dumps(sweep_report.document([sweep], 1)))
    assert (document["version"], document["cases"], document["exit_code"]) == (1, 6, 1)
    assert document["by_point"] == {
        "copy.write": {"corrupt": {"violated": 4}}, "punch": {"errno": {"rolled back": 2}},
    }  # fmt: skip
    assert {each["subject"] for each in document["violations"]} == {"invariant:never_resumed"}
    assert document["scenarios"][0]["proves_nothing"] == []


def test_junit_has_a_case_for_each_point_and_kind(tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool) -> None:
    sweep = swept(scenario, pool, options(tmp_path, only=("copy.write/0/*",)))
    suite = sweep_report.junit(sweep)
    assert {each.name for each in suite} == {each.kind for each in sweep.cases}
    assert [each.name for each in suite if each.result] == ["corrupt"]


def test_a_violation_is_annotated_at_its_scenario(
    tmp_path: pathlib.Path,
    scenario: Scenario,
    pool: FakePool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = swept(scenario, pool, options(tmp_path, only=("web-0.p1/copy.write/1/corrupt",)))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    sweep_report.tell_github([sweep])
    assert capsys.readouterr().err.startswith(
        "::error file=two.yaml,title=two%3A invariant%3Anever_resumed violated::web-0.p1/copy.write/1/corrupt: it ran"
    )
    assert "1 VIOL" in (tmp_path / "summary.md").read_text()
