"""The self-test on real memory: every wrong engine is caught; one that is not is told; a violation can be run again."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from sim.files.scenario import load, load_text
from sim.files.shipped import scenario_folder
from sim.files.wrong_engines import SWITCHES
from sim.rollout.bench_host import pool_of
from sim.run import self_test, whole_drill
from sim.run.batch import Batch
from sim.run.pool import LocalPool, local_pool
from tests import command_line

PAGES = 16 << 20  # bytes of 2 MiB pages that one of the scenarios needs; where there are none, another takes its place


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_wrong_engine_and_drill_is_caught_and_the_sound_one_holds(tmp_path: pathlib.Path) -> None:
    with pool_of(PAGES), local_pool() as pool:
        findings = self_test.run(self_test.trials(), pool, tmp_path, Batch(quiet=True))
        findings += whole_drill.run(self_test.drills(), findings, tmp_path)
    assert [(each.trial.name, each.why) for each in findings if each.outcome not in {"CAUGHT", "SKIPPED"}] == []
    assert sum(each.outcome == "CAUGHT" for each in findings) > len(findings) // 2
    assert list(tmp_path.glob("*/*")) == []


def test_a_wrong_engine_that_its_checker_cannot_see_survives(tmp_path: pathlib.Path) -> None:
    (trial,) = self_test.trials(["punch-before-publish"])
    text = trial.scenario.source_text.replace("mutant: punch-before-publish", "mutant: clean-page-lost")
    blind = dataclasses.replace(trial, scenario=load_text(text, trial.scenario.path))
    with LocalPool(1, 1 << 30) as pool:
        (found,) = self_test.run([blind], pool, tmp_path, Batch(quiet=True))
    assert (found.outcome, found.why) == ("SURVIVED", "its rule saw no violation")
    assert found.run_dir is not None
    assert (found.run_dir / "events.jsonl").is_file()


def test_a_blind_rule_whose_scenario_does_not_need_it_survives(tmp_path: pathlib.Path) -> None:
    (drill,) = self_test.drills(["half-blind:no_leaks"])
    elsewhere = dataclasses.replace(drill, scenario=load(scenario_folder("self-test") / "hash-untrue.yaml"))
    (found,) = whole_drill.run([elsewhere], [], tmp_path, 1)
    assert (found.outcome, found.why) == ("SURVIVED", "the canary of no_leaks was caught all the same")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_drill_is_refused_to_everybody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("SNAPDRILL_WRONG_DRILL", "exit-code-lies:1")
    line = [
        sys.executable,
        "-c",
        "import sys; from sim.cli import main; sys.exit(main())",
        "run",
        "scenarios/demo.yaml",
    ]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    result = subprocess.run(line, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert (result.returncode, result.stdout) == (2, "")
    assert "SNAPDRILL_WRONG_DRILL is for the self-test alone" in result.stderr


def test_a_profile_that_is_mended_of_everything_is_the_sound_engine(tmp_path: pathlib.Path) -> None:
    (trial,) = self_test.trials(["pr-2902:range-granular"])
    engine = f"engine: {{profile: pr-2902, mended: [{', '.join(SWITCHES)}]}}\nfleet:"
    text = self_test.sound(trial).replace("fleet:", engine)
    mended = dataclasses.replace(trial, scenario=load_text(text, trial.scenario.path))
    with LocalPool(1, 1 << 30) as pool:
        (found,) = self_test.run([mended], pool, tmp_path, Batch(quiet=True))
    assert (found.outcome, found.why) == ("SURVIVED", "its rule saw no violation")


def snapdrill(command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    assert program == "snapdrill"
    return command_line.snapdrill(*arguments)


def test_a_violation_that_nobody_expected_ends_in_a_block_whose_commands_work(tmp_path: pathlib.Path) -> None:
    shipped = load(scenario_folder("self-test") / "resume-after-punch.yaml").source_text
    path = tmp_path / "wrong.yaml"
    path.write_text(re.sub(r"  - \{verdict: violated, (invariant: \w+)\}.*", r"  - {\1}", shipped))
    result = snapdrill(f"snapdrill run {shlex.quote(str(path))} --runs-dir {tmp_path}")
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stdout.startswith("ENGINE: resume-after-punch (wrong on purpose)\n")
    block = next(b for b in result.stdout.split("\n\n") if b.startswith("VIOLATED never_resumed"))
    assert "sandbox    web-1" in block
    assert "a condemned guest runs again" in block
    assert f"{path}:" in block
    again = re.search(r"run again +(snapdrill .*)", block)
    look = re.search(r"look at it (snapdrill .*)", block)
    assert again
    assert look
    rerun = snapdrill(again[1])
    assert rerun.returncode == 1
    assert "VIOLATED never_resumed" in rerun.stdout
    replay = snapdrill(look[1])
    assert replay.returncode == 0
    assert "web-1" in replay.stdout
