"""A ledger that somebody else made: JSON Lines by the published schema, read strictly, each mistake at its place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import UserError
from engine.events import Event
from flags.catalog import did_you_mean
from flags.document import Position, parse
from sim.event_schema import CHOICES, adapter
from sim.ledger import EVENT_TYPES, Entry
from sim.units import show

_MOST_MISTAKES = 20
_START = Position(1, 1)


@dataclass(frozen=True, slots=True)
class TraceFile:
    """What was read: events of this version, and how many of each unknown name were left out."""

    entries: tuple[Entry, ...]
    unknown: Mapping[str, int]


class _MistakeError(Exception):
    """What is wrong with one line, and at which column."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column


def read_trace(path: Path) -> TraceFile:
    """Every event of the file; UserError with a file:line:column for each bad line, of the first twenty."""
    entries: list[Entry] = []
    unknown: Counter[str] = Counter()
    mistakes: list[str] = []
    for number, line in enumerate(_lines(path), 1):
        try:
            entry = _entry(line) if line.strip() else None
        except _MistakeError as mistake:
            mistakes.append(f"{path}:{number}:{mistake.column}: error: {mistake}")
            continue
        if isinstance(entry, Entry):
            entries.append(entry)
        elif entry is not None:
            unknown[entry] += 1
    if not mistakes and not entries:
        what = "no event of this version" if unknown else "no event"
        mistakes.append(f"{path}:1:1: error: {what}; `snapdrill schema events` says what a line holds")
    if mistakes:
        more = len(mistakes) - _MOST_MISTAKES
        told = mistakes[:_MOST_MISTAKES] + ([f"{path}: and {more} more"] if more > 0 else [])
        raise UserError("\n".join(told))
    return TraceFile(tuple(entries), dict(unknown))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"{path}:1:1: error: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:1:1: error: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _entry(line: str) -> Entry | str:
    """The entry, or the name of an event that this version does not know."""
    content = _object(line)
    name = content.pop("event", None)
    t, sandbox, pause = content.pop("t", None), content.pop("sandbox", None), content.pop("pause", None)
    if not isinstance(name, str):
        raise _MistakeError(_column(line, "event"), "event is missing; it is the event's name")
    if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t < float("inf"):
        raise _MistakeError(_column(line, "t"), "t is missing or no number; it is seconds since the run began")
    for key, value in (("sandbox", sandbox), ("pause", pause)):
        if value is not None and not isinstance(value, str):
            raise _MistakeError(_column(line, key), f"{key} is {show(value)}; write a name")
    if name not in EVENT_TYPES:
        return name
    return Entry(float(t), _event(name, content, line), sandbox, pause)


def _object(line: str) -> dict[str, Any]:
    """Where each part stands is looked for only when something is wrong: a ledger has many lines."""
    try:
        value = json.loads(line, object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise _what_is_wrong(line) from None
    if not isinstance(value, dict):
        raise _MistakeError(1, f"a line is one object, not {show(value)}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a member is there twice")
    return content


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


def _what_is_wrong(line: str) -> _MistakeError:
    try:
        path, position = parse(line).duplicates[0]
    except json.JSONDecodeError as error:
        return _MistakeError(error.colno, f"not JSON: {error.msg}")
    return _MistakeError(position.column, f'"{path[-1]}" is there twice; keep one')


def _event(name: str, content: dict[str, Any], line: str) -> Event:
    kind = EVENT_TYPES[name]
    for (event, field), choices in CHOICES.items():
        word = content.get(field)
        if event == name and isinstance(word, str) and word not in choices:
            raise _MistakeError(
                _column(line, field), f'{name}: unknown {field} "{word}"; {did_you_mean(word, choices)}'
            )
    try:
        return adapter(kind).validate_json(json.dumps(content), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        known = [each.name for each in fields(kind)]
        message = f"{name}: {field}: {first['msg']}"
        if first["type"] == "unexpected_keyword_argument":
            message = f'{name} has no field "{field}"; {did_you_mean(field, known)}'
        elif first["type"] == "missing":
            message = f"{name}: {field} is missing"
        raise _MistakeError(_column(line, field), message) from None


def _column(line: str, field: str) -> int:
    return parse(line).positions.get((field,), _START).column
