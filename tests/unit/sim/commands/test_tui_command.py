from __future__ import annotations

import pathlib
from typing import Any

import click
import pytest

from engine.errors import UserError
from sim.cli import main
from sim.commands import tui
from sim.files.scenario import load_text
from sim.record import events
from sim.record.verdict import ExitCode
from sim.record.view import View
from sim.run.drill import Drill
from sim.tui.available import is_terminal
from sim.tui.fleet_app import FleetApp

RUN = events.RunStarted(1, "0", "ab12", "demo", 42, [], "", 1, "disk", None)


def test_without_a_terminal_the_scenario_is_run_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def run(**options: Any) -> ExitCode:
        asked.update(options)
        return ExitCode.INCONCLUSIVE

    monkeypatch.setattr("sim.commands.run.command.callback", run)
    assert main(["tui", "some.yaml", "--seed", "7"]) == ExitCode.INCONCLUSIVE
    assert (asked["paths"], asked["seed"]) == ((pathlib.Path("some.yaml"),), 7)
    told = capsys.readouterr().err.splitlines()
    assert told == ["snapdrill: no terminal, so no screen; this runs instead: snapdrill run some.yaml"]


@pytest.mark.parametrize(("term", "usable"), [("xterm-256color", True), ("dumb", False), ("", False)])
def test_a_terminal_that_cannot_draw_is_none(term: str, usable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", term)
    assert is_terminal() is usable


def test_a_wrong_scenario_is_one_line_a_mistake(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tui, "is_terminal", lambda: True)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nsteps: []\n")
    assert main(["tui", str(wrong)]) == ExitCode.USAGE
    assert f"{wrong}:" in capsys.readouterr().err


def test_the_verdict_of_the_run_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    judged = (
        events.Judged("invariant:no_leaks", "held", 1),
        events.Judged("invariant:never_resumed", "violated", 3, [{"sandbox": "web-0", "reason": "ran again"}]),
    )
    ended = View(run=RUN, ended=events.RunEnded("violated", 1, {}, "", 0), judged=judged)
    assert tui._print_verdict(ended) == ExitCode.VIOLATED
    assert capsys.readouterr().out.splitlines() == [
        "VIOLATED  demo  seed 42  run ab12",
        "  never_resumed violated: web-0 ran again",
    ]


def test_a_run_that_was_cut_off_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert tui._print_verdict(View(run=RUN)) == ExitCode.INCONCLUSIVE
    assert "cut off" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--stage", "some.yaml"], ["--autopilot", "--seed", "7"], ["--stage", "--relay"]]
)
def test_the_stage_brings_its_own_fleets(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tui", *arguments]) == ExitCode.USAGE
    assert "--stage has its own fleets and seed" in capsys.readouterr().err


def test_the_stage_needs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tui", "--stage"]) == ExitCode.USAGE
    assert "--stage needs a terminal" in capsys.readouterr().err


def test_an_unknown_theme_is_told_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tui, "is_terminal", lambda: True)
    assert main(["tui", "--theme", "pink"]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "no theme is called pink; there are: " in told
    assert "high-contrast" in told


@pytest.mark.parametrize("crash", ["the run", "the screen"])
def test_after_a_crash_the_command_that_shows_the_run_is_printed(
    crash: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = load_text("name: x\nfleet: [{name: web, count: 1, memory: 8MiB}]\nsteps: [{tick: 1}]\n", tmp_path / "x")
    drill = Drill(scenario, runs_dir=tmp_path)
    drill.run_dir = tmp_path
    app = FleetApp(lambda: drill)

    async def crashes(app: FleetApp) -> None:
        if crash == "the run":
            app.failure = UserError("no memory")
            raise app.failure
        app._return_code = 1  # what textual leaves where a handler raised

    monkeypatch.setattr("sim.tui.fleet_app.drive", crashes)
    with pytest.raises((UserError, click.exceptions.Exit)):
        tui._drive(app, [drill])
    assert capsys.readouterr().err == f"snapdrill: to see what happened: snapdrill replay {tmp_path} --tui\n"


def test_a_lease_is_of_a_relay_and_a_duration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tui", "--lease", "2s"]) == ExitCode.USAGE
    assert "add --relay" in capsys.readouterr().err
    assert main(["tui", "--relay", "--lease", "soon"]) == ExitCode.USAGE
    assert "--lease: expected" in capsys.readouterr().err


def test_one_option_serves_the_flags_over_a_stream_that_keys_can_break() -> None:
    assert tui._loaded(None, None, relay=False, lease=None, obey_unsafe=False).flag_source == "inline"
    assert tui._loaded(None, None, relay=True, lease="2s", obey_unsafe=False).flag_source == "relay"


def test_a_relay_that_no_key_can_break_is_not_left_out_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tui", "--relay"]) == ExitCode.USAGE
    assert "--relay needs a terminal for its keys" in capsys.readouterr().err
