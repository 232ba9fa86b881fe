from __future__ import annotations

import json
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, cast

import pytest

from engine.errors import UserError
from sim.files.scenario import Scenario, load_text
from sim.record.verdict import ExitCode
from sim.run import sweep_report
from sim.run.batch import NEVER, Batch
from sim.run.cases import Unit, UnitResult
from sim.run.pool import LocalPool
from sim.run.sweep import Sweep, SweepOptions, choose, run
from sim.run.sweep_batch import Sweeps


class FakePool:
    """Runs nothing: tells what `came_of` says for each unit."""

    def __init__(self, came_of: Any) -> None:
        self.came_of = came_of
        self.units: list[Unit] = []
        self.closed = False
        self.lacking: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def lacks(self, scenario: Scenario) -> str | None:
        return self.lacking.get(scenario.name)

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


def swept(
    scenario: Scenario,
    pool: FakePool,
    how: SweepOptions,
    deadline: float | None = None,
    stops_at: frozenset[ExitCode] = NEVER,
) -> Sweep:
    sweep = choose(scenario, how, cast("LocalPool", pool))
    run(sweep, how, cast("LocalPool", pool), Batch(quiet=True, stops_at=stops_at), deadline)
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
    sweep = swept(scenario, pool, options(tmp_path), stops_at=frozenset({ExitCode.VIOLATED}))
    assert [each.outcome for each in sweep.results].index("violated") == len(sweep.results) - 1
    assert (sweep.stopped, pool.closed) == ("--fail-fast", True)


def test_no_case_begins_that_would_end_after_the_budget(
    tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool, cases: Any
) -> None:
    sweep = swept(scenario, pool, options(tmp_path), deadline=time.monotonic() + 0.4)  # a case is told to take 0.5 s
    assert len(sweep.results) == 1
    assert f"stopped by --budget: covered 1 of {len(cases)} cases, 1 of " in sweep_report.summary(sweep)


def test_an_interrupt_keeps_what_was_covered(tmp_path: pathlib.Path, scenario: Scenario, pool: FakePool) -> None:
    sweep, ends = choose(scenario, options(tmp_path), cast("LocalPool", pool)), pool.came_of

    def interrupt_the_fourth(unit: Unit) -> UnitResult:
        if len(pool.units) == 5:  # the clean run was the first
            raise KeyboardInterrupt
        return cast("UnitResult", ends(unit))

    pool.came_of = interrupt_the_fourth
    with pytest.raises(KeyboardInterrupt):
        run(sweep, options(tmp_path), cast("LocalPool", pool), Batch(quiet=True))
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
        "  sandbox     web-0\n"
        "  reason      it ran again\n"
        f"  run folder  {folder}\n"
        f"  run again   snapdrill run {folder}/scenario.yaml\n"
        f"  look at it  snapdrill replay {folder}"
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


# -- several scenarios


@pytest.fixture
def sweeps(tmp_path: pathlib.Path, pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sweeps]:
    """Of cases that write a chunk short, which roll back, or wrong, which is violated."""
    monkeypatch.setattr("sim.run.sweep_batch.open_pool", lambda *_: pool)
    how = options(tmp_path, only=("web-0.p1/copy.write/1/*",))
    return lambda batch, **more: Sweeps(how, batch, **more)


def named(scenario: Scenario, *names: str) -> list[Scenario]:
    return [load_text(scenario.source_text.replace("name: two", f"name: {each}"), scenario.path) for each in names]


def test_a_scenario_that_the_pool_cannot_run_is_skipped_and_named_on_standard_error(
    scenario: Scenario, pool: FakePool, sweeps: Callable[..., Sweeps], capsys: pytest.CaptureFixture[str]
) -> None:
    pool.lacking = {"a": "it requires root", "b": "it requires root"}
    batch = Batch(on_stderr=True)
    assert sweeps(batch).run(named(scenario, "a", "b")) == ExitCode.UNSUPPORTED
    printed = capsys.readouterr()
    assert printed.err == "a: skipped: it requires root\nb: skipped: it requires root\n"
    assert (printed.out, pool.units) == ("", [])
    assert [each["name"] for each in batch.skipped] == ["a", "b"]


def test_with_fail_fast_no_scenario_is_swept_behind_a_violation(
    scenario: Scenario, pool: FakePool, sweeps: Callable[..., Sweeps]
) -> None:
    batch = Batch(quiet=True, stops_at=frozenset({ExitCode.VIOLATED}))
    made = sweeps(batch)
    assert made.run(named(scenario, "a", "b")) == ExitCode.VIOLATED
    assert ([each.scenario.name for each in made.sweeps], batch.not_run) == (["a"], ["b"])
    assert sum(each.name == "clean" for each in pool.units) == 1


@pytest.mark.parametrize("name", ["clean", "web-0.p1/copy.write/1/delay"])
def test_an_interrupt_reports_each_sweep_once_as_far_as_it_went(
    scenario: Scenario, pool: FakePool, sweeps: Callable[..., Sweeps], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    ends = pool.came_of

    def end_the_second(unit: Unit) -> UnitResult:
        if [each.name for each in pool.units].count(name) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return cast("UnitResult", ends(unit))

    pool.came_of = end_the_second
    assert sweeps(Batch(on_stderr=True)).run(named(scenario, "a", "b", "c")) == ExitCode.TERMINATED
    printed = capsys.readouterr()
    assert printed.out.count("sweep of a ") == 1
    assert printed.out.count("sweep of b ") == (name != "clean")
    assert printed.out.count("stopped by an interrupt") == (name != "clean")
    assert printed.err.endswith("b: interrupted; everything it started was ended\n")
    assert "sweep of c " not in printed.out


def test_a_list_is_of_names_alone(
    scenario: Scenario, pool: FakePool, sweeps: Callable[..., Sweeps], capsys: pytest.CaptureFixture[str]
) -> None:
    pool.lacking = {"a": "it requires root"}
    assert sweeps(Batch(on_stderr=True), only_list=True).run(named(scenario, "a", "b")) == ExitCode.HELD
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "web-0.p1/copy.write/1/errno"
    assert {each.rpartition("/")[0] for each in lines} == {"web-0.p1/copy.write/1"}


def test_scenarios_share_a_budget_with_those_that_can_be_swept(
    scenario: Scenario, pool: FakePool, sweeps: Callable[..., Sweeps], monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float] = []

    def note(*given: Any) -> None:
        deadlines.append(given[-1] - 1000.0)

    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    monkeypatch.setattr("sim.run.sweep_batch.run", note)
    pool.lacking = {"b": "it requires root"}
    sweeps(Batch(quiet=True), budget=60.0).run(named(scenario, "a", "b", "c"))
    assert deadlines == [30.0, 60.0]
