"""YAML 1.2 with positions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.files.yaml import parse

PLAIN: dict[str, Any] = {
    "on": "on",
    "no": "no",
    "off": "off",
    "y": "y",
    "1:30": "1:30",
    "2026-01-02": "2026-01-02",
    "64MiB": "64MiB",
    "1_000": "1_000",
    "true": True,
    "FALSE": False,
    "~": None,
    "null": None,
    "12": 12,
    "-3": -3,
    "017": 17,
    "0o17": 15,
    "0x1f": 31,
    "1e3": 1000.0,
    ".5": 0.5,
    "-.inf": float("-inf"),
}


@pytest.mark.parametrize(("text", "value"), PLAIN.items(), ids=PLAIN)
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: Any) -> None:
    document = parse(f"a: {text}")
    assert document.mistakes == []
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)


@pytest.mark.parametrize("text", ["'12'", '"true"', "!!str 12", "! 12", "|-\n 12", "''"])
def test_a_quoted_or_tagged_scalar_stays_a_string(text: str) -> None:
    document = parse(f"a: {text}")
    assert document.mistakes == []
    assert isinstance(document.data["a"], str)


def test_every_key_and_value_has_its_line_and_column() -> None:
    document = parse('name: demo\nsteps:\n  - pause: {state: "running",\n            deadline: 3s}\n  - tick: 1\n')
    assert document.where(()) == (1, 1)
    assert document.where(("steps",), key=True) == (2, 1)
    assert document.where(("steps", 0)) == (3, 5)
    assert document.where(("steps", 0, "pause")) == (3, 12)
    assert document.where(("steps", 0, "pause", "state"), key=True) == (3, 13)
    assert document.where(("steps", 0, "pause", "state")) == (3, 20)
    assert document.where(("steps", 0, "pause", "deadline"), key=True) == (4, 13)
    assert document.where(("steps", 1, "tick")) == (5, 11)


def test_columns_count_characters_not_bytes() -> None:
    assert parse("{é: ü, b: 1}").where(("b",)) == (1, 11)


def test_a_path_that_is_not_there_stands_where_its_parent_stands() -> None:
    assert parse("a:\n  b: 1\n").where(("a", "x", "y"), key=True) == (2, 3)


MISTAKES = {
    "": "1:1 the file is empty",
    "# only a comment\n": "1:1 the file is empty",
    "a: 1\nb: 2\na: 3\n": '3:1 duplicate key "a"; the first is in line 1',
    "a: {b: 1, b: {c: 1}}": '1:11 duplicate key "b"; the first is in line 1',
    "a: &x 1": "1:4 anchors and aliases (&, *) are not supported; write the value out",
    "a: *x": "1:4 anchors and aliases (&, *) are not supported; write the value out",
    "<<: {a: 1}": "1:1 merge keys (<<) are not supported; write the keys out",
    "1: a": '1:1 a key must be a string; write "1" in quotes',
    "true: a": '1:1 a key must be a string; write "true" in quotes',
    "[a]: b": "1:1 a key must be a plain word, not a list or a mapping",
    "a: !env HOME": "1:4 tags such as !env are not supported; remove it",
    "a: !!timestamp 2026-01-01": "1:4 tags such as !!timestamp are not supported; remove it",
    "a: 1\n---\nb: 2\n": "2:1 a second document; write one document a file",
    "a: [1,\n": "2:1 did not find expected node content while parsing a flow node that starts in line 2",
    "a: {b: 1\nc: 2}": "2:2 did not find expected ',' or '}' while parsing a flow mapping that starts in line 1",
    "a: b: c": "1:5 mapping values are not allowed in this context",
    "a: 1\nb: x\x1b": "2:5 control characters are not allowed",
    f"a: {'9' * 5000}": "1:4 a whole number of more than 64 bits",
    "[" * 100_000: "1:42 nested more than 40 levels deep",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items(), ids=[message[:40] for message in MISTAKES.values()])
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    found = [(*each.position, each.text) for each in parse(text).mistakes]
    assert [f"{line}:{column} {what}" for line, column, what in found] == [message]


def test_all_mistakes_of_a_readable_document_are_found_at_once_and_the_first_of_two_keys_is_kept() -> None:
    document = parse("a: 1\na: 2\nb: &x 3\n4: 5\n")
    assert [each.position for each in document.mistakes] == [(2, 1), (3, 4), (4, 1)]
    assert document.data["a"] == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="ascii", categories=["L", "N", "P"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_json_document_reads_as_json_does(data: Any) -> None:
    document = parse(json.dumps(data))
    assert document.mistakes == []
    assert document.data == data


@given(st.text(max_size=60))
def test_any_text_at_all_ends_in_data_or_in_mistakes(text: str) -> None:
    document = parse(text)
    assert document.values or document.mistakes
