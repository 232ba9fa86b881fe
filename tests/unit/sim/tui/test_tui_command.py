from __future__ import annotations

import pathlib
from typing import Any

import pytest

from sim import events
from sim.cli import main
from sim.commands import tui
from sim.verdict import ExitCode
from sim.view import View

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
    assert told == ["snapdrill: no terminal for the screen; this is: snapdrill run some.yaml"]


@pytest.mark.parametrize(("term", "usable"), [("xterm-256color", True), ("dumb", False), ("", False)])
def test_a_terminal_that_cannot_draw_is_none(term: str, usable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", term)
    assert tui._is_terminal() is usable


def test_a_wrong_scenario_is_one_line_a_mistake(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tui, "_is_terminal", lambda: True)
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
    assert tui._told(ended) == ExitCode.VIOLATED
    assert capsys.readouterr().out.splitlines() == [
        "VIOLATED  demo  seed 42  run ab12",
        "  never_resumed violated: web-0 ran again",
    ]


def test_a_run_that_was_cut_off_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert tui._told(View(run=RUN)) == ExitCode.INCONCLUSIVE
    assert "cut off" in capsys.readouterr().err
