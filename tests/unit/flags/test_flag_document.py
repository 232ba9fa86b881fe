from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flags.document import DocumentError, Mistake, Path, Position, parse, places

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=12
)


def paths(value: Any, path: Path = ()) -> list[Path]:
    if isinstance(value, dict):
        return [path] + [each for key, inner in value.items() for each in paths(inner, (*path, key))]
    if isinstance(value, list):
        return [path] + [each for index, inner in enumerate(value) for each in paths(inner, (*path, index))]
    return [path]


def test_a_member_stands_where_its_key_does_and_an_element_where_its_value_does() -> None:
    text = '{\n  "a": [1,\n    {"b\\"}": 2}]\n}'
    positions = parse(text).positions
    assert positions["a",] == Position(2, 3)
    assert positions["a", 0] == Position(2, 9)
    assert positions["a", 1] == Position(3, 5)
    assert positions["a", 1, 'b"}'] == Position(3, 6)


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.sampled_from([None, 0, 2]), st.booleans())
def test_every_part_but_the_root_has_a_position_on_its_own_text(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    document = parse(text)
    assert document.value == value
    assert set(document.positions) == set(paths(value)) - {()}
    lines = text.split("\n")
    for path, (line, column) in document.positions.items():
        if isinstance(path[-1], str):
            assert lines[line - 1][column - 1 :].startswith(json.dumps(path[-1], ensure_ascii=ascii_only))


@settings(max_examples=100, deadline=None)
@given(DOCUMENTS, st.sampled_from([None, 0, 2]), st.randoms(use_true_random=False))
def test_a_few_parts_are_found_where_all_are(value: Any, indent: int | None, draw: Any) -> None:
    text = json.dumps(value, indent=indent)
    every = parse(text).positions
    wanted = draw.sample(sorted(every, key=str), min(len(every), 3))
    found = places(text, wanted)
    assert set(found) == {path[:length] for path in wanted for length in range(1, len(path) + 1)}
    assert all(every[path] == place for path, place in found.items())
    assert places(text, [("no", "such", 7)]).keys() <= {("no",)}


def test_of_two_equal_keys_the_last_one_is_where_the_value_stands() -> None:
    text = '{"a": {"b": 1},\n "a": {"c": 2}}'
    assert places(text, [("a", "b"), ("a", "c")]) == {("a",): (2, 2), ("a", "c"): (2, 8)}


def test_a_key_met_again_is_told_with_its_second_place() -> None:
    assert parse('{"a": 1,\n "b": {"a": 2},\n "a": 3}').duplicates == ((("a",), Position(3, 2)),)


@pytest.mark.parametrize(
    ("text", "place"),
    [("", (1, 1)), ('{"a": 1', (1, 8)), ('{"a":\n  tru}', (2, 3)), ('{"NaN": 1,\n "a": [NaN]}', (2, 8))],
)
def test_what_is_not_json_is_refused_with_its_place(text: str, place: tuple[int, int]) -> None:
    with pytest.raises(json.JSONDecodeError) as error:
        parse(text)
    assert (error.value.lineno, error.value.colno) == place


def test_a_document_nested_too_deeply_is_refused_not_fatal() -> None:
    with pytest.raises(json.JSONDecodeError, match="nested too deeply"):
        parse("[" * 100_000 + "]" * 100_000)


MISTAKES = [
    Mistake(Position(9, 1), "steps[0]", "unknown step", 'did you mean "tick"?', file="base.yaml"),
    Mistake(Position(3, 1), "", "the file ends"),
    Mistake(Position(1, 7), "seed", "expected a number"),
    Mistake(Position(1, 7), "seed", "expected a number"),
]


def test_a_file_s_own_mistakes_come_first_each_once_in_the_order_of_their_places() -> None:
    assert str(DocumentError("child.yaml", MISTAKES)).splitlines() == [
        "child.yaml:1:7: error: seed: expected a number",
        "child.yaml:3:1: error: the file ends",
        'base.yaml:9:1: error: steps[0]: unknown step; did you mean "tick"?',
    ]


def test_an_error_with_its_mistakes_survives_the_way_between_processes() -> None:
    sent = DocumentError("child.yaml", MISTAKES)
    received = pickle.loads(pickle.dumps(sent))  # noqa: S301 - our own bytes
    assert (str(received), received.mistakes) == (str(sent), sent.mistakes)
