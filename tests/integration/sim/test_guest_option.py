"""`--guest vm` where no virtual machine can run: every command that runs a fleet says so, and starts nothing."""

from __future__ import annotations

import pathlib

import pytest

from sim.cli import main
from sim.record.verdict import ExitCode

LACKS = "there is no /dev/kvm; needed is a host that has it"
TINY = "name: tiny\nfleet: [{name: web, memory: 4MiB}]\nsteps: [{tick: 1}, {pause: {}}]\n"
PLAN = "kind: plan\nname: plan\nfleet: [{name: web, memory: 4MiB}]\nsteps: [{setWeight: 50}, {wait: {for: 1m}}]\n"


@pytest.fixture
def without_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.run.needs._no_machines", lambda: LACKS)


@pytest.mark.usefixtures("without_machines")
@pytest.mark.parametrize(
    "line",
    [
        "run tiny.yaml --guest vm",
        "run tiny.yaml --guest vm --dry-run",
        "run tiny.yaml --guest vm --seeds 1-2 --jobs 1",
        "sweep tiny.yaml --guest vm --jobs 1",
        "rehearse plan.yaml --guest vm",
        "shrink machine.yaml --jobs 1",
        "tui tiny.yaml --guest vm",  # without a terminal this runs it
    ],
)
def test_a_command_whose_guests_cannot_be_had_is_refused_with_what_would_allow_them(
    line: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "machine.yaml").write_text(TINY.replace("4MiB", "4MiB, guest: vm"))
    (tmp_path / "plan.yaml").write_text(PLAN)
    assert main(line.split()) == ExitCode.UNSUPPORTED
    printed = capsys.readouterr()
    assert LACKS in printed.out + printed.err
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.usefixtures("without_machines")
def test_auto_is_refused_nowhere(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert main(["run", str(tmp_path / "tiny.yaml"), "--guest", "auto", "--dry-run"]) == ExitCode.HELD
    assert capsys.readouterr().err == ""


def test_a_guest_of_another_kind_is_no_kind(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "sweep", "rehearse", "tui"):
        assert main([command, "x.yaml", "--guest", "container"]) == ExitCode.USAGE
        assert "'container' is not one of 'process', 'vm', 'auto'" in capsys.readouterr().err


def test_a_run_that_is_watched_keeps_its_guests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tui", "--attach", "runs/x", "--guest", "vm"]) == ExitCode.USAGE
    assert "--guest is for a fleet that is started" in capsys.readouterr().err
