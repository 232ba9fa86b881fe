"""A ledger that somebody else made is read strictly: unknown events are counted, a bad line is named by its place."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UserError
from sim.record import events
from sim.record.ledger import read
from sim.record.schema import read_trace
from tests.story import Story

GOOD = '{"t": 1, "event": "ticked", "tick": 1}'


def mistakes(path: Path, *lines: str) -> list[str]:
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as caught:
        read_trace(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_our_own_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = Story().begin().pause().resume().end().write(tmp_path / "events.jsonl")
    found = read_trace(path)
    assert (list(found.entries), found.unknown) == (read(path), {})


def test_events_of_no_known_name_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        f'{GOOD}\n{{"t": 2, "event": "balloon_inflated", "by": 3}}\n\n{{"t": 3, "event": "balloon_inflated"}}'
    )
    found = read_trace(path)
    assert [entry.event for entry in found.entries] == [events.Ticked(1)]
    assert found.unknown == {"balloon_inflated": 2}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"t": 1 "event": "ticked"}', "2:9: error: not JSON: Expecting ',' delimiter"),
        ('{"t": NaN, "event": "ticked", "tick": 1}', "2:7: error: not JSON: NaN is not a JSON value"),
        ("[1]", "2:1: error: a line is one object, not a list"),
        ('{"t": 1}', "2:1: error: event is missing; write the event's name"),
        (
            '{"event": "ticked", "tick": 1}',
            "2:1: error: t is missing or not a number; write the seconds since the run began",
        ),
        ('{"event": "ticked", "tick": 1, "t": -1}', "2:32: error: t is missing or not a number"),
        ('{"t": 1, "event": "ticked", "sandbox": 3, "tick": 1}', "2:29: error: sandbox is 3; write a name"),
        ('{"t": 1, "event": "ticked", "tick": "x"}', "2:29: error: ticked: tick: Input should be a valid integer"),
        ('{"t": 1, "event": "ticked", "tick": 1.0}', "2:29: error: ticked: tick: Input should be a valid integer"),
        ('{"t": 1, "event": "ticked"}', "2:1: error: ticked: tick is missing"),
        (
            '{"t": 1, "event": "ticked", "tik": 1, "tick": 1}',
            '2:29: error: ticked has no field "tik"; did you mean "tick"?',
        ),
        ('{"t": 1, "event": "ticked", "tick": 1, "tick": 2}', '2:40: error: duplicate member "tick"; keep one'),
        (
            '{"t": 1, "event": "state_changed", "old": "paused", "new": "runing", "reason": ""}',
            '2:53: error: state_changed: unknown new "runing"; did you mean "running"?',
        ),
    ],
)
def test_a_bad_line_is_named_with_its_column_and_what_is_wrong(tmp_path: Path, line: str, expected: str) -> None:
    (found,) = mistakes(tmp_path / "trace.jsonl", GOOD, line, GOOD)
    assert found.startswith(expected)


def test_every_bad_line_is_named_up_to_fifty(tmp_path: Path) -> None:
    found = mistakes(tmp_path / "trace.jsonl", *["{}"] * 53)
    assert [line.split(":")[0] for line in found[:50]] == [str(number) for number in range(1, 51)]
    assert found[50:] == ["and 3 more"]


@pytest.mark.parametrize("content", ["", "\n", '{"t": 1, "event": "balloon_inflated"}\n'])
def test_a_file_without_an_event_of_ours_is_a_mistake(tmp_path: Path, content: str) -> None:
    (found,) = mistakes(tmp_path / "trace.jsonl", content)
    assert "`snapdrill schema events` prints the format of a line" in found


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl:1:1: error: cannot be read: No such file"):
        read_trace(tmp_path / "nowhere.jsonl")
    (tmp_path / "latin").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="not UTF-8 at byte 0"):
        read_trace(tmp_path / "latin")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["pause_settled", "decided", "judged", "guest_spawned", "flag_set", "planned", "", "other"])
FIELDS = st.sampled_from(["t", "sandbox", "pause", "flags", "outcome", "path", "violations", "value", "flag", "tick"])


@given(st.lists(st.tuples(NAMES, st.dictionaries(FIELDS, JSON, max_size=6)), max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_the_lines_hold_the_answer_is_events_or_a_list_of_mistakes(
    lines: list[tuple[str, dict[str, Any]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.jsonl"
        path.write_text("\n".join(json.dumps({"t": 0, **content, "event": name}) for name, content in lines))
        try:
            found = read_trace(path)
        except UserError as error:
            named = str(error).startswith(f"{path}:")
        else:
            named = len(found.entries) <= len(lines)
        assert named
