"""The commands forecast and fleet: what they print, and how they end."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from sim.cli import main
from sim.files.fleet_file import load

EXAMPLE = str(pathlib.Path(__file__).parents[4] / "scenarios" / "fleets" / "example.yaml")
QUICK = ["--sandboxes", "2_000", "--hours", "2"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_a_forecast_has_an_answer_for_each_weight_asked_and_for_off(capsys: pytest.CaptureFixture[str]) -> None:
    document = printed(capsys, "forecast", EXAMPLE, *QUICK, "--weights", "5,100%", "--json")
    assert [each["weight"] for each in document["weights"]] == [0, 5, 100]
    assert document["asked"]["sandboxes"] == 2000
    assert document["inputs"]["weights"]["known"] == "given"
    assert {each["known"] for each in document["inputs"].values()} == {"given", "assumed"}


def test_a_forecast_as_text_names_what_it_takes_for_granted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", EXAMPLE, *QUICK]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("2,000 sandboxes on 50 nodes through 2 h, seed 1, by sandbox\n")
    assert "no calibration file" in out
    assert err == ""


@pytest.mark.parametrize(
    "wrong", [["--sandboxes", "many"], ["--sandboxes", "0"], ["--weights", "101"], ["--weights", "a"], ["--hours", "0"]]
)
def test_a_wrong_option_is_refused(wrong: list[str]) -> None:
    assert main(["forecast", EXAMPLE, *wrong]) == 2


def test_more_than_the_arrays_should_hold_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", EXAMPLE, "--sandboxes", "10_000_001"]) == 2
    assert "give a smaller number to --sandboxes" in capsys.readouterr().err


def test_a_fleet_is_shown_with_what_is_assumed_and_what_its_scale_cannot_show(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = printed(capsys, "fleet", "show", EXAMPLE, "--json")
    assert document["fleet"]["nodes"] == {"value": 25_000, "unit": None, "known": "derived"}
    assert document["rehearsal"]["sandboxes"]["value"] == 40
    assert all(each["known"] == "assumed" for each in document["assumed"].values())
    assert len(document["notes"]) == 1
    assert main(["fleet", "show", EXAMPLE]) == 0
    assert "  sandboxes               1,000,000      (given)\n" in capsys.readouterr().out


def test_an_imported_table_is_printed_as_a_fleet_file(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, made = tmp_path / "t.csv", tmp_path / "f.yaml"
    table.write_text("memory,template\n64MiB,python\n")
    assert main(["fleet", "import", str(table), "--node-memory", "1GiB", "--name", "mine"]) == 0
    made.write_text(capsys.readouterr().out)
    assert (load(made).name, load(made).node.memory) == ("mine", 1 << 30)


def test_a_table_with_a_mistake_is_not_imported(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("memory\nlots\n")
    assert main(["fleet", "import", str(table), "--node-memory", "1GiB"]) == 2
    assert f"{table}:2:1: error: memory: expected a size" in capsys.readouterr().err
