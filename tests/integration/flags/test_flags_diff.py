"""`snapdrill flags diff --live`, against the loopback relay and the SDK's own stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flags.inline import Rollout, flag_from
from flags.relay import Relay, serve_file
from sim.cli import main
from sim.record.verdict import ExitCode

PUNCH = "memfd-punch-on-snapshot"


def write(path: Path, percent: float) -> Path:
    path.write_text(json.dumps({"flags": {PUNCH: flag_from(PUNCH, Rollout(percent, "sandbox"))}}))
    return path


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-of-nobody")
    with serve_file(write(tmp_path / "live.json", 50), lambda _: None) as relay:
        yield relay


def test_the_same_file_has_no_drift(relay: Relay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = write(tmp_path / "here.json", 50)
    assert main(["flags", "diff", str(here), "--live", "--uri", relay.uri]) == ExitCode.HELD
    assert capsys.readouterr().out == f"{here}: no difference\n"


def test_drift_is_told_and_ends_with_1(relay: Relay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = write(tmp_path / "here.json", 10)
    assert main(["flags", "diff", str(here), "--live", "--uri", relay.uri]) == ExitCode.VIOLATED
    assert capsys.readouterr().out.splitlines() == [
        f"flag {PUNCH}: fallthrough.rollout.variations[0].weight: 90000 here, 50000 live",
        f"flag {PUNCH}: fallthrough.rollout.variations[1].weight: 10000 here, 50000 live",
        f"{here}: 2 differences",
    ]


def test_drift_as_json_has_both_values(relay: Relay, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = write(tmp_path / "here.json", 10)
    main(["flags", "diff", str(here), "--live", "--uri", relay.uri, "--json"])
    differences = json.loads(capsys.readouterr().out)["differences"]
    assert [(each["here"], each["live"]) for each in differences] == [(90_000, 50_000), (10_000, 50_000)]


def test_a_service_that_does_not_answer_ends_with_2(
    relay: Relay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relay.down()
    here = write(tmp_path / "here.json", 10)
    assert main(["flags", "diff", str(here), "--live", "--uri", relay.uri, "--timeout", "0.3"]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "LaunchDarkly sent no flags in 0.3 s" in told
    assert "sdk-of-nobody" not in told


def test_without_a_key_launchdarkly_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LAUNCHDARKLY_SDK_KEY", raising=False)
    assert main(["flags", "diff", str(write(tmp_path / "here.json", 10)), "--live"]) == ExitCode.USAGE
    assert "set LAUNCHDARKLY_SDK_KEY" in capsys.readouterr().err


def test_there_is_nothing_else_to_compare_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flags", "diff", str(write(tmp_path / "here.json", 10))]) == ExitCode.USAGE
    assert "--live" in capsys.readouterr().err
