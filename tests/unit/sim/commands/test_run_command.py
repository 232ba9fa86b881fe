"""`snapdrill run`: what is refused before anything starts, what is skipped by name, and the exit code of it all."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError, UserError
from sim.cli import main
from sim.files.scenario import Scenario
from sim.record import events
from sim.record.fold import Fold
from sim.record.folder import RunFolderFullError, StoredRun
from sim.record.ledger import EVENTS_FILE, Entry
from sim.record.verdict import ExitCode, Verdict
from sim.run.node_link import execute_node
from sim.run.runner import Progress, RunOptions

GOOD = """\
name: {name}
node: {{memory: {memory}}}
fleet:
  - {{name: {group}, count: 2, memory: {memory}}}
steps:
  - tick: 1
"""


class Folder:
    """A folder of scenarios, and what was started of them instead of a fleet."""

    def __init__(self, path: Path) -> None:
        self.path = path / "scenarios"
        self.path.mkdir()
        self.runs = path / "runs"
        self.started: list[tuple[str, RunOptions]] = []
        self.verdicts: dict[str, str] = {}
        self.errors: dict[str, Exception] = {}

    def write(self, name: str, *, group: str = "web", memory: str = "64MiB") -> Path:
        half = memory if memory != "64MiB" else "32MiB"
        text = GOOD.format(name=name, group=group, memory=memory).replace(f"count: 2, memory: {memory}", "{size}")
        size = f"count: 2, memory: {half}" if memory == "64MiB" else f"memory: {half}"
        (self.path / f"{name}.yaml").write_text(text.replace("{size}", size))
        return self.path / f"{name}.yaml"

    def write_too_large(self, name: str = "large") -> Path:
        """It needs more memory than any host has."""
        return self.write(name, group="big", memory="4194304GiB")

    async def run(self, scenario: Scenario, options: RunOptions, progress: Progress) -> StoredRun:
        """Stands in for the runner: a run of no length that ends with the verdict the test wants."""
        self.started.append((scenario.name, options))
        if scenario.name in self.errors:
            raise self.errors[scenario.name]
        run_dir = options.runs_dir / scenario.name / "run"
        run_dir.mkdir(parents=True)
        verdict = self.verdicts.get(scenario.name, "held")
        started = events.RunStarted(1, "0", "ab12", scenario.name, 0, [], "2026-01-02T03:04:05Z", 1, "disk", None)
        ended = events.RunEnded(verdict, Verdict(verdict).exit_code, {}, "d" * 64, 0)
        entries = [Entry(float(t), each, None, None) for t, each in enumerate((started, ended))]
        fold = Fold()
        fold.apply(entries)
        return StoredRun(run_dir / EVENTS_FILE, entries, fold.view())

    def snapdrill(self, *arguments: str | Path) -> int:
        return main(["run", *map(str, arguments), "--runs-dir", str(self.runs)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    made = Folder(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setattr("sim.run.one_by_one.run_scenario", made.run)
    return made


@pytest.fixture
def nothing_started(folder: Folder) -> Callable[[], bool]:
    return lambda: folder.started == [] and not folder.runs.exists()


# -- bad input


def test_every_mistake_of_every_file_is_told_at_once_and_nothing_is_started(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("good")
    for name, wrong in {"a": "sed: 1\nseed: -1\n", "b": "expect: [{metric: peak_over}]\n"}.items():
        path = folder.write(name)
        path.write_text(path.read_text() + wrong)
    assert folder.snapdrill(folder.path) == ExitCode.USAGE
    told = capsys.readouterr()
    a, b = (f"{folder.path}/{name}.yaml" for name in ("a", "b"))
    assert told.err.removeprefix("snapdrill: ").splitlines() == [
        f'{a}:7:1: error: sed: unknown key; did you mean "seed"?',
        f"{a}:8:7: error: seed: expected at least 0, got -1",
        f"{b}:7:10: error: expect[0]: a metric without a bound expects nothing; add min or max",
    ]
    assert told.out == ""
    assert nothing_started()


def test_a_path_that_is_not_there_is_told(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.snapdrill(folder.write("good"), folder.path / "nope.yaml") == ExitCode.USAGE
    assert capsys.readouterr().err == f"snapdrill: {folder.path}/nope.yaml: no such file or folder\n"
    assert nothing_started()


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--keep", "some"], ["--time-limit", "0"], ["--bogus"]])
def test_an_option_that_makes_no_sense_starts_nothing(
    folder: Folder, nothing_started: Callable[[], bool], arguments: list[str]
) -> None:
    assert folder.snapdrill(folder.write("good"), *arguments) == ExitCode.USAGE
    assert nothing_started()


def test_a_sandbox_that_no_scenario_has_is_told_with_the_nearest_name(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("one")
    folder.write("two", group="api")
    assert folder.snapdrill(folder.path, "--only", "wbe-1") == ExitCode.USAGE
    assert capsys.readouterr().err == 'snapdrill: no sandbox "wbe-1"; did you mean "web-1"?\n'
    assert nothing_started()


def test_an_unknown_sandbox_beside_a_known_one_is_told_too(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder.write("one")
    assert folder.snapdrill(path, "--only", "web-0", "--only", "api-0", "--only", "web-2") == ExitCode.USAGE
    assert capsys.readouterr().err.splitlines() == [
        'snapdrill: no sandbox "api-0"; use one of: web-0, web-1',
        'no sandbox "web-2"; did you mean "web-1"?',
    ]
    assert nothing_started()


def test_a_folder_without_scenarios_selects_nothing(folder: Folder, nothing_started: Callable[[], bool]) -> None:
    assert folder.snapdrill(folder.path) == ExitCode.NOTHING_SELECTED
    assert folder.snapdrill(folder.path, "--strict") == ExitCode.NOTHING_SELECTED
    assert nothing_started()


# -- what is run


def test_scenarios_are_run_in_order_with_what_was_asked_for(folder: Folder) -> None:
    folder.write("b")
    folder.write("a")
    options = ["--seed", "9", "--keep", "failed", "--time-limit", "5"]
    assert folder.snapdrill(folder.path, *options) == ExitCode.HELD
    assert [name for name, _ in folder.started] == ["a", "b"]
    given = replace(folder.started[0][1], start_node=execute_node)  # of two runs the nodes are forked
    assert given == RunOptions(folder.runs, seed=9, only=(), keep="failed", time_limit=5.0)


def test_only_the_scenarios_that_have_the_sandbox_are_run(folder: Folder) -> None:
    folder.write("one")
    folder.write("two", group="api")
    assert folder.snapdrill(folder.path, "--only", "api-1") == ExitCode.HELD
    assert [(name, options.only) for name, options in folder.started] == [("two", ("api-1",))]


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ({}, ExitCode.HELD),
        ({"a": "inconclusive"}, ExitCode.INCONCLUSIVE),
        ({"a": "inconclusive", "b": "violated"}, ExitCode.VIOLATED),
    ],
    ids=str,
)
def test_the_worst_verdict_is_the_code_and_every_scenario_is_run(
    folder: Folder, verdicts: dict[str, str], code: ExitCode
) -> None:
    folder.verdicts = verdicts
    for name in ("a", "b", "c"):
        folder.write(name)
    assert folder.snapdrill(folder.path) == code
    assert len(folder.started) == 3


def test_each_run_leaves_its_report_and_junit_beside_its_ledger(folder: Folder) -> None:
    folder.write("a")
    folder.snapdrill(folder.path)
    report = json.loads((folder.runs / "a" / "run" / "report.json").read_text())
    assert (report["name"], report["verdict"]) == ("a", "held")
    assert (folder.runs / "a" / "run" / "junit.xml").read_text().startswith("<?xml")


# -- what the host cannot run


def test_a_scenario_that_needs_more_than_the_host_has_is_skipped_by_name(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.snapdrill(folder.write_too_large()) == ExitCode.UNSUPPORTED
    assert capsys.readouterr().out.startswith("large: skipped: it needs 4194304GiB of memory and ")
    assert nothing_started()


@pytest.mark.parametrize(("options", "code"), [([], ExitCode.HELD), (["--strict"], ExitCode.UNSUPPORTED)])
def test_a_skip_beside_a_run_decides_only_when_strict(folder: Folder, options: list[str], code: ExitCode) -> None:
    folder.write_too_large()
    folder.write("small")
    assert folder.snapdrill(folder.path, *options) == code
    assert [name for name, _ in folder.started] == ["small"]


# -- dry run and JSON


def test_a_dry_run_says_what_would_run_and_starts_nothing(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("small")
    folder.write_too_large()
    assert folder.snapdrill(folder.path, "--dry-run") == ExitCode.HELD
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("large: 1 sandbox, 4194304GiB of guest memory in up to ")
    assert lines[1].startswith("  would be skipped: it needs 4194304GiB of memory and ")
    assert lines[2:] == ["small: 2 sandboxes, 64MiB of guest memory in up to 32 chunks; at most 64MiB in all"]
    assert nothing_started()


def test_a_dry_run_of_nothing_selects_nothing(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.snapdrill(folder.path, "--dry-run") == ExitCode.NOTHING_SELECTED
    assert capsys.readouterr().out == "nothing selected\n"
    assert nothing_started()


def test_a_dry_run_of_a_wrong_file_is_refused_all_the_same(folder: Folder) -> None:
    path = folder.write("wrong")
    path.write_text(path.read_text() + "sed: 1\n")
    assert folder.snapdrill(path, "--dry-run") == ExitCode.USAGE


def test_json_is_one_document_on_stdout_that_knows_skips_and_the_exit_code(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_too_large()
    folder.write("small")
    assert folder.snapdrill(folder.path, "--json", "--strict") == ExitCode.UNSUPPORTED
    told = capsys.readouterr()
    document: dict[str, Any] = json.loads(told.out)
    assert document["exit_code"] == ExitCode.UNSUPPORTED
    assert [each["name"] for each in document["scenarios"]] == ["small"]
    assert [each["name"] for each in document["skipped"]] == ["large"]
    assert "large: skipped: " in told.err


# -- what is handed over beside the run folder


def test_events_and_json_cannot_both_have_standard_output(
    folder: Folder, nothing_started: Callable[[], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.snapdrill(folder.write("a"), "--json", "--events", "-") == ExitCode.USAGE
    assert "--json and --events - both write to standard output; use --events FILE" in capsys.readouterr().err
    assert nothing_started()


def test_with_events_on_standard_output_people_are_told_on_standard_error(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.snapdrill(folder.write("a"), folder.write_too_large(), "--events", "-") == ExitCode.HELD
    told = capsys.readouterr()
    assert told.out == ""
    assert "a   seed 0   HELD" in told.err
    assert "large: skipped: " in told.err
    assert folder.started[0][1].events is not None


def test_metrics_of_all_runs_go_into_one_file(folder: Folder, tmp_path: Path) -> None:
    folder.write("a")
    folder.write("b")
    assert folder.snapdrill(folder.path, "--prometheus", tmp_path / "metrics.prom") == ExitCode.HELD
    text = (tmp_path / "metrics.prom").read_text()
    assert 'snapdrill_run_exit_code{scenario="a",verdict="held"} 0.0' in text
    assert 'snapdrill_run_exit_code{scenario="b",verdict="held"} 0.0' in text


@pytest.mark.parametrize("option", ["--prometheus", "--events"])
def test_a_file_that_cannot_be_written_is_told_before_anything_starts(
    folder: Folder,
    nothing_started: Callable[[], bool],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    option: str,
) -> None:
    assert folder.snapdrill(folder.write("a"), option, tmp_path / "no" / "file") == ExitCode.USAGE
    assert f"{tmp_path}/no/file: cannot be written: " in capsys.readouterr().err
    assert nothing_started()


def test_every_run_has_a_page_of_tables(folder: Folder) -> None:
    folder.snapdrill(folder.write("a"))
    page = (folder.runs / "a" / "run" / "report.html").read_text()
    assert '<span class="good">HELD</span> a' in page
    assert "snapdrill run --html" in page


def test_in_a_step_of_github_actions_failures_are_annotated_and_summed_up(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    folder.verdicts = {"b": "violated"}
    for name in ("a", "b"):
        folder.write(name)
    folder.write_too_large()
    assert folder.snapdrill(folder.path, "--json") == ExitCode.VIOLATED
    told = capsys.readouterr()
    assert json.loads(told.out)["verdict"] == "violated"
    assert [line.partition("::")[2].split()[0] for line in told.err.splitlines() if line.startswith("::")] == [
        "error",
        "notice",
    ]
    summary = (tmp_path / "summary.md").read_text()
    assert summary.index("### HELD: a (seed 0)") < summary.index("### VIOLATED: b (seed 0)")


# -- variables, matrices, and where to stop


def write_matrix(folder: Folder, name: str = "m") -> Path:
    text = GOOD.format(name=name, group="web", memory="${{ vars.memory }}").replace("count: 2, ", "")
    text = text.replace("${{ vars.memory }}", '"${{ vars.memory }}"')
    text += "seed: ${{ matrix.seed }}\nmatrix: {seed: [1, 2, 3]}\nvars: {memory: 4MiB}\n"
    (folder.path / f"{name}.yaml").write_text(text)
    return folder.path / f"{name}.yaml"


def test_a_matrix_is_run_combination_by_combination(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.snapdrill(write_matrix(folder), "--dry-run") == ExitCode.HELD
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["m[seed=1]", "m[seed=2]", "m[seed=3]"]
    assert folder.snapdrill(folder.path / "m.yaml") == ExitCode.HELD
    assert [name for name, _ in folder.started] == ["m-seed-1", "m-seed-2", "m-seed-3"]


def test_a_variable_takes_the_command_line_s_value(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.snapdrill(write_matrix(folder), "--var", "memory=8MiB", "--dry-run") == ExitCode.HELD
    assert "1 sandbox, 8MiB of guest memory" in capsys.readouterr().out


def test_a_variable_of_one_file_is_none_of_the_others_business(folder: Folder) -> None:
    write_matrix(folder)
    folder.write("other")
    assert folder.snapdrill(folder.path, "--var", "memory=8MiB", "--dry-run") == ExitCode.HELD


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["memroy=8MiB"], '--var memroy: no scenario uses a variable "memroy"; did you mean "memory"?'),
        (["memory"], '--var "memory": write KEY=VALUE'),
        (["=1"], '--var "=1": write KEY=VALUE'),
        (["memory=1MiB", "memory=2MiB"], '--var "memory=2MiB": memory is given twice; remove one of them'),
    ],
)
def test_a_variable_that_no_scenario_uses_or_that_is_no_variable_starts_nothing(
    folder: Folder,
    nothing_started: Callable[[], bool],
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    told: str,
) -> None:
    arguments = [part for each in given for part in ("--var", each)]
    assert folder.snapdrill(write_matrix(folder), *arguments) == ExitCode.USAGE
    assert capsys.readouterr().err == f"snapdrill: {told}\n"
    assert nothing_started()


def test_without_variables_the_hint_says_how_to_declare_one(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.snapdrill(folder.write("a"), "--var", "x=1") == ExitCode.USAGE
    assert "none of these scenarios has variables; declare it under vars" in capsys.readouterr().err


@pytest.mark.parametrize("verdict", ["violated", "inconclusive"])
def test_with_fail_fast_nothing_runs_behind_the_first_that_did_not_hold(
    folder: Folder, capsys: pytest.CaptureFixture[str], verdict: str
) -> None:
    folder.verdicts = {"b": verdict}
    for name in ("a", "b", "c", "d"):
        folder.write(name)
    assert folder.snapdrill(folder.path, "--fail-fast", "--json") == Verdict(verdict).exit_code
    assert [name for name, _ in folder.started] == ["a", "b"]
    told = capsys.readouterr()
    assert json.loads(told.out)["not_run"] == ["c", "d"]
    assert "c: not run (--fail-fast)\nd: not run (--fail-fast)\n" in told.err


def raised_in_handling(number: int, error: Exception) -> Exception:
    """An error that was raised while another one, of this host, was handled."""
    error.__context__ = OSError(number, "the host cannot")
    return error


DEFECT = "b: internal error: this is a defect of snapdrill"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("b.yaml:3:1: error: the node is down"), ExitCode.USAGE, "snapdrill: b.yaml:3:1: error: the node"),
        (ValueError("who knows"), ExitCode.INTERNAL, DEFECT),
        (raised_in_handling(errno.EMFILE, KeyError("who")), ExitCode.INTERNAL, DEFECT),
        (raised_in_handling(errno.ENOSPC, AttributeError("who")), ExitCode.INTERNAL, DEFECT),
        (raised_in_handling(errno.EMFILE, EngineError("no")), ExitCode.INCONCLUSIVE, "b: no verdict: no: an error of"),
        (RunFolderFullError(Path("runs")), ExitCode.INCONCLUSIVE, "b: no space is left on the disk of runs: "),
    ],
)
@pytest.mark.parametrize("options", [["--keep-going"], ["--fail-fast"], []])
def test_one_that_cannot_be_run_to_its_end_is_told_and_the_others_go_on(
    folder: Folder,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: ExitCode,
    told: str,
    options: list[str],
) -> None:
    folder.errors = {"b": error}
    for name in ("a", "b", "c"):
        folder.write(name)
    assert folder.snapdrill(folder.path, *options) == code
    assert [name for name, _ in folder.started] == (["a", "b"] if "--fail-fast" in options else ["a", "b", "c"])
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("verdict", "code"), [("held", ExitCode.INCONCLUSIVE), ("violated", ExitCode.VIOLATED)])
def test_a_report_that_a_full_disk_cannot_take_is_told_beside_the_verdict(
    folder: Folder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verdict: str,
    code: ExitCode,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sim.run.one_by_one.Outputs.add", full)
    folder.verdicts = {"a": verdict}
    assert folder.snapdrill(folder.write("a")) == code
    told = capsys.readouterr()
    assert told.err.startswith(
        "a: its report cannot be stored: [Errno 28] No space left on device; free some disk space\n"
    )
    assert verdict.upper() in told.out
