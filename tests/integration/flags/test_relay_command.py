from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.errors import UserError
from flags.inline import flag_from
from flags.relay import Relay
from sim.commands.flag.serve import obey, serve

PUNCH = "memfd-punch-on-snapshot"


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay({PUNCH: flag_from(PUNCH, True)}) as serving:
        yield serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "flags.json"
    place.write_text(json.dumps({"flags": {PUNCH: flag_from(PUNCH, True)}}))
    return place


def run(path: Path, *lines: str) -> Result:
    return CliRunner().invoke(serve, [str(path), "--port", "0", "--beat", "0.5"], input="\n".join([*lines, "quit"]))


def told(relay: Relay, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    obey(relay, [line, "quit"])
    return capsys.readouterr().out.strip()


def test_a_file_is_served_until_quit(path: Path) -> None:
    result = run(path)
    assert result.exit_code == 0
    assert result.output.startswith(f"serving {path} on http://127.0.0.1:")


def test_a_file_that_is_bad_is_not_served(tmp_path: Path) -> None:
    result = run(tmp_path / "none.json")
    assert isinstance(result.exception, UserError)
    assert "No such file" in str(result.exception)


@pytest.mark.parametrize(
    "line",
    [
        "drop",
        "flap 60",
        "flap 0",
        "freeze",
        "thaw",
        "down",
        "up",
        "status 503",
        "status 0",
        "slow 0.5",
        "malformed",
        f"delete {PUNCH}",
        "beat 0.5",
        "recover",
    ],
)
def test_each_command_is_obeyed(relay: Relay, capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert told(relay, line, capsys) == "ok"


def test_freezing_and_thawing_do_so(relay: Relay) -> None:
    obey(relay, ["freeze", "quit"])
    assert relay.frozen is True
    obey(relay, ["thaw", "quit"])
    assert relay.frozen is False


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("freez", 'unknown command "freez"; did you mean "freeze"?; type help'),
        ("drop now", "drop takes nothing after it; type help"),
        ("status", "status takes one word after it; type help"),
        ("status 200", '"200" is not an HTTP status from 400 to 599; type help'),
        ("slow soon", '"soon" is not a number of seconds below a day; type help'),
        ("flap nan", '"nan" is not a number of seconds below a day; type help'),
        ("", ""),
    ],
)
def test_a_mistake_is_told_and_serving_goes_on(
    relay: Relay, capsys: pytest.CaptureFixture[str], line: str, answer: str
) -> None:
    assert told(relay, line, capsys) == answer


def test_help_names_every_command(relay: Relay, capsys: pytest.CaptureFixture[str]) -> None:
    assert {line.split()[0] for line in told(relay, "help", capsys).splitlines()} == {
        *(
            "drop",
            "flap",
            "freeze",
            "down",
            "status",
            "slow",
            "malformed",
            "cut",
            "empty",
            "html",
            "delete",
            "beat",
            "recover",
            "quit",
        )
    }
