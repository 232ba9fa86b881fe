"""Real runs judged again by their ledgers: a sound engine's holds, a wrong engine's shows without a look at reality."""

from __future__ import annotations

import json
import pathlib

import pytest

from sim import cli
from sim.record.verdict import ExitCode

CRASH = """
name: crash
seed: 5
fleet:
  - {name: web, count: 2, memory: 8MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-punch-on-snapshot: true, memfd-background-copy: false}
steps:
  - tick: 1
  - crash: {at: {fault: copy.write, chunk: 2}, sandboxes: web-0}
  - pause: {sandboxes: web-0}
  - restart: {}
  - inject: {fault: copy.write, errno: EIO, at: {chunk: 0}, sandboxes: web-1}
  - pause: {sandboxes: web-1}
  - clear: {}
  - tick: 1
  - pause: {sandboxes: web-1}
  - resume: {}
"""
SKIPPED = """
name: skipped
seed: 5
engine: {mutant: discard-skipped}
fleet:
  - {name: web, count: 1, memory: 8MiB, workload: {dirty: 100%, pattern: full}}
flags: {memfd-punch-on-snapshot: true, memfd-background-copy: false}
steps:
  - tick: 1
  - inject: {fault: copy.write, errno: EIO, at: {chunk: 2}}
  - pause: {}
"""


def ran(folder: pathlib.Path, text: str, code: ExitCode) -> pathlib.Path:
    """The run folder of a scenario that was really run."""
    folder.mkdir()
    scenario = folder / "scenario.yaml"
    scenario.write_text(text.lstrip())
    assert cli.main(["run", str(scenario), "--runs-dir", str(folder / "runs")]) == code
    (found,) = (folder / "runs").glob("*/latest")
    return found.resolve()


def checked(capsys: pytest.CaptureFixture[str], run: pathlib.Path, code: ExitCode) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert cli.main(["check", str(run), "--json"]) == code
    return {each["name"]: each for each in json.loads(capsys.readouterr().out)["invariants"]}


def test_a_run_with_a_crash_and_a_roll_back_holds_again_and_is_the_same_as_its_twin(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (ran(tmp_path / name, CRASH, ExitCode.HELD) for name in ("one", "other"))
    found = checked(capsys, one, ExitCode.HELD)
    assert [name for name, each in found.items() if each["differs"]] == []
    assert cli.main(["diff", str(one), str(other)]) == ExitCode.HELD


def test_a_discard_that_was_skipped_shows_in_the_ledger_alone(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = checked(capsys, ran(tmp_path / "wrong", SKIPPED, ExitCode.VIOLATED), ExitCode.VIOLATED)
    ledger = found["failed_copy_discards"]["ledger"]
    assert isinstance(ledger, dict)
    assert (ledger["verdict"], found["failed_copy_discards"]["differs"]) == ("violated", False)
