"""`snapdrill check` and `snapdrill report` on a stored ledger: what they print and how they end."""

from __future__ import annotations

import json
import pathlib

import pytest

from engine import events as copying
from engine.events import Event
from sim import cli
from sim.record import events
from sim.record.ledger import Ledger
from sim.record.verdict import ExitCode
from sim.rules import RULES

LOST = {"sandbox": "web-0", "reason": "a guest runs although its memory was freed", "line": 9, "column": 5}


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """A run folder whose ledger has a guest that was started and ended, and no more."""
    folder = tmp_path / "demo" / "20260102T030405Z-42"
    folder.mkdir(parents=True)
    (folder / "scenario.yaml").write_text("name: demo\n")
    begin(folder)
    return folder


def begin(folder: pathlib.Path) -> None:
    tell(
        folder,
        (events.RunStarted(1, "0.1.0", "r1", "demo", 42, [], "2026-01-02T03:04:05Z", 0, "disk", None), None),
        (events.SandboxCreated(8192, 4096, 4096, "base", "acme", "local"), "web-0"),
        (events.GuestSpawned("web-0.1", 20, 1, 30, 3, 4, "none", 1.0, None), "web-0"),
        (events.StateChanged("created", "running", "created"), "web-0"),
        (events.GuestEnded("web-0.1", "the run ended"), "web-0"),
    )


def tell(folder: pathlib.Path, *told: tuple[Event, str | None]) -> None:
    ledger = Ledger(folder / "events.jsonl", began=0.0)
    for event, sandbox in told:
        ledger.append(event, sandbox=sandbox)
    ledger.close()


def end(folder: pathlib.Path, verdict: str = "held", **judged: events.Judged) -> None:
    """The run judged every invariant as held, but for those that are given."""
    rest = {name: events.Judged(f"invariant:{name}", "held", 1) for name in RULES} | judged
    code = {"held": 0, "violated": 1}[verdict]
    tell(folder, *((each, None) for each in rest.values()), (events.RunEnded(verdict, code, {}, None, 0), None))


def printed(capsys: pytest.CaptureFixture[str], code: ExitCode, *arguments: object) -> str:
    assert cli.main([*map(str, arguments)]) == code
    return capsys.readouterr().out


def test_a_run_that_held_holds_again(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    end(run)
    text = printed(capsys, ExitCode.HELD, "check", run)
    assert text.splitlines()[0] == f"{run}/events.jsonl   18 events   HELD"
    assert "legal_transitions     held, checked once  held, checked once" in text
    assert "bytes_exact           not exercised       held, checked once" in text
    assert "differences" not in text


def test_what_the_run_saw_and_its_ledger_does_not_tell_is_a_difference(
    run: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end(run, "violated", never_resumed=events.Judged("invariant:never_resumed", "violated", 1, [LOST]))
    text = printed(capsys, ExitCode.VIOLATED, "check", run)
    assert "never_resumed violated, by the run\n  - web-0: a guest runs although its memory was freed" in text
    assert "differences - never_resumed: the run itself saw a violation that its ledger does not show" in " ".join(
        text.split()
    )


def test_a_ledger_that_was_cut_off_is_inconclusive_and_says_so(
    run: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(capsys, ExitCode.INCONCLUSIVE, "check", run)
    assert "the ledger has no end of the run" in text
    assert "not recorded" in text


def test_a_violation_in_a_ledger_made_elsewhere_ends_with_1(
    run: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(run, (copying.Condemned("web-0.p1"), "web-0"), (events.StateChanged("running", "created", "?"), "web-0"))
    with (run / "events.jsonl").open("a") as file:
        file.write('{"t": 9, "event": "balloon_inflated"}\n')
    text = printed(capsys, ExitCode.VIOLATED, "check", "--trace", run / "events.jsonl")
    assert "left out, because this version does not know them: balloon_inflated (1)" in text
    assert "legal_transitions violated, by the ledger alone\n  - web-0: it went from running to created" in text


def test_a_bad_line_of_a_trace_ends_with_2_and_its_place(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "events.jsonl").open("a") as file:
        file.write('{"t": 9, "event": "ticked", "tick": "x"}\n')
    assert cli.main(["check", "--trace", str(run / "events.jsonl")]) == ExitCode.USAGE
    found = capsys.readouterr().err
    assert found == f"{run}/events.jsonl:6:29: error: ticked: tick: Input should be a valid integer\n"


@pytest.mark.parametrize("arguments", [[], ["demo", "--trace", "demo"]])
def test_a_run_or_a_trace_is_to_be_given_and_not_both(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.main(["check", *arguments]) == ExitCode.USAGE
    assert "give either RUN or --trace FILE" in capsys.readouterr().err


def test_the_check_document_holds_every_invariant(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    end(run)
    document = json.loads(printed(capsys, ExitCode.HELD, "check", run, "--json"))
    assert [each["name"] for each in document["invariants"]] == [name for name in RULES if name != "dirty_agrees"]
    assert (document["events"], document["exit_code"], document["unknown_events"]) == (18, 0, {})


def test_a_report_is_printed_as_the_run_printed_it(run: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    end(run, "violated", never_resumed=events.Judged("invariant:never_resumed", "violated", 1, [LOST]))
    text = printed(capsys, ExitCode.HELD, "report", run)
    assert text.startswith("demo   seed 42   VIOLATED")
    assert f"VIOLATED never_resumed\n  where      {run}/scenario.yaml:9:5" in text
    assert json.loads(printed(capsys, ExitCode.HELD, "report", run, "--json"))["verdict"] == "violated"


@pytest.mark.parametrize("command", ["check", "report", "replay"])
def test_a_folder_without_a_run_is_one_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, str(tmp_path)]) == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no events.jsonl; give a run folder" in line
