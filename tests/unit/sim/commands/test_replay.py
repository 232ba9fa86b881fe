"""`snapdrill replay` folds a recording and tells it; nothing of the engine's system calls is loaded for it."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from sim import cli
from sim.record import events
from sim.record.ledger import Ledger
from sim.record.verdict import ExitCode

MIB = 1 << 20


@pytest.fixture
def recording(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A run folder: web-0 killed at 2 s, web-1 running."""
    folder = tmp_path / "demo" / "20260102T030405Z-42"
    folder.mkdir(parents=True)
    (tmp_path / "demo" / "latest").symlink_to(folder.name)
    now = 0.0
    monkeypatch.setattr("sim.record.ledger.time.monotonic", lambda: now)
    ledger = Ledger(folder / "events.jsonl", began=0.0)
    ledger.append(events.RunStarted(1, "0.1.0", "r1", "demo", 42, [], "2026-01-02T03:04:05Z", 0, "disk", None))
    for name in ("web-0", "web-1"):
        now += 0.5
        ledger.append(events.SandboxCreated(32 * MIB, 4096, 4096, "python", "acme", "local"), sandbox=name)
        ledger.append(events.StateChanged("created", "running", "spawned"), sandbox=name)
        ledger.append(events.GuestMeasured(5 * MIB), sandbox=name)
    now = 2.0
    ledger.append(events.StateChanged("running", "killed", "asked to", "killed"), sandbox="web-0")
    now = 3.0
    ledger.append(events.RunEnded("held", 0, {"running": 1, "killed": 1}, "a" * 64, 0))
    ledger.close()
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["replay", *map(str, arguments)]) == ExitCode.HELD
    return capsys.readouterr().out


def test_a_recording_is_told_with_times_then_its_state_and_its_summary(
    recording: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, recording)
    happened, rest = text.split("\nstate at 3.000 s\n")
    state, summary = rest.split("\n\n", 1)
    assert "   2.000 s  web-0 killed: asked to\n" in happened
    assert "holds" not in happened
    assert "  web-0    killed" in state
    assert summary.startswith("demo   seed 42   HELD")


def test_only_one_sandbox_is_told_where_one_is_asked_for(
    recording: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    happened = told(capsys, recording, "--sandbox", "web-1").partition("state at")[0]
    assert "web-1" in happened
    assert "web-0" not in happened


def test_the_state_at_a_moment_is_what_was_known_then(
    recording: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = told(capsys, recording, "--at", "1.5")
    assert text.rstrip().endswith(
        "state at 1.500 s\n"
        "  node starting, tick 0\n"
        "  sandbox  state    resident  cached  freed  pause  why\n"
        "  web-0    running   5.0 MiB       -      -  -      spawned\n"
        "  web-1    running   5.0 MiB       -      -  -      spawned"
    )
    assert "killed" not in text
    assert "HELD" not in text


def test_only_events_of_a_name_are_told_where_one_is_given(
    recording: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    happened = told(capsys, recording, "--event", "guest_measured", "--sandbox", "web-1").partition("\n\n")[0]
    assert happened == "   1.000 s  web-1 holds 5.0 MiB"
    assert cli.main(["replay", str(recording), "--event", "guest_mesured"]) == ExitCode.USAGE
    assert 'did you mean "guest_measured"?' in capsys.readouterr().err


def test_only_the_last_events_are_told_where_asked_for(
    recording: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    happened = told(capsys, recording, "--last", "2").partition("\n\n")[0]
    assert [line.split()[0] for line in happened.splitlines()] == ["2.000", "3.000"]
    assert told(capsys, recording, "--last", "0").startswith("\nstate at")


@pytest.mark.parametrize("way", [".", "events.jsonl", "../latest", ".."])
def test_a_run_may_be_named_by_folder_file_link_or_scenario(
    recording: pathlib.Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    assert "seed 42" in told(capsys, recording / way)


def test_an_unfinished_last_line_is_left_out(recording: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (recording / "events.jsonl").open("a") as file:
        file.write('{"t": 4.0, "event": "run_en')
    assert "state at 3.000 s" in told(capsys, recording)


def test_a_line_that_is_no_event_is_named(recording: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (recording / "events.jsonl").open("a") as file:
        file.write('{"t": 4.0, "event": "sandbox_flew"}\n')
    assert cli.main(["replay", str(recording)]) == ExitCode.USAGE
    assert "events.jsonl: line 10 is not an event" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["nowhere"], ["demo", "--sandbox", "db-0"]])
def test_what_is_not_there_is_named_in_one_line(
    recording: pathlib.Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    run, *options = arguments
    assert cli.main(["replay", str(recording.parent.parent / run), *options]) == ExitCode.USAGE
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_replaying_loads_neither_system_calls_nor_screen_nor_flags(recording: pathlib.Path) -> None:
    code = (
        "import sys; from sim.cli import main; main(sys.argv[1:]);"
        "print(sorted({'engine.linux', 'ctypes', 'textual', 'ldclient', 'numpy', 'flags'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "replay", str(recording)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
