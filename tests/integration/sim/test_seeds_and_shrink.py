"""Seeds and shrinking with real nodes and guests: what is drawn holds, a planted violation is reduced and repeated."""

from __future__ import annotations

import json
import pathlib
import re

import pytest

from sim.files.yaml import parse
from tests.command_line import snapdrill

ROOT = pathlib.Path(__file__).parents[3]
SWARM = ROOT / "scenarios" / "swarm" / "fleet.yaml"
PADDED = """\
version: 1
name: padded
seed: 3
engine: {mutant: discard-skipped}
node: {memory: 256MiB, cache: tmpfs}
fleet:
  - {name: web, count: 2, memory: 8MiB, workload: {dirty: 60%, pattern: scattered}}
  - {name: api, count: 1, memory: 4MiB, workload: {dirty: 10%, pattern: runs}}
flags: {memfd-punch-on-snapshot: {rollout: 100%, by: sandbox}, memfd-background-copy: false}
steps:
  - tick: 2
  - pause: {sandboxes: "api-*"}
  - resume: {sandboxes: "api-*"}
  - inject: {fault: copy.write, errno: EIO, at: {chunk: 1}, sandboxes: web-1}
  - pause: {sandboxes: "web-*"}
  - clear: {}
  - tick: 1
expect:
  - {invariant: failed_copy_discards}
"""


def test_drawn_seeds_hold_and_leave_nothing(tmp_path: pathlib.Path) -> None:
    run = snapdrill("run", SWARM, "--seeds", "1-5", "--jobs", 2, "--runs-dir", tmp_path, "--json")
    document = json.loads(run.stdout)
    (scenario,) = document["scenarios"]
    assert scenario["failing"] == [], run.stderr
    assert scenario["run"] == scenario["held"] == 5
    assert document["exit_code"] == run.returncode
    assert list(tmp_path.iterdir()) == []


def test_one_seed_alone_is_what_the_seed_draws(tmp_path: pathlib.Path) -> None:
    run = snapdrill("run", SWARM, "--seed", 4, "--runs-dir", tmp_path)
    (stored,) = (path for path in tmp_path.glob("*/*/scenario.yaml") if path.parent.name != "latest")
    assert parse(stored.read_text()).data["seed"] == 4
    assert "swarm" not in parse(stored.read_text()).data
    assert "violated" not in run.stdout
    again = snapdrill("validate", stored)
    assert again.returncode == 0, again.stderr


def test_seeds_of_a_plain_scenario_are_judged_together(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("name: plain\nfleet:\n  - {name: web, memory: 4MiB}\nsteps:\n  - tick: 1\n  - pause: {}\n")
    run = snapdrill("run", path, "--seeds", "1,5", "--runs-dir", tmp_path / "runs")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "plain   2 seeds   HELD" in run.stdout


def test_what_does_not_go_with_seeds_is_told() -> None:
    run = snapdrill("run", SWARM, "--seeds", "1-5", "--seed", 3)
    assert run.returncode == 2
    assert "--seed does not go with --seeds" in run.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_planted_violation_is_shrunk_to_a_few_lines_and_repeated(tmp_path: pathlib.Path) -> None:
    (tmp_path / "padded.yaml").write_text(PADDED)
    first = snapdrill("run", tmp_path / "padded.yaml", "--runs-dir", tmp_path / "runs")
    assert first.returncode == 1, first.stderr
    shrunk = snapdrill("shrink", tmp_path / "runs" / "padded" / "latest")
    assert shrunk.returncode == 0, shrunk.stdout + shrunk.stderr
    smallest = tmp_path / "runs" / "padded" / "latest" / "smallest.yaml"
    data = parse(smallest.read_text()).data
    assert [key for step in data["steps"] for key in step] == ["tick", "inject", "pause"]
    assert len(data["fleet"]) == 1
    assert len(smallest.read_text().splitlines()) <= 15
    assert smallest.read_text().startswith("# The smallest scenario found that violates invariant:never_resumed")
    command = re.search(r"run it +(snapdrill .*)", shrunk.stdout)
    assert command
    again = snapdrill(*command[1].split()[1:], "--runs-dir", tmp_path / "again")
    assert again.returncode == 1
    assert "VIOLATED failed_copy_discards" in again.stdout
    assert "its guest is still there" in again.stdout


def test_what_does_not_fail_is_not_shrunk(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sound.yaml").write_text(PADDED.replace("engine: {mutant: discard-skipped}\n", ""))
    run = snapdrill("shrink", tmp_path / "sound.yaml", "--out", tmp_path / "smallest.yaml")
    assert run.returncode == 3
    assert "it does not fail" in run.stderr
    assert not (tmp_path / "smallest.yaml").exists()
