"""`--obey-unsafe`: as if it were written in the scenario, with every part in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flags.document import DocumentError
from flags.inline import flag_from
from sim.cli import main
from sim.files.scenario import Scenario, load, load_text
from sim.record.fold import Fold
from sim.record.ledger import Entry
from sim.record.verdict import ExitCode
from sim.report.failure import run_command
from tests.story import run_started

PUNCH = "memfd-punch-on-snapshot"
ENTRIES = [{"variation": 0, "weight": 0}, {"variation": 1, "weight": 0}]
UNSAFE = {**flag_from(PUNCH, True), "fallthrough": {"rollout": {"contextKind": "sandbox", "variations": ENTRIES}}}


def scenario(tmp_path: Path, flags: str, flag: dict[str, Any] = UNSAFE) -> Path:
    (tmp_path / "flags.json").write_text(json.dumps({"flags": {PUNCH: flag}}))
    path = tmp_path / "unsafe.yaml"
    path.write_text(
        f"name: unsafe\nflags: {flags}\nfleet: [{{name: web, count: 1, memory: 4MiB}}]\nsteps: [pause: {{}}]\n"
    )
    return path


def obeying(path: Path) -> Scenario:
    return load(path, obey_unsafe=True)


def test_a_flag_file_with_errors_of_lint_is_refused_and_obeyed_where_that_is_asked_for(tmp_path: Path) -> None:
    path = scenario(tmp_path, "{file: flags.json}")
    with pytest.raises(DocumentError, match="the weights sum to 0"):
        load(path)
    assert obeying(path).obeys_unsafe
    assert load(scenario(tmp_path, "{file: flags.json, obey_unsafe: true}")).obeys_unsafe


def test_a_rule_on_what_a_group_says_of_its_sandboxes_is_no_error(tmp_path: Path) -> None:
    big = {"contextKind": "sandbox", "attribute": "cores", "op": "greaterThan", "values": [4]}
    flag = {**flag_from(PUNCH, True), "rules": [{"variation": 0, "clauses": [big]}]}
    path = scenario(tmp_path, "{file: flags.json}", flag)
    with pytest.raises(DocumentError, match='unknown attribute "cores"'):
        load(path)
    path.write_text(path.read_text().replace("count: 1", "count: 1, attributes: {cores: 8}"))
    assert not load(path).obeys_unsafe


def test_what_the_decoder_refuses_is_refused_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match='LaunchDarkly refuses memfd-punch-on-snapshot: "salt"'):
        obeying(scenario(tmp_path, "{file: flags.json}", {**UNSAFE, "salt": 3}))


@pytest.mark.parametrize("flags", ["{file: flags.json}", "{source: relay, memfd-punch-on-snapshot: true}"])
def test_the_text_that_is_kept_says_it_and_every_part_keeps_its_place(flags: str, tmp_path: Path) -> None:
    path = scenario(tmp_path, flags)
    made = obeying(path)
    assert made.where(("fleet", 0, "memory")) == (3, 39)
    assert made.facts()["obey_unsafe"] is True
    again = load_text(made.source_text, path)
    assert (again.obeys_unsafe, again.sandboxes(), again.steps) == (True, made.sandboxes(), made.steps)


def test_the_scenarios_own_values_have_nothing_to_obey(tmp_path: Path) -> None:
    path = scenario(tmp_path, "{memfd-punch-on-snapshot: true}")
    assert obeying(path).source_text == path.read_text()


def test_it_is_an_option_of_run_and_of_no_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(scenario(tmp_path, "{file: flags.json}"))
    assert main(["run", path, "--dry-run"]) == ExitCode.USAGE
    assert main(["run", path, "--dry-run", "--obey-unsafe"]) == ExitCode.HELD
    assert main(["tui", "--stage", "--obey-unsafe"]) == ExitCode.USAGE
    assert "--obey-unsafe is for a scenario that is run" in capsys.readouterr().err


def test_the_command_that_runs_it_again_says_it_where_the_file_does_not(tmp_path: Path) -> None:
    fold, run = Fold(), tmp_path / "runs" / "unsafe" / "1"
    fold.apply([Entry(0.0, run_started(obey_unsafe=True), None, None)])
    assert "--obey-unsafe" in run_command(fold.view(), run, tmp_path / "unsafe.yaml").split()
    assert "--obey-unsafe" not in run_command(fold.view(), run, run / "scenario.yaml").split()
