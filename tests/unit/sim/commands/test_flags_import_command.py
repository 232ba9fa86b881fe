"""`snapdrill flags import`."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from flags.cohort import fleet_of
from flags.context import ALL
from flags.drift import drift
from flags.file import FileFlags, read_as_served
from flags.launchdarkly import Evaluator, InProcessSource
from flags.lint import check
from sim.cli import main
from sim.record.verdict import ExitCode

PUNCH = "memfd-punch-on-snapshot"
FILES = pathlib.Path(__file__).parent / "flag_files"
REST, SEGMENTS, PAYLOAD = (FILES / f"{name}.json" for name in ("rest_export", "rest_segments", "sdk_payload"))

Change = Callable[[Any], object]


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "flags.json"


def changed(path: pathlib.Path, tmp_path: pathlib.Path, change: Change) -> str:
    document = json.loads(path.read_text())
    change(document)
    (tmp_path / path.name).write_text(json.dumps(document, indent=1))
    return str(tmp_path / path.name)


def production(document: Any) -> Any:
    return document["items"][0]["environments"]["production"]


def imported(out: pathlib.Path, *arguments: str) -> None:
    assert main(["flags", "import", *arguments, "-o", str(out)]) == ExitCode.HELD


@pytest.mark.parametrize(
    "arguments",
    [(str(REST), "--env", "production", "--segments", str(SEGMENTS)), (str(PAYLOAD),), (str(PAYLOAD), "--env", "any")],
    ids=["REST export", "SDK payload", "SDK payload with an environment"],
)
def test_everybody_gets_from_the_file_what_they_get_from_launchdarkly(
    arguments: tuple[str, ...], out: pathlib.Path
) -> None:
    """1,000 sandboxes, every flag, variation for variation, with the reason and the flag's version."""
    imported(out, *arguments)
    sent = json.loads(PAYLOAD.read_text())
    live = Evaluator(InProcessSource(sent["flags"], sent["segments"]), contexts=ALL)
    file = FileFlags(out, contexts=ALL)
    try:
        seen = set()
        for member in fleet_of(1000):
            here, there = file.decide(member.attributes), live.decide(member.attributes)
            assert here.as_fields() == there.as_fields()
            seen.add((here.evaluation(PUNCH).reason, here.evaluation(PUNCH).rule, here.is_on(PUNCH)))
    finally:
        file.close()
        live.close()
    assert seen == {
        ("TARGET_MATCH", None, True),
        ("RULE_MATCH", "r2", False),
        ("RULE_MATCH", "r3", True),
        ("RULE_MATCH", "r3", False),
        ("FALLTHROUGH", None, True),
        ("FALLTHROUGH", None, False),
        ("PREREQUISITE_FAILED", None, False),
    }


def test_the_imported_file_shows_no_drift_and_can_be_served(out: pathlib.Path) -> None:
    imported(out, str(REST), "--env", "production", "--segments", str(SEGMENTS))
    sent = json.loads(PAYLOAD.read_text())
    assert drift(read_as_served(out), (sent["flags"], sent["segments"])) == []
    assert [each.text for each in check(out.read_text(), ALL)] == ['"targets" are of kind "user", which no sandbox has']


def test_another_environment_has_its_own_state(out: pathlib.Path, tmp_path: pathlib.Path) -> None:
    only = changed(REST, tmp_path, lambda document: document.update(items=document["items"][:1]))
    imported(out, only, "--env", "test")
    flag = json.loads(out.read_text())["flags"][PUNCH]
    assert (flag["on"], flag["salt"], flag["version"], flag["variations"]) == (False, "1111", 2, [True, False])


def test_one_flag_as_the_api_answers_it_is_an_export_too(out: pathlib.Path, tmp_path: pathlib.Path) -> None:
    flag = json.loads(REST.read_text())["items"][2]
    (tmp_path / "one.json").write_text(json.dumps(flag))
    imported(out, str(tmp_path / "one.json"), "--env", "production")
    assert list(json.loads(out.read_text())["flags"]) == ["memfile-diff-dedup"]


def test_without_an_output_the_file_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flags", "import", str(PAYLOAD)]) == ExitCode.HELD
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(PAYLOAD.read_text())
    assert "SDK payload: 3 flags, 2 of the pause path, and 1 segment" in printed.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: production(d)["fallthrough"]["rollout"].update(experimentAllocation={"canReshuffle": True}),
         '"experimentAllocation" cannot be carried over'),
        (lambda d: production(d)["rules"][0].update(disabled=True), '"disabled" cannot be carried over'),
        (lambda d: production(d).update(guardedRollout={"stages": []}), '"guardedRollout" cannot be carried over'),
        (lambda d: d["items"][0].update(archived=True), "is archived: LaunchDarkly does not serve it"),
        (lambda d: production(d).pop("fallthrough"), "lacks fallthrough: this is a summary"),
        (lambda d: d["items"][0]["variations"][0].pop("value"), "the variation has no value"),
        (lambda d: d["items"][0].update(variations=[True, False]), "the variations are not wrapped"),
        (lambda d: d["items"][1]["environments"].pop("production"), 'has no environment "production"'),
        (lambda d: d["items"].pop(1), 'asks for the flag "punch-allowed", which is not in the export'),
        (lambda d: d["items"].append({"name": "nameless"}), "neither a flag nor a segment: it has no key"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_an_error_and_nothing_is_written(
    change: Change, message: str, out: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(REST, tmp_path, change)
    arguments = ["flags", "import", path, "--env", "production", "--segments", str(SEGMENTS), "-o", str(out)]
    assert main(arguments) == ExitCode.VIOLATED
    told = capsys.readouterr().err.splitlines()
    assert message in told[0]
    assert told[0].startswith(f"{path}:")
    assert not out.exists()


def test_segments_that_are_not_given_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flags", "import", str(REST), "--env", "production"]) == ExitCode.VIOLATED
    assert 'names the segment "kept", which is not in the export; give the segments too' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(unbounded=True), 'the members of the big segment "kept" are not in an export'),
        (lambda s: s["rules"][0].update(weight=50_000), "takes a share of its members"),
    ],
)
def test_a_segment_that_an_export_cannot_describe_is_an_error(
    change: Change, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(SEGMENTS, tmp_path, lambda document: change(document["items"][0]))
    assert main(["flags", "import", str(REST), "--env", "production", "--segments", path]) == ExitCode.VIOLATED
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["flags"][PUNCH].update(variations=[{"value": True}, {"value": False}]),
         "this is a REST export, flattened by hand"),
        (lambda d: d["flags"][PUNCH].update(environments={}), "this is no SDK payload"),
        (lambda d: d["flags"][PUNCH].update(fallthrough={"rollout": {"variations": 3}}), "LaunchDarkly refuses"),
        (lambda d: d.update(overrides={"x": 1}), '"overrides" cannot be carried over'),
        (lambda d: d["segments"].clear(), 'names the segment "kept", which is not in the export'),
    ],
)  # fmt: skip
def test_a_payload_that_is_none_is_an_error(
    change: Change, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flags", "import", changed(PAYLOAD, tmp_path, change)]) == ExitCode.VIOLATED
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "--env is needed; use one of: production, test"),
        (["--env", "prodction"], 'no environment "prodction"; did you mean "production"?'),
    ],
)
def test_the_environment_must_be_one_of_the_export(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flags", "import", str(REST), *arguments]) == ExitCode.USAGE
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"items": []}'])
def test_an_export_of_nothing_is_an_error(
    text: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.json").write_text(text)
    assert main(["flags", "import", str(tmp_path / "empty.json")]) == ExitCode.VIOLATED
    assert "neither flags nor segments are in it" in capsys.readouterr().err


def test_what_is_not_json_is_a_usage_error(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.json").write_text("{,}")
    assert main(["flags", "import", str(tmp_path / "f.json")]) == ExitCode.USAGE
    assert "f.json:1:2: error: not JSON" in capsys.readouterr().err


def test_the_context_of_a_user_is_asked_for_where_launchdarkly_asks(out: pathlib.Path) -> None:
    """User targets are asked only where a place is kept for them among those of other kinds."""
    imported(out, str(REST), "--env", "production", "--segments", str(SEGMENTS))
    targets = json.loads(out.read_text())["flags"][PUNCH]["contextTargets"]
    assert targets[0] == {"contextKind": "user", "variation": 0, "values": []}
    assert ALL.context(fleet_of(1)[0].attributes, "pause").keys().isdisjoint({"user"})


def test_mistakes_of_an_export_are_annotations_in_a_step_of_github(
    out: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    path = changed(REST, tmp_path, lambda document: production(document)["rules"][0].update(disabled=True))
    arguments = ["flags", "import", path, "--env", "production", "--segments", str(SEGMENTS), "-o", str(out)]
    assert main(arguments) == ExitCode.VIOLATED
    place, annotation = capsys.readouterr().err.splitlines()[:2]
    line, column = place.removeprefix(f"{path}:").split(":")[:2]
    said = '"disabled" cannot be carried over; import an SDK payload instead, which has it'
    assert annotation == f"::error file={path},line={line},col={column},title=invalid file::{said}"
