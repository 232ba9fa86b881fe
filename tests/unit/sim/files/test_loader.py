"""Scenario, plan and fleet are loaded in one way: the same mistakes of a file are refused with the same words."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from flags.document import DocumentError
from sim.files.fleet_file import FLEET
from sim.files.loader import Form
from sim.files.plan import PLAN
from sim.files.scenario import SCENARIO

FORMS = pytest.mark.parametrize("form", [SCENARIO, PLAN, FLEET], ids=lambda form: form.kind)
OTHERS = {
    "scenario": ("steps: [{tick: 1}]", "1:1: error: kind: this is a scenario, not a {}; use: snapdrill run f.yaml"),
    "plan": (
        "steps: [{setWeight: 0}]",
        "1:1: error: kind: this is a rollout plan, not a {}; use: snapdrill rehearse f.yaml",
    ),
    "fleet": ("kind: fleet", "1:7: error: kind: this is a fleet, not a {}; use: snapdrill forecast f.yaml"),
}


def mistakes(form: Form[Any], text: str) -> list[str]:
    with pytest.raises(DocumentError) as refused:
        form.load_text(text, pathlib.Path("f.yaml"))
    return [line.removeprefix("f.yaml:") for line in str(refused.value).splitlines()]


@FORMS
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "1:1: error: the file is empty"),
        ("~", "1:1: error: expected a mapping, got nothing"),
        ("- 1", "1:1: error: expected a mapping, got a list"),
        ("name: [\n", "2:1: error: did not find expected node content while parsing a flow node"),
    ],
)
def test_a_file_that_is_no_mapping_has_one_mistake(form: Form[Any], text: str, found: str) -> None:
    (line,) = mistakes(form, text)
    assert line.startswith(found)


@FORMS
def test_mistakes_of_the_text_and_of_what_it_says_are_reported_at_once(form: Form[Any]) -> None:
    found = mistakes(form, "nam: a\nversion: 2\nversion: 3\n")
    assert {
        '1:1: error: nam: unknown key; did you mean "name"?',
        "1:1: error: name: missing; it is required",
        "2:10: error: version: unknown value 2; use one of: 1",
        '3:1: error: duplicate key "version"; the first is in line 2',
    } <= set(found)
    assert found == sorted(found)


@FORMS
def test_a_file_of_another_kind_is_refused_with_the_command_that_takes_it(form: Form[Any]) -> None:
    others = [each for kind, each in OTHERS.items() if kind != form.kind]
    assert [mistakes(form, text) for text, _ in others] == [[refusal.format(form.kind)] for _, refusal in others]


@FORMS
def test_a_file_that_cannot_be_read_is_named(form: Form[Any], tmp_path: pathlib.Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(DocumentError, match=r"latin.yaml:1:1: error: not UTF-8 at byte 9; save it as UTF-8"):
        form.load(tmp_path / "latin.yaml")
    with pytest.raises(DocumentError, match=":1:1: error: cannot be read: it is a folder"):
        form.load(tmp_path)


@pytest.mark.parametrize(("form", "steps"), [(SCENARIO, "[{tick: 1}]"), (PLAN, "[{setWeight: 0}]")])
def test_a_flag_file_is_checked_where_it_is_written(form: Form[Any], steps: str, tmp_path: pathlib.Path) -> None:
    text = "name: a\nfleet: [{name: web, memory: 4MiB}]\n" + f"steps: {steps}\nflags: {{file: flags.json}}\n"
    text += "kind: plan\n" if form is PLAN else ""
    path = tmp_path / "f.yaml"
    path.write_text(text)
    there = f"beside the {form.kind}; the path is relative to the {form.kind}'s folder"
    with pytest.raises(DocumentError) as refused:
        form.load(path)
    assert str(refused.value) == f'{path}:4:15: error: flags.file: no file "flags.json" {there}'
    (tmp_path / "flags.json").write_text('{"flags": {},\n "flagz": {}}')
    if form is PLAN:  # takes the user's flag as LaunchDarkly does, mistakes included
        assert form.load(path).flag_file == tmp_path / "flags.json"
        (tmp_path / "flags.json").write_text('{"flags": {\n "a": 7}}')
    with pytest.raises(DocumentError) as refused:
        form.load(path)
    (line,) = str(refused.value).splitlines()
    said = "LaunchDarkly refuses a: it is no object" if form is PLAN else 'unknown key "flagz"; '
    assert line.startswith(f"{tmp_path}/flags.json:2:2: error: {said}")
    (tmp_path / "flags.json").write_text('{"flags": {}}')
    loaded = form.load(path)
    assert (loaded.flag_file, loaded.flag_source, loaded.flag_values) == (tmp_path / "flags.json", "file", {})
    assert loaded.place(("steps", 0)) == f"{path}:3:9"
