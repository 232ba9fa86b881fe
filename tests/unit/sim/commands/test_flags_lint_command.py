"""`snapdrill flags lint`."""

from __future__ import annotations

import json
import pathlib

import pytest

from sim.cli import main
from sim.record.verdict import ExitCode

FILES = pathlib.Path(__file__).parent / "flag_files"


@pytest.mark.parametrize(
    ("name", "code"),
    [("planted", ExitCode.VIOLATED), ("combined", ExitCode.VIOLATED), ("clean", ExitCode.HELD)],
)
def test_every_planted_mistake_is_told_and_a_clean_file_has_none(
    name: str, code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(FILES)
    assert main(["flags", "lint", f"{name}.json", "--kinds", "all"]) == code
    assert capsys.readouterr().out == (FILES / f"{name}.txt").read_text()


def test_every_finding_says_what_happens_in_production_and_how_to_fix_it(capsys: pytest.CaptureFixture[str]) -> None:
    main(["flags", "lint", "--json", "--kinds", "all", str(FILES / "planted.json")])
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert len(findings) == 20
    assert all(each["production"] and each["fix"] and each["line"] and each["column"] for each in findings)


def test_warnings_alone_end_with_0(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f.json").write_text('{"flags": {"checkout": {"key": "checkout"}}}')
    assert main(["flags", "lint", str(tmp_path / "f.json")]) == ExitCode.HELD


def test_what_only_the_sdk_refuses_is_found_too(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag = {"key": "use-memfd", "on": True, "variations": [True], "offVariation": 0, "fallthrough": {"variation": 0}}
    (tmp_path / "f.json").write_text(json.dumps({"flags": {"use-memfd": {**flag, "rules": 3}}}))
    assert main(["flags", "lint", str(tmp_path / "f.json")]) == ExitCode.VIOLATED
    assert 'LaunchDarkly refuses "use-memfd"' in capsys.readouterr().out


def test_what_is_not_json_is_an_error_with_its_place(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.json").write_text('{"flags": {},}')
    assert main(["flags", "lint", str(tmp_path / "f.json")]) == ExitCode.VIOLATED
    assert "f.json:1:14: error: not JSON" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b'{"flags": "\xff"}'])
def test_what_cannot_be_read_ends_with_2(
    content: bytes | None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / "f.json").write_bytes(content)
    assert main(["flags", "lint", str(tmp_path / "f.json")]) == ExitCode.USAGE
    assert "f.json" in capsys.readouterr().err


DOCS = pathlib.Path(__file__).parents[4] / "docs" / "flags.md"


def test_the_documented_export_is_checked_as_documented(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["flags", "import", str(FILES / "punch_export.json"), "--env", "production", "-o", "flags.json"]) == 0
    capsys.readouterr()
    assert main(["flags", "lint", "flags.json", "--fleet", str(FILES / "punch_fleet.csv")]) == ExitCode.VIOLATED
    assert capsys.readouterr().out in DOCS.read_text()


def test_a_fleet_is_counted_in_json_too(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag = {"key": "memfd-punch-on-snapshot", "on": True, "variations": [False, True], "offVariation": 0}
    flag |= {"rules": [{"variation": 1, "clauses": []}], "fallthrough": {"variation": 0}}
    (tmp_path / "f.json").write_text(json.dumps({"flags": {flag["key"]: flag}}))
    fleet = str(FILES / "punch_fleet.csv")
    assert main(["flags", "lint", "--json", "--fleet", fleet, str(tmp_path / "f.json")]) == ExitCode.VIOLATED
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert found["by_it"] == {"sandboxes": 40, "memory": 14 * (8 << 30) + 26 * (2 << 30), "when": "by the rule"}


def test_numbers_of_a_table_are_numbers_to_the_rules(tmp_path: pathlib.Path) -> None:
    """Of JSON; in CSV they are text, which no number is compared with."""
    big = {"contextKind": "sandbox", "attribute": "cores", "op": "greaterThan", "values": [4]}
    flag = {"key": "memfd-punch-on-snapshot", "on": True, "variations": [False, True], "offVariation": 0}
    flag |= {"rules": [{"variation": 0, "clauses": [big]}], "fallthrough": {"variation": 1}}
    (tmp_path / "f.json").write_text(json.dumps({"flags": {flag["key"]: flag}}))
    rows = [{"sandbox": f"web-{n}", "team": "a", "template": "b", "cores": n} for n in range(3)]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (tmp_path / "t.csv").write_text("sandbox,team,template,cores\n" + "".join(f"web-{n},a,b,{n}\n" for n in range(3)))
    ends = [main(["flags", "lint", "--fleet", str(tmp_path / f"t.{form}"), str(tmp_path / "f.json")])
            for form in ("json", "csv")]  # fmt: skip
    assert ends == [ExitCode.HELD, ExitCode.VIOLATED]


def test_of_a_thousand_mistakes_the_first_are_shown_and_all_are_counted(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "flags.json"
    file.write_text(json.dumps({"flags": {f"flag-{number}": 7 for number in range(1000)}}))
    assert main(["flags", "lint", str(file)]) == ExitCode.VIOLATED
    *shown, more, count = capsys.readouterr().out.splitlines()
    assert sum(": error: " in line for line in shown) == 50
    assert more == "and 950 more"
    assert count.endswith("flags.json: 1000 errors, 0 warnings")
