"""Scenario files under pytest: which are collected, what an item says, and that nobody else's run is disturbed."""

from __future__ import annotations

import pathlib

import pytest

from sim.files.scenario import Scenario
from sim.record import events
from sim.record.fold import Fold
from sim.record.folder import StoredRun
from sim.record.ledger import EVENTS_FILE, Entry
from sim.record.verdict import Verdict
from sim.run.runner import RunOptions

pytest_plugins = ["pytester"]

INI = "[pytest]\naddopts = -p no:cacheprovider\nasyncio_default_fixture_loop_scope = function\n"
GOOD = """\
version: 1
name: {name}
fleet:
  - {{name: web, memory: 4MiB}}
steps:
  - tick: 1
"""


async def pretend(scenario: Scenario, options: RunOptions) -> StoredRun:
    """A run of no length whose verdict is in its name."""
    run_dir = options.runs_dir / scenario.name / "run"
    run_dir.mkdir(parents=True)
    verdict = next((each for each in Verdict if each in scenario.name), Verdict.HELD)
    started = events.RunStarted(
        1, "0", "r", scenario.name, 7, [], "2026-01-02T03:04:05Z", 1, "disk", None
    )  # fmt: skip
    reason = {"sandbox": "web-0", "reason": "page 3 differs", "line": 5, "column": 3}
    judged = events.Judged("invariant:bytes_exact", str(verdict), 1, [] if verdict == Verdict.HELD else [reason])
    ended = events.RunEnded(str(verdict), verdict.exit_code, {}, "d" * 64, 0)
    entries = [Entry(float(t), each, None, None) for t, each in enumerate((started, judged, ended))]
    fold = Fold()
    fold.apply(entries)
    return StoredRun(run_dir / EVENTS_FILE, entries, fold.view())


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test-suite of somebody else, with scenarios in a folder of their own and one beside the tests."""
    monkeypatch.setattr("sim.run.runner.run_scenario", pretend)
    pytester.makeini(INI)
    for folder in ("drills", "tests"):
        (pytester.path / folder).mkdir()
    for path in ("drills/web-held.yaml", "tests/also-held.yaml"):
        (pytester.path / path).write_text(GOOD.format(name=pathlib.Path(path).stem))
    (pytester.path / "drills" / "compose.yaml").write_text("services:\n  fleet: {}\n")
    (pytester.path / "drills" / "plan.yaml").write_text("kind: plan\nname: rollout\nfleet: []\nsteps: []\n")
    (pytester.path / "tests" / "test_own.py").write_text("def test_own():\n    assert True\n")
    return pytester


def test_a_run_that_names_no_scenario_collects_none(project: pytest.Pytester) -> None:
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_folder_above_the_scenarios_names_none_of_them(project: pytest.Pytester) -> None:
    project.runpytest_inprocess(".").assert_outcomes(passed=1)


def test_a_folder_that_is_named_gives_its_scenarios_and_no_other_yaml(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("drills", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["drills/web-held.yaml::web-held PASSED*"])


def test_a_scenario_whose_fleet_is_misspelt_is_not_passed_over(project: pytest.Pytester) -> None:
    (project.path / "drills" / "web-held.yaml").write_text(GOOD.format(name="web-held").replace("fleet:", "fleat:"))
    result = project.runpytest_inprocess("drills")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fleat: unknown key*"])


def test_a_file_that_is_named_is_run(project: pytest.Pytester) -> None:
    project.runpytest_inprocess("tests/also-held.yaml").assert_outcomes(passed=1)


def test_the_option_and_the_setting_collect_every_scenario(project: pytest.Pytester) -> None:
    project.runpytest_inprocess("--snapdrill", "--snapdrill-runs-dir", "first").assert_outcomes(passed=3)
    project.makeini(f"{INI}snapdrill = true\n")
    project.runpytest_inprocess().assert_outcomes(passed=3)


def test_what_failed_ends_with_the_failure_block_and_no_traceback(project: pytest.Pytester) -> None:
    (project.path / "drills" / "web-violated.yaml").write_text(GOOD.format(name="web-violated"))
    result = project.runpytest_inprocess("drills", "--junitxml=out.xml")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "VIOLATED bytes_exact",
            "  where*drills/web-violated.yaml:5:3",
            "  reason*page 3 differs",
            "  run again*--seed 7*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "sim/run/runner.py" not in result.stdout.str()
    assert '<property name="seed" value="7"' in (project.path / "out.xml").read_text()


def test_what_is_inconclusive_fails_too(project: pytest.Pytester) -> None:
    (project.path / "drills" / "web-inconclusive.yaml").write_text(GOOD.format(name="web-inconclusive"))
    project.runpytest_inprocess("drills").assert_outcomes(passed=1, failed=1)


def test_what_the_host_cannot_run_is_skipped_with_its_reason(project: pytest.Pytester) -> None:
    big = GOOD.format(name="big").replace("4MiB", "4194304GiB") + "node: {memory: 4194304GiB}\n"
    (project.path / "drills" / "big.yaml").write_text(big)
    result = project.runpytest_inprocess("drills", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*it needs 4194304GiB of memory and *"])


def test_every_mistake_of_a_file_is_told_where_it_is_collected(project: pytest.Pytester) -> None:
    (project.path / "drills" / "bad.yaml").write_text(GOOD.format(name="bad") + "sed: 1\nseed: -1\n")
    result = project.runpytest_inprocess("drills")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*drills/bad.yaml:7:1: error: sed: unknown key*", "*bad.yaml:8:7: error: seed: *"])


def test_run_folders_go_where_they_are_wanted_and_hold_the_reports(project: pytest.Pytester) -> None:
    project.runpytest_inprocess("drills", "--snapdrill-runs-dir", "elsewhere").assert_outcomes(passed=1)
    kept = {each.name for each in (project.path / "elsewhere" / "web-held" / "run").iterdir()}
    assert kept == {"report.json", "junit.xml", "report.html"}


def test_the_plugin_loads_nothing_heavy_into_other_peoples_runs(project: pytest.Pytester) -> None:
    (project.path / "tests" / "test_own.py").write_text(
        "import sys\ndef test_own():\n    assert 'sim.pytest_plugin' in sys.modules\n"
        "    assert not {'pydantic', 'numpy', 'ldclient', 'sim.files.scenario'} & set(sys.modules)\n"
    )
    project.runpytest_subprocess("tests/test_own.py").assert_outcomes(passed=1)
