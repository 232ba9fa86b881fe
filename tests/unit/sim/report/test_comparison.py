"""Two runs are the same where their digests' facts are; of each sandbox the first difference is told."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from engine.events import Event
from sim import cli
from sim.record import events
from sim.record.ledger import Ledger
from sim.record.verdict import ExitCode

PUNCH = "memfd-punch-on-snapshot"


def settled(**changes: Any) -> events.PauseSettled:
    told: dict[str, Any] = {
        "outcome": "finished", "path": "memfd", "punch": True, "punch_reason": "", "dirty_bytes": 4096,
        "punched_bytes": 4096, "peak_over": 1 << 20, "peak_ratio": 1.25, "copy_ms": 3.0, "blocked_ms": 4.0,
        "condemned": True,
        "build": "web-0.p1", "content_hash": "aa",
    }  # fmt: skip
    return events.PauseSettled(**told | changes)


def run(
    folder: pathlib.Path,
    *,
    decided: bool = True,
    seed: int = 7,
    more: tuple[tuple[str, Event], ...] = (),
    **changes: Any,
) -> pathlib.Path:
    """A run folder: web-0 was paused, and what else the test tells."""
    folder.mkdir()
    ledger = Ledger(folder / "events.jsonl", began=0.0)
    ledger.append(events.RunStarted(1, "0.1.0", folder.name, "demo", seed, [], "2026-01-02T03:04:05Z", 0, "disk", None))
    ledger.append(events.SandboxCreated(4096, 4096, 4096, "base", "acme", "local"), sandbox="web-0")
    ledger.append(events.StateChanged("created", "running", "created"), sandbox="web-0")
    ledger.append(events.Decided({PUNCH: {"value": decided, "version": seed}}), sandbox="web-0", pause="web-0.p1")
    ledger.append(settled(**changes), sandbox="web-0", pause="web-0.p1")
    for sandbox, event in more:
        ledger.append(event, sandbox=sandbox)
    ledger.append(events.RunEnded("held", 0, {"running": 1}, "d" * 64, 0))
    ledger.close()
    return folder


def compared(
    capsys: pytest.CaptureFixture[str], one: pathlib.Path, other: pathlib.Path, code: ExitCode, *options: str
) -> str:
    assert cli.main(["diff", str(one), str(other), *options]) == code
    return capsys.readouterr().out


def test_runs_that_differ_only_in_what_was_measured_are_the_same(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = run(tmp_path / "a"), run(tmp_path / "b", copy_ms=99.0, peak_ratio=1.5)
    text = compared(capsys, one, other, ExitCode.HELD)
    assert "the same decisions, outcomes and contents" in text
    assert text.splitlines()[-1].split() == ["copy,", "ms", "median,", "punch", "on", "3.0", "99.0"]


def differences(text: str) -> list[list[str]]:
    """The cells of each line of the table of differences."""
    table = text.partition("what happened\n")[2].partition("\n\n")[0]
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]


def test_the_first_difference_of_a_sandbox_is_told_and_no_later_one(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = run(tmp_path / "a"), run(tmp_path / "b", decided=False, outcome="rolled-back")
    text = compared(capsys, one, other, ExitCode.VIOLATED)
    assert differences(text) == [["web-0", "2", "A", f"decided {PUNCH} on"], ["B", f"decided {PUNCH} off"]]
    assert "peak ratio at most, punch on" in text
    assert "peak ratio at most, punch off" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"outcome": "discarded"}, "pause discarded: path memfd, punched, 4096 bytes dirty, content aa"),
        ({"punch": False}, "pause finished: path memfd, not punched, 4096 bytes dirty, content aa"),
        ({"content_hash": "bb"}, "pause finished: path memfd, punched, 4096 bytes dirty, content bb"),
    ],
)
def test_another_outcome_or_content_is_told(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str
) -> None:
    text = compared(capsys, run(tmp_path / "a"), run(tmp_path / "b", **changes), ExitCode.VIOLATED)
    finished = "pause finished: path memfd, punched, 4096 bytes dirty, content aa"
    flat = " ".join(text.split())
    assert f"web-0 3 A {finished} B {told}" in flat


def test_what_only_one_has_is_told_beside_nothing(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = (
        ("web-1", events.StateChanged("created", "running", "")),
        ("web-0", events.FaultFired(1, "punch", "EIO", 2)),
    )
    text = compared(capsys, run(tmp_path / "a"), run(tmp_path / "b", more=more), ExitCode.VIOLATED)
    assert differences(text) == [
        ["web-1", "1", "A", "nothing"],
        ["B", "created -> running"],
        ["web-0", "a fault", "A", "nothing"],
        ["B", "fault punch EIO fired"],
    ]


def test_the_document_holds_differences_and_figures(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = run(tmp_path / "a"), run(tmp_path / "b", seed=8, outcome="discarded")
    document = json.loads(compared(capsys, one, other, ExitCode.VIOLATED, "--json"))
    assert (document["version"], document["same"]) == (1, False)
    assert [(each["sandbox"], each["number"]) for each in document["differences"]] == [("web-0", 3)]
    assert {"name": "seed", "first": "7", "second": "8"} in document["figures"]


def test_a_folder_without_a_run_is_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diff", str(run(tmp_path / "a")), str(tmp_path)]) == ExitCode.USAGE
    assert "no events.jsonl there" in capsys.readouterr().err
