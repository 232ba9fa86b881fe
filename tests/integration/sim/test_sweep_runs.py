"""Sweeps of a tiny fleet, over real runs."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import pytest

from sim.cli import main
from sim.files.faults import KINDS
from sim.files.scenario import load
from sim.record.verdict import ExitCode
from sim.run.runner import RunOptions, run_scenario
from tests.forked import forked_node

TINY = """\
# One sandbox with two chunks, paused twice.
name: tiny
seed: 3
node: {{memory: 64MiB, cache: tmpfs}}
engine: {engine}
fleet:
  - {{name: web, count: 1, memory: 4MiB, workload: {{dirty: 100%, pattern: full}}}}
flags: {{memfd-punch-on-snapshot: true, memfd-background-copy: false}}
steps:
  - tick: 1
  - pause: {{}}
  - resume: {{}}
expect:
  - {{metric: pauses, min: 1, max: 1}}
"""


@pytest.fixture
def tiny(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.format(engine="{}"))
    return path


def sweep(path: pathlib.Path, *arguments: str) -> int:
    return main(["sweep", str(path), "--runs-dir", str(path.parent / "runs"), *arguments])


def swept(capsys: pytest.CaptureFixture[str], path: pathlib.Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = sweep(path, "--json", *arguments)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    return code, document


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_kind_of_fault_at_a_chunk_and_at_a_resume_is_survived(
    tiny: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("copy.write/1/*", "condemn/*", "resume.read/*", "freeze/free-pages", "freeze/second-writer")
    code, document = swept(capsys, tiny, *(part for glob in chosen for part in ("--only", glob)))
    assert (code, document["violations"]) == (ExitCode.HELD, [])
    by_point, points = document["by_point"], ("copy.write", "resume.read", "freeze", "condemn")
    assert {kind for point in points for kind in by_point[point]} == set(KINDS)
    assert by_point["copy.write"]["errno"] == {"discarded": 1}
    assert by_point["copy.write"]["kill-node"] == {"discarded": 1}
    assert by_point["copy.write"]["corrupt"] == {"finished": 1}
    assert by_point["condemn"]["kill-node"] == {"rolled back": 1}
    assert by_point["resume.read"]["errno"] == {"running": 1}
    assert list((tiny.parent / "runs").glob("*")) == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_wrong_engine_is_found_and_its_case_runs_by_itself(
    tiny: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_text(TINY.format(engine="{mutant: discard-skipped}"))
    code, document = swept(capsys, tiny, "--only", "copy.write/*/errno")
    assert (code, document["cases"]) == (ExitCode.VIOLATED, 2)
    (found,) = document["violations"]  # chunk 0 fails before anything is condemned
    assert (found["case"], found["sandbox"]) == ("web-0.p1/copy.write/1/errno", "web-0")
    case = pathlib.Path(found["run_dir"]) / "scenario.yaml"
    assert found["run_again"] == f"snapdrill run {case}"
    result = asyncio.run(run_scenario(load(case), RunOptions(tiny.parent / "again", start_node=forked_node)))
    assert found["subject"] in {each.subject for each in result.view.judged if each.verdict == "violated"}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_as_many_cases_run_as_are_listed(tiny: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("--only", "*/delay", "--shard", "1/3")
    assert sweep(tiny, "--list", *chosen) == ExitCode.HELD
    listed = capsys.readouterr().out.splitlines()
    code, document = swept(capsys, tiny, *chosen)
    assert (code, document["cases"]) == (ExitCode.HELD, len(listed))
    assert len(listed) > 2


@pytest.mark.timeout(120)
def test_a_glob_that_matches_no_case_selects_nothing(tiny: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = swept(capsys, tiny, "--only", "no-such-point/*")
    assert (code, document["cases"]) == (ExitCode.NOTHING_SELECTED, 0)


@pytest.mark.timeout(120)
def test_a_budget_that_is_used_up_says_what_was_covered(tiny: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(tiny, "--budget", "1ms", "--only", "*/errno") == ExitCode.INCONCLUSIVE
    assert "stopped by --budget: covered 0 of " in capsys.readouterr().out
